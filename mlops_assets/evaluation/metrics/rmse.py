"""The root of the mean squared error."""

import math
from typing import ClassVar

from mlops_assets.evaluation.metrics._base import Array, LossMetric
from serve.schema import Task


class Rmse(LossMetric):
    """A large mistake counts for more than several small ones. The loss of a row is its squared error."""

    name: ClassVar[str] = "rmse"
    tasks: ClassVar[frozenset[Task]] = frozenset({"regression"})
    unit: ClassVar[str] = "unit of the outcome"
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def _losses(self, target: Array, scores: Array) -> Array:
        return (scores - target) ** 2

    def _of_mean(self, mean: float) -> float:
        return math.sqrt(mean)
