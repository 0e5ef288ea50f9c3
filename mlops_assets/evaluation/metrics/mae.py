"""The mean absolute error."""

import math
from typing import ClassVar

import numpy as np

from mlops_assets.evaluation.metrics._base import Array, LossMetric
from serve.schema import Task


class Mae(LossMetric):
    """Every mistake counts for what it is."""

    name: ClassVar[str] = "mae"
    tasks: ClassVar[frozenset[Task]] = frozenset({"regression"})
    unit: ClassVar[str] = "unit of the outcome"
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def _losses(self, target: Array, scores: Array) -> Array:
        return np.abs(scores - target)
