"""The sentence on added-up evidence is held against windows that the product itself has judged."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from demo.evidence import TogetherOnly, together_only
from mlops_assets.monitoring.findings import WindowPerformance
from mlops_assets.monitoring.lasting_loss import LastingLossTest, with_lasting_loss
from mlops_assets.monitoring.performance import PerformanceReference

WEEK = timedelta(days=7)
MILD = 0.9
MONDAY = datetime(2013, 3, 4, tzinfo=UTC)
OPENED = ({"name": "performance", "action": "open"}, {"name": "features", "action": "warn"})


def window(number: int, days: tuple[float, ...], *, loss_low: float | None = -0.02) -> WindowPerformance:
    start = MONDAY + number * WEEK
    return WindowPerformance(
        start.isoformat(), (start + WEEK).isoformat(), "v1", "champion", 6_000, 6_000, 1.0, "judged", "",
        metric="bias", loss_low=loss_low, below_baseline=-0.1, days={"bias": days},
    )  # fmt: skip


def evaluated() -> LastingLossTest:
    """How days are held against the 28 that v1 was evaluated on; a day deviates by .05."""
    days = np.random.default_rng(3).normal(0.0, 0.05, size=28)
    days -= days.mean()
    reference = PerformanceReference(
        metric="bias", value=0.0, standard_error=0.01, groups=28, rows=24_000, days=tuple(days)
    )
    return LastingLossTest("binary", [reference], WEEK, 2.5, "bias")


def judged(*shifts: float) -> list[WindowPerformance]:
    """Weeks whose days lie so many deviations lower."""
    spread = np.asarray([0.2, -0.8, 0.5, -0.2, 0.8, -0.5, 0.0])
    weeks = [window(number, tuple(0.05 * (spread - shift))) for number, shift in enumerate(shifts)]
    return with_lasting_loss(weeks, evaluated())


def test_weeks_of_which_none_proves_a_loss_prove_it_together() -> None:
    weeks = judged(MILD, MILD, MILD)
    newest = weeks[-1]
    alone = [with_lasting_loss([one], evaluated())[0].accumulated for one in weeks]
    assert all(one is not None and one < 1 for one in alone)
    assert newest.accumulated is not None and newest.accumulated >= 1

    found = together_only(weeks, OPENED)

    assert isinstance(found, TogetherOnly)
    assert (found.windows, found.times) == (3, newest.accumulated)
    assert newest.accumulated_since == weeks[3 - found.needed].end
    assert f"{newest.accumulated:.1f} times the evidence that an episode needs" in found.sentence


def test_the_sentence_says_which_windows_are_needed() -> None:
    assert TogetherOnly(3, 3, 3.04).sentence == (
        "none of the 3 windows proves a loss by itself; together they hold 3.0 times the evidence that an "
        "episode needs"
    )
    assert "itself; the last 2 hold 1.2 times" in TogetherOnly(4, 2, 1.2).sentence


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"loss_low": 0.01}, "proves a loss of 0.0100 by itself"),
        ({"below_baseline": 0.02}, "worse than the baseline"),
    ],
)
def test_a_window_that_proves_a_loss_alone_is_named(changed: dict[str, float], told: str) -> None:
    weeks = judged(MILD, MILD, MILD)
    weeks[1] = replace(weeks[1], **changed)
    found = together_only(weeks, OPENED)
    assert isinstance(found, str) and told in found and "2013-03-18" in found


def test_evidence_of_one_window_alone_and_none_at_all_are_told() -> None:
    assert "holds all the evidence" in str(together_only(judged(0.0, 0.0, 6.0), OPENED))
    assert "no evidence" in str(together_only(judged(0.0, 0.0), OPENED))
    assert "no evidence" in str(together_only([], OPENED))


def test_an_episode_that_something_else_opened_is_told() -> None:
    drifted = ({"name": "prediction", "action": "open"}, *OPENED)
    assert "by prediction, performance" in str(together_only(judged(MILD, MILD, MILD), drifted))
    assert "by no signal" in str(together_only(judged(MILD, MILD, MILD), ()))
