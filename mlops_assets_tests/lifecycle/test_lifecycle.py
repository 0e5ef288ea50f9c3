"""The short form of ``python -m bench.lifecycle``: a version's whole life under load, and broken canaries.

Real Ray, two replicas of everything, constant load. Nobody may be left without an answer: not by a change
of weights, not by a killed replica or controller, not by a canary that fails, hangs or gives nonsense.
"""

import json

import pytest

from mlops_assets.testing.constant_load import ConstantLoad
from mlops_assets.testing.life_cycle import FAULTS, Platform, faults, life_cycle
from mlops_assets.testing.small_models import ROW

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

BODY = json.dumps({"features": ROW}).encode()


def test_broken_canaries_are_out_within_seconds_and_cost_nobody_an_answer(platform: Platform) -> None:
    broken = ["errors", "hang", "nan"]
    assert set(broken) <= set(FAULTS)
    with ConstantLoad(platform.url, BODY, rate=80.0) as load:
        found = faults(platform, load, broken, seconds=0.5, say=print)
    assert [fault.name for fault in found] == broken
    for fault in found:
        assert fault.trip_s is not None, fault
        assert load.of(fault.name).failures == 0, load.of(fault.name)


def test_a_version_lives_and_dies_under_load_without_a_lost_request(platform: Platform) -> None:
    with ConstantLoad(platform.url, BODY, rate=80.0) as load:
        phases = life_cycle(platform, load, seconds=1.0, say=print)
    assert phases
    for phase in phases:
        assert load.of(phase.name).failures == 0, (phase, load.of(phase.name))
    assert sum(load.of(phase.name).requests for phase in phases) > 1_000
