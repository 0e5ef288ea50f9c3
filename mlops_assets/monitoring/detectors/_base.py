"""What a detector is: a distance of two distributions, and what it is by chance.

Belongs here: the ABC and the counts it is given. Does not belong here: one distance (a file beside this one),
how a reference is resampled (``calibration.py``), what follows from a score (``drift.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlops_assets.monitoring.scores import Counts, Floats


@dataclass(frozen=True)
class Ordered:
    """Where the values of a window lie among those of the reference.

    ``sample``: the reference's values, ascending, or quantiles of them. ``below`` and ``up_to``: how many of
    the window's ``size`` values lie below each point of ``scores.distinct(sample)``, and how many up to it.
    """

    sample: Floats
    below: Counts
    up_to: Counts
    size: int


@dataclass(frozen=True)
class Compared:
    """One column of a window beside its reference: whole numbers that add up over batches.

    ``reference`` and ``window``: rows per bin, those with a missing value last. ``ordered`` is None for a
    column whose values have no order.
    """

    reference: Counts
    window: Counts
    ordered: Ordered | None = None


@dataclass(frozen=True)
class Resampled:
    """A reference and a window of it, drawn anew many times.

    ``reference`` and ``window`` (draws, k): rows per fine cell. The first ``present`` cells are of values in
    ascending order, those after it of others and of missing values. ``bins``: the first cell of each bin that
    ``Compared`` counts, ascending from 0. ``rough``: the largest share of rows in a cell that holds more than
    one value.
    """

    reference: Counts
    window: Counts
    bins: NDArray[np.intp]
    present: int
    rough: float

    @cached_property
    def binned(self) -> tuple[Counts, Counts]:
        """Both per bin of ``Compared``, shape (draws, bins)."""
        reference, window = (
            np.add.reduceat(counts, self.bins, axis=1) for counts in (self.reference, self.window)
        )
        return reference, window


class Chance(NamedTuple):
    """A gamma distribution with a place."""

    mean: float
    deviation: float
    skewness: float


class Detector(ABC):
    """A distance between a column of a window and of its reference: zero where they are the same, larger the
    further they are apart.

    Scores are made of counts only, so a window that was counted in batches has the score of its rows at once.
    A score that is not defined (there are no rows, or no values) is None or NaN, never zero.
    """

    name: ClassVar[str]
    """Its name in findings, metrics and pages."""
    decides: ClassVar[bool] = True
    """Whether it decides about a column. One that does not is shown only, and costs the others no level."""
    needs_order: ClassVar[bool] = False
    """Whether it is for numbers only."""
    smallest: ClassVar[float] = 0.0
    """The smallest distance that matters: no threshold lies below it, however large a window is."""

    @abstractmethod
    def score(self, compared: Compared) -> float | None:
        """The distance of the window from the reference."""

    @abstractmethod
    def by_chance(self, resampled: Resampled) -> Chance:
        """What the distance is, or a growing function of it (``from_chance``), between draws of one world."""

    def from_chance(self, values: Floats) -> Floats:
        """Distances from values of the distribution that ``by_chance`` gives; the same unless overridden."""
        return values

    def rows_that_count(self, rows: int, missing: int, usually_missing: float) -> int:
        """Rows of a window of which ``missing`` have no value, in the terms of the calibration.

        Windows are calibrated with as many missing values as the reference has (``usually_missing``, 0 to 1).
        """
        return rows


def moments(values: Floats) -> Chance:
    """The gamma distribution with the moments of the values (Satterthwaite 1946; the third by Solomon and
    Stephens 1977).
    """
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    if deviation <= 1e-12:
        return Chance(mean, 0.0, 0.0)
    skewness = float((((values - mean) / deviation) ** 3).mean())
    return Chance(mean, deviation, max(skewness, 0.0))


class BinnedDetector(Detector):
    """A divergence of the shares of bins: nearly a weighted sum of squared normals by chance."""

    divergence: ClassVar[Callable[[Counts, Counts], Floats]]
    """Of the reference's counts and the window's, over the last axis; leading axes broadcast."""

    def score(self, compared: Compared) -> float | None:
        return float(type(self).divergence(compared.reference, compared.window))

    def by_chance(self, resampled: Resampled) -> Chance:
        return moments(type(self).divergence(*resampled.binned))
