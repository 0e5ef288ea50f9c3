"""Declared columns: which there are, of which type, and values brought into that type.

Belongs here: conforming rows to a declaration, saying exactly what does not fit, and the one way between
data frames and typed tables. Does not belong here: which value fits which type (``data/conversion.py``),
rules about values (``data/expectations.py``), what happens to a bad day (``data/validation.py``).
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mlops_assets.data.conversion import (
    LARGEST,
    SMALLEST,
    ColumnType,
    Converted,
    a_,
    arrow_type,
    convert,
)
from mlops_assets.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = [
    "ColumnType",
    "Conformed",
    "Misfit",
    "column_schema",
    "conform",
    "frame_of",
    "type_name",
    "typed_table",
]

Mask = NDArray[np.bool_]
SHOWN = 80
"""Characters of a value that an error shows."""
_NOT_ARROW = (ValueError, TypeError, OverflowError, NotImplementedError)
"""What making an Arrow array raises; Arrow's own errors are among these."""


@dataclass(frozen=True)
class Misfit:
    """Values of one column that do not fit its type: which rows, why, and ``shown(row)``, one as text."""

    rows: Mask
    reason: str
    shown: Callable[[int], str]

    @property
    def example(self) -> str:
        """The first of them as text."""
        return self.shown(int(np.argmax(self.rows)))

    def of(self, wanted: Mask) -> "Misfit | None":
        """The same for the rows where ``wanted`` is true, numbered anew; None when they all fit."""
        rows, positions = self.rows[wanted], np.flatnonzero(wanted)
        return Misfit(rows, self.reason, lambda row: self.shown(int(positions[row]))) if rows.any() else None


@dataclass(frozen=True)
class Conformed:
    """A frame with exactly the declared columns, in declared order, and what did not fit.

    ``missing`` columns are absent from the frame. ``misfits`` says per column which values cannot be read as
    the declared type; they are missing in the frame.
    """

    frame: "pd.DataFrame"
    missing: tuple[str, ...]
    misfits: Mapping[str, Misfit]

    def of(self, rows: Mask) -> "Conformed":
        """The same of these rows alone."""
        misfits = {name: misfit.of(rows) for name, misfit in self.misfits.items()}
        return Conformed(
            frame=self.frame[rows].reset_index(drop=True),
            missing=self.missing,
            misfits={name: misfit for name, misfit in misfits.items() if misfit is not None},
        )


def conform(
    rows: "pa.Table | pd.DataFrame", columns: Mapping[str, ColumnType], *, computed: bool = False
) -> Conformed:
    """Values in their declared types, as ``frame_of`` gives them; undeclared columns are dropped.

    What fits is kept to the last digit, and what does not is named (``docs/types.md``). Of ``computed`` rows
    no text is a number. Raises DataError for a column whose values cannot even be looked at.
    """
    import pyarrow as pa

    names = list(rows.column_names) if isinstance(rows, pa.Table) else list(rows.columns)
    converted: dict[str, pa.Array[Any]] = {}
    misfits: dict[str, Misfit] = {}
    for name, kind in columns.items():
        if name not in names:
            continue
        source: Any = rows.column(name).combine_chunks() if isinstance(rows, pa.Table) else rows[name]
        try:
            made = convert(source, kind) if isinstance(rows, pa.Table) else _convert_series(source, kind)
            if computed and kind in _COMPUTED and made.values.null_count < len(made.values):
                made = _without_text(source, made, kind)
        except Exception as error:  # what an object of a transform raises when it is looked at
            raise DataError(
                f"Column {name!r} cannot be read as {a_(kind)}: {type(error).__name__}: {error}"
            ) from error
        converted[name] = made.values
        if made.refused.any():
            misfits[name] = Misfit(made.refused, made.reason, partial(_shown, source))
    return Conformed(
        frame=frame_of(pa.table(converted)) if converted else _without_columns(len(rows)),
        missing=tuple(name for name in columns if name not in names),
        misfits=misfits,
    )


_COMPUTED = ("integer", "number", "boolean")


def _without_text(source: "pd.Series[Any]", made: Converted, kind: ColumnType) -> Converted:
    """The same without the values that were text: '12' times two is '1212', which reads as a number too."""
    import pyarrow.compute as pc

    held = source.cat.categories.dtype if hasattr(source, "cat") else source.dtype
    if not str(held).startswith(("object", "str", "string", "large_string")):
        return made
    text = np.array([isinstance(value, str) for value in source], dtype=bool)
    if not text.any():
        return made
    reason = (
        f"{a_(kind)} that a transform computes is not text, which does not add up; convert the column in the "
        "transform. In a CSV file one value that reads as nothing else makes a whole column text: say what "
        "it means (null_values)"
    )
    return Converted(pc.if_else(text, None, made.values), made.refused | text, reason)


