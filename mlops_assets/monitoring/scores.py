"""Bins of a column and counts in them: what every detector's score is made of. Pure numpy.

Belongs here: bins of a reference, counts in them, its sample. Does not belong here: the scores
(``detectors/``), which columns there are (``reference.py``, ``drift.py``).

Bins are fixed by the reference, so that scores of different windows can be compared, and the outer two have
no end: a single value of a million moves one row into the last bin and nothing else.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

BINS = 10
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
