"""What every source format does: what is declared gives a reader; bytes in, a table out, or a DataError.

Belongs here: the two interfaces. Does not belong here: finding files (``data/locations.py``) and declared
types (``data/schema.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from mlops_assets.data.conversion import ColumnType
from mlops_assets.data.guess import Guess

if TYPE_CHECKING:
    import pyarrow as pa


class SourceDeclaration(BaseModel, ABC):
    """What stands under ``source:`` of a dataset: the member of a family, found by its ``format``.

    Fields of a format's own are declared as in any pydantic model. Other fields are refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    name: ClassVar[str]
    """What YAML calls the format."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """How names of such files end, in lower case, unpacked."""

    format: str = Field(description="The format of the files.")
    path: str = Field(
        description="package://DISTRIBUTION/file, a path relative to this file, an absolute path or s3://; "
        "{partition} in it means one file per partition."
    )

    @abstractmethod
    def reader(self) -> "SourceFormat":
        """Reads files as declared."""

    @classmethod
    def guessed(cls, content: bytes, name: str) -> tuple[dict[str, Any], list[Guess]]:
        """The fields that reading this file takes beside ``path``, and why: none unless overridden.

        DataError for a file that no fields make readable.
        """
        return {}, []

    def problem(self, columns: Mapping[str, ColumnType], *, transformed: bool) -> str | None:
        """Why the fields do not go with the dataset's columns, or with having a transform; None: they do."""
        return None


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
