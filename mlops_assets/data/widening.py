"""Tables of several files as one: a type becomes a wider one where no value changes, or it is refused.

Belongs here: which types of a column may stand side by side. Does not belong here: which of them fits a
declared type (``conversion.py``).
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mlops_assets.data.conversion import family_of
from mlops_assets.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_UNITS = ("s", "ms", "us", "ns")


def one_table(tables: "Mapping[str, pa.Table]") -> "pa.Table":
    """The rows of all files (by name), in their order; columns in the order of the first.

    Raises DataError, naming two files, the column and what differs, for a column that a file lacks, and for
    one whose types no type holds without a loss.
    """
    import pyarrow as pa

    require_same_columns({name: table.column_names for name, table in tables.items()})
    if len(tables) == 1:
        return next(iter(tables.values()))
    first = next(iter(tables.values()))
    if not first.column_names:
        return rows_alone(sum(table.num_rows for table in tables.values()))
    columns = {
        column: _one_column(column, {name: table.column(column) for name, table in tables.items()})
        for column in first.column_names
    }
    return pa.table(columns)


def rows_alone(count: int) -> "pa.Table":
    """A table without columns, which has rows all the same."""
    import pyarrow as pa

    return pa.table({"": pa.nulls(count)}).select([])


def require_same_columns(columns: Mapping[str, Iterable[str]]) -> None:
    """DataError naming a column that one file has and another lacks: what it holds there is a guess."""
    first, *others = columns
    known = set(columns[first])
    for other in others:
        found = set(columns[other])
        if found == known:
            continue
        column = min(found ^ known)
        has, lacks = (first, other) if column in known else (other, first)
        raise DataError(
            f"Files that are read together differ: {has} has a column {column!r}, {lacks} has none. A column "
            "without a value is written in every file."
        )


def _one_column(column: str, of_file: "Mapping[str, pa.ChunkedArray[Any]]") -> "pa.ChunkedArray[Any]":
    import pyarrow as pa

    first_of: dict[pa.DataType, str] = {}
    for name, values in of_file.items():
        first_of.setdefault(values.type, name)
    wide = next(iter(first_of))
    for held, name in first_of.items():
        widened = _wider(wide, held)
        if widened is None:
            raise _differ(column, next(iter(first_of.items())), (held, name), "no type holds both")
        wide = widened
    chunks: list[pa.Array[Any]] = []
    for name, values in of_file.items():
        try:
            chunks += values.cast(wide).chunks
        except pa.ArrowInvalid as error:
            other = next((held, one) for held, one in first_of.items() if held != values.type)
            raise _differ(column, other, (values.type, name), str(error)) from error
    return pa.chunked_array(chunks, wide)


def _differ(
    column: str, one: "tuple[pa.DataType, str]", other: "tuple[pa.DataType, str]", reason: str
) -> DataError:
    return DataError(
        f"Files that are read together differ: column {column!r} is {one[0]} in {one[1]} and {other[0]} in "
        f"{other[1]}, and {reason}."
    )


def _wider(one: "pa.DataType", other: "pa.DataType") -> "pa.DataType | None":
    """A type for the values of both, or None; a cast to it fails for a value that it would change."""
    import pyarrow as pa
    from pyarrow import types

    if one == other:
        return one
    one, other = (held.value_type if types.is_dictionary(held) else held for held in (one, other))
    if one == other or types.is_null(other):
        return one
    if types.is_null(one):
        return other
    families = {family_of(one), family_of(other)}
    if families == {"text"}:
        return pa.large_string()
    if families == {"bytes"}:
        return pa.large_binary()
    if families == {"integer"}:
        unsigned = types.is_unsigned_integer(one) and types.is_unsigned_integer(other)
        return pa.uint64() if unsigned else pa.int64()
    if families <= {"integer", "float"}:
        return pa.float64()
    if families == {"decimal"}:
        scale = max(one.scale, other.scale)
        whole = max(one.precision - one.scale, other.precision - other.scale)
        return pa.decimal256(whole + scale, scale) if whole + scale <= 76 else None
    if families == {"timestamp"} and one.tz == other.tz:
        return pa.timestamp(max(one.unit, other.unit, key=_UNITS.index), tz=one.tz)
    return None
