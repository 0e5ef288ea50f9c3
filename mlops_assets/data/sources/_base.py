"""What every source format does: bytes of one file in, a table out, or a DataError.

Belongs here: the interface. Does not belong here: finding files (``data/locations.py``) and declared
types (``data/schema.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mlops_assets.data.conversion import ColumnType

if TYPE_CHECKING:
    import pyarrow as pa


class SourceFormat(ABC):
    """Reads whole files. Half a file is never half a table: it is an error."""

    @abstractmethod
    def read(
        self, content: bytes, *, name: str, columns: Mapping[str, ColumnType], infer: bool = False
    ) -> "pa.Table":
        """Rows of one file, every value as the file holds it; ``name`` is what errors call the file.

        Of the declared ``columns`` those that the file has, in the file's own types: a format whose
        values are all text gives text, and what means missing there depends on the declared type. With
        ``infer`` all columns of the file are given, and text that reads as another type has that type: it is
        for a transform, which knows the raw columns better than a declaration of what it makes. A declared
        ``string`` stays text all the same.

        Raises DataError when the file is empty, cut off or malformed, or has a column twice.
        """


def require_distinct(names: list[str], file: str) -> None:
    """DataError naming the columns that a file has twice: which of them is meant would be a guess."""
    from mlops_assets.errors import DataError

    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"Source file {file} has columns twice: {', '.join(map(repr, repeated))}. Every column needs a "
            "name of its own."
        )
