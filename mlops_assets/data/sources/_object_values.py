"""Python objects, of drivers of databases or of JSON, as Arrow columns that hold every value as it is.

Belongs here: which Arrow type holds which Python type. Does not belong here: declared types
(``data/conversion.py``).
"""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from mlops_assets.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

MOST_DIGITS = 76
"""Digits of the widest decimal type of Arrow."""


@dataclass
class ColumnValues:
    """One column, filled batch by batch; values of several types in one column keep theirs.

    Databases that give each value a type of its own (SQLite) may mix them.
    """

    name: str
    _batches: "list[dict[str, tuple[Any, pa.Array[Any]]]]" = field(default_factory=list)
    """Per batch, by kind of value: at which rows (None: all), and the values."""
    _rows: list[int] = field(default_factory=list)

    def add(self, values: Sequence[Any]) -> None:
        """The next rows; DataError for values that no Arrow type holds."""
        self._rows.append(len(values))
        kinds = {_KINDS.get(one, one.__name__) for one in set(map(type, values))} - {"missing"}
        if kinds & {"decimal", "moment"}:
            kinds = {_kind(value) for value in values} - {"missing"}
        if len(kinds) < 2:
            made = [self._array(kind, values) for kind in kinds]
            # Beyond 64 bits an integer is a decimal, in this batch only.
            self._batches.append(
                {
                    f"{kind} {array.type}" if kind == "integer" else kind: (None, array)
                    for kind, array in zip(kinds, made, strict=True)
                }
            )
            return
        of_row = np.array([_kind(value) for value in values], dtype=object)
        batch: dict[str, tuple[Any, Any]] = {}
        for kind in sorted(kinds):
            rows = np.flatnonzero(of_row == kind)
            batch[kind] = (rows, self._array(kind, [values[int(row)] for row in rows]))
        self._batches.append(batch)

    def _array(self, kind: str, values: Sequence[Any]) -> "pa.Array[Any]":
        import pyarrow as pa

        try:
            return _ARRAYS[kind](values) if kind in _ARRAYS else pa.array(values)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            shown = next((value for value in values if value is not None), None)
            raise DataError(
                f"Column {self.name!r} holds values of type {type(shown).__name__}, like "
                f"{str(shown)[:80]!r}, that no declared type takes ({error}). Cast it at the source."
            ) from error

    def whole(self) -> "pa.ChunkedArray[Any]":
        """All rows: of one type, or a union of several where values have several."""
        import pyarrow as pa

        types: dict[str, list[pa.DataType]] = {}
        for batch in self._batches:
            for kind, (_, array) in batch.items():
                types.setdefault(kind, []).append(array.type)
        if not types:
            return pa.chunked_array([pa.nulls(sum(self._rows))])
        held = {kind: self._widest(found) for kind, found in types.items()}
        if len(held) == 1:
            ((kind, one),) = held.items()
            parts = [
                batch[kind][1].cast(one) if batch else pa.nulls(rows, one)
                for batch, rows in zip(self._batches, self._rows, strict=True)
            ]
            return pa.chunked_array(parts, one)
        return pa.chunked_array([self._union(held)])

    def _widest(self, types: "Sequence[pa.DataType]") -> "pa.DataType":
        """The one type, or of decimals one that holds the digits of all."""
        import pyarrow as pa

        distinct = list(dict.fromkeys(types))
        if len(distinct) == 1:
            return distinct[0]
        scale = max(one.scale for one in distinct)
        digits = scale + max(one.precision - one.scale for one in distinct)
        if digits > MOST_DIGITS:
            raise DataError(f"Column {self.name!r} needs {digits} digits; {MOST_DIGITS} are the most.")
        return pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale)

    def _union(self, held: "dict[str, pa.DataType]") -> "pa.Array[Any]":
        """Each value with its own type; missing ones are of the first."""
        import pyarrow as pa

        codes = {kind: code for code, kind in enumerate(held)}
        of_row = np.zeros(sum(self._rows), dtype=np.int8)
        children: dict[str, list[pa.Array[Any]]] = {kind: [] for kind in held}
        start = 0
        first = next(iter(held))
        for batch, rows in zip(self._batches, self._rows, strict=True):
            own = np.zeros(rows, dtype=np.int8)
            for kind, (positions, _) in batch.items():
                own[slice(None) if positions is None else positions] = codes[kind]
            for kind, (positions, array) in batch.items():
                if kind == first and positions is not None:
                    # Missing values of this batch stand among those of the first kind.
                    order = np.full(rows, -1, dtype=np.int64)
                    order[positions] = np.arange(len(positions))
                    order = order[own == 0]
                    array = array.take(pa.array(order, mask=order < 0))
                children[kind].append(array.cast(held[kind]))
            if first not in batch:
                children[first].append(pa.nulls(int((own == 0).sum()), held[first]))
            of_row[start : start + rows] = own
            start += rows
        offsets = np.zeros(len(of_row), dtype=np.int32)
        for code in codes.values():
            mine = of_row == code
            offsets[mine] = np.arange(int(mine.sum()))
        return pa.UnionArray.from_dense(
            pa.array(of_row),
            pa.array(offsets),
            [pa.concat_arrays(children[kind]) for kind in held],
            list(held),
        )


_KINDS: dict[type, str] = {
    type(None): "missing",
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "text",
    bytes: "bytes",
    Decimal: "decimal",
    dt.date: "date",
    dt.datetime: "moment",
    dt.time: "time",
    dt.timedelta: "duration",
    UUID: "uuid",
}


def _kind(value: Any) -> str:
    """What a value is, as far as its Arrow type depends on it."""
    kind = _KINDS.get(type(value), type(value).__name__)
    if kind == "moment":
        return "moment" if value.tzinfo is None else "instant"
    if kind == "decimal" and not value.is_finite():
        return "missing" if value.is_nan() else "infinite"
    return kind


def _instants(values: Sequence[Any]) -> "pa.Array[Any]":
    import pyarrow as pa

    return pa.array(values, pa.timestamp("us", tz="UTC"))


def _integers(values: Sequence[Any]) -> "pa.Array[Any]":
    import pyarrow as pa

    try:
        return pa.array(values, pa.int64())
    except (OverflowError, pa.ArrowInvalid):
        return _decimals([None if value is None else Decimal(value) for value in values])


def _decimals(values: Sequence[Any]) -> "pa.Array[Any]":
    import pyarrow as pa

    # NaN is a missing number.
    return pa.array([None if value is None or value.is_nan() else value for value in values])


def _texts(values: Sequence[Any]) -> "pa.Array[Any]":
    import pyarrow as pa

    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _floats(values: Sequence[Any]) -> "pa.Array[Any]":
    import pyarrow as pa

    return pa.array([None if value is None else float(value) for value in values], pa.float64())


_ARRAYS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "integer": _integers,
    "decimal": _decimals,
    "instant": _instants,
    "infinite": _floats,
    "uuid": _texts,
}
"""Makers of columns where Arrow's own guess would not do."""
