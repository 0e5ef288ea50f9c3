"""Parquet files. Belongs here: reading them. Does not belong here: declared types (``data/schema.py``)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlops_assets.data.conversion import ColumnType
from mlops_assets.data.sources._base import SourceFormat, require_distinct
from mlops_assets.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


class ParquetFormat(SourceFormat):
    """Types are the file's own. The footer comes last in the file, so a cut-off file is never readable."""

    def read(
        self, content: bytes, *, name: str, columns: Mapping[str, ColumnType], infer: bool = False
    ) -> "pa.Table":
        import pyarrow as pa
        from pyarrow import parquet

        try:
            file = parquet.ParquetFile(pa.BufferReader(content))
            names = file.schema_arrow.names
            require_distinct(names, name)
            wanted = None if infer else [column for column in names if column in columns]
            table = file.read(columns=wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise DataError(f"Source file {name} is not valid Parquet, or is cut off: {error}") from error
        # Without a column Arrow forgets how many rows there were.
        return table.select(wanted) if wanted else table
