"""How often the most likely class is the right one."""

from typing import ClassVar

from mlops_assets.evaluation.metrics._base import Array, Metric
from serve.schema import Task


class Accuracy(Metric):
    """Share of rows whose highest score is the right class."""

    name: ClassVar[str] = "accuracy"
    tasks: ClassVar[frozenset[Task]] = frozenset({"multiclass"})
    greater_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "share of the rows"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def _value(self, target: Array, scores: Array) -> float | None:
        return float((scores.argmax(axis=1) == target).mean())
