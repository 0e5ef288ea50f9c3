"""What of which source type fits which declared type: kept to the last digit, or refused with the reason.

Belongs here: the table of ``docs/types.md`` as code, one rule per cell. Does not belong here: which columns
a declaration has (``data/schema.py``), reading files (``data/sources``).

A conversion never wraps, truncates, rounds or guesses a unit or a zone. Whatever would need that is refused
value by value; what no value of a source type can be (a duration as a number) is refused for the whole
column, a missing value never. A missing value of any type is a missing value of the declared one, NaN
included.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

ColumnType = Literal["string", "integer", "number", "boolean", "timestamp", "date"]
Family = Literal[
    "text",
    "integer",
    "float",
    "decimal",
    "boolean",
    "timestamp",
    "date",
    "time",
    "duration",
    "bytes",
    "other",
]
"""Source types that the rules treat alike."""
Mask = NDArray[np.bool_]

EXACT = 2**53
"""A 64-bit float holds every whole number up to here, and not every one beyond."""
SMALLEST, LARGEST = -(2**63), 2**63 - 1
DAY_US = 86_400_000_000
FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The first microsecond of the year 1 and the last of the year 9999, UTC, counted from 1970."""

NUMBER_TEXT = r"^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
WHOLE_TEXT = r"^[+-]?[0-9]{1,18}$"
DAY_TEXT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
MOMENT_TEXT = (
    r"^(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ](?P<clock>[0-9]{2}:[0-9]{2})(?::(?P<second>[0-9]{2})"
    r"(?:[.,](?P<fraction>[0-9]+))?)?(?P<zone>[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?$"
)

WHOLE = f"an integer is a whole number from {SMALLEST} to {LARGEST}"
FINITE = (
    "a number is finite; whole numbers beyond 9007199254740992 (2^53) must be such that a 64-bit float "
    "holds them exactly"
)
TRUTH = "a boolean is true or false, or 1 or 0"
MOMENT = "a timestamp lies in the years 0001 to 9999 and has no digits beyond microseconds"
DAY = "a date lies in the years 0001 to 9999 and has no time of day"
NO_UNIT = (
    "a bare number does not say its unit; convert it in the transform, like pandas.to_datetime(x, unit='s')"
)
NOT_TEXT = (
    "it is stored as another type, so what it looked like as text is not known; convert it in the transform"
)
NO_NUMBER = "only numbers are; convert it in the transform"


@dataclass(frozen=True)
class Converted:
    """Values in the declared type, null where ``refused`` (one entry per value); ``reason`` says why."""

    values: "pa.Array[Any]"
    refused: Mask
    reason: str


def arrow_type(kind: ColumnType) -> "pa.DataType":
    """The type that holds a declared type, in memory and in the lake."""
    import pyarrow as pa

    return {
        "string": pa.string(),
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "date": pa.date32(),
    }[kind]


def family_of(source: "pa.DataType") -> Family | None:
    """The family of a source type; None for the type of a column without any value."""
    from pyarrow import types

    if types.is_null(source):
        return None
    tests: list[tuple[Callable[[Any], bool], Family]] = [
        (lambda t: types.is_string(t) or types.is_large_string(t) or types.is_string_view(t), "text"),
        (types.is_integer, "integer"),
        (types.is_floating, "float"),
        (types.is_decimal, "decimal"),
        (types.is_boolean, "boolean"),
        (types.is_timestamp, "timestamp"),
        (types.is_date, "date"),
        (types.is_time, "time"),
        (types.is_duration, "duration"),
        (
            lambda t: (
                types.is_binary(t)
                or types.is_large_binary(t)
                or types.is_binary_view(t)
                or types.is_fixed_size_binary(t)
            ),
            "bytes",
        ),
    ]
    return next((family for test, family in tests if test(source)), "other")


def convert(values: "pa.Array[Any]", kind: ColumnType) -> Converted:
    """``values`` of any Arrow type as the declared ``kind``; what does not fit is null and marked."""
    import pyarrow as pa
    from pyarrow import types

    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if types.is_union(values.type):
        return _each_as_its_own(values, kind)
    family = family_of(values.type)
    target = arrow_type(kind)
    if family is None or values.null_count == len(values):
        return Converted(pa.nulls(len(values), target), np.zeros(len(values), dtype=bool), "")
    rule = _RULES[kind].get(family)
    if rule is None:
        refused = _present(values)
        if family == "float":
            # NaN is a missing value, and a missing value fits every type.
            refused &= ~np.isnan(values.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64))
        return Converted(pa.nulls(len(values), target), refused, _never(family, kind, values.type))
    return rule(values)


