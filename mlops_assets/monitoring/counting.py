"""What the scores of one column are made of, counted batch after batch. Pure.

Belongs here: counts of a window's values at the places that its reference asks about. Does not belong here:
formulas (``detectors/``), what a score means (``drift.py``), where batches come from.

PSI and KL are made of counts in bins, and the KS distance of how many values lie below each value of the
reference's sample. All of these are whole numbers that add up, so a window that is counted in parts has
exactly the scores of one that is counted at once, and none of its values has to be kept.
"""

import numpy as np
from numpy.typing import NDArray

from mlops_assets.monitoring.reference import ColumnReference, Values, into_categories
from mlops_assets.monitoring.scores import Counts, category_counts, finite_sorted

Floats = NDArray[np.float64]

OTHERS_KEPT = 4
"""Names of categories without a bin that are remembered: those that come first in the alphabet."""


class NumberCounts:
    """Counts of a column of numbers.

    ``rows`` counts all of them, ``missing`` and ``infinite`` those without a value and without an end;
    ``lowest`` and ``highest`` are None where there is no value.
    """

    def __init__(self, column: ColumnReference) -> None:
        self.rows = self.missing = self.infinite = 0
        self.lowest: float | None = None
        self.highest: float | None = None
        self._learned = column.learned
        constant = column.learned.constant if column.learned else None
        self._constant = np.asarray([] if constant is None else [constant], dtype=np.float64)
        self._edges = np.union1d(
            np.union1d(np.asarray(column.cuts), np.asarray(column.sample)), self._constant
        )
        self._below = np.zeros(len(self._edges), dtype=np.int64)
        self._up_to = np.zeros(len(self._edges), dtype=np.int64)

    def add(self, values: Values) -> None:
        """Counts some of the column's values."""
        assert values.numbers is not None
        ordered, missing = finite_sorted(values.numbers)
        self.rows += len(values.numbers)
        self.missing += missing
        self.infinite += int(np.isinf(values.numbers).sum())
        if not len(ordered):
            return
        first, last = float(ordered[0]), float(ordered[-1])
        self.lowest = first if self.lowest is None else min(self.lowest, first)
        self.highest = last if self.highest is None else max(self.highest, last)
        self._below += np.searchsorted(ordered, self._edges, side="left")
        self._up_to += np.searchsorted(ordered, self._edges, side="right")

    @property
    def there(self) -> int:
        """Rows with a value."""
        return self.rows - self.missing

    @property
    def unlearned(self) -> int | None:
        """Rows with a value other than those the model was fitted to; None where those are not known."""
        if self._learned is None:
            return None
        if self._learned.empty:
            return self.there
        if not len(self._constant):
            return 0
        below, up_to = self.around(self._constant)
        return self.there - int(up_to[0] - below[0])

    def between(self, cuts: Floats) -> Counts:
        """As ``scores.counts_between``: how many values fall into each of the ``len(cuts) + 1`` bins."""
        ends = self._up_to[np.searchsorted(self._edges, cuts)]
        return np.diff(np.concatenate([[0], ends, [self.there]])).astype(np.int64)

    def around(self, points: Floats) -> tuple[Counts, Counts]:
        """How many values lie below each point, and how many up to it; points are cuts or of the sample."""
        places = np.searchsorted(self._edges, points)
        return self._below[places], self._up_to[places]


class CategoryCounts:
    """Counts of a column of categories: per bin, of all others, of the missing; some names of others."""

    def __init__(self, column: ColumnReference) -> None:
        self.rows = 0
        self.counts: Counts = np.zeros(len(column.categories) + 2, dtype=np.int64)
        self.others: list[str] = []
        self._categories = column.categories
        self._learned = column.learned
        self._unlearned = 0

    def add(self, values: Values) -> None:
        """Counts some of the column's values."""
        assert values.codes is not None
        codes = into_categories(values, self._categories)
        self.rows += len(codes)
        self.counts += category_counts(codes, len(self._categories))
        times = np.bincount(values.codes[values.codes >= 0], minlength=len(values.names))
        if self._learned is not None and self._learned.categories is not None:
            met = set(self._learned.categories)
            self._unlearned += sum(
                int(count) for name, count in zip(values.names, times, strict=True) if name not in met
            )
        known = set(self._categories)
        new = {name for name, count in zip(values.names, times, strict=True) if count and name not in known}
        self.others = sorted(new.union(self.others))[:OTHERS_KEPT]

    @property
    def unlearned(self) -> int | None:
        """Rows with a category that the model was not fitted to; None where those are not known."""
        return None if self._learned is None else self._unlearned
