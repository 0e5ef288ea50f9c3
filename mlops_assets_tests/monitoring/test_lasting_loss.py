"""Whether a version is worse than it was, by all of its days together, on worlds of which it is known."""

from dataclasses import replace
from datetime import timedelta
from functools import lru_cache

import numpy as np
import pytest

from mlops_assets.monitoring.drift import Answers, DriftTest, assess_window
from mlops_assets.monitoring.findings import WindowDrift, WindowPerformance
from mlops_assets.monitoring.labels import Watermark
from mlops_assets.monitoring.lasting_loss import LastingLossTest, WindowDays, with_lasting_loss
from mlops_assets.monitoring.performance import (
    PerformanceReference,
    PerformanceTest,
    performance_references,
    window_performance,
)
from mlops_assets.monitoring.policy import DriftPolicy, DriftVerdict, drift_verdict
from mlops_assets.monitoring.reference import DriftReference, HeldOut, TrainingRows, make_reference
from mlops_assets.monitoring.windows import Window
from mlops_assets.testing.drift_worlds import CLASSES, START, WORLDS, DriftWorld

WEEK = timedelta(days=7)
POLICY = DriftPolicy()
HELD_OUT_DAYS = 14


def reference_of(world: DriftWorld, random: np.random.Generator) -> DriftReference:
    rows = world.days(random, -84 - HELD_OUT_DAYS, 0)
    fitted = (rows["day"] < -HELD_OUT_DAYS).to_numpy()
    target = (rows["label"] == "yes").to_numpy(dtype=np.float64)
    unseen = rows[~fitted]
    return make_reference(
        TrainingRows(rows[[one.name for one in world.specs]], world.specs, rows["day"].to_numpy(), fitted),
        held_out=HeldOut(
            unseen["score"].to_numpy(),
            target[~fitted],
            unseen["day"].to_numpy(),
            (float(target[fitted].mean()),),
        ),
        task="binary",
        classes=CLASSES,
        window_days=7,
    )


@lru_cache
def measured(name: str, seed: int, weeks: int) -> tuple[list[WindowDrift], list[WindowPerformance]]:
    """Every window of a world, shared by the tests."""
    world, random = WORLDS[name], np.random.default_rng(seed)
    reference = reference_of(world, random)
    drift, performance = [], []
    for week in range(weeks):
        rows = world.days(random, 7 * week, 7 * week + 7)
        window = Window(START + week * WEEK, START + (week + 1) * WEEK)
        target = (rows["label"] == "yes").to_numpy(dtype=np.float64)
        features = rows[[one.name for one in world.specs]]
        drift.append(
            assess_window(
                reference,
                window,
                Answers(features, rows["score"].to_numpy(), target),
                version="v1",
                test=DriftTest(POLICY.levels(WEEK), 200),
            )
        )
        performance.append(
            window_performance(
                rows[["at", "score", "label"]].assign(has_keys=True),
                window,
                version="v1",
                variant="champion",
                now=window.end + WEEK,
                test=PerformanceTest(
                    "binary",
                    CLASSES,
                    Watermark(timedelta(days=3)),
                    POLICY.level(WEEK),
                    reference.performance,
                    baseline=reference.baseline,
                ),
            )
        )
    test = LastingLossTest("binary", reference.performance, WEEK, POLICY.false_alarms_per_year)
    return drift, with_lasting_loss(performance, test)


def verdicts(name: str, seed: int = 1, weeks: int = 12) -> list[DriftVerdict]:
    """The verdict after every week; nothing happens before the ninth."""
    drift, performance = measured(name, seed, weeks)
    return [
        drift_verdict(POLICY, drift[:week], performance[:week], held_out=timedelta(days=HELD_OUT_DAYS))
        for week in range(1, weeks + 1)
    ]


def opened(found: list[DriftVerdict]) -> int | None:
    """The first week whose verdict opens an episode, counted from 1."""
    return next((week for week, one in enumerate(found, 1) if one.action == "open"), None)


def test_m1_worse_than_the_base_rate_opens_in_the_first_window() -> None:
    found = verdicts("M1", weeks=9)
    assert opened(found) == 9
    assert found[8].reason.startswith("answers are worse than the baseline: log_loss ")
    assert "performance fell: skill is 1." in found[8].reason
    assert " below what the answers promise on the last 7 days and was 0." in found[8].reason


def test_m2_a_loss_that_no_week_proves_opens_within_four() -> None:
    _, performance = measured("M2", 4, 12)
    assert all(one.loss_low is not None and one.loss_low < 0 for one in performance), "a week proves it alone"
    assert opened(verdicts("M2", 4, 12)) == 10


def test_m3_columns_that_begin_to_move_are_a_reason_of_their_own() -> None:
    found = verdicts("M3")
    assert [one.action for one in found[:8]] == ["quiet"] * 8
    assert [one.action for one in found[8:10]] == ["warn"] * 2
    assert found[8].reason.startswith("the model cannot have learned from z0, z1, z2: 100% of the answers")
    # Two weeks are kept out of training: in the eleventh, a week of such rows is there to learn from.
    assert opened(found) == 11


def test_m4_columns_that_are_fixed_by_construction_never_drift() -> None:
    drift, _ = measured("M4", 2, 8)
    columns = [one for window in drift for one in window.columns if one.column in ("half_hour", "weekday")]
    assert len(columns) == 16 and not any(one.drifted for one in columns)
    assert all(one.severity is not None and one.severity < 1 for one in columns)


