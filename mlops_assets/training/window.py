"""How far back the rows go that a candidate is trained on. Pure.

Belongs here: the windows that compete unless a document says others, the rows within one, what keeps one from
competing. Does not belong here: which window wins (``choice.py``), how far back a training set goes at all
(``training_set.py``: a window is a part of it).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlops_assets.training.folds import Fold
from serve.schema import Task

DEFAULT_WINDOWS: tuple[int | None, ...] = (None, 90, 28, 7)
"""Days; None is all history. Each is a third or a quarter of the one before, so that soon after a change one
of them holds little but what is true now. Beside the training on everything they cost little."""
FEWEST_ROWS = 50
"""What fewer rows teach cannot be told from chance."""


@dataclass(frozen=True)
class Outcomes:
    """What came of the rows of a training part: target and day number of each, (n,); no days without time."""

    target: NDArray[np.float64]
    days: NDArray[np.int64] | None


def window_name(days: int | None) -> str:
    """``all``, or days like ``90d``: as YAML says it."""
    return "all" if days is None else f"{days}d"


def within(days: NDArray[np.int64], window_days: int | None) -> NDArray[np.bool_]:
    """Which rows lie within so many calendar days up to the newest row; None: every row.

    ``days`` (n,): day numbers. Counted back from the newest row and not from today: a pause in the data
    empties no window.
    """
    if window_days is None or not len(days):
        return np.ones(len(days), dtype=bool)
    return np.asarray(days > days.max() - window_days)


def too_little(target: NDArray[np.float64], task: Task) -> str:
    """Why rows with these outcomes are too few for a window, in words; empty when they are enough."""
    if len(target) < FEWEST_ROWS:
        return f"{len(target)} rows, fewer than {FEWEST_ROWS}"
    if task != "regression" and len(np.unique(target)) < 2:
        return f"{len(target)} rows of one class"
    return ""


def out_of_the_running(
    window_days: int | None,
    others: Sequence[int | None],
    outcomes: Outcomes,
    *,
    newest: Fold | None,
    compared: bool,
    task: Task,
) -> str:
    """Why a window of a candidate cannot compete, in words; empty when it can. All history always can.

    ``others``: windows that the same candidate has beside it. ``outcomes``: of the training part.
    ``newest``: the fold on which windows are ``compared``, where there are several; None for too few days.
    """
    if window_days is None:
        return ""
    days, target = outcomes.days, outcomes.target
    if days is None:
        return "rows have no event time, so no days are counted"
    name = window_name(window_days)
    longer = [one for one in others if one is None or one > window_days]
    if longer and within(days, window_days).all():
        return f"all {len(days):,} training rows lie within {name}: the longer window is the same"
    found = too_little(target[within(days, window_days)], task)
    if found:
        return f"the newest {name} of the training part hold {found}"
    if not compared:
        return ""
    if newest is None:
        return f"{len(np.unique(days))} days of training rows are too few to compare windows on the newest"
    rows = newest.train[within(days[newest.train], window_days)]
    found = too_little(target[rows], task)
    return f"the {name} before the newest days, on which windows are compared, hold {found}" if found else ""
