"""Declared columns: which there are, of which type, and values brought into that type.

Belongs here: conforming a frame to a declaration, and saying exactly what does not fit. Does not belong
here: rules about values (``data/expectations.py``), what happens to a bad day (``data/validation.py``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

ColumnType = Literal["string", "integer", "number", "boolean", "timestamp", "date"]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Conformed:
    """A frame with exactly the declared columns, in declared order, and what did not fit.

    ``missing`` columns are absent from the frame. ``wrong`` says per column which rows hold a value
    that cannot be read as the declared type; the value is missing in the frame. ``examples`` has one
    such value per column.
    """

    frame: "pd.DataFrame"
    missing: tuple[str, ...]
    wrong: Mapping[str, Mask]
    examples: Mapping[str, str]


def conform(frame: "pd.DataFrame", columns: Mapping[str, ColumnType]) -> Conformed:
    """Values in their declared types; undeclared columns are dropped.

    string: text as it is. integer and number: also text that reads as one; number must be finite.
    boolean: also 0, 1, "true", "false". timestamp: UTC microseconds, a value without zone is taken as
    UTC. date: ``datetime.date``.
    """
    import pandas as pd

    converted: dict[str, Any] = {}
    wrong: dict[str, Mask] = {}
    examples: dict[str, str] = {}
    for name, kind in columns.items():
        if name not in frame.columns:
            continue
        values = frame[name]
        result = _CONVERT[kind](values)
        lost = (result.isna() & values.notna()).to_numpy(dtype=bool)
        if lost.any():
            wrong[name] = lost
            examples[name] = repr(values[lost].iloc[0])
        converted[name] = result
    return Conformed(
        frame=pd.DataFrame(converted, index=frame.index).reset_index(drop=True),
        missing=tuple(name for name in columns if name not in frame.columns),
        wrong=wrong,
        examples=examples,
    )


def _string(values: "pd.Series[Any]") -> "pd.Series[Any]":
    texts = values.astype(object)
    if values.dtype == object or str(values.dtype) in ("string", "str", "category"):
        is_text = texts.map(lambda value: isinstance(value, str), na_action="ignore").eq(True)
        return texts.mask(~is_text)
    return texts.mask(texts.notna())


def _integer(values: "pd.Series[Any]") -> "pd.Series[Any]":
    import pandas as pd

    if pd.api.types.is_bool_dtype(values.dtype):
        return pd.Series(pd.NA, index=values.index, dtype="Int64")
    if pd.api.types.is_integer_dtype(values.dtype):
        return values.astype("Int64") if values.hasnans else values.astype("int64")
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    whole = numbers.where(np.isfinite(numbers) & (numbers % 1 == 0) & (numbers.abs() < 2**53))
    return whole.astype("Int64") if whole.hasnans else whole.astype("int64")


def _number(values: "pd.Series[Any]") -> "pd.Series[Any]":
    import pandas as pd

    if pd.api.types.is_bool_dtype(values.dtype) or pd.api.types.is_datetime64_any_dtype(values.dtype):
        return pd.Series(np.nan, index=values.index)
    numbers = pd.to_numeric(values, errors="coerce").astype("Float64").to_numpy("float64", na_value=np.nan)
    return pd.Series(np.where(np.isfinite(numbers), numbers, np.nan), index=values.index)


def _boolean(values: "pd.Series[Any]") -> "pd.Series[Any]":
    import pandas as pd

    if not pd.api.types.is_bool_dtype(values.dtype):
        # 1 and 1.0 are the same key as True.
        meaning = {True: True, False: False, "true": True, "false": False}
        values = values.map(lambda value: meaning.get(value.lower() if isinstance(value, str) else value))
    values = values.astype("boolean")
    return values if values.hasnans else values.astype("bool")


def _timestamp(values: "pd.Series[Any]") -> "pd.Series[Any]":
    import pandas as pd

    if pd.api.types.is_numeric_dtype(values.dtype):
        # A bare number does not say its unit, and guessing nanoseconds puts every row in 1970.
        return pd.Series(pd.NaT, index=values.index, dtype="datetime64[us, UTC]")
    times = values
    if not pd.api.types.is_datetime64_any_dtype(values.dtype):
        times = pd.to_datetime(values, utc=True, errors="coerce", format="ISO8601")
    times = times.dt.tz_localize("UTC") if times.dt.tz is None else times.dt.tz_convert("UTC")
    return times.dt.as_unit("us")


def _date(values: "pd.Series[Any]") -> "pd.Series[Any]":
    times = _timestamp(values)
    return times.dt.date.astype(object).where(times.notna(), None)


_CONVERT: dict[ColumnType, Callable[["pd.Series[Any]"], "pd.Series[Any]"]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "timestamp": _timestamp,
    "date": _date,
}
