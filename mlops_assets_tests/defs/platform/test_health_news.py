"""What is news, on plain values."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mlops_assets.asset_names import asset_name
from mlops_assets.defs.platform.health_news import (
    FailedRun,
    Freshness,
    KnownLog,
    LogState,
    SensorTicks,
    document_news,
    failed_run_news,
    freshness_news,
    log_news,
    rounded_duration,
    sensor_news,
)
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.documents.missing import MissingDocument
from mlops_assets.monitoring.episodes import EpisodeLog, LoopAction, grant, open_episode
from mlops_assets.sensors.drift_actions import episode_alert

SINCE = 1_700_000_000.0
AT = datetime(2013, 6, 3, tzinfo=UTC)
LATE = Freshness(
    "FAIL",
    SINCE,
    materialised_at=SINCE - 36 * 3_600,
    policy="its policy allows 36 h",
    command="dg launch --assets x",
)


# -- freshness ---------------------------------------------------------------------------------------


def test_an_asset_that_turns_late_is_told_once_with_since_when_and_the_command() -> None:
    (alert,), told = freshness_news({}, {"flights": LATE})
    assert alert.kind == "freshness_failed" and alert.subject == "flights"
    assert alert.summary == (
        "not fresh since 2023-11-14 22:13 UTC: last made 2023-11-13 10:13 UTC, and its policy allows 36 h"
    )
    assert alert.command == "dg launch --assets x"
    assert freshness_news(told, {"flights": LATE}) == ([], told)


@pytest.mark.parametrize("state", ["PASS", "WARN"])
def test_coming_back_is_told_once(state: str) -> None:
    back = {"flights": Freshness(state, SINCE + 3 * 86_400)}
    (alert,), told = freshness_news({"flights": SINCE}, back)
    assert alert.kind == "freshness_recovered"
    assert alert.summary == "fresh again since 2023-11-17 22:13 UTC, after 3 days"
    assert told == {}
    assert freshness_news(told, back) == ([], {})


def test_an_asset_that_was_never_late_is_no_news() -> None:
    states = {state: Freshness(state, SINCE) for state in ("PASS", "WARN", "UNKNOWN", "NOT_APPLICABLE")}
    assert freshness_news({}, states) == ([], {})


@pytest.mark.parametrize("states", [{}, {"a": Freshness("UNKNOWN", SINCE + 1)}])
def test_an_asset_that_is_gone_or_unknown_did_not_recover(states: dict[str, Freshness]) -> None:
    assert freshness_news({"a": SINCE}, states) == ([], {})


def test_back_and_late_again_between_two_looks_is_a_new_failure() -> None:
    again = Freshness("FAIL", SINCE + 50, None, "p", "c")
    (alert,), told = freshness_news({"a": SINCE}, {"a": again})
    assert alert.kind == "freshness_failed" and "never made" in alert.summary
    (before,), _ = freshness_news({}, {"a": LATE})
    assert alert.fingerprint != before.fingerprint
    assert told == {"a": SINCE + 50}


def test_a_lost_memory_tells_the_same_news_with_the_same_fingerprint() -> None:
    (one,), _ = freshness_news({}, {"a": LATE})
    (other,), _ = freshness_news({}, {"a": LATE})
    assert one.fingerprint == other.fingerprint


# -- sensors -----------------------------------------------------------------------------------------


def ticks(*failed: bool, sensor: str = "drift_flights") -> SensorTicks:
    return SensorTicks(sensor, failed, "KeyError:\n  'x'", SINCE)


def test_three_failed_ticks_in_a_row_are_told_once() -> None:
    (alert,), told = sensor_news([], [ticks(True, True, True)])
    assert alert.kind == "sensor_failing" and alert.subject == "sensors/drift_flights"
    assert "its last 3 ticks failed, the newest at 2023-11-14 22:13 UTC: KeyError: 'x'" in alert.summary
    assert sensor_news(told, [ticks(True, True, True)]) == ([], ["drift_flights"])


@pytest.mark.parametrize("failed", [(), (True, True), (False, True, True), (True, True, False)])
def test_fewer_failures_than_that_are_an_accident(failed: tuple[bool, ...]) -> None:
    assert sensor_news([], [ticks(*failed)]) == ([], [])


def test_one_success_ends_it_and_the_next_streak_is_told_again() -> None:
    _, told = sensor_news(["drift_flights"], [ticks(False, True, True)])
    assert told == []
    assert len(sensor_news(told, [ticks(True, True, True)])[0]) == 1


def test_a_very_long_error_is_cut() -> None:
    (alert,), _ = sensor_news([], [SensorTicks("s", (True,) * 3, "x" * 10_000, SINCE)])
    assert len(alert.summary) < 600 and len(alert.evidence["error"]) == 10_000


# -- prediction logs ---------------------------------------------------------------------------------


def test_rows_dropped_since_the_last_look_are_told_with_their_number() -> None:
    (alert,), told = log_news({"flights": KnownLog(100)}, {"flights": LogState(1_340, "OSError: full")})
    assert alert.kind == "log_drops" and alert.subject == "flights_prediction_log"
    assert alert.summary == "1,240 rows were dropped from the log (OSError: full)"
    assert told == {"flights": KnownLog(1_340, "OSError: full")}
    assert log_news(told, {"flights": LogState(1_340, None)}) == ([], {"flights": KnownLog(1_340, None)})


def test_a_smaller_count_is_of_new_replicas() -> None:
    (alert,), told = log_news({"flights": KnownLog(100)}, {"flights": LogState(1, None)})
    assert alert.summary == "1 row was dropped from the log"
    assert told == {"flights": KnownLog(1)}
    assert log_news({"flights": KnownLog(100)}, {"flights": LogState(0, None)}) == (
        [],
        {"flights": KnownLog(0)},
    )


def test_a_problem_is_told_when_it_stays() -> None:
    failing = {"flights": LogState(0, "OSError: disk full")}
    alerts, told = log_news({}, failing)
    assert alerts == []
    (alert,), _ = log_news(told, failing)
    assert alert.summary == "answers wait in memory and cannot be written (OSError: disk full)"


def test_drops_and_problems_are_different_news() -> None:
    before = {"flights": KnownLog(0, "full")}
    (drops,), _ = log_news(before, {"flights": LogState(5, "full")})
    (problem,), _ = log_news(before, {"flights": LogState(0, "full")})
    assert drops.fingerprint != problem.fingerprint


def test_a_count_of_one_replica_alone_says_nothing_and_forgets_nothing() -> None:
    assert log_news({"flights": KnownLog(100)}, {"flights": LogState(None, None)}) == (
        [],
        {"flights": KnownLog(100)},
    )


def test_a_log_that_was_not_heard_of_is_remembered() -> None:
    assert log_news({"flights": KnownLog(100)}, {}) == ([], {"flights": KnownLog(100)})


def test_a_refused_key_is_told_because_nobody_can_tell_whether_rows_are_lost() -> None:
    (alert,), told = log_news({}, {"flights": LogState(None, None, unreadable="HTTP 401; set MLOPS_API_KEY")})
    assert "nobody can tell: HTTP 401" in alert.summary and told == {}


# -- failed retrains ---------------------------------------------------------------------------------


def failed_run(**facts: Any) -> FailedRun:
    known = {"step": "flights_model", "error": "boom", "gate_refused": False, "url": "http://u", **facts}
    return FailedRun("0123456789ab", "flights", "automation", **known)


def test_a_failed_retrain_is_told_with_step_and_error() -> None:
    (alert,) = failed_run_news([failed_run()])
    assert alert.kind == "retrain_failed" and alert.subject == "flights_model"
    assert alert.summary == "run 01234567 (launched by automation) failed at flights_model: boom"
    assert alert.dedupe == "0123456789ab" and "http://u" in alert.command


def test_a_verdict_of_the_gate_is_no_failure() -> None:
    assert failed_run_news([failed_run(gate_refused=True)]) == []


def test_the_failure_of_an_attempt_is_the_news_that_the_drift_sensor_tells() -> None:
    log = grant(open_episode(EpisodeLog(), version="v3", reason="drift", now=AT), data="2013-06-01", now=AT)
    step = LoopAction("outcome", "episode-1.1 failed: boom", log, 1, 1)
    declared = DriftMonitorDeclaration(model="flights", logs_since=AT.date())
    (ours,) = failed_run_news([failed_run(version="v3", attempt="1.1")])
    assert ours.fingerprint == episode_alert(declared, step, "retrain_failed").fingerprint
    assert "retrain 1.1" in ours.summary


def test_a_failed_measurement_is_told_by_step_for_it_fails_again_and_again() -> None:
    first = failed_run(measuring=True, step="flights_performance")
    (alert,) = failed_run_news([first])
    assert alert.kind == "measuring_failed" and alert.subject == "flights_drift"
    assert alert.summary.endswith("failed at flights_performance: boom")
    assert "http://u" in alert.command and "models" not in alert.command
    (again,) = failed_run_news([replace(first, run_id="ba9876543210", error="boom again")])
    (other,) = failed_run_news([failed_run(measuring=True, step="flights_drift")])
    assert again.fingerprint == alert.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-5.0, "0 min"), (90, "2 min"), (36 * 3_600, "36 h"), (35 * 86_400, "35 days")],
)
def test_durations_read_like_a_persons(seconds: float, told: str) -> None:
    assert rounded_duration(seconds) == told


def lost(what: str, problem: str, *, because: str = "", where: str = "shop.yaml:3") -> MissingDocument:
    return MissingDocument(where, "shop", what, problem, because, (asset_name("model", what),))


def test_a_document_that_cannot_be_loaded_is_told_once_with_what_falls_with_it() -> None:
    own = lost("model", "shop.yaml:4: task: no")
    fallen = lost("deployment", "shop.yaml:9: needs model_model", because="shop.yaml:3", where="shop.yaml:9")

    (alert,), told = document_news([], [own, fallen])

    assert (alert.kind, alert.subject) == ("document_missing", "shop_document")
    assert alert.summary == "model is missing: shop.yaml:4: task: no; with it deployment"
    assert alert.command.startswith("mend shop.yaml:3")
    assert document_news(told, [own, fallen]) == ([], told)


def test_another_problem_of_a_document_and_one_that_came_back_are_news() -> None:
    _, told = document_news([], [lost("model", "shop.yaml:4: task: no")])
    (alert,), told = document_news(told, [lost("model", "shop.yaml:5: label: no")])
    assert "label" in alert.summary
    assert document_news(told, []) == ([], [])
    assert len(document_news([], [lost("model", "shop.yaml:5: label: no")])[0]) == 1
