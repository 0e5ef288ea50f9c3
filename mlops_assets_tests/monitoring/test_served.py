"""The truth table of what makes the version that answers stale."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from mlops_assets.monitoring.episodes import GATE, EpisodeLog, close, open_episode
from mlops_assets.monitoring.served import ServedFacts, served_staleness

NOW = datetime(2013, 6, 3, tzinfo=UTC)
DAY = timedelta(days=1)
FRESH = ServedFacts(
    version="v7",
    data_until=NOW - 10 * DAY,
    newest_data=NOW - 2 * DAY,
    max_data_age=45 * DAY,
    trained_code="abc",
    declared_code="abc",
    newest_stable="v7",
)


def episode(version: str = "v7") -> EpisodeLog:
    return open_episode(EpisodeLog(), version=version, reason="predictions drifted", now=NOW)


def kinds(facts: ServedFacts, now: datetime = NOW) -> list[str]:
    return [cause.kind for cause in served_staleness(facts, now).causes]


@pytest.mark.parametrize(
    ("drift", "new_data", "code", "rollback", "redeploy"), list(product([False, True], repeat=5))
)
def test_truth_table(drift: bool, new_data: bool, code: bool, rollback: bool, redeploy: bool) -> None:
    facts = FRESH
    if drift:
        facts = replace(facts, episodes=episode())
    if new_data:
        facts = replace(facts, data_until=NOW - 60 * DAY)
    if code:
        facts = replace(facts, declared_code="def")
    if rollback:
        facts = replace(facts, newest_stable="v8", rollback_reason="it was wrong")
    if redeploy:
        # v7 again changes nothing; v8 again, after a rollback from it, ends the rollback.
        facts = replace(facts, version=facts.newest_stable)
    found = served_staleness(facts, NOW)
    expected = {"drift": drift, "data": new_data, "code": code, "rollback": rollback and not redeploy}
    assert found.by_cause == expected
    assert found.stale is any(expected.values())
    assert found.data_age == (60 * DAY if new_data else 10 * DAY)
    assert all(cause.reason in found.reason for cause in found.causes)


def test_nothing_that_answers_is_neither_stale_nor_fresh() -> None:
    found = served_staleness(ServedFacts(None, episodes=episode()), NOW)
    assert (found.stale, found.causes, found.data_age) == (None, (), None)


def test_what_is_not_known_is_no_cause() -> None:
    found = served_staleness(ServedFacts("v7"), NOW)
    assert found.stale is False and found.data_age is None
    assert kinds(replace(FRESH, declared_code=None)) == kinds(replace(FRESH, trained_code=None)) == []
    assert kinds(replace(FRESH, max_data_age=None, data_until=NOW - 900 * DAY)) == []


def test_drift_lasts_until_the_candidate_that_passed_answers() -> None:
    ended = close(episode(), by=GATE, reason="v8 passed the gate", now=NOW)
    still = served_staleness(replace(FRESH, episodes=ended), NOW)
    assert [cause.kind for cause in still.causes] == ["drift"]
    assert "ended (v8 passed the gate), but v7 still answers" in still.reason
    assert kinds(replace(FRESH, episodes=ended, version="v8", newest_stable="v8")) == []
    # Back to v7: what was wrong with it is wrong again.
    assert kinds(replace(FRESH, episodes=ended, newest_stable="v8")) == ["drift", "rollback"]


def test_what_a_person_closed_is_no_drift() -> None:
    ended = close(episode(), by="ada", reason="the season", now=NOW)
    assert kinds(replace(FRESH, episodes=ended)) == []


def test_an_episode_of_a_version_that_was_rolled_back_is_still_drift() -> None:
    assert kinds(replace(FRESH, episodes=episode("v8"), newest_stable="v8")) == ["drift", "rollback"]


def test_data_may_be_exactly_as_old_as_declared_and_says_whether_there_is_newer() -> None:
    assert kinds(replace(FRESH, data_until=NOW - 45 * DAY)) == []
    old = replace(FRESH, data_until=NOW - 46 * DAY)
    assert (
        "46.0 days old (45.0 days are allowed); there are rows until 2013-06-01"
        in served_staleness(old, NOW).reason
    )
    none_newer = served_staleness(replace(old, newest_data=old.data_until), NOW)
    assert "there are no newer rows" in none_newer.reason


def test_versions_are_compared_by_number() -> None:
    assert kinds(replace(FRESH, version="v10", newest_stable="v9")) == []
    assert kinds(replace(FRESH, version="v9", newest_stable="v10")) == ["rollback"]


def test_a_retrain_that_a_person_asked_for_is_no_drift() -> None:
    asked = open_episode(EpisodeLog(), version="v7", reason="asked", now=NOW, asked_by="ana")
    assert kinds(replace(FRESH, episodes=asked)) == []
    ended = close(asked, by=GATE, reason="v8 passed the gate", now=NOW)
    assert kinds(replace(FRESH, episodes=ended)) == []
