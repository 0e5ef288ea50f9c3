"""How large a score gets by chance: the null distribution of each statistic at the size of a window. Pure.

Belongs here: resampling a reference, the tail of the resampled scores, the threshold at a level. Does not
belong here: the scores themselves and their tails (``detectors/``), how a level is shared by columns
(``drift.py``).

A score between a window and its reference is never zero, and how far from zero it lies by chance depends on
the rows of the window, on the bins, and on how much whole days differ: rows of one day share weather and
promotions. So the reference is compared with itself, many times over. A window of w days is w of its days,
drawn with replacement, thinned to the window's rows; the reference is drawn anew as well, as many days as
it has, because it is a sample too (a two-sample bootstrap of clusters: Davison and Hinkley 1997, section
3.8). A window of whole weeks has as many Mondays as Sundays, so days are drawn weekday by weekday once there
are enough weeks. Without days, rows are drawn. Days are drawn one by one: that a storm lasts two of them, or
that a season moves on, is not chance here but a difference from the reference.

Levels are small (0.01 shared by eighty tests), far beyond what a thousand draws show. So the tail is that of
a gamma distribution with a place, which each detector fits to the draws. PSI and KL are nearly weighted sums
of squared normals and have their mean, variance and skewness (Satterthwaite 1946; for clustered samples Rao
and Scott 1984; the third moment is Solomon and Stephens 1977); ``detectors/ks.py`` describes the tail of KS.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mlops_assets.monitoring.detectors import DETECTORS, Chance, Resampled, detectors
from mlops_assets.monitoring.scores import Counts, Floats
from serve.schema import Document

SIZES = (100, 300, 1_000, 3_000, 10_000, 30_000)
DRAWS = 1_000
CELLS = 128
"""Cells on which the distance of distribution functions is followed."""
MIN_GROUPS = 5
"""Fewer days do not show how days differ; their rows are taken as independent."""
WEEK, MIN_WEEKS = 7, 8
"""Under eight weeks, too few days of each weekday are known to draw weekday by weekday."""


class NullDistribution(Document):
    """What a statistic is by chance at several sizes: mean, deviation and skewness of a gamma distribution.

    Of a function of the statistic, where its detector says so.
    """

    statistic: str = Field(description="Name of the detector.")
    sizes: tuple[int, ...] = Field(description="Rows of the window, ascending.")
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    skewness: tuple[float, ...]

    def threshold(self, rows: int, level: float) -> float:
        """The value that the statistic exceeds by chance with probability ``level`` in a window of that size.

        Interpolated in the logarithms of both; below the smallest size the line goes on, above the largest
        the threshold stays what it is there.
        """
        from scipy.stats import pearson3

        at = np.maximum(
            0.0,
            np.asarray(self.mean)
            + np.asarray(self.deviation) * pearson3.isf(level, np.asarray(self.skewness)),
        )
        at = DETECTORS[self.statistic]().from_chance(at)
        return _interpolated(np.asarray(self.sizes, dtype=np.float64), at, max(rows, 1))


def _interpolated(sizes: Floats, values: Floats, rows: int) -> float:
    if rows >= sizes[-1] or len(sizes) == 1:
        return float(values[-1])
    right = max(int(np.searchsorted(sizes, rows)), 1)
    low, high = values[right - 1], values[right]
    part = np.log(rows / sizes[right - 1]) / np.log(sizes[right] / sizes[right - 1])
    if low <= 0 or high <= 0:
        return float(max(low + part * (high - low), 0.0))
    return float(np.exp(np.log(low) + part * np.log(high / low)))


@dataclass(frozen=True)
class DayBootstrap:
    """Draws of whole days: the day number of each line of cells, and how many days a window lasts."""

    numbers: NDArray[np.int64]
    window: int

    def draw(self, random: np.random.Generator, cells: Counts, count: int, draws: int) -> Counts:
        """The rows per cell of ``count`` drawn days together, shape (draws, k), ``draws`` times."""
        strata = [np.flatnonzero(self.numbers % WEEK == one) for one in range(WEEK)]
        if count % WEEK or self.window % WEEK or min(len(one) for one in strata) < MIN_WEEKS:
            strata = [np.arange(len(self.numbers))]
        drawn = np.zeros((draws, cells.shape[1]))
        expected = np.zeros(cells.shape[1])
        for days in strata:
            share = count // len(strata)
            times = random.multinomial(share, np.full(len(days), 1 / len(days)), size=draws)
            # Of whole numbers below 2**53 floats give the same sums, and numpy multiplies them a lot faster.
            drawn += times.astype(np.float64) @ cells[days].astype(np.float64)
            expected += share * cells[days].mean(axis=0)
        # Draws from k days vary by (k - 1) / k of what days vary.
        smallest = min(len(days) for days in strata)
        wider = expected + np.sqrt(smallest / (smallest - 1)) * (drawn - expected)
        return np.maximum(np.rint(wider), 0).astype(np.int64)


@dataclass(frozen=True)
class FineCells:
    """One column of a reference, counted in cells that are finer than its bins.

    ``rows`` (days, k): rows of each day in each cell. The first ``present`` cells are of values in ascending
    order, those after it of others and of missing values. ``bins``: the first cell of each bin that PSI and
    KL count, ascending from 0. ``rough``: the largest share of rows in a cell that holds more than one value
    (0: none does). ``ordered``: whether the column's values have an order.
    """

    rows: Counts
    bins: NDArray[np.intp]
    present: int = 0
    rough: float = 0.0
    ordered: bool = False


def calibrate(
    column: FineCells,
    *,
    days: DayBootstrap | None,
    seed: int,
    draws: int = DRAWS,
    sizes: Sequence[int] = SIZES,
) -> tuple[NullDistribution, ...]:
    """The null distribution of each detector; those that need an order only where the column has one.

    ``days`` has the day of each line of cells; None when rows are independent, and then there is one line.
    """
    cells = column.rows
    random = np.random.default_rng(seed)
    rows = int(cells.sum())
    chosen = set(sizes)
    current: Counts | None = None
    if days is None:
        reference = random.multinomial(rows, cells[0] / rows, size=draws)
    else:
        whole = len(cells) - len(cells) % WEEK if len(cells) >= WEEK else len(cells)
        reference = days.draw(random, cells, whole, draws)
        current = days.draw(random, cells, days.window, draws)
        # A window of that many days usually has this many rows: most thresholds are needed at this size.
        chosen.add(max(round(rows / len(cells) * days.window), 1))
    used = detectors(ordered=column.ordered)
    found: dict[str, list[Chance]] = {one.name: [] for one in used}
    ascending = sorted(chosen)
    for size in reversed(ascending):
        if current is None:
            drawn = random.multinomial(size, cells[0] / rows, size=draws)
        else:
            drawn = current = _thinned(random, current, size)
        resampled = Resampled(reference, drawn, column.bins, column.present, column.rough)
        for one in used:
            found[one.name].append(one.by_chance(resampled))
    nulls = []
    for name, at in found.items():
        mean, deviation, skewness = zip(*reversed(at), strict=True)
        nulls.append(
            NullDistribution(
                statistic=name,
                sizes=tuple(ascending),
                mean=mean,
                deviation=deviation,
                skewness=skewness,
            )
        )
    return tuple(nulls)


def _thinned(random: np.random.Generator, counts: Counts, size: int) -> Counts:
    """About ``size`` of each draw's rows, every row with the same chance; all where there are no more."""
    total = counts.sum(axis=1, keepdims=True)
    share = np.minimum(1.0, size / total)
    if (share == 1.0).all():
        return counts
    thinned = random.binomial(counts, share)
    # An empty window has no score.
    empty = thinned.sum(axis=1) == 0
    thinned[empty] = counts[empty]
    return thinned