def column_schema(columns: Mapping[str, ColumnType]) -> "pa.Schema":
    """The declared columns as an Arrow schema: what a table of them holds, in the lake as well."""
    import pyarrow as pa

    return pa.schema([(name, arrow_type(kind)) for name, kind in columns.items()])


def type_name(held: "pa.DataType") -> str:
    """The declared type that an Arrow type holds, or Arrow's own name for it."""
    for kind in get_args(ColumnType):
        if str(held) == str(arrow_type(kind)):
            return str(kind)
    return str(held)


def typed_table(frame: "pd.DataFrame", schema: "pa.Schema") -> "pa.Table":
    """The frame's columns of ``schema``, in exactly its types; a column without a value has its type too.

    Raises DataError for a column that the frame lacks, and for values that would not be kept as they are.
    """
    import pyarrow as pa

    absent = [name for name in schema.names if name not in frame.columns]
    if absent:
        raise DataError(
            f"Columns {absent} are not in the rows. There are: {', '.join(map(str, frame.columns))}."
        )
    arrays = []
    for field in schema:
        try:
            values = pa.Array.from_pandas(frame[field.name], type=field.type, safe=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
            raise DataError(
                f"Column {field.name!r} holds values of type {frame[field.name].dtype} that are not kept as "
                f"{field.type}: {error}"
            ) from error
        arrays.append(values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values)
    return pa.Table.from_arrays(arrays, schema=schema)


def frame_of(table: "pa.Table") -> "pd.DataFrame":
    """A table as a data frame that holds every value as it is; index 0..n-1.

    Integers and booleans with missing values are pandas' nullable types, so that they stay integers and
    booleans; timestamps keep their unit and zone, dates and decimals are Python's, text is ``object``, and so
    are values of several types in one column.
    """
    import pandas as pd
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for name, chunks in zip(table.column_names, table.columns, strict=True):
        source = chunks.type
        if pa.types.is_dictionary(source):
            chunks, source = chunks.cast(source.value_type), source.value_type
        if pa.types.is_union(source):
            columns[name] = pd.Series(chunks.to_pylist(), dtype=object)
        elif chunks.null_count and pa.types.is_integer(source):
            dtype = pd.api.types.pandas_dtype(str(source).replace("i", "I", 1).replace("uI", "UI"))
            columns[name] = chunks.to_pandas(types_mapper=lambda _, dtype=dtype: dtype).astype(dtype)
        elif chunks.null_count and pa.types.is_boolean(source):
            columns[name] = chunks.to_pandas(types_mapper=lambda _: pd.BooleanDtype())
        else:
            columns[name] = chunks.to_pandas()
    return pd.DataFrame(columns, index=range(table.num_rows))


def _without_columns(rows: int) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(index=range(rows))


def _shown(source: Any, row: int) -> str:
    try:
        value = source[row].as_py() if hasattr(source, "type") else source.iloc[row]
    except (OverflowError, ValueError):  # times that Python has no value for
        return f"{source[row].value} as {source.type}"
    shown = repr(value) if isinstance(value, (str, bytes)) else str(value)
    return shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 3]}..."


def _convert_series(values: "pd.Series[Any]", kind: ColumnType) -> Converted:
    """A pandas column of any dtype; one of Python objects is converted type by type."""
    import pandas as pd
    import pyarrow as pa

    if values.dtype != object:
        if isinstance(values.dtype, pd.SparseDtype):
            values = pd.Series(np.asarray(values), index=values.index)
        try:
            array = pa.array(values, from_pandas=True)
        except _NOT_ARROW:
            # What Arrow has no type for (complex numbers) is none of the declared types either.
            return _refused(values.notna().to_numpy(dtype=bool), kind, f"a {values.dtype} value")
        return convert(array, kind)
    present = values.notna().to_numpy(dtype=bool)
    found = values.to_numpy()
    kinds = list(dict.fromkeys(map(type, found[present])))
    numbers = {one: number for number, one in enumerate(kinds)}
    of_row = np.full(len(values), -1, dtype=np.int64)
    of_row[present] = [numbers[type(value)] for value in found[present]]
    parts = [_convert_objects(found[of_row == number], one, kind) for one, number in numbers.items()]
    order = np.full(len(values), -1, dtype=np.int64)
    refused = np.zeros(len(values), dtype=bool)
    offset = 0
    for number, part in enumerate(parts):
        rows = np.flatnonzero(of_row == number)
        order[rows] = np.arange(offset, offset + len(rows))
        offset += len(rows)
        refused[rows] = part.refused
    reason = parts[of_row[np.argmax(refused)]].reason if refused.any() else ""
    whole = pa.concat_arrays([part.values for part in parts] or [pa.nulls(0, arrow_type(kind))])
    return Converted(whole.take(pa.array(order, mask=order < 0)), refused, reason)


