"""Metrics by name, each with its direction. Pure.

Belongs here: one number from outcomes and scores. Does not belong here: comparing two models
(``compare.py``) or deciding (``gate.py``).

Every metric has an answer for every input: None where it is not defined (a window with one class has
no ROC curve, a score that is missing has no error), never 0.0, NaN or infinity. Numbers beyond 1e30 count as
that: an endless error is a large one, and its square can still be added up.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlops_assets.errors import UnknownName
from serve.schema import Task

Array = NDArray[np.float64]
EPSILON = 1e-15
LARGEST = 1e30


@dataclass(frozen=True)
class Metric:
    """One metric. ``losses`` gives one loss per row when the metric is their mean (None otherwise)."""

    name: str
    tasks: frozenset[Task]
    greater_is_better: bool
    value: Callable[[Array, Array], float | None]
    losses: Callable[[Array, Array], Array] | None = None
    meaning: str = ""


def roc_auc(target: Array, scores: Array) -> float | None:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties half.

    From rank sums (Mann and Whitney 1947). None when a class is missing.
    """
    positives = int(target.sum())
    negatives = len(target) - positives
    if positives == 0 or negatives == 0:
        return None
    ranks = _average_ranks(scores)
    rank_sum = float(ranks[target == 1].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def _average_ranks(scores: Array) -> Array:
    """Ranks from 1, equal scores sharing their mean rank."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    ends = np.concatenate([starts[1:], [len(scores)]])
    ranks = np.empty(len(scores))
    ranks[order] = np.repeat((starts + ends + 1) / 2, ends - starts)
    return ranks


def log_losses(target: Array, scores: Array) -> Array:
    """Negative log likelihood per row; scores of shape (n,) for binary, (n, classes) for multiclass."""
    if scores.ndim == 1:
        right = np.where(target == 1, scores, 1.0 - scores)
    else:
        right = scores[np.arange(len(target)), target.astype(np.int64)]
    return -np.log(np.clip(right, EPSILON, 1.0))


def brier_losses(target: Array, scores: Array) -> Array:
    """Squared error of the probability (Brier 1950)."""
    return (scores - target) ** 2


def squared_errors(target: Array, scores: Array) -> Array:
    """Squared error per row."""
    return (scores - target) ** 2


def absolute_errors(target: Array, scores: Array) -> Array:
    """Absolute error per row."""
    return np.abs(scores - target)


def skill(target: Array, scores: Array) -> float | None:
    """1 - log loss / entropy of the class shares of these very rows; 0: no better than knowing the shares.

    One minus the normalised entropy of He et al. (2014, "Practical lessons from predicting clicks on ads at
    Facebook"). A log loss moves with the share of positives whatever the model does, so it cannot be compared
    between months; this can. None when only one class occurs: there is nothing to know.
    """
    _, counts = np.unique(target, return_counts=True)
    if len(counts) < 2:
        return None
    shares = counts / counts.sum()
    return 1.0 + float(log_losses(target, scores).mean()) / float((shares * np.log(shares)).sum())


def bias(target: Array, scores: Array) -> float | None:
    """Distance of the mean score from the mean outcome: calibration in the large (Cox 1958)."""
    return abs(float(scores.mean()) - float(target.mean())) if len(target) else None


def expected_calibration_error(target: Array, scores: Array) -> float | None:
    """Mean gap between predicted and observed rate over 15 bins of equal size (Naeini et al. 2015)."""
    if not len(target):
        return None
    order = np.argsort(scores, kind="stable")
    bins = [part for part in np.array_split(order, 15) if len(part)]
    gaps = [abs(float(scores[part].mean() - target[part].mean())) * len(part) for part in bins]
    return float(sum(gaps) / len(target))


def calibration_noise(scores: Array, draws: int = 100) -> float:
    """Calibration error that a perfectly calibrated model with these scores shows by chance.

    The mean over outcomes drawn from the scores themselves (Bröcker and Smith 2007); seeded. With few
    rows it is large: 0.1 for a hundred rows is nothing to blame a model for.
    """
    random = np.random.default_rng(0)
    errors = [
        expected_calibration_error((random.random(len(scores)) < scores).astype(np.float64), scores)
        for _ in range(draws)
    ]
    return float(np.mean([error or 0.0 for error in errors]))


def accuracy(target: Array, scores: Array) -> float | None:
    """Share of rows whose highest score is the right class."""
    return float((scores.argmax(axis=1) == target).mean()) if len(target) else None


def macro_f1(target: Array, scores: Array) -> float | None:
    """F1 averaged over the classes that occur in outcomes or predictions."""
    predicted = scores.argmax(axis=1)
    values = []
    for label in np.union1d(target, predicted):
        hits = float(((predicted == label) & (target == label)).sum())
        values.append(2 * hits / float((predicted == label).sum() + (target == label).sum()))
    return float(np.mean(values)) if values else None


def r2(target: Array, scores: Array) -> float | None:
    """Share of variance explained; None when the outcomes do not vary."""
    total = float(((target - target.mean()) ** 2).sum()) if len(target) else 0.0
    return 1.0 - float(squared_errors(target, scores).sum()) / total if total > 0 else None


def _mean(losses: Callable[[Array, Array], Array]) -> Callable[[Array, Array], float | None]:
    return lambda target, scores: float(losses(target, scores).mean()) if len(target) else None


def _rmse(target: Array, scores: Array) -> float | None:
    return float(np.sqrt(squared_errors(target, scores).mean())) if len(target) else None


def _bounded(losses: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """The same of numbers that can be squared."""
    return lambda target, scores: losses(
        np.clip(target, -LARGEST, LARGEST), np.clip(scores, -LARGEST, LARGEST)
    )


def _defined(value: Callable[[Array, Array], float | None]) -> Callable[[Array, Array], float | None]:
    """The same of numbers that can be squared; None where one is missing, and for what is no number."""

    def defined(target: Array, scores: Array) -> float | None:
        if np.isnan(target).any() or np.isnan(scores).any():
            return None
        found = value(np.clip(target, -LARGEST, LARGEST), np.clip(scores, -LARGEST, LARGEST))
        return found if found is not None and math.isfinite(found) else None

    return defined


_BINARY: frozenset[Task] = frozenset({"binary"})
_MULTI: frozenset[Task] = frozenset({"multiclass"})
_CLASSES: frozenset[Task] = _BINARY | _MULTI
_REGRESSION: frozenset[Task] = frozenset({"regression"})

METRICS: dict[str, Metric] = {
    metric.name: replace(
        metric, value=_defined(metric.value), losses=_bounded(metric.losses) if metric.losses else None
    )
    for metric in (
        Metric("roc_auc", _BINARY, True, roc_auc, None, "ranking"),
        Metric("log_loss", _CLASSES, False, _mean(log_losses), log_losses, "probabilities"),
        Metric("brier", _BINARY, False, _mean(brier_losses), brier_losses, "probabilities"),
        Metric("skill", _CLASSES, True, skill, None, "probabilities"),
        Metric("bias", _BINARY | _REGRESSION, False, bias, None, "calibration"),
        Metric("calibration_error", _BINARY, False, expected_calibration_error, None, "calibration"),
        Metric("accuracy", _MULTI, True, accuracy),
        Metric("macro_f1", _MULTI, True, macro_f1),
        Metric("rmse", _REGRESSION, False, _rmse, squared_errors),
        Metric("mae", _REGRESSION, False, _mean(absolute_errors), absolute_errors),
        Metric("r2", _REGRESSION, True, r2),
    )
}

SELECTING: dict[Task, str] = {"binary": "log_loss", "multiclass": "log_loss", "regression": "rmse"}
"""The metric that selects and judges unless the declaration names another."""


def metric(name: str, task: Task) -> Metric:
    """The metric of that name; UnknownName lists those of the task."""
    allowed = {key for key, found in METRICS.items() if task in found.tasks}
    if name not in allowed:
        raise UnknownName(f"metric of task {task}", name, allowed)
    return METRICS[name]


def measure(task: Task, target: Array, scores: Array) -> dict[str, float | None]:
    """Every metric of the task, by name."""
    return {name: found.value(target, scores) for name, found in METRICS.items() if task in found.tasks}
