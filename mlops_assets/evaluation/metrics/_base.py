"""What a metric is: one number from outcomes and scores. Pure.

Belongs here: the ABC, and what several metrics have in common. Does not belong here: one metric (a file
beside this one), comparing two models (``compare.py``), deciding (``gate.py``).
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from serve.schema import Task

Array = NDArray[np.float64]
LARGEST = 1e30
"""Numbers beyond it count as it: an endless error is a large one, and its square can still be added up."""


class Metric(ABC):
    """How good scores are, as one number.

    A metric that is not defined on some rows is None there, which leaves open what it is asked for: never
    0.0, NaN or infinity. No metric is defined on no rows, or where an outcome or a score is missing.
    """

    name: ClassVar[str]
    """What YAML, findings and pages call it."""
    tasks: ClassVar[frozenset[Task]]
    """What its models learn."""
    greater_is_better: ClassVar[bool]
    """The direction."""
    unit: ClassVar[str]
    """What one of it is, in words; "" for a plain number."""
    bounds: ClassVar[tuple[float, float]]
    """The least and the greatest value it can take; perfect scores reach the better one."""
    needs_probabilities: ClassVar[bool] = False
    """Whether scores of classes are read as probabilities; otherwise only their order counts."""
    needs_variation: ClassVar[bool] = False
    """Whether it is defined only where outcomes differ: not for one class, nor for one value."""
    two_sided: ClassVar[bool] = False
    """Whether it is a distance, from which scores can be wrong on either side."""

    def value(self, target: Array, scores: Array) -> float | None:
        """The metric of these rows, None where it is not defined.

        ``target`` (n,): 0 and 1, codes of classes, or numbers. ``scores``: probability of the positive class
        (n,), probabilities of all classes (n, classes), or numbers (n,).
        """
        if not len(target) or np.isnan(target).any() or np.isnan(scores).any():
            return None
        found = self._value(_bounded(target), _bounded(scores))
        return found if found is not None and math.isfinite(found) else None

    def signed_value(self, target: Array, scores: Array) -> float | None:
        """The same with the side on which scores are wrong; no other than ``value`` where there is none."""
        return self.value(target, scores)

    @abstractmethod
    def _value(self, target: Array, scores: Array) -> float | None:
        """The same of at least one row, with numbers that can be squared."""


class LossMetric(Metric):
    """A metric of one loss per row: their mean, or what ``_of_mean`` makes of it."""

    greater_is_better: ClassVar[bool] = False

    def losses(self, target: Array, scores: Array) -> Array:
        """The loss of each row (n,); NaN where an outcome or a score is missing."""
        return self._losses(_bounded(target), _bounded(scores))

    @abstractmethod
    def _losses(self, target: Array, scores: Array) -> Array:
        """The same of numbers that can be squared."""

    def _value(self, target: Array, scores: Array) -> float | None:
        return self._of_mean(float(self._losses(target, scores).mean()))

    def _of_mean(self, mean: float) -> float:
        return mean


def _bounded(numbers: Array) -> Array:
    return np.clip(numbers, -LARGEST, LARGEST)
