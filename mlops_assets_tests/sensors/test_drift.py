"""What the drift sensor decides by of what its document declares; the whole loop is in ``components/``."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.monitoring.episodes import EpisodeLog, LoopFacts, close, grant, open_episode
from mlops_assets.monitoring.policy import DriftVerdict
from mlops_assets.sensors.drift import _due_actions

NOW = datetime(2024, 3, 1, tzinfo=UTC)
OLD = DriftVerdict("refresh", "the data of v7 is old", "v7")


@pytest.mark.parametrize(("declared", "kind"), [({}, "wait"), ({"max_data_age": "30d"}, "grant")])
def test_a_routine_retrain_waits_as_long_as_data_may_be_old(declared: dict[str, str], kind: str) -> None:
    """The last retrain was granted 31 days ago; 45 days are the default."""
    before = NOW - timedelta(days=31)
    log = grant(open_episode(EpisodeLog(), version="v6", reason="said", now=before), data="1", now=before)
    log = close(log, by="ana", reason="said", now=before)
    monitor = DriftMonitorDeclaration.model_validate(
        {"model": "shop", "logs_since": "2024-01-01", **declared}
    )
    facts = replace(LoopFacts(served="v7"), data="2", served_data="1")
    assert [one.kind for one in _due_actions(monitor, facts, log, OLD, NOW)] == [kind]