def _each_as_its_own(values: "pa.Array[Any]", kind: ColumnType) -> Converted:
    """Values of several types in one column, as dense unions hold them: each by the rule of its own type."""
    import pyarrow as pa

    codes = values.type_codes.to_numpy()
    offsets = values.offsets.to_numpy()
    parts = [convert(values.field(position), kind) for position in range(values.type.num_fields)]
    starts = np.cumsum([0, *(len(part.values) for part in parts)])
    positions = np.zeros(len(codes), dtype=np.int64)
    reason = ""
    for position, code in enumerate(values.type.type_codes):
        mine = codes == code
        positions[mine] = starts[position] + offsets[mine]
        reason = reason or (parts[position].reason if parts[position].refused.any() else "")
    taken = pa.concat_arrays([part.values for part in parts]).take(pa.array(positions))
    return Converted(taken, np.concatenate([part.refused for part in parts])[positions], reason)


def _never(family: Family, kind: ColumnType, source: "pa.DataType") -> str:
    """Why no value of a family fits a kind."""
    value = {"text": "text", "bytes": "bytes", "other": f"a value of type {source}"}.get(family, a_(family))
    if kind == "string":
        return f"a string is text: {NOT_TEXT}"
    if kind in ("timestamp", "date") and family in ("integer", "float", "decimal"):
        return f"a {kind} is not a number: {NO_UNIT}"
    if family == "duration" and kind in ("integer", "number"):
        return (
            "a duration says no unit as a number; divide it by one in the transform, like "
            "x.dt.total_seconds()"
        )
    if kind in ("timestamp", "date"):
        return f"a {kind} is not {value}"
    return f"{a_(kind)} is not {value}: {NO_NUMBER}"


