"""What every source does: what is declared gives a reader, and the reader gives rows or a DataError.

Belongs here: the interfaces of sources, and that of file formats. Does not belong here: attributing faults to
partitions (``data/loading.py``), declared types (``data/schema.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field

from mlops_assets.data.conversion import ColumnType
from mlops_assets.data.widening import one_table

if TYPE_CHECKING:
    import pyarrow as pa


WHOLE = ""
"""Stands for all rows where a dataset without partitions has its one state."""


class LakeAccess(Protocol):
    """What a reader may use of the lake."""

    def s3_client(self) -> Any:
        """A botocore client of the lake's object store, to be used by several threads."""

    def rows_of(
        self, table: str, column: str, partitions: Sequence[str], columns: Sequence[str] | None
    ) -> "pa.Table":
        """Rows of these partitions of a table that is partitioned by ``column``, in its own types. Of
        ``columns`` (None: all) those that it has.
        """

    def row_counts(self, table: str, column: str) -> Mapping[str, int]:
        """Rows of each partition of a table that is partitioned by ``column``."""


@dataclass(frozen=True)
class Asked:
    """What a reader is asked for.

    ``columns`` are the declared ones. With ``infer`` all columns of the source are wanted: a transform
    follows. ``partitions`` are the keys of the wanted partitions, which ``partition_column`` holds; both are
    None for a dataset without partitions.
    """

    columns: Mapping[str, ColumnType]
    infer: bool = False
    partition_column: str | None = None
    partitions: Sequence[str] | None = None


class SourceReader(ABC):
    """Reads rows of a declared source. Half of the rows are never taken for all of them: that is an error."""

    @property
    @abstractmethod
    def where(self) -> str:
        """What errors call the source: never a secret."""

    @property
    def apart(self) -> bool:
        """Whether partitions are read one by one, so that a fault is of the partition that was read."""
        return False

    @contextmanager
    def opened(self, asked: Asked, lake: LakeAccess) -> Iterator["SourceReader"]:
        """The reader for a run over ``asked``: what its reads share is got once, and let go at the end."""
        yield self

    @abstractmethod
    def read(self, asked: Asked, lake: LakeAccess) -> "pa.Table":
        """At least all rows of the partitions asked for, every value as the source holds it.

        A reader that is ``apart`` is asked for one partition at a time. Rows of other partitions may come
        too, where leaving them out is no cheaper.

        Raises DataError for what is wrong with the rows that were asked for; SourceUnavailable when the
        source does not answer or lets nobody in, whatever is asked for.
        """

    def states(self, asked: Asked, lake: LakeAccess) -> Mapping[str, str]:
        """{partition: text that changes whenever its rows may have changed}, of those that have rows.

        Of all partitions where ``asked`` names none. Rows that are gone change it too. Without partitions
        there is one state, of ``WHOLE``. Cheap beside reading. Only asked of a source that is ``probed``.
        """
        raise NotImplementedError(f"{self.where} is not probed")


class SourceDeclaration(BaseModel, ABC):
    """What stands under ``source:`` of a dataset: the member of a family, found by its ``format``.

    Fields of a format's own are declared as in any pydantic model. Other fields are refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    name: ClassVar[str]
    """What YAML calls the format."""
    suffixes: ClassVar[tuple[str, ...]] = ()
    """How names of such files end, in lower case, unpacked."""

    format: str = Field(description="The format of the source.")

    @abstractmethod
    def reader(self, folder: Path) -> SourceReader:
        """Reads as declared; relative paths start at ``folder``."""

    @property
    def probed(self) -> bool:
        """Whether a sensor looks for partitions whose rows changed, and asks for those again."""
        return False

    def problem(
        self, columns: Mapping[str, ColumnType], *, transformed: bool, partitioned: bool
    ) -> str | None:
        """Why the fields do not go with the dataset's columns, with having a transform or with having
        partitions; None: they do.
        """
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

    def part(self, content: bytes, *, name: str, columns: Mapping[str, ColumnType], infer: bool) -> Any:
        """One of several files, as ``joined`` takes it. Threads call this side by side."""
        return self.read(content, name=name, columns=columns, infer=infer)

    def joined(
        self, parts: Mapping[str, Any], *, columns: Mapping[str, ColumnType], infer: bool
    ) -> "pa.Table":
        """The rows of several files, by what errors call them, as if they were one.

        Raises DataError when they differ in their columns, or in a type that cannot be widened without a
        loss.
        """
        return one_table(parts)


def require_distinct(names: list[str], file: str) -> None:
    """DataError naming the columns that a file has twice: which of them is meant would be a guess."""
    from mlops_assets.errors import DataError

    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"Source file {file} has columns twice: {', '.join(map(repr, repeated))}. Every column needs a "
            "name of its own."
        )
