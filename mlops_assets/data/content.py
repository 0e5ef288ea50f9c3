"""Content versions: what a table says, as a short text that changes exactly when the content does.

Belongs here: hashing frames. Does not belong here: Delta's own version numbers (``resources/lake.py``)
and writing versions into events (``components/partition_events.py``).

A version does not depend on the order of rows or columns, nor on how pandas happens to hold a value:
None, NaN, NaT and NA are one missing value; -0.0 is 0.0; Int64 is int64; timestamps are compared as UTC
microseconds. It does depend on column names, on the kind of each column (text, integer, ...) and on how
often a row occurs. So a frame has the same version before it is written to Delta and after it is read.
"""

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

_MISSING = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)
_EMPTY = np.uint64(0)
VERSION_LENGTH = 20
"""Hexadecimal digits of a version: 80 bits, short enough to read in the UI."""


def content_version(frame: "pd.DataFrame") -> str:
    """Version of a whole frame. A frame without rows has one too; it depends on its columns only."""
    header, rows = _row_hashes(frame)
    return _version(header, rows)


def content_versions(frame: "pd.DataFrame", partition_column: str) -> dict[str, str]:
    """Version of the rows of every partition that has rows, by partition key.

    Each equals ``content_version`` of that partition's rows alone. Missing keys are an error.
    """
    import pandas as pd

    header, rows = _row_hashes(frame)
    codes, keys = pd.factorize(frame[partition_column], sort=True)
    if (codes < 0).any():
        raise ValueError(f"{int((codes < 0).sum())} rows have no {partition_column}")
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(keys) + 1))
    ordered = rows[order]
    return {
        str(key): _version(header, ordered[start:end])
        for key, start, end in zip(keys, bounds[:-1], bounds[1:], strict=True)
    }


def _version(header: bytes, rows: NDArray[np.uint64]) -> str:
    digest = hashlib.sha256(header)
    digest.update(np.sort(rows).tobytes())
    return digest.hexdigest()[:VERSION_LENGTH]


def _row_hashes(frame: "pd.DataFrame") -> tuple[bytes, NDArray[np.uint64]]:
    if not frame.columns.is_unique:
        raise ValueError(f"duplicate column names: {list(frame.columns[frame.columns.duplicated()])}")
    rows = np.full(len(frame), _EMPTY, dtype=np.uint64)
    header = hashlib.sha256()
    for name in sorted(frame.columns):
        kind, hashes = _column_hashes(frame[name])
        header.update(f"{name}\x00{kind}\x00".encode())
        with np.errstate(over="ignore"):
            rows = (rows ^ hashes) * _MULTIPLIER
            rows ^= rows >> np.uint64(29)
    return header.digest(), rows


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
    hashes = pd.util.hash_array(np.ascontiguousarray(values))
    return kind, np.where(missing, _MISSING, hashes)


def _text(value: object) -> str:
    import datetime

    if isinstance(value, str):
        return value
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return f"date {value.isoformat()}"
    raise TypeError(
        f"cannot version a {type(value).__name__} ({value!r}); allowed in such a column: text, dates"
    )
