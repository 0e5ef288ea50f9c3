"""What each action of the drift sensor leaves in Dagster, and who is told."""

from datetime import UTC, datetime

import pytest

from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.monitoring.episodes import (
    CALENDAR,
    REFRESH,
    EpisodeLog,
    LoopFacts,
    LoopRules,
    grant,
    next_action,
    open_episode,
    record_outcome,
)
from mlops_assets.monitoring.governor import GovernorPolicy
from mlops_assets.monitoring.policy import DriftVerdict
from mlops_assets.sensors.drift_actions import effects_of

NOW = datetime(2024, 3, 1, tzinfo=UTC)
DECLARED = DriftMonitorDeclaration.model_validate({"model": "shop", "logs_since": "2024-01-01"})
QUIET = DriftVerdict("quiet", "nothing moved", "v7")


@pytest.mark.parametrize(
    ("asked_by", "alert"),
    [("", "episode_closed"), ("ana", "episode_closed"), (REFRESH, None), (CALENDAR, None)],
)
def test_the_end_of_a_routine_retrain_alarms_nobody(asked_by: str, alert: str | None) -> None:
    log = open_episode(EpisodeLog(), version="v7", reason="said", now=NOW, asked_by=asked_by)
    log = grant(log, data="1", now=NOW, asked_by=asked_by)
    log = record_outcome(log, "promoted", reason="v8 passed the gate", ended_at=NOW)
    action = next_action(log, QUIET, LoopFacts(served="v7"), LoopRules(GovernorPolicy()), NOW)

    found = effects_of(action, DECLARED, QUIET, None, manual=False)

    assert action.kind == "close" and len(found.events) == 2
    assert (found.alert.kind if found.alert else None) == alert
