"""Sources that are files: where they are, and their bytes through a format.

Belongs here: what every file source declares, which files a partition has, and reading them. Does not belong
here: formats (the files beside this one), what a path means (``data/locations.py``), listing and opening
(``data/file_stores.py``).
"""

import hashlib
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mlops_assets.data.conversion import ColumnType
from mlops_assets.data.file_stores import CONNECTIONS, FileStore, ListedFile, LocalFiles, S3Files
from mlops_assets.data.guess import Guess
from mlops_assets.data.locations import PACKAGE, PARTITION, S3, Pattern, is_pattern, locate
from mlops_assets.data.sources._base import (
    WHOLE,
    Asked,
    LakeAccess,
    SourceDeclaration,
    SourceFormat,
    SourceReader,
)
from mlops_assets.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


class FileSource(SourceDeclaration):
    """Files of one format; a member adds its fields and ``file_format``."""

    path: str = Field(
        description="package://DISTRIBUTION/file, a path relative to this file, an absolute path or s3://; "
        "{partition} in it means files per partition, * and ? in names and **/ for folders mean all that fit."
    )
    probe: bool = Field(
        default=False,
        description="Look for partitions whose files changed, and read those again.",
    )

    @abstractmethod
    def file_format(self) -> SourceFormat:
        """Reads one file as declared."""

    def reader(self, folder: Path) -> "FileReader":
        return FileReader(self.path, self.file_format(), folder)

    @property
    def probed(self) -> bool:
        return self.probe

    @classmethod
    def guessed(cls, content: bytes, name: str) -> tuple[dict[str, Any], list[Guess]]:
        """The fields that reading this file takes beside ``path``, and why: none unless overridden.

        DataError for a file that no fields make readable.
        """
        return {}, []

    def problem(
        self, columns: Mapping[str, ColumnType], *, transformed: bool, partitioned: bool
    ) -> str | None:
        path = self.path
        if PARTITION in path and not partitioned:
            return f"{PARTITION} in the path needs partitions"
        if self.probe and (path.startswith(PACKAGE) or (partitioned and PARTITION not in path)):
            return f"probe tells by files whose rows changed: the path needs {PARTITION}, and no {PACKAGE}"
        if path.endswith("/"):
            return f"path names a folder; say which files of it, like {path}*{(*self.suffixes, '.csv')[0]}"
        if is_pattern(path) and path.startswith(PACKAGE):
            return f"{PACKAGE} names one file: no * and no ? in it"
        if is_pattern(path.removeprefix(S3).partition("/")[0]) and path.startswith(S3):
            return "a bucket is named in full: no * and no ? in it"
        if "**" in path.replace("/**/", "/"):
            return "** stands for folders, so it is written between slashes, like raw/**/*.csv"
        return None


@dataclass(frozen=True)
class FileReader(SourceReader):
    """One file or all that fit a pattern, at once or per partition. Relative paths start at ``folder``."""

    path: str
    format: SourceFormat
    folder: Path

    @property
    def where(self) -> str:
        return self.path

    @property
    def apart(self) -> bool:
        return PARTITION in self.path

    @contextmanager
    def opened(self, asked: Asked, lake: LakeAccess) -> Iterator[SourceReader]:
        store = S3Files(lake.s3_client()) if self.path.startswith(S3) else LocalFiles()
        pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="source")
        try:
            yield _OpenedFiles(self.path, self.format, self.folder, asked.partitions, store, pool)
        finally:
            pool.shutdown(cancel_futures=True)

    def read(self, asked: Asked, lake: LakeAccess) -> "pa.Table":
        with self.opened(asked, lake) as reader:
            return reader.read(asked, lake)

    def states(self, asked: Asked, lake: LakeAccess) -> Mapping[str, str]:
        with self.opened(asked, lake) as reader:
            return reader.states(asked, lake)


@dataclass(frozen=True)
class _OpenedFiles(FileReader):
    """The same for one run over ``partitions`` (None: all), which lists what it has to list once."""

    partitions: Sequence[str] | None
    store: FileStore
    pool: ThreadPoolExecutor
    _known: dict[str | None, list[ListedFile]] = field(default_factory=dict)

    def read(self, asked: Asked, lake: LakeAccess) -> "pa.Table":
        partition = None
        if self.apart:
            (partition,) = asked.partitions or ()
        if not is_pattern(self.path):
            location = locate(self.path, folder=self.folder, partition=partition)
            with _named(location):
                content = self.store.content(location)
                return self.format.read(content, name=location, columns=asked.columns, infer=asked.infer)
        files = self._files(partition)
        parts = self.pool.map(lambda file: self._part(file, asked), files)
        return self.format.joined(
            {file.location: part for file, part in zip(files, parts, strict=True)},
            columns=asked.columns,
            infer=asked.infer,
        )

    def states(self, asked: Asked, lake: LakeAccess) -> Mapping[str, str]:
        listed = self._listed()
        return {
            WHOLE if key is None else key: _state(files)
            for key, files in listed.items()
            if files and (self.partitions is None or key is None or key in self.partitions)
        }

    def _part(self, file: ListedFile, asked: Asked) -> Any:
        with _named(file.location):
            content = self.store.content(file.location, file.mark)
            return self.format.part(content, name=file.location, columns=asked.columns, infer=asked.infer)

    def _files(self, partition: str | None) -> Sequence[ListedFile]:
        files = self._listed().get(partition)
        if not files:
            shown = self.path if partition is None else self.path.replace(PARTITION, partition)
            raise DataError(
                f"No file fits {shown}. A folder without one is like no folder; a file without rows says "
                "that there are none."
            )
        return files

    def _listed(self) -> Mapping[str | None, Sequence[ListedFile]]:
        """The files of each partition of the run (of None: of all), sorted by their names."""
        if self._known:
            return self._known
        local = not self.path.startswith(S3)
        pattern = Pattern(str((self.folder / self.path).absolute()) if local else self.path)
        keys: Sequence[str | None] = self.partitions if self.apart and self.partitions is not None else [None]
        depth = pattern.depth(keys[0]) if keys else 0
        starts = sorted(self.store.starts(pattern.prefix(key) for key in keys))
        found = defaultdict(list)

        def files_of(start: str) -> list[ListedFile]:
            return list(self.store.listed(start, depth, lambda location: bool(pattern.fits(location))))

        for files in self.pool.map(files_of, starts):
            for file in files:
                fitting = pattern.fits(file.location)
                assert fitting is not None
                found[fitting["partition"] if self.apart else None].append(file)
        self._known.update({key: sorted(files) for key, files in found.items()} or {None: []})
        return self._known


@contextmanager
def _named(location: str) -> Iterator[None]:
    """Whatever a format raises is about this file, and says so."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"Source file {location} cannot be read: {type(error).__name__}: {error}") from error


def _state(files: Iterable[ListedFile]) -> str:
    """Another text whenever a file came, went or changed."""
    lines = [f"{file.location}\n{file.mark}\n" for file in files]
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()[:32]
