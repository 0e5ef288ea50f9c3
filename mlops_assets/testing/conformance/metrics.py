"""What every metric of models must do (``evaluation/metrics/_base.py`` says it in words).

@pytest.mark.parametrize(("metric", "task"), cases(METRICS.members()))
class TestMetric(MetricConformance): ...
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlops_assets.evaluation import metrics
from mlops_assets.evaluation.metrics import METRICS, LossMetric, Metric
from serve.schema import Task

Array = NDArray[np.float64]
ROWS = 400


def cases(found: Iterable[type[Metric]]) -> list[Any]:
    """Every metric with every task that it is for."""
    return [pytest.param(one, task, id=f"{one.name}-{task}") for one in found for task in sorted(one.tasks)]


def outcomes(task: Task) -> Array:
    """Outcomes that differ: two classes, three classes, or numbers."""
    random = np.random.default_rng(0)
    if task == "regression":
        return random.normal(size=ROWS)
    return random.integers(0, 2 if task == "binary" else 3, ROWS).astype(np.float64)


def perfect(task: Task, target: Array) -> Array:
    """Scores that say what came."""
    return np.eye(3)[target.astype(np.int64)] if task == "multiclass" else target.copy()


def unsure(task: Task, target: Array) -> Array:
    """Scores that are mostly right and never certain."""
    if task == "regression":
        return target + np.random.default_rng(1).normal(size=ROWS)
    noise = np.random.default_rng(1).uniform(0.1, 0.4, target.shape)
    if task == "binary":
        return np.where(target == 1, 1 - noise, noise)
    return np.where(perfect(task, target) == 1, (1 - noise)[:, None], noise[:, None] / 2)


def wrong(task: Task, target: Array, share: float) -> Array:
    """Perfect scores, but for a share of the rows, all of them wrong on the same side."""
    scores = perfect(task, target)
    fooled = np.flatnonzero(target > 0)
    fooled = fooled[: int(share * len(fooled))]
    scores[fooled] = perfect(task, np.zeros(len(fooled)))
    return scores


class MetricConformance:
    """One metric on one task that it is for."""

    def value(self, metric: type[Metric], target: Array, scores: Array) -> float:
        found = metric().value(target, scores)
        assert found is not None
        return found

    def test_it_is_found_by_its_name(self, metric: type[Metric], task: Task) -> None:
        assert METRICS[metric.name] is metric
        assert type(metrics.metric(metric.name, task)) is metric

    def test_perfect_scores_reach_the_better_bound(self, metric: type[Metric], task: Task) -> None:
        best = metric.bounds[1] if metric.greater_is_better else metric.bounds[0]
        target = outcomes(task)
        assert self.value(metric, target, perfect(task, target)) == pytest.approx(best, abs=1e-12)

    def test_more_mistakes_are_worse(self, metric: type[Metric], task: Task) -> None:
        target = outcomes(task)
        found = [self.value(metric, target, wrong(task, target, share)) for share in (0, 0.1, 0.3, 0.9)]
        assert found == sorted(found, reverse=metric.greater_is_better) and len(set(found)) == 4

    def test_it_stays_within_its_bounds(self, metric: type[Metric], task: Task) -> None:
        target = outcomes(task)
        scores = [unsure(task, target), *(wrong(task, target, share) for share in (0.5, 1.0))]
        if task == "regression":
            scores += [np.full(ROWS, 1e308), np.full(ROWS, -np.inf)]
        low, high = metric.bounds
        for one in scores:
            assert low <= self.value(metric, target, one) <= high

    def test_it_is_not_defined_for_no_rows(self, metric: type[Metric], task: Task) -> None:
        none = outcomes(task)[:0]
        assert metric().value(none, perfect(task, none)) is None

    def test_it_is_not_defined_where_something_is_missing(self, metric: type[Metric], task: Task) -> None:
        target = outcomes(task)
        scores = unsure(task, target)
        scores[3] = np.nan
        assert metric().value(target, scores) is None
        target[5] = np.nan
        assert metric().value(target, unsure(task, outcomes(task))) is None

    def test_what_it_says_of_outcomes_that_are_all_the_same(self, metric: type[Metric], task: Task) -> None:
        target = np.ones(ROWS)
        found = metric().value(target, unsure(task, target))
        assert (found is None) == metric.needs_variation

    def test_it_reads_scores_of_classes_as_it_says(self, metric: type[Metric], task: Task) -> None:
        if task == "regression":
            return
        target = outcomes(task)
        scores = unsure(task, target)
        halved = self.value(metric, target, scores / 2)
        assert (halved != self.value(metric, target, scores)) == metric.needs_probabilities

    def test_a_distance_grows_on_either_side(self, metric: type[Metric], task: Task) -> None:
        target = outcomes(task)
        if task == "multiclass":
            assert not metric.two_sided
            return
        found = [self.value(metric, target, perfect(task, target) + off) for off in (-0.2, 0.2)]
        if metric.two_sided:
            assert found == pytest.approx([0.2, 0.2])

    def test_it_leaves_its_inputs_alone(self, metric: type[Metric], task: Task) -> None:
        target = outcomes(task)
        scores = unsure(task, target)
        metric().value(target, scores)
        np.testing.assert_array_equal(target, outcomes(task))
        np.testing.assert_array_equal(scores, unsure(task, target))

    def test_losses_are_one_per_row_and_make_the_metric(self, metric: type[Metric], task: Task) -> None:
        found, target = metric(), outcomes(task)
        if not isinstance(found, LossMetric):
            return
        scores = unsure(task, target)
        losses = found.losses(target, scores)
        assert losses.shape == target.shape and (losses >= 0).all() and not found.greater_is_better
        same = np.full(ROWS, 7)
        assert found.value(target[same], scores[same]) == pytest.approx(found._of_mean(float(losses[7])))
