"""The uncertainty of any statistic of grouped rows. Pure.

Belongs here: the delete-a-group jackknife. Does not belong here: which statistic, what groups mean
(``compare.py``, ``monitoring/performance.py``).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

ROW_GROUPS = 40
MIN_GROUPS = 5

Rows = NDArray[np.bool_]


def dealt(rows: int) -> NDArray[np.int64]:
    """Group numbers for rows that do not vary together: dealt in turn into at most 40 groups."""
    return np.arange(rows) % ROW_GROUPS


def standard_error(
    statistic: Callable[[Rows], float | None], groups: NDArray[np.int64]
) -> tuple[float | None, int]:
    """(standard error, number of groups); the error is None with fewer than 5 groups.

    ``statistic`` takes a mask of the rows to keep. A group without which it is not defined leaves no error
    either (Efron and Stein 1981; Kott 2001). Student's t on (groups - 1) degrees of freedom goes with it.
    """
    values, count = without_each_group(statistic, groups)
    return None if values is None else error_of(values), count


def without_each_group(
    statistic: Callable[[Rows], float | None], groups: NDArray[np.int64]
) -> tuple[NDArray[np.float64] | None, int]:
    """(the statistic without each group, in ascending order of groups; number of groups).

    None instead of the values with fewer than 5 groups, or where one of the values is not defined.
    """
    names, codes = np.unique(groups, return_inverse=True)
    count = len(names)
    if count < MIN_GROUPS:
        return None, count
    left_out = [statistic(codes != code) for code in range(count)]
    values = np.array([value for value in left_out if value is not None])
    return (None if len(values) < count else values), count


def error_of(values: NDArray[np.float64]) -> float:
    """The standard error of a statistic, from its values without each group."""
    count = len(values)
    return float(np.sqrt((count - 1) / count * ((values - values.mean()) ** 2).sum()))


def pseudo_values(value: float, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each group by itself says of the statistic, from its ``value`` and those without each group.

    Their mean is the jackknife's estimate, and they are nearly independent (Tukey 1958).
    """
    count = len(values)
    return np.asarray(count * value - (count - 1) * values)