def a_(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


# -- rules ---------------------------------------------------------------------------------------------


def _present(values: "pa.Array[Any]") -> Mask:
    present: Mask = values.is_valid().to_numpy(zero_copy_only=False).astype(bool)
    return present


def _made(kind: ColumnType, numbers: NDArray[Any], present: Mask, fits: Mask, reason: str) -> Converted:
    """Arrow values of ``numbers`` where present and fitting."""
    import pyarrow as pa

    kept = present & fits
    target = arrow_type(kind)
    plain: Any = pa.array(np.where(kept, numbers, np.zeros(1, numbers.dtype)), mask=~kept)
    if kind in ("timestamp", "date"):
        plain = plain.cast(pa.int64() if kind == "timestamp" else pa.int32()).view(target)
    return Converted(plain.cast(target), present & ~fits, reason)


def _numbers(values: "pa.Array[Any]") -> NDArray[Any]:
    return np.asarray(values.fill_null(0).to_numpy(zero_copy_only=False))


def _integer_as_integer(values: "pa.Array[Any]") -> Converted:
    numbers = _numbers(values)
    fits = numbers <= LARGEST if numbers.dtype == np.uint64 else np.ones(len(numbers), dtype=bool)
    return _made("integer", numbers.astype(np.int64), _present(values), fits, WHOLE)


def _integer_as_number(values: "pa.Array[Any]") -> Converted:
    numbers = _numbers(values)
    floats = numbers.astype(np.float64)
    fits = np.ones(len(numbers), dtype=bool)
    for row in np.flatnonzero(np.abs(floats) >= EXACT):
        # Python compares an int with a float exactly.
        fits[row] = int(numbers[row]) == float(floats[row])
    return _made("number", floats, _present(values), fits, FINITE)


def _integer_as_boolean(values: "pa.Array[Any]") -> Converted:
    numbers = _numbers(values)
    return _made("boolean", numbers == 1, _present(values), (numbers == 0) | (numbers == 1), TRUTH)


def _floats(values: "pa.Array[Any]") -> tuple[NDArray[np.float64], Mask]:
    """The values as float64, and which are there: NaN is not."""
    numbers = _numbers(values).astype(np.float64)
    return numbers, _present(values) & ~np.isnan(numbers)


def _float_as_integer(values: "pa.Array[Any]") -> Converted:
    numbers, present = _floats(values)
    fits = np.isfinite(numbers) & (np.abs(numbers) < EXACT)
    fits &= np.where(fits, numbers, 0.5) % 1 == 0
    reason = (
        "an integer is a whole number, and a float holds every one exactly only within 9007199254740991 "
        "(2^53 - 1) and its negative"
    )
    return _made("integer", np.where(fits, numbers, 0).astype(np.int64), present, fits, reason)


def _float_as_number(values: "pa.Array[Any]") -> Converted:
    numbers, present = _floats(values)
    return _made("number", numbers, present, np.isfinite(numbers), FINITE)


def _float_as_boolean(values: "pa.Array[Any]") -> Converted:
    numbers, present = _floats(values)
    return _made("boolean", numbers == 1, present, (numbers == 0) | (numbers == 1), TRUTH)


def _boolean_as_boolean(values: "pa.Array[Any]") -> Converted:
    return _kept(values, TRUTH)


def _kept(values: "pa.Array[Any]", reason: str) -> Converted:
    return Converted(values, np.zeros(len(values), dtype=bool), reason)


def _text_as_text(values: "pa.Array[Any]") -> Converted:
    import pyarrow as pa

    reason = "text is UTF-8"
    texts = values.cast(pa.string())
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        raw = texts.cast(pa.binary()).to_pylist()
        refused = np.array([one is not None and not _is_utf8(one) for one in raw], dtype=bool)
        kept = [None if bad or one is None else one.decode() for one, bad in zip(raw, refused, strict=True)]
        return Converted(pa.array(kept, pa.string()), refused, reason)
    return _kept(texts, reason)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _as_refused_in(values: "pa.Array[Any]", converted: Converted) -> Converted:
    """Marks what is lost of ``values`` themselves, too: text that is not UTF-8 never got as far."""
    return Converted(converted.values, _present(values) & ~_present(converted.values), converted.reason)


def _by_distinct(
    values: "pa.Array[Any]", kind: ColumnType, one: Callable[[Any], Any], reason: str
) -> Converted:
    """Every distinct value through ``one``, which gives None for what does not fit."""
    import pyarrow as pa

    encoded = values.dictionary_encode()
    found = [None if value is None else one(value) for value in encoded.dictionary.to_pylist()]
    made = pa.array(found, arrow_type(kind)).take(encoded.indices)
    return Converted(made, _present(values) & ~_present(made), reason)


def _decimal_as_integer(values: "pa.Array[Any]") -> Converted:
    return _by_distinct(values, "integer", _whole, WHOLE)


def _decimal_as_number(values: "pa.Array[Any]") -> Converted:
    return _by_distinct(values, "number", _float, FINITE)


def _decimal_as_boolean(values: "pa.Array[Any]") -> Converted:
    return _by_distinct(values, "boolean", lambda one: bool(one) if one in (0, 1) else None, TRUTH)


def _whole(number: Decimal) -> int | None:
    """The integer that a decimal is, or None."""
    if not number.is_finite() or not SMALLEST <= number <= LARGEST or number != number.to_integral_value():
        return None
    return int(number)


def _float(number: Decimal) -> float | None:
    """The nearest float, or None where that would lose more than the end of a fraction."""
    if not number.is_finite():
        return None
    near = float(number)
    if np.isinf(near) or (near == 0 and number != 0):
        return None
    if abs(near) >= EXACT and Decimal(near) != number and Decimal(repr(near)) != number:
        return None
    return near


def _text_as_integer(values: "pa.Array[Any]") -> Converted:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.utf8_trim_whitespace(_text_as_text(values).values)
    plain = pc.match_substring_regex(texts, WHOLE_TEXT)
    if not pc.all(pc.fill_null(plain, True)).as_py():
        return _as_refused_in(values, _by_distinct(texts, "integer", _whole_text, WHOLE))
    whole = pc.replace_substring_regex(texts, r"^\+", "").cast(pa.int64())
    return _as_refused_in(values, _kept(whole, WHOLE))


def _whole_text(text: str) -> int | None:
    number = _decimal(text) if re.match(NUMBER_TEXT, text) else None
    return None if number is None else _whole(number)


def _decimal(text: str) -> Decimal | None:
    """The number that a text matching ``NUMBER_TEXT`` says; None where the exponent is too large."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _text_as_number(values: "pa.Array[Any]") -> Converted:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.utf8_trim_whitespace(_text_as_text(values).values)
    reads = pc.fill_null(pc.match_substring_regex(texts, NUMBER_TEXT), False)
    candidates = pc.if_else(reads, texts, None)
    numbers = pc.replace_substring_regex(candidates, r"^\+", "").cast(pa.float64())
    floats = numbers.fill_null(0.0).to_numpy(zero_copy_only=False)
    fits = _present(numbers)
    # Rounding shows only at the ends: whole numbers beyond 2^53, and fractions too small to be told from 0.
    for row in np.flatnonzero(fits & ((np.abs(floats) >= EXACT) | (floats == 0))):
        number = _decimal(texts[int(row)].as_py())
        fits[row] = number is not None and _float(number) is not None
    return _made("number", floats, _present(values), fits, FINITE)


def _text_as_boolean(values: "pa.Array[Any]") -> Converted:
    meaning = {"true": True, "false": False, "1": True, "0": False}
    texts = _text_as_text(values).values
    found = _by_distinct(texts, "boolean", lambda text: meaning.get(text.strip().lower()), TRUTH)
    return _as_refused_in(values, found)


def _text_as_timestamp(values: "pa.Array[Any]") -> Converted:
    reason = f"{MOMENT}; as text it is ISO 8601 like 2024-01-31T13:45:00Z"
    return _text_as_instant(values, "timestamp", reason)


def _text_as_date(values: "pa.Array[Any]") -> Converted:
    return _text_as_instant(values, "date", f"{DAY}; as text it is ISO 8601 like 2024-01-31")


def _text_as_instant(values: "pa.Array[Any]", kind: ColumnType, reason: str) -> Converted:
    import pyarrow as pa

    encoded = _text_as_text(values).values.dictionary_encode()
    micros, fits = text_microseconds(encoded.dictionary, date_only=kind == "date")
    numbers = micros // DAY_US if kind == "date" else micros
    made = _made(kind, numbers, np.ones(len(fits), dtype=bool), fits, reason).values
    taken = made.take(encoded.indices) if len(made) else pa.nulls(len(values), arrow_type(kind))
    return Converted(taken, _present(values) & ~_present(taken), reason)


def text_microseconds(texts: "pa.Array[Any]", *, date_only: bool = False) -> tuple[NDArray[np.int64], Mask]:
    """Microseconds since 1970 UTC of ISO 8601 texts without missing ones, and which of them read as such.

    A text without a zone is UTC, a date alone is its midnight. ``date_only``: only what is a date, or the
    midnight of one without a zone or in UTC.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.utf8_trim_whitespace(texts)
    days = pc.if_else(
        pc.match_substring_regex(texts, DAY_TEXT), pc.binary_join_element_wise(texts, "T00:00", ""), texts
    )
    parts = pc.extract_regex(days, MOMENT_TEXT)
    found = {name: pc.struct_field(parts, name) for name in ("day", "clock", "second", "fraction", "zone")}
    reads = parts.is_valid().to_numpy(zero_copy_only=False).astype(bool)
    second = pc.if_else(pc.equal(found["second"], ""), "00", found["second"])
    written = pc.binary_join_element_wise(found["day"], "T", found["clock"], ":", second, "")
    moments = pc.strptime(written, format="%Y-%m-%dT%H:%M:%S", unit="s", error_is_null=True)
    # The 30th of February reads as the 1st of March: only what is written the same again was a moment.
    again = pc.strftime(moments, format="%Y-%m-%dT%H:%M:%S")
    fits = reads & pc.fill_null(pc.equal(again, written), False).to_numpy(zero_copy_only=False).astype(bool)
    fraction = pc.utf8_rtrim(pc.fill_null(found["fraction"], ""), characters="0")
    fits &= pc.less_equal(pc.utf8_length(fraction), 6).to_numpy(zero_copy_only=False).astype(bool)
    micros = pc.if_else(
        pc.less_equal(pc.utf8_length(fraction), 6), pc.utf8_rpad(fraction, 6, padding="0"), "000000"
    ).cast(pa.int64())
    zone = pc.replace_substring(pc.fill_null(found["zone"], ""), ":", "")
    offset_s, known = _zone_seconds(zone)
    if date_only:
        known &= offset_s == 0
    seconds = moments.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    total = (seconds - offset_s) * 1_000_000 + micros.to_numpy(zero_copy_only=False)
    fits &= known & (total >= FIRST_US) & (total <= LAST_US)
    if date_only:
        fits &= total % DAY_US == 0
    return total.astype(np.int64), fits


def _zone_seconds(zones: "pa.Array[Any]") -> tuple[NDArray[np.int64], Mask]:
    """Seconds east of UTC for "", Z, +05, +0530 (none is UTC), and which are real offsets."""
    encoded = zones.dictionary_encode()
    seconds, known = [], []
    for zone in encoded.dictionary.to_pylist():
        digits = "0000" if zone in ("", "Z", "z") else zone[1:].ljust(4, "0")
        hours, minutes = int(digits[:2]), int(digits[2:])
        seconds.append((hours * 3600 + minutes * 60) * (-1 if zone.startswith("-") else 1))
        known.append(hours < 24 and minutes < 60)
    indices = encoded.indices.to_numpy(zero_copy_only=False)
    return np.asarray(seconds, dtype=np.int64)[indices], np.asarray(known, dtype=bool)[indices]


def _timestamp_micros(values: "pa.Array[Any]") -> tuple[NDArray[np.int64], Mask]:
    """Microseconds since 1970 UTC, and which fit; a timestamp without a zone is UTC."""
    import pyarrow as pa

    raw = values.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    if values.type.unit == "ns":
        micros, fits = raw // 1000, raw % 1000 == 0
    else:
        factor = {"s": 1_000_000, "ms": 1_000, "us": 1}[values.type.unit]
        fits = (raw >= FIRST_US // factor) & (raw <= LAST_US // factor)
        micros = np.where(fits, raw, 0) * factor
    return micros, fits & (micros >= FIRST_US) & (micros <= LAST_US)


def _timestamp_as_timestamp(values: "pa.Array[Any]") -> Converted:
    micros, fits = _timestamp_micros(values)
    return _made("timestamp", micros, _present(values), fits, MOMENT)


def _timestamp_as_date(values: "pa.Array[Any]") -> Converted:
    micros, fits = _timestamp_micros(values)
    reason = f"{DAY}; a timestamp is one only at midnight, without a zone or in UTC"
    if values.type.tz not in (None, "UTC", "Etc/UTC", "GMT", "Z", "+00:00", "00:00"):
        fits = np.zeros(len(fits), dtype=bool)
    return _made("date", micros // DAY_US, _present(values), fits & (micros % DAY_US == 0), reason)


def _date_days(values: "pa.Array[Any]") -> tuple[NDArray[np.int64], Mask]:
    import pyarrow as pa
    from pyarrow import types

    is_64 = types.is_date64(values.type)
    raw = values.cast(pa.int64() if is_64 else pa.int32()).fill_null(0).to_numpy(zero_copy_only=False)
    days, fits = (raw // 86_400_000, raw % 86_400_000 == 0) if is_64 else (raw, np.ones(len(raw), dtype=bool))
    days = days.astype(np.int64)
    return days, fits & (days >= FIRST_US // DAY_US) & (days <= LAST_US // DAY_US)


def _date_as_date(values: "pa.Array[Any]") -> Converted:
    days, fits = _date_days(values)
    return _made("date", days, _present(values), fits, DAY)


def _date_as_timestamp(values: "pa.Array[Any]") -> Converted:
    days, fits = _date_days(values)
    return _made("timestamp", np.where(fits, days, 0) * DAY_US, _present(values), fits, MOMENT)


_Rule = Callable[["pa.Array[Any]"], Converted]
_RULES: dict[ColumnType, dict[Family, _Rule]] = {
    "string": {"text": _text_as_text},
    "integer": {
        "text": _text_as_integer,
        "integer": _integer_as_integer,
        "float": _float_as_integer,
        "decimal": _decimal_as_integer,
    },
    "number": {
        "text": _text_as_number,
        "integer": _integer_as_number,
        "float": _float_as_number,
        "decimal": _decimal_as_number,
    },
    "boolean": {
        "text": _text_as_boolean,
        "integer": _integer_as_boolean,
        "float": _float_as_boolean,
        "decimal": _decimal_as_boolean,
        "boolean": _boolean_as_boolean,
    },
    "timestamp": {
        "text": _text_as_timestamp,
        "timestamp": _timestamp_as_timestamp,
        "date": _date_as_timestamp,
    },
    "date": {"text": _text_as_date, "timestamp": _timestamp_as_date, "date": _date_as_date},
}
"""One rule per cell; where there is none, no value of the family fits the kind."""
