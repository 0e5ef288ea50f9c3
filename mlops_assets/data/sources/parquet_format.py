"""Parquet files. Belongs here: reading them. Does not belong here: declared types (``data/schema.py``)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mlops_assets.data.conversion import ColumnType
from mlops_assets.data.sources._base import SourceFormat, require_distinct
from mlops_assets.data.sources._files import FileSource
from mlops_assets.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet


class ParquetSource(FileSource):
    """Parquet files."""

    name: ClassVar[str] = "parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")

    def file_format(self) -> "ParquetFormat":
        return ParquetFormat()


class ParquetFormat(SourceFormat):
    """Types are the file's own. The footer comes last in the file, so a cut-off file is never readable.

    The old timestamps of 96 bits have nanoseconds and any year; as Arrow reads them by default, years before
    1678 and after 2262 become others. Here they are microseconds, or nanoseconds where there are any.
    """

    def read(
        self, content: bytes, *, name: str, columns: Mapping[str, ColumnType], infer: bool = False
    ) -> "pa.Table":
        import pyarrow as pa
        from pyarrow import parquet

        try:
            file = parquet.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
            names = file.schema_arrow.names
            require_distinct(names, name)
            wanted = None if infer else [column for column in names if column in columns]
            table = _with_whole_times(file.read(columns=wanted), content, file, name)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise DataError(f"Source file {name} is not valid Parquet, or is cut off: {error}") from error
        # Without a column Arrow forgets how many rows there were.
        return table.select(wanted) if wanted else table


def _with_whole_times(
    table: "pa.Table", content: bytes, file: "parquet.ParquetFile", name: str
) -> "pa.Table":
    """The table with its 96 bit timestamps in a unit that holds all of them."""
    import pyarrow as pa
    from pyarrow import parquet

    leaves = [file.schema.column(number) for number in range(len(file.schema))]
    old = [leaf.path for leaf in leaves if leaf.physical_type == "INT96" and leaf.path in table.column_names]
    if not old:
        return table
    whole = parquet.ParquetFile(pa.BufferReader(content), coerce_int96_timestamp_unit="us").read(columns=old)
    for column in old:
        nanoseconds, microseconds = (
            one.column(column).combine_chunks().cast(pa.int64()).fill_null(0).to_numpy()
            for one in (table, whole)
        )
        # Both wrap at 64 bits, so their difference tells the digits beyond microseconds in every year.
        with np.errstate(over="ignore"):
            beyond = nanoseconds - microseconds * 1_000
        if not beyond.any():
            position = table.column_names.index(column)
            table = table.set_column(position, column, whole.column(column))
        elif (np.abs(microseconds) > np.iinfo(np.int64).max // 1_000 - 1).any():
            raise DataError(
                f"Source file {name} holds nanoseconds in column {column!r}, and times outside the years "
                "1678 to 2262: no type of 64 bits holds both."
            )
    return table
