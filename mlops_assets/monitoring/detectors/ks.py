"""The Kolmogorov-Smirnov distance.

By chance it is the maximum of a nearly Gaussian process, whose square has an exponential tail with twice the
largest variance of the process as its scale (Marcus and Shepp 1972); the draws place it. For independent rows
that is Smirnov's own tail.
"""

from typing import ClassVar

import numpy as np

from mlops_assets.monitoring.detectors._base import Chance, Compared, Detector, Resampled
from mlops_assets.monitoring.scores import Counts, Floats, distinct

_ANCHOR = 0.9
"""The quantile of the draws at which the tail of KS is placed: a hundred of a thousand draws lie above it."""
_STEP = 0.5826
"""A process seen at steps misses this many standard deviations of a step of its maximum (Siegmund 1985)."""


def ks(reference: Floats, current: Floats) -> float | None:
    """Largest distance of the two empirical distribution functions (Smirnov 1939); None if either is empty.

    Both are sorted and without NaN. The cost is that of looking up the reference's values in the current.
    """
    points = distinct(reference)
    below = np.searchsorted(current, points, side="left").astype(np.int64)
    up_to = np.searchsorted(current, points, side="right").astype(np.int64)
    return ks_of_counts(reference, below, up_to, len(current))


def ks_of_counts(reference: Floats, below: Counts, up_to: Counts, size: int) -> float | None:
    """``ks`` of a sample of ``size`` values, by how many of them lie below each point of
    ``distinct(reference)`` and how many up to it.
    """
    if not len(reference) or not size:
        return None
    points = distinct(reference)
    # Between two points of the reference its function is flat and the other only rises, so the distance is
    # largest at a point or just before one.
    before = np.searchsorted(reference, points, side="left") / len(reference)
    at = np.searchsorted(reference, points, side="right") / len(reference)
    return float(max(np.abs(before - below / size).max(), np.abs(at - up_to / size).max()))


class Ks(Detector):
    """Decides, of numbers. Only rows with a value count."""

    name: ClassVar[str] = "ks"
    needs_order: ClassVar[bool] = True
    # Five of a hundred rows elsewhere; of normal values, a shift of an eighth of a standard deviation.
    smallest: ClassVar[float] = 0.05

    def score(self, compared: Compared) -> float | None:
        seen = compared.ordered
        return None if seen is None else ks_of_counts(seen.sample, seen.below, seen.up_to, seen.size)

    def by_chance(self, resampled: Resampled) -> Chance:
        present = resampled.present
        return _distance_tail(
            resampled.reference[:, :present], resampled.window[:, :present], resampled.rough
        )

    def from_chance(self, values: Floats) -> Floats:
        return np.sqrt(values)

    def rows_that_count(self, rows: int, missing: int, usually_missing: float) -> int:
        return rows if usually_missing >= 1 else round((rows - missing) / (1 - usually_missing))


def _distance_tail(reference: Counts, current: Counts, rough: float) -> Chance:
    """Mean, deviation and skewness of a displaced exponential distribution of the squared distance."""
    held, drawn = reference.sum(axis=1, keepdims=True), current.sum(axis=1, keepdims=True)
    with_values = ((held > 0) & (drawn > 0))[:, 0]
    if not with_values.any():
        return Chance(0.0, 0.0, 2.0)
    held, drawn = held[with_values], drawn[with_values]
    between = (
        np.cumsum(current[with_values], axis=1) / drawn - np.cumsum(reference[with_values], axis=1) / held
    )
    unseen = _STEP * np.sqrt(rough * (1 / held + 1 / drawn))[:, 0]
    squared = (np.abs(between).max(axis=1) + unseen) ** 2
    scale = 2 * float(between.var(axis=0).max())
    place = float(np.quantile(squared, _ANCHOR)) + scale * np.log(1 - _ANCHOR)
    return Chance(place + scale, scale, 2.0)
