"""Content versions: what a table says, as a short text that changes exactly when the content does.

Belongs here: hashing frames. Does not belong here: Delta's own version numbers (``resources/lake.py``)
and writing versions into events (``event_log/partition_events.py``).

A version does not depend on the order of rows or columns, nor on how pandas happens to hold a value:
None, NaN, NaT and NA are one missing value; -0.0 is 0.0; Int64 is int64; timestamps are compared as UTC
microseconds. It does depend on the names of the columns, on their kinds (text, integer, ...) and on how
often a row occurs. A column without any value says nothing: so a partition keeps its version when the table
gains a column that the partition has no value in. A frame has the same version before it is written to
Delta and after it is read.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

_MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)
VERSION_LENGTH = 20
"""Hexadecimal digits of a version: 80 bits, short enough to read in the UI."""


def content_version(frame: "pd.DataFrame") -> str:
    """Version of a whole frame; the same for every frame without rows."""
    columns = _columns(frame)
    kinds = {name: column.kind for name, column in columns.items()}
    return _version(kinds, _row_hashes(columns, len(frame)))


def content_versions(frame: "pd.DataFrame", partition_column: str) -> dict[str, str]:
    """Version of the rows of every partition that has rows, by partition key.

    Each equals ``content_version`` of that partition's rows alone. Missing keys are an error.
    """
    contents = Contents(partition_column)
    contents.add(frame)
    return contents.versions()


class Contents:
    """``content_versions`` of rows that come in parts: eight bytes of each row are kept, and not the row."""

    def __init__(self, partition_column: str) -> None:
        self._partition_column = partition_column
        self._kinds: dict[str, dict[str, str]] = {}
        self._rows: dict[str, list[NDArray[np.uint64]]] = {}

    def add(self, frame: "pd.DataFrame") -> None:
        """Some more rows, in the same types; of any partitions."""
        import pandas as pd

        columns = _columns(frame)
        rows = _row_hashes(columns, len(frame))
        codes, keys = pd.factorize(frame[self._partition_column], sort=True)
        if (codes < 0).any():
            raise ValueError(f"{int((codes < 0).sum())} rows have no {self._partition_column}")
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(keys) + 1))
        ordered = rows[order]
        present = {
            name: np.bincount(codes[column.present], minlength=len(keys)) > 0
            for name, column in columns.items()
        }
        for number, (key, start, end) in enumerate(zip(keys, bounds[:-1], bounds[1:], strict=True)):
            self._rows.setdefault(str(key), []).append(ordered[start:end])
            kinds = self._kinds.setdefault(str(key), {})
            kinds.update({name: column.kind for name, column in columns.items() if present[name][number]})

    def versions(self) -> dict[str, str]:
        """Version of the rows of every partition that has rows, by partition key."""
        return {
            key: _version(self._kinds[key], np.concatenate(rows)) for key, rows in sorted(self._rows.items())
        }


@dataclass(frozen=True)
class _Column:
    """What a column is, which rows have a value in it, and a hash of each value (0 where missing)."""

    kind: str
    present: NDArray[np.bool_]
    hashes: NDArray[np.uint64]


def _columns(frame: "pd.DataFrame") -> dict[str, _Column]:
    """The columns with a value, by name in order."""
    if not frame.columns.is_unique:
        raise ValueError(f"duplicate column names: {list(frame.columns[frame.columns.duplicated()])}")
    found = {}
    for name in sorted(frame.columns):
        present = frame[name].notna().to_numpy(dtype=bool)
        if not present.any():
            continue
        kind, hashes = _column_hashes(frame[name])
        salt = np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
        with np.errstate(over="ignore"):
            mixed = (hashes ^ salt) * _MULTIPLIER
            mixed ^= mixed >> np.uint64(29)
            mixed *= _MULTIPLIER
            mixed ^= mixed >> np.uint64(32)
        found[name] = _Column(kind, present, np.where(present, mixed, np.uint64(0)))
    return found


def _row_hashes(columns: "dict[str, _Column]", rows: int) -> NDArray[np.uint64]:
    """A sum, so that neither the order of the columns nor one without a value counts."""
    total = np.zeros(rows, dtype=np.uint64)
    for column in columns.values():
        with np.errstate(over="ignore"):
            total += column.hashes
    return total


def _version(kinds: dict[str, str], rows: NDArray[np.uint64]) -> str:
    digest = hashlib.sha256()
    for name, kind in sorted(kinds.items()):
        digest.update(f"{name}\x00{kind}\x00".encode())
    digest.update(np.sort(rows).tobytes())
    return digest.hexdigest()[:VERSION_LENGTH]


def _column_hashes(column: "pd.Series[Any]") -> tuple[str, NDArray[np.uint64]]:
    import pandas as pd
    from pandas.api import types

    missing = column.isna().to_numpy()
    dtype = column.dtype
    if types.is_bool_dtype(dtype):
        kind, values = "boolean", column.fillna(False).astype("bool").to_numpy().astype(np.uint64)
    elif types.is_integer_dtype(dtype):
        kind, values = "integer", column.fillna(0).astype("int64").to_numpy().view(np.uint64)
    elif types.is_float_dtype(dtype):
        numbers = column.to_numpy(dtype=np.float64, na_value=0.0).copy()
        numbers[missing] = 0.0
        kind, values = "number", (numbers + 0.0).view(np.uint64)
    elif isinstance(dtype, pd.DatetimeTZDtype) or types.is_datetime64_dtype(dtype):
        utc = (
            column.dt.tz_convert("UTC").dt.tz_localize(None)
            if isinstance(dtype, pd.DatetimeTZDtype)
            else column
        )
        kind = "timestamp" if isinstance(dtype, pd.DatetimeTZDtype) else "local timestamp"
        values = utc.to_numpy().astype("datetime64[us]").astype(np.int64).view(np.uint64)
    else:
        # Text and dates. Few distinct values are the rule: factorizing hashes each only once.
        codes, uniques = pd.factorize(column.astype(object))
        texts = np.array([_text(value) for value in uniques], dtype=object)
        kind = "text or date"
        hashed = pd.util.hash_array(texts, categorize=False) if len(texts) else np.zeros(1, dtype=np.uint64)
        values = hashed[np.maximum(codes, 0)]
    return kind, pd.util.hash_array(np.ascontiguousarray(values))


def _text(value: object) -> str:
    import datetime

    if isinstance(value, str):
        return value
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return f"date {value.isoformat()}"
    raise TypeError(
        f"cannot version a {type(value).__name__} ({value!r}); allowed in such a column: text, dates"
    )
