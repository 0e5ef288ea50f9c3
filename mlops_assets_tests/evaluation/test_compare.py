"""Intervals: equal models, a known difference, coverage when days differ, and what few days allow."""

import time

import numpy as np
import pytest

from mlops_assets.evaluation.compare import Comparison, compare
from mlops_assets.evaluation.metrics import metric

Array = np.ndarray


def logistic(margin: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-margin)))


def world(
    random: np.random.Generator, *, days: int, per_day: int
) -> tuple[Array, Array, Array, Array, Array]:
    """Outcomes on days that differ, and two models that each err in a day's own way."""
    day = np.repeat(np.arange(days), per_day)
    size = days * per_day
    truth = random.normal(size=size) - 1.3 + random.normal(0, 0.4, days)[day]
    target = (random.random(size) < logistic(truth)).astype(float)
    first = logistic(truth + random.normal(0, 0.5, size) + random.normal(0, 0.3, days)[day])
    second = logistic(truth + random.normal(0, 0.7, size) + random.normal(0, 0.3, days)[day])
    return target, first, second, day, truth


def on(name: str, target: Array, first: Array, second: Array, day: Array | None) -> Comparison:
    return compare(metric(name, "binary"), target, first, second, groups=day, confidence=0.95)


@pytest.mark.parametrize("name", ["log_loss", "roc_auc"])
def test_equal_models_differ_by_exactly_nothing(name: str) -> None:
    target, first, _, day, _ = world(np.random.default_rng(0), days=14, per_day=50)
    found = on(name, target, first, first, day)
    assert (found.improvement, found.low, found.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", ["log_loss", "roc_auc"])
def test_better_is_positive_whatever_the_metrics_direction(name: str) -> None:
    target, first, second, day, _ = world(np.random.default_rng(0), days=14, per_day=400)
    found = on(name, target, first, second, day)
    turned = on(name, target, second, first, day)
    assert found.low is not None and found.low > 0
    assert turned.improvement == pytest.approx(-float(found.improvement or 0.0))


@pytest.mark.parametrize(("name", "grouped"), [("log_loss", True), ("roc_auc", True), ("log_loss", False)])
def test_the_interval_covers_the_true_difference_about_as_often_as_it_says(name: str, grouped: bool) -> None:
    """400 windows of 14 days; a nominal 95 % must land between 91 % and 98 %."""
    random = np.random.default_rng(5)
    big = [world(random, days=700, per_day=60) for _ in range(4)]
    true = np.mean([on(name, w[0], w[1], w[2], None).improvement for w in big])
    hits = 0
    for _ in range(400):
        # Without days the rows must be independent: every row is its own day then.
        shape = {"days": 14, "per_day": 60} if grouped else {"days": 840, "per_day": 1}
        target, first, second, day, _ = world(random, **shape)
        found = on(name, target, first, second, day if grouped else None)
        assert found.low is not None and found.high is not None
        hits += bool(found.low <= true <= found.high)
    assert 0.91 <= hits / 400 <= 0.98


def test_rows_taken_as_independent_would_be_too_sure() -> None:
    """A model that is off by a whole day's mood: 14 moods are known, not 5,600."""
    random = np.random.default_rng(3)
    target, _, _, day, truth = world(random, days=14, per_day=400)
    moody = logistic(truth + random.normal(0, 1.0, 14)[day])
    by_day, by_row = (on("log_loss", target, logistic(truth), moody, groups) for groups in (day, None))
    assert width(by_day) > 1.5 * width(by_row)


def width(found: Comparison) -> float:
    assert found.low is not None and found.high is not None
    return found.high - found.low


def test_sorted_rows_give_an_interval_like_shuffled_ones() -> None:
    """Rows without time often come sorted by class or key; groups must not follow that order."""
    random = np.random.default_rng(8)
    target, first, second, _, _ = world(random, days=1, per_day=2_000)
    order = np.argsort(target, kind="stable")
    found = on("log_loss", target, first, second, None)
    ordered = on("log_loss", target[order], first[order], second[order], None)
    assert width(ordered) == pytest.approx(width(found), rel=0.35)


def test_too_few_days_give_a_difference_and_no_interval() -> None:
    target, first, second, day, _ = world(np.random.default_rng(0), days=4, per_day=500)
    found = on("log_loss", target, first, second, day)
    assert found.improvement is not None and found.low is None and found.high is None
    assert "no interval from 4 groups" in found.sentence("champion v3")


def test_where_the_metric_is_not_defined_nothing_is_claimed() -> None:
    found = on("roc_auc", np.zeros(50), np.linspace(0, 1, 50), np.linspace(0, 1, 50), None)
    assert found.improvement is None and found.low is None
    assert found.sentence("x") == "roc_auc is not defined on these 50 rows"


def test_no_rows_claim_nothing() -> None:
    empty = np.empty(0)
    assert on("log_loss", empty, empty, empty, np.empty(0, dtype=np.int64)).improvement is None


def test_the_sentence_has_all_the_numbers() -> None:
    found = Comparison("log_loss", 0.482, 0.497, 0.015, 0.009, 0.021, 12_311, 14, 0.95)
    assert found.sentence("champion v3") == (
        "log_loss 0.4820 vs 0.4970 of champion v3: better by 0.0150 [+0.0090, +0.0210] at 95%, "
        "n = 12,311 in 14 groups"
    )


def test_no_random_numbers_are_involved() -> None:
    target, first, second, day, _ = world(np.random.default_rng(0), days=14, per_day=50)
    assert on("roc_auc", target, first, second, day) == on("roc_auc", target, first, second, day)


def test_a_two_week_window_is_cheap() -> None:
    """13,000 rows over 14 days, ranking metric: far below what a person notices (CPU seconds, wide limit)."""
    target, first, second, day, _ = world(np.random.default_rng(0), days=14, per_day=930)
    started = time.process_time()
    on("roc_auc", target, first, second, day)
    assert time.process_time() - started < 5
