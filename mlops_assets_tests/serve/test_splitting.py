from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from mlops_assets.testing.small_models import routing
from serve.schema import Routing
from serve.splitting import Split, bucket


def split(**weights: int) -> Split:
    return Split(Routing.model_validate(routing(**weights)))


def owned(by: Split, version: str) -> set[int]:
    return {number for number in range(10_000) if by.version_of_bucket(number) == version}


@pytest.mark.parametrize(
    "weights",
    [{"v1": 10_000}, {"v1": 0, "v2": 10_000}, {"v1": 9_999, "v2": 1}, {"v1": 5_000, "v2": 5_000},
     {"v1": 1, "v2": 3_333, "v3": 6_666}, {"v1": 0, "v2": 1, "v3": 2, "v4": 9_997}, {"v2": 10_000, "v1": 0}],
)  # fmt: skip
def test_each_version_owns_exactly_its_weight_of_the_buckets(weights: dict[str, int]) -> None:
    by = split(**weights)
    counted = Counter(by.version_of_bucket(number) for number in range(10_000))
    assert counted == Counter({version: weight for version, weight in weights.items() if weight})


def test_a_growing_canary_gives_nobody_back() -> None:
    shares = [
        owned(split(v1=10_000 - weight, v2=weight), "v2") for weight in (0, 1, 100, 1_000, 5_000, 10_000)
    ]
    assert all(smaller < larger for smaller, larger in pairwise(shares))


def test_segments_say_who_owns_which_bucket() -> None:
    routed = routing(v1=7_000, v2=3_000)
    segments = [
        {"low": 0, "high": 4_000, "version": "v1"},
        {"low": 4_000, "high": 7_000, "version": "v2"},
        {"low": 7_000, "high": 10_000, "version": "v1"},
    ]
    by = Split(Routing.model_validate({**routed, "segments": segments}))
    assert owned(by, "v2") == set(range(4_000, 7_000))


@pytest.mark.parametrize(
    ("segments", "told"),
    [
        ([(0, 5_000, "v1"), (6_000, 10_000, "v2")], "gap or overlap at bucket 5000"),
        ([(0, 6_000, "v1"), (6_000, 10_000, "v2")], "the weights say"),
        ([(0, 5_000, "v1"), (5_000, 9_000, "v2")], "up to bucket 9000"),
        ([(0, 5_000, "v1"), (5_000, 10_000, "v9")], "'v9', which is not among the routes"),
    ],
)
def test_segments_that_do_not_fit_the_weights_are_refused(segments: list[Any], told: str) -> None:
    routed = routing(v1=5_000, v2=5_000)
    routed["segments"] = [dict(zip(("low", "high", "version"), each, strict=True)) for each in segments]
    with pytest.raises(ValidationError, match=told):
        Routing.model_validate(routed)


def test_a_version_without_weight_gets_no_unit() -> None:
    assert {split(v1=0, v2=10_000, v3=0).version_for(f"u{number}") for number in range(1_000)} == {"v2"}


def test_a_unit_stays_with_its_version_and_another_salt_reshuffles() -> None:
    units = [f"user-{number}" for number in range(2_000)]
    assert [bucket(unit, "a") for unit in units] == [bucket(unit, "a") for unit in units]
    assert sum(bucket(unit, "a") == bucket(unit, "b") for unit in units) < 10


def test_buckets_never_change_between_releases() -> None:
    assert [bucket(unit, "flights") for unit in ("", "u1", "Zoë", "\ud800")] == [3785, 6705, 4447, 1606]


def test_real_units_spread_as_the_weights_say() -> None:
    by = split(v1=9_000, v2=1_000)
    assert 900 < sum(by.version_for(f"user-{number}") == "v2" for number in range(10_000)) < 1_100
