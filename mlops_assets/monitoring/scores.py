"""PSI, KL divergence and the Kolmogorov-Smirnov distance of a column: formulas and bins. Pure numpy.

Belongs here: bins of a reference, counts in them, one number from two samples. Does not belong here: which
value is too large (``calibration.py``), which columns there are (``reference.py``, ``drift.py``).

Bins are fixed by the reference, so that scores of different windows can be compared, and the outer two have
no end: a single value of a million moves one row into the last bin and nothing else.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

BINS = 10
EMPTY_SHARE = 1e-4
"""What an empty bin of a large sample counts as, so that logarithms are finite. Evidently takes the same."""
SAMPLE = 2_000
LARGEST = 1e308


def finite_sorted(values: Floats) -> tuple[Floats, int]:
    """The values that are there, ascending, and how many were missing (NaN).

    Infinite values become 1e308: they keep their order, and JSON can hold them.
    """
    there = values[~np.isnan(values)]
    missing = len(values) - len(there)
    there = np.clip(there, -LARGEST, LARGEST)
    there.sort()
    return there, missing


def quantile_cuts(ordered: Floats, bins: int = BINS) -> Floats:
    """Ascending cuts between ``bins`` bins of equal size; fewer where values are tied.

    ``ordered`` is sorted and without NaN. Bin 0 holds values up to and including the first cut, the last bin
    those above the last cut. A value that fills more than one bin gets a bin of its own: a cut at it and one
    at the next smaller number, so that a constant column notices values on either side.
    """
    if not len(ordered):
        return np.empty(0)
    places = (np.arange(bins + 1) / bins * (len(ordered) - 1)).astype(np.int64)
    marks = ordered[places]
    inner, repeated = np.unique(marks[1:-1]), marks[1:][marks[1:] == marks[:-1]]
    below = np.nextafter(repeated, -np.inf)
    return np.union1d(np.union1d(inner, repeated), below)


def counts_between(ordered: Floats, cuts: Floats) -> Counts:
    """How many of the sorted values fall into each of the ``len(cuts) + 1`` bins."""
    ends = np.searchsorted(ordered, cuts, side="right")
    return np.diff(np.concatenate([[0], ends, [len(ordered)]])).astype(np.int64)


def quantile_sample(ordered: Floats, size: int = SAMPLE) -> Floats:
    """The sorted values themselves if they are at most ``size``, else that many of their quantiles."""
    if len(ordered) <= size:
        return ordered
    places = ((np.arange(size) + 0.5) / size * len(ordered)).astype(np.int64)
    return ordered[places]


def psi(reference: Counts, current: Counts) -> Floats:
    """Population stability index in nats: sum of (c - r) ln(c / r) over the shares of bins (the last axis).

    Siddiqi 2006; the symmetric divergence of Jeffreys 1946. An empty bin counts as half a row or as 0.01 %,
    whichever is more, but never as more than the other sample has there: in a small window an empty
    bin is no news, and a bin that is empty in both is none at all. Leading axes broadcast. NaN where
    either has no rows.
    """
    theirs, ours = _shares(reference, current)
    return np.asarray(((ours - theirs) * np.log(ours / theirs)).sum(axis=-1))


def kl(reference: Counts, current: Counts) -> Floats:
    """Kullback-Leibler divergence of the current bins from the reference's, D(reference || current), in nats.

    Kullback and Leibler 1951, in Evidently's direction; empty bins as in ``psi``. Leading axes broadcast.
    NaN where either has no rows.
    """
    theirs, ours = _shares(reference, current)
    ours = ours / ours.sum(axis=-1, keepdims=True)
    theirs = theirs / theirs.sum(axis=-1, keepdims=True)
    return np.asarray((theirs * np.log(theirs / ours)).sum(axis=-1))


def _shares(reference: Counts, current: Counts) -> tuple[Floats, Floats]:
    rows = [counts.sum(axis=-1, keepdims=True) for counts in (reference, current)]
    with np.errstate(invalid="ignore", divide="ignore"):
        theirs, ours = reference / rows[0], current / rows[1]
        least = [np.maximum(EMPTY_SHARE, 0.5 / one) for one in rows]
    filled = [
        np.where(own == 0.0, np.where(other > 0.0, np.minimum(floor, other), EMPTY_SHARE), own)
        for own, other, floor in ((theirs, ours, least[0]), (ours, theirs, least[1]))
    ]
    return filled[0], filled[1]


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


def distinct(ordered: Floats) -> Floats:
    """The different values among sorted ones."""
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def category_counts(codes: Counts, categories: int) -> Counts:
    """Counts per category, then of all others, then of the missing.

    ``codes`` (n,): 0 to ``categories`` - 1, ``categories`` for any other value, -1 for a missing one.
    """
    return np.bincount(np.where(codes < 0, categories + 1, codes), minlength=categories + 2).astype(np.int64)


def most_frequent(names: Sequence[str], counts: Counts, most: int) -> tuple[str, ...]:
    """At most ``most`` names, the most frequent first, equally frequent ones by name."""
    ranked = sorted(zip(names, counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    return tuple(name for name, _ in ranked[:most])
