"""The share of the outcomes' variance that the scores explain."""

import math
from typing import ClassVar

from mlops_assets.evaluation.metrics._base import Array, Metric
from serve.schema import Task


class R2(Metric):
    """1: all of the variance; 0: no better than the mean; below 0: worse."""

    name: ClassVar[str] = "r2"
    tasks: ClassVar[frozenset[Task]] = frozenset({"regression"})
    greater_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "share of the variance"
    bounds: ClassVar[tuple[float, float]] = (-math.inf, 1.0)
    needs_variation: ClassVar[bool] = True

    def _value(self, target: Array, scores: Array) -> float | None:
        total = float(((target - target.mean()) ** 2).sum())
        return 1.0 - float(((scores - target) ** 2).sum()) / total if total > 0 else None
