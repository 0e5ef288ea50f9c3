"""The baseline every model must beat: what one would say knowing only the training outcomes. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serve.schema import Task

Array = NDArray[np.float64]


def baseline_scores(task: Task, train_target: Array, rows: int, classes: int) -> Array:
    """Scores for ``rows`` rows that see no feature: base rate, class shares, or mean of the training part.

    Shape (rows,), or (rows, classes) for multiclass.
    """
    return constant_scores(task, baseline_answer(task, train_target, classes), rows)


def baseline_answer(task: Task, train_target: Array, classes: int) -> tuple[float, ...]:
    """What the baseline says of every row: (base rate,), (mean,), or the share of each class."""
    if task == "multiclass":
        counts = np.bincount(train_target.astype(np.int64), minlength=classes)
        return tuple(float(share) for share in counts / len(train_target))
    return (float(train_target.mean()),)


def constant_scores(task: Task, answer: Sequence[float], rows: int) -> Array:
    """The same answer for each of so many rows, as scores of the task."""
    return np.tile(np.asarray(answer), (rows, 1)) if task == "multiclass" else np.full(rows, answer[0])


def describe_baseline(task: Task, train_target: Array) -> str:
    """What the baseline says, in words."""
    if task == "binary":
        return f"the base rate {train_target.mean():.3f}"
    return (
        "the class shares of the training part"
        if task == "multiclass"
        else f"the mean {train_target.mean():.4g}"
    )
