"""The negative log likelihood of a row."""

import math
from typing import ClassVar

import numpy as np

from mlops_assets.evaluation.metrics._base import Array, LossMetric
from serve.schema import Task

EPSILON = 1e-15
"""The least probability that counts: a certain mistake costs 34.5."""


def log_losses(target: Array, scores: Array) -> Array:
    """Negative log likelihood per row; scores of shape (n,) for binary, (n, classes) for multiclass."""
    if scores.ndim == 1:
        right = np.where(target == 1, scores, 1.0 - scores)
    else:
        right = scores[np.arange(len(target)), target.astype(np.int64)]
    return -np.log(np.clip(right, EPSILON, 1.0))


class LogLoss(LossMetric):
    """Probabilities."""

    name: ClassVar[str] = "log_loss"
    tasks: ClassVar[frozenset[Task]] = frozenset({"binary", "multiclass"})
    unit: ClassVar[str] = "nats per row"
    bounds: ClassVar[tuple[float, float]] = (0.0, -math.log(EPSILON))
    needs_probabilities: ClassVar[bool] = True

    def _losses(self, target: Array, scores: Array) -> Array:
        return log_losses(target, scores)
