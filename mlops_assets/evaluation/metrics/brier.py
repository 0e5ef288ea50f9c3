"""The squared error of a probability (Brier 1950)."""

from typing import ClassVar

from mlops_assets.evaluation.metrics._base import Array, LossMetric
from serve.schema import Task


class BrierScore(LossMetric):
    """Probabilities."""

    name: ClassVar[str] = "brier"
    tasks: ClassVar[frozenset[Task]] = frozenset({"binary"})
    unit: ClassVar[str] = "squared probability"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs_probabilities: ClassVar[bool] = True

    def _losses(self, target: Array, scores: Array) -> Array:
        return (scores - target) ** 2
