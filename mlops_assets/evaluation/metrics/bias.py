"""How far the scores lie from the outcomes on average (Cox 1958)."""

import math
from typing import ClassVar

from mlops_assets.evaluation.metrics._base import Array, Metric
from serve.schema import Task


class Bias(Metric):
    """Distance of the mean score from the mean outcome: calibration in the large."""

    name: ClassVar[str] = "bias"
    tasks: ClassVar[frozenset[Task]] = frozenset({"binary", "regression"})
    greater_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = "unit of the outcome"
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    needs_probabilities: ClassVar[bool] = True
    two_sided: ClassVar[bool] = True

    def signed_value(self, target: Array, scores: Array) -> float | None:
        """Above zero where scores are too high."""
        distance = self.value(target, scores)
        return None if distance is None else math.copysign(distance, float(scores.mean() - target.mean()))

    def _value(self, target: Array, scores: Array) -> float | None:
        return abs(float(scores.mean()) - float(target.mean()))
