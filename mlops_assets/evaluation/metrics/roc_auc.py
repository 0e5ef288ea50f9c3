"""The area under the ROC curve."""

from typing import ClassVar

import numpy as np

from mlops_assets.evaluation.metrics._base import Array, Metric
from serve.schema import Task


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


class RocAuc(Metric):
    """Ranking."""

    name: ClassVar[str] = "roc_auc"
    tasks: ClassVar[frozenset[Task]] = frozenset({"binary"})
    greater_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "probability"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs_variation: ClassVar[bool] = True

    def _value(self, target: Array, scores: Array) -> float | None:
        return roc_auc(target, scores)