def _convert_objects(values: NDArray[Any], one: type, kind: ColumnType) -> Converted:
    """Python objects of one type, none of them missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        array = _arrow_of(values, one)
    except _NOT_ARROW:
        # One value that Arrow cannot hold (an integer of 70 bits, half a surrogate pair) spares the others.
        parts = [_convert_object(value, one, kind) for value in values]
        refused = np.array([part.refused[0] for part in parts], dtype=bool)
        reason = parts[int(np.argmax(refused))].reason
        return Converted(pa.concat_arrays([part.values for part in parts]), refused, reason)
    made = convert(array, kind)
    if kind != "date" or not issubclass(one, datetime.datetime):
        return made
    # The array holds instants in UTC; which day it is in another zone is not theirs to say.
    elsewhere = np.array([bool(value.utcoffset()) for value in values], dtype=bool)
    return Converted(pc.if_else(elsewhere, None, made.values), made.refused | elsewhere, made.reason)


def _convert_object(value: Any, one: type, kind: ColumnType) -> Converted:
    if isinstance(value, np.uint64):
        value, one = int(value), int
    try:
        if issubclass(one, int) and not SMALLEST <= value <= LARGEST:
            value, one = Decimal(value), Decimal
        array = _arrow_of([value], one)
    except _NOT_ARROW:
        what = (
            "text that UTF-8 has no form for" if issubclass(one, str) else f"a value of type {one.__name__}"
        )
        return _refused(np.ones(1, dtype=bool), kind, what)
    return convert(array, kind)


def _refused(rows: Mask, kind: ColumnType, what: str) -> Converted:
    import pyarrow as pa

    return Converted(pa.nulls(len(rows), arrow_type(kind)), rows, f"{a_(kind)} is not {what}")


_PLAIN_UNITS = ("s", "ms", "us", "ns")


def _arrow_of(values: Sequence[Any] | NDArray[Any], one: type) -> "pa.Array[Any]":
    """Values of one type, times as instants in UTC; TypeError for what Arrow has no type for."""
    import pandas as pd
    import pyarrow as pa

    if issubclass(one, (np.datetime64, np.timedelta64)):
        # Their ``item`` is a bare integer in some units, which would be taken for a number.
        units = {np.datetime_data(value.dtype) for value in values}
        days = issubclass(one, np.datetime64) and units == {("D", 1)}
        if not days and (len(units) > 1 or not units <= {(unit, 1) for unit in _PLAIN_UNITS}):
            raise TypeError(f"{one.__name__} in {sorted(units)}")
        return pa.array(np.array(list(values)))
    if issubclass(one, np.generic):
        plain = [value.item() for value in values]
        if isinstance(plain[0], np.generic):
            raise TypeError(f"{one.__name__} is wider than any type of Arrow")
        return _arrow_of(plain, type(plain[0]))
    if issubclass(one, pd.Timestamp):
        # Arrow would take the first one's zone for all, and Python's datetime has no nanoseconds.
        unit: Literal["ns", "us"] = "ns" if any(value.nanosecond for value in values) else "us"
        moments = [_utc(value).tz_localize(None).as_unit(unit).to_datetime64() for value in values]
        return pa.array(np.array(moments), pa.timestamp(unit)).view(pa.timestamp(unit, tz="UTC"))
    if issubclass(one, datetime.datetime):
        micros = pa.array(list(map(_microseconds, values)), pa.int64())
        return micros.view(pa.timestamp("us", tz="UTC"))
    return pa.array(list(values))


_EPOCH = datetime.datetime(1970, 1, 1)
_MICROSECOND = datetime.timedelta(microseconds=1)


def _microseconds(moment: datetime.datetime) -> int:
    """Microseconds since 1970 UTC, also where Python has no datetime in UTC for it."""
    offset = moment.utcoffset() or datetime.timedelta()
    return (moment.replace(tzinfo=None) - _EPOCH) // _MICROSECOND - offset // _MICROSECOND


def _utc(moment: "pd.Timestamp") -> "pd.Timestamp":
    return moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
