"""Sources that are files: where they are, and their bytes through a format.

Belongs here: what every file source declares, and reading one file or one per partition. Does not belong
here: formats (the files beside this one), finding and opening files (``data/locations.py``).
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mlops_assets.data.conversion import ColumnType
from mlops_assets.data.guess import Guess
from mlops_assets.data.locations import PARTITION, S3, locate, read_bytes
from mlops_assets.data.sources._base import Asked, LakeAccess, SourceDeclaration, SourceFormat, SourceReader
from mlops_assets.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


class FileSource(SourceDeclaration):
    """Files of one format; a member adds its fields and ``file_format``."""

    path: str = Field(
        description="package://DISTRIBUTION/file, a path relative to this file, an absolute path or s3://; "
        "{partition} in it means one file per partition."
    )

    @abstractmethod
    def file_format(self) -> SourceFormat:
        """Reads one file as declared."""

    def reader(self, folder: Path) -> "FileReader":
        return FileReader(self.path, self.file_format(), folder)

    @classmethod
    def guessed(cls, content: bytes, name: str) -> tuple[dict[str, Any], list[Guess]]:
        """The fields that reading this file takes beside ``path``, and why: none unless overridden.

        DataError for a file that no fields make readable.
        """
        return {}, []

    def problem(
        self, columns: Mapping[str, ColumnType], *, transformed: bool, partitioned: bool
    ) -> str | None:
        return (
            f"{PARTITION} in the path needs partitions"
            if PARTITION in self.path and not partitioned
            else None
        )


@dataclass(frozen=True)
class FileReader(SourceReader):
    """One file, or one per partition. Relative paths start at ``folder``."""

    path: str
    format: SourceFormat
    folder: Path

    @property
    def where(self) -> str:
        return self.path

    @property
    def apart(self) -> bool:
        return PARTITION in self.path

    def read(self, asked: Asked, lake: LakeAccess) -> "pa.Table":
        partition = None
        if self.apart:
            (partition,) = asked.partitions or ()
        location = locate(self.path, folder=self.folder, partition=partition)
        content = read_bytes(location, lake.s3_options() if location.startswith(S3) else {})
        try:
            return self.format.read(content, name=location, columns=asked.columns, infer=asked.infer)
        except DataError:
            raise
        except Exception as error:  # whatever a format raises is about this file, and says so
            raise DataError(
                f"Source file {location} cannot be read: {type(error).__name__}: {error}"
            ) from error
