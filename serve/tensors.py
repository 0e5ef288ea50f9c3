"""Tensors of the V2 protocol: from JSON or bytes to plain values, and back. Pure.

Belongs here: the datatypes, what fits each, their little-endian bytes. Does not belong here: which tensors a
model takes and gives (``serve/inference_protocol.py``), rules of features (``serve/validation.py``).

A value must fit the datatype that its tensor declares: an integer that is in range, a number that is finite
in that width. A fraction in FP16 or FP32 is the nearest number of that width, the same whether it came as
JSON or as bytes; an integer that the width cannot hold is refused, because it would become another one.
``None`` is a missing value: ``null`` in JSON, NaN in the bytes of a floating-point tensor.
"""

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from serve.bodies import kind_of
from serve.errors import Problems

Values = list[Any]

INTEGERS: dict[str, tuple[int, int]] = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
"""Smallest and largest value."""
FLOATS = ("FP16", "FP32", "FP64", "BF16")
DATATYPES = ("BOOL", *INTEGERS, *FLOATS, "BYTES")

_DTYPES = {
    "BOOL": "u1",
    **{name: f"<{'u' if name.startswith('U') else 'i'}{int(name.strip('UINT')) // 8}" for name in INTEGERS},
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
    # The upper half of an FP32, which numpy does not know.
    "BF16": "<u2",
}
_NARROW = {"FP16": "<e", "FP32": "<f"}
_LENGTH = struct.Struct("<I")


def width(datatype: str) -> int | None:
    """Bytes of one value; None for BYTES, whose values say their own."""
    return None if datatype == "BYTES" else np.dtype(_DTYPES[datatype]).itemsize


def from_json(datatype: str, data: Sequence[Any], field: str) -> tuple[Values, Problems]:
    """Plain values of a tensor's ``data``, flat, and every value that does not fit by its position."""
    if datatype == "BF16":
        return [], [{"field": field, "reason": "BF16 is taken as bytes only (the binary extension)"}]
    check = _json_check(datatype)
    values: Values = []
    found: Problems = []
    for position, value in enumerate(data):
        if value is None:
            values.append(None)
            continue
        taken, reason = check(value)
        values.append(taken)
        if reason is not None:
            found.append({"field": f"{field}[{position}]", "reason": reason})
    return values, found


def from_bytes(datatype: str, raw: bytes, count: int, field: str) -> tuple[Values, Problems]:
    """Plain values of ``count`` values' bytes, and what does not fit."""
    size = width(datatype)
    if size is None:
        return _from_lengths(raw, count, field)
    if len(raw) != size * count:
        reason = f"{count} values of {datatype} are {size * count} bytes, not {len(raw)}"
        return [], [{"field": field, "reason": reason}]
    array = np.frombuffer(raw, dtype=_DTYPES[datatype])
    if datatype == "BOOL":
        wrong = np.flatnonzero(array > 1)
        if len(wrong):
            reason = f"a BOOL is a byte 0 or 1, not {array[wrong[0]]}"
            return [], [{"field": f"{field}[{wrong[0]}]", "reason": reason}]
        return array.astype(bool).tolist(), []
    if datatype in INTEGERS:
        return array.tolist(), []
    if datatype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    values = array.astype(np.float64).tolist()
    missing = np.flatnonzero(np.isnan(array))
    for position in missing:
        values[position] = None
    return values, []


def to_bytes(datatype: str, values: Sequence[Any]) -> bytes:
    """The bytes of values that fit; of BYTES each with its length before it."""
    if datatype != "BYTES":
        return np.asarray(values, dtype=_DTYPES[datatype]).tobytes()
    texts = [str(value).encode() for value in values]
    return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))


def _from_lengths(raw: bytes, count: int, field: str) -> tuple[Values, Problems]:
    values: Values = []
    found: Problems = []
    start = 0
    while start < len(raw):
        begins = start + _LENGTH.size
        if begins > len(raw):
            reason = f"{len(raw) - start} bytes are left where a length of {_LENGTH.size} bytes must be"
            return [], [{"field": f"{field}[{len(values)}]", "reason": reason}]
        (length,) = _LENGTH.unpack_from(raw, start)
        start = begins + length
        if start > len(raw):
            reason = f"says that it has {length} bytes, and {len(raw) - begins} are left"
            return [], [{"field": f"{field}[{len(values)}]", "reason": reason}]
        try:
            values.append(raw[begins:start].decode("utf-8"))
        except UnicodeDecodeError:
            found.append({"field": f"{field}[{len(values)}]", "reason": "is not UTF-8"})
            values.append(None)
        if len(values) > count:
            break
    if len(values) != count:
        more = "more" if len(values) > count else str(len(values))
        return [], [{"field": field, "reason": f"the shape says {count} values, and there are {more}"}]
    return values, found


Checked = tuple[Any, str | None]
"""The value as it is taken, and the reason why it is not."""


def _json_check(datatype: str) -> Callable[[Any], Checked]:
    if datatype == "BYTES":
        return lambda value: (value, None if type(value) is str else _not("a string", value))
    if datatype == "BOOL":
        return lambda value: (value, None if type(value) is bool else _not("true or false", value))
    if datatype in INTEGERS:
        return _integer_check(datatype)
    return _float_check(datatype)


def _not(wanted: str, value: Any) -> str:
    return f"must be {wanted}, not {kind_of(value)}"


def _integer_check(datatype: str) -> Callable[[Any], Checked]:
    low, high = INTEGERS[datatype]

    def check(value: Any) -> Checked:
        kind = type(value)
        if kind is float:
            if not math.isfinite(value) or not value.is_integer():
                return value, f"is no integer, and the tensor is declared as {datatype}"
        elif kind is not int:
            return value, _not("an integer", value)
        if not low <= value <= high:
            return value, f"is outside {datatype}, which is {low} to {high}"
        return value, None

    return check


def _float_check(datatype: str) -> Callable[[Any], Checked]:
    form = _NARROW.get(datatype)

    def check(value: Any) -> Checked:
        kind = type(value)
        if kind is not float and kind is not int:
            return value, _not("a number", value)
        if form is None:
            return value, None
        try:
            (nearest,) = struct.unpack(form, struct.pack(form, value))
        except (OverflowError, struct.error):
            return value, f"is beyond what {datatype} holds"
        if not math.isfinite(nearest):
            return value, "must be a finite number"
        if nearest != value and (kind is int or value.is_integer()):
            return value, f"is an integer that {datatype} cannot hold; it would become {nearest:g}"
        return nearest, None

    return check