@pytest.mark.parametrize("name", ["M5", "M6"])
def test_m5_and_m6_open_nothing_where_nothing_is_lost(name: str) -> None:
    found = verdicts(name, 3, 20)
    assert opened(found) is None
    assert ("warn" in {one.action for one in found}) == (name == "M5")


def test_m7_a_relation_that_is_turned_around_opens_at_once() -> None:
    assert opened(verdicts("M7", weeks=9)) == 9


def test_a_version_that_comes_nearer_to_zero_bias_lost_nothing() -> None:
    """The days it was evaluated on were off by .2; the days since are right."""
    random = np.random.default_rng(2)
    scores = random.uniform(0.2, 0.8, size=14 * 96)
    days = np.repeat(np.arange(14), 96)
    off = (random.random(len(scores)) < scores - 0.2).astype(np.float64)
    references = performance_references("binary", off, scores, days)
    bias = next(one for one in references if one.metric == "bias")
    assert np.mean(bias.days) == pytest.approx(0.2, abs=0.05)
    test = LastingLossTest("binary", references, WEEK, 0.5, "bias")
    right = random.normal(0.0, 0.05, size=(8, 7))
    windows = [judged(week, bias=tuple(right[week])) for week in range(8)]
    assert max(one.accumulated or 0.0 for one in with_lasting_loss(windows, test)) < 1
    low = [judged(week, bias=tuple(right[week] - 0.2)) for week in range(8)]
    assert max(one.accumulated or 0.0 for one in with_lasting_loss(low, test)) > 1


def judged(week: int, status: str = "judged", **days: tuple[float, ...]) -> WindowPerformance:
    start = START + week * WEEK
    return WindowPerformance(
        start.isoformat(),
        (start + WEEK).isoformat(),
        "v1",
        "champion",
        answers=700,
        labelled=700,
        share=1.0,
        status=status,  # type: ignore[arg-type]
        reason="",
        days=days,
    )


def test_days_of_windows_that_are_measured_no_more_still_count() -> None:
    random = np.random.default_rng(3)
    values = random.normal(0.3, 0.1, size=(12, 7))
    values[8:] -= 0.2
    windows = [judged(week, skill=tuple(values[week])) for week in range(12)]
    test = LastingLossTest("binary", (), WEEK, 0.5, "skill")
    whole = with_lasting_loss(windows, test)
    earlier = [WindowDays(one.end, one.days) for one in windows[:6]]
    assert with_lasting_loss(windows[6:], test, earlier=earlier) == whole[6:]
    assert (whole[-1].accumulated or 0.0) > 1 > (with_lasting_loss(windows[6:8], test)[-1].accumulated or 0)


def test_a_window_that_is_not_judged_adds_nothing() -> None:
    windows = [judged(0, skill=(0.1,) * 7), judged(1, status="waiting"), judged(2, skill=(0.1,) * 7)]
    found = with_lasting_loss(windows, LastingLossTest("binary", (), WEEK, 0.5, "skill"))
    assert found[1] == windows[1] and found[2].accumulated is not None


def test_an_unusual_rate_is_said_in_years() -> None:
    random = np.random.default_rng(5)
    windows = [judged(week, skill=tuple(random.normal(0.5, 0.1, size=7))) for week in range(4)]
    windows += [judged(week, skill=tuple(random.normal(0.1, 0.1, size=7))) for week in range(4, 6)]
    last = with_lasting_loss(windows, LastingLossTest("binary", (), WEEK, 0.25, "skill"))[-1]
    assert "evidence that chance gives at most once in 4 years" in last.accumulated_reason
    assert last.accumulated_loss == pytest.approx(0.4, abs=0.1)
    assert replace(last) == WindowPerformance.from_dict(last.to_dict())


def test_a_window_under_a_day_is_not_compared_with_days() -> None:
    (reference,) = (one for one in references_of_skill() if one.metric == "skill")
    assert len(reference.days) == 14
    for window, before in ((timedelta(hours=6), 0), (timedelta(days=1), 14), (WEEK, 14)):
        assert len(LastingLossTest("binary", (reference,), window, 0.5).before("skill")) == before


def references_of_skill() -> tuple[PerformanceReference, ...]:
    random = np.random.default_rng(6)
    scores, days = random.uniform(0.2, 0.8, size=14 * 96), np.repeat(np.arange(14), 96)
    return performance_references(
        "binary", (random.random(len(scores)) < scores).astype(np.float64), scores, days
    )


def test_the_policys_metric_takes_the_place_of_the_measures() -> None:
    policy = DriftPolicy.model_validate({"false_alarms_per_year": 2, "performance": {"metric": "skill"}})
    test = LastingLossTest.declared(policy, "binary", (), WEEK)
    assert (test.metric, test.false_alarms_per_year, test.window) == ("skill", 2, WEEK)
    falling = [judged(week, skill=(0.3 - week, 0.3), shortfall=(0.0, 0.0)) for week in range(8)]
    measured_by = LastingLossTest.declared(DriftPolicy(), "binary", (), WEEK)
    by_skill, by_shortfall = (with_lasting_loss(falling, one)[-1].accumulated for one in (test, measured_by))
    assert by_skill is not None and by_shortfall is not None and by_skill > 2 * by_shortfall
