"""CSV files with a header line; plain, or compressed as .zip (one member) or .gz.

Belongs here: reading, decompressing, and telling a whole file from one that was cut off. Does not
belong here: declared types (``data/schema.py``).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from mlops_assets.data.sources._base import SourceFormat
from mlops_assets.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


class CsvFormat(SourceFormat):
    """Column types are inferred from the whole file; ``null_values`` are missing in every column.

    Rows with too few or too many fields are an error. So is a last line without a line end, the one
    trace of a file cut inside its last field; ``final_newline="optional"`` accepts it, for writers that
    never end their files with one.
    """

    def __init__(
        self,
        *,
        delimiter: str = ",",
        null_values: Sequence[str] = ("", "NA"),
        final_newline: Literal["required", "optional"] = "required",
    ) -> None:
        self._delimiter = delimiter
        self._null_values = list(null_values)
        self._final_newline_required = final_newline == "required"

    def read(self, content: bytes, *, name: str, text_columns: Sequence[str] = ()) -> "pd.DataFrame":
        import pyarrow as pa
        from pyarrow import csv

        content = _decompressed(content, name)
        if not content.strip():
            raise DataError(f"Source file {name} is empty.")
        if self._final_newline_required and not content.endswith((b"\n", b"\r")):
            tail = content[-60:].rsplit(b"\n", 1)[-1].decode(errors="replace")
            raise DataError(
                f"Source file {name} looks cut off: its last line has no line end (...{tail!r}). "
                "If its writer never ends the last line, declare final_newline: optional."
            )
        try:
            table = csv.read_csv(
                pa.BufferReader(content),
                # One block: types are inferred from the first block, and a year's text starts late.
                read_options=csv.ReadOptions(block_size=min(max(len(content) + 1, 1 << 16), (1 << 31) - 1)),
                parse_options=csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=b'"' in content),
                convert_options=csv.ConvertOptions(
                    null_values=self._null_values,
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    column_types={column: pa.string() for column in text_columns},
                ),
            )
        except pa.ArrowInvalid as error:
            raise DataError(f"Source file {name} is not valid CSV: {error}") from error
        return table.to_pandas()


def _decompressed(content: bytes, name: str) -> bytes:
    import gzip
    import io
    import zipfile
    import zlib

    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = archive.namelist()
                if len(members) != 1:
                    raise DataError(f"Source file {name} must hold one file, not {len(members)}: {members}")
                return archive.read(members[0])
        if name.endswith(".gz"):
            return gzip.decompress(content)
    except (zipfile.BadZipFile, EOFError, OSError, zlib.error) as error:
        raise DataError(f"Source file {name} is cut off or damaged: {error}") from error
    return content
