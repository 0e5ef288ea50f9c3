"""How well every class is found, rare ones as much as frequent ones."""

from typing import ClassVar

import numpy as np

from mlops_assets.evaluation.metrics._base import Array, Metric
from serve.schema import Task


class MacroF1(Metric):
    """F1 averaged over the classes that occur in outcomes or predictions."""

    name: ClassVar[str] = "macro_f1"
    tasks: ClassVar[frozenset[Task]] = frozenset({"multiclass"})
    greater_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = ""
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def _value(self, target: Array, scores: Array) -> float | None:
        predicted = scores.argmax(axis=1)
        values = []
        for label in np.union1d(target, predicted):
            hits = float(((predicted == label) & (target == label)).sum())
            values.append(2 * hits / float((predicted == label).sum() + (target == label).sum()))
        return float(np.mean(values))
