"""The short form of ``python -m bench.drift_retrains``: what is counted, and eleven weeks of M7 for real."""

from datetime import timedelta

import pytest

from bench.drift_retrains import AS_MANY, DAY, Attempt, Run, Year, evenly, near_after, summary
from mlops_assets.testing.drift_worlds import CHANGE_WEEK, START


def attempt(day: float, outcome: str, rest: float | None, judged: float | None = None) -> Attempt:
    return Attempt(day, day if judged is None else judged, outcome, 1, rest, "")


def year(regime: str, loss: float, *attempts: Attempt, near: float | None = None) -> Year:
    return Year(regime, 9.0, loss, 1, attempts, near)


def test_a_calendar_with_as_many_retrains_is_evenly_spaced_wherever_it_begins() -> None:
    end = START + 364 * DAY
    assert evenly(4, START, end, 0.5) == tuple(START + timedelta(days=day) for day in (46, 136, 228, 318))
    for first in (0.0, 0.999):
        found = evenly(3, START, end, first)
        assert len(found) == 3 and found[0] >= START and found[-1] < end + DAY


def test_a_version_is_near_the_truth_when_it_answers_and_a_tenth_of_the_gap_is_left() -> None:
    found = [
        attempt(30, "promoted", 0.05),
        attempt(63, "rejected", 0.0),
        attempt(70, "promoted", 0.11),
        attempt(77, "promoted", 0.1, judged=80),
        attempt(91, "promoted", 0.0),
    ]
    assert near_after(found, 56.0) == 24.0
    assert near_after(found[:3], 56.0) is None


def test_what_a_regime_loses_is_held_to_drift_in_the_same_run() -> None:
    runs = [
        [year("drift", 0.5, attempt(63, "promoted", 0.0), near=7.0), year(AS_MANY, loss), year("never", 1.0)]
        for loss in (0.6, 0.7, 0.5, 0.4)
    ]
    drift, calendar, never = summary("M7", runs)
    assert drift["retrains"].value == drift["passed"].value == 1.0 and calendar["retrains"].value == 0.0
    assert drift["more_than_drift"] is None
    assert calendar["more_than_drift"].value == pytest.approx(0.05)
    # A tie is neither.
    assert (calendar["drift_is_better"].value, calendar["drift_is_worse"].value) == (0.5, 0.25)
    assert never["drift_is_better"].value == 1.0
    assert (drift["near_the_truth"].value, drift["median_days"].value) == (1.0, 7.0)
    assert (never["near_the_truth"].value, never["median_days"].value) == (0.0, None)
    # Where nothing changed the whole year counts, and there is no new truth.
    assert summary("M6", [[Year("drift", 0.4, None, 0, (), None)]])[0]["log_loss"].value == 0.4
    assert "near_the_truth" not in summary("M6", [[Year("drift", 0.4, None, 0, (), None)]])[0]


def test_retrains_after_the_relation_turned_come_nearer_to_what_is_true_now() -> None:
    drift, calendar = Run("M7", 0, seed=1, weeks=11).compared()
    assert (drift.regime, calendar.regime, drift.episodes) == ("drift", AS_MANY, 1)
    assert len(drift.attempts) == len(calendar.attempts) > 1
    # The first window after the change is over on day 63, and most of what is known then is from before it.
    since = [one for one in drift.attempts if one.day > 7 * CHANGE_WEEK]
    rests = [one.rest for one in since if one.rest is not None]
    assert since[0].day == 63 and len(rests) > 1 and rests[0] > 0.5 and rests[-1] < rests[0]
    assert drift.loss_since is not None and drift.loss_since > drift.loss
