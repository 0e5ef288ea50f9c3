"""Columns that hold next to nothing, or too much: every statistic and every plot needs an answer for them.

Belongs here: the columns, by kind of feature. Does not belong here: what is expected of them (the tests).
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

Column = Callable[[int], pd.Series]


def _numbers(values: Callable[[int], np.ndarray]) -> Column:
    return lambda rows: pd.Series(values(rows), dtype=np.float64)


def _objects(values: Callable[[int], list[object]]) -> Column:
    return lambda rows: pd.Series(values(rows), dtype=object)


NUMBERS: dict[str, Column] = {
    "varied": _numbers(lambda rows: np.random.default_rng(rows).normal(size=rows)),
    "missing": _numbers(lambda rows: np.full(rows, np.nan)),
    "without a type": _objects(lambda rows: [None] * rows),
    "constant": _numbers(lambda rows: np.full(rows, 5.0)),
    "zero": _numbers(np.zeros),
    "one value": _numbers(lambda rows: np.array([3.0] + [np.nan] * (rows - 1))),
    "two values": _numbers(lambda rows: np.arange(rows) % 2.0),
    "infinite": _numbers(lambda rows: np.full(rows, np.inf)),
    "both infinities": _numbers(lambda rows: np.where(np.arange(rows) % 2, -np.inf, np.inf)),
    "largest": _numbers(lambda rows: np.where(np.arange(rows) % 2, 1.0, -1.0) * np.finfo(float).max),
    "smallest": _numbers(lambda rows: np.arange(rows) % 5 * 5e-324),
    "far and close": _numbers(lambda rows: 1e17 + 16 * (np.arange(rows) % 2)),
    "text": _objects(lambda rows: ["abc"] * rows),
}
CATEGORIES: dict[str, Column] = {
    "varied": _objects(lambda rows: ["abc"[number % 3] for number in range(rows)]),
    "missing": _objects(lambda rows: [None] * rows),
    "not a number": _numbers(lambda rows: np.full(rows, np.nan)),
    "one": _objects(lambda rows: ["a"] * rows),
    "another": _objects(lambda rows: ["z"] * rows),
    "empty text": _objects(lambda rows: [""] * rows),
    "all different": _objects(lambda rows: [f"c{number}" for number in range(rows)]),
    "one value": _objects(lambda rows: ["a"] + [None] * (rows - 1)),
}
BOOLEANS: dict[str, Column] = {
    "varied": _objects(lambda rows: [number % 2 == 0 for number in range(rows)]),
    "true": _objects(lambda rows: [True] * rows),
    "missing": _objects(lambda rows: [None] * rows),
}
ODD = {"number": NUMBERS, "category": CATEGORIES, "boolean": BOOLEANS}
"""{type of the feature: {what the column holds: the column of so many rows}}."""
