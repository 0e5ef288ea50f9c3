"""Which rows train and which rows judge, fold by fold. Pure.

Belongs here: index arrays. Does not belong here: the held-out evaluation window that the gate uses
(``training_set.py`` cuts it off before any fold is made).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlops_assets.errors import DataError

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Fold:
    """Positions of the rows to train on and of the rows to judge on."""

    train: Indices
    judge: Indices


def time_ordered(times: NDArray[np.datetime64], folds: int) -> list[Fold]:
    """Expanding folds: each judges on the next slice of time and trains on everything before it.

    The distinct days are cut into ``folds + 1`` slices of equal length; the first only trains. A day
    is never split, so no row is judged by a model that saw its own day. Raises DataError when there
    are fewer than ``folds + 1`` distinct days.
    """
    days = times.astype("datetime64[D]")
    distinct = np.unique(days)
    if len(distinct) < folds + 1:
        raise DataError(
            f"{folds} time-ordered folds need at least {folds + 1} days, there are {len(distinct)}; "
            "declare fewer folds, or materialise more partitions"
        )
    starts = [distinct[round(len(distinct) * k / (folds + 1))] for k in range(1, folds + 1)]
    ends = [*starts[1:], distinct[-1] + np.timedelta64(1, "D")]
    return [
        Fold(np.flatnonzero(days < start), np.flatnonzero((days >= start) & (days < end)))
        for start, end in zip(starts, ends, strict=True)
    ]


def newest_days(times: NDArray[np.datetime64], judged_days: int) -> Fold | None:
    """The fold that judges on the newest so many distinct days and trains on all before; None without any
    day before.
    """
    days = times.astype("datetime64[D]")
    distinct = np.unique(days)
    if len(distinct) <= judged_days:
        return None
    start = distinct[-judged_days]
    return Fold(np.flatnonzero(days < start), np.flatnonzero(days >= start))


def shuffled(target: NDArray[np.float64], folds: int, *, seed: int, stratified: bool) -> list[Fold]:
    """Seeded folds for rows without a time; ``stratified`` keeps the class shares. At least two folds."""
    folds = max(folds, 2)
    if len(target) < 2 * folds:
        raise DataError(
            f"{folds} folds need at least {2 * folds} rows, there are {len(target)}; declare fewer folds, or "
            "materialise more partitions"
        )
    order = np.random.default_rng(seed).permutation(len(target))
    if stratified:
        order = order[np.argsort(target[order], kind="stable")]
    part = np.empty(len(target), dtype=np.int64)
    part[order] = np.arange(len(target)) % folds
    return [Fold(np.flatnonzero(part != k), np.flatnonzero(part == k)) for k in range(folds)]
