"""Parquet files. Belongs here: reading them. Does not belong here: declared types (``data/schema.py``)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlops_assets.data.sources._base import SourceFormat
from mlops_assets.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


class ParquetFormat(SourceFormat):
    """Types are the file's own. The footer comes last in the file, so a cut-off file is never readable."""

    def read(self, content: bytes, *, name: str, text_columns: Sequence[str] = ()) -> "pd.DataFrame":
        import pyarrow as pa
        from pyarrow import parquet

        try:
            table = parquet.read_table(pa.BufferReader(content))
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"Source file {name} is not valid Parquet, or is cut off: {error}") from error
        return table.to_pandas()
