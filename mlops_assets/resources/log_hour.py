"""One hour's folder of the prediction log: which of its files count, and how they become one.

Belongs here: the protocol by which many small files are replaced by one without a reader noticing. Does
not belong here: which hours there are and what is asked of them (``resources/inference_log.py``), writing
answers (``serve/inference_log.py``).

A compacted hour holds ``_compacted.json``, which names one ``compacted-….parquet`` and the files that went
into it. A reader counts that file and every other one that it does not name as replaced. So the switch is the
one moment in which ``_compacted.json`` appears or is replaced, which both stores do as a whole:

1. the merged file is written, and counts for nobody yet;
2. ``_compacted.json`` names it: from here on it counts and its sources do not;
3. the sources are deleted.

Cut off anywhere, every row is there once, and the next compaction finishes what was begun. A reader lists
first and reads ``_compacted.json`` afterwards: sources that were deleted while it listed are named there. A
file that is deleted between its listing and its reading is FileNotFoundError, and the reader begins anew.
The names of replaced files are kept: a gateway that was not told that its write had succeeded writes the
same file again, and it must not count a second time.

Two compactions at once. In a local folder a lock lets one in at a time. An object store has conditional
writes: ``_compacted.json`` is written only if it is still what the compaction read before it merged, and
every writing makes it another, because no two merged files have the same name. Whoever comes second has
changed nothing, removes the file it merged and looks again. A merged file that nothing names is removed only
once ``_compacted.json`` has moved on: whoever wrote it read an earlier one, and can name it no more.
"""

import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.errors import DataError
from mlops_assets.resources.conditional_store import ConditionalStore

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "_compacted.json"
MERGED = "compacted-"
LOCK = ".compacting"
GROUP_ROWS = 65_536
"""Rows that are held in memory at once, and stand together in the merged file."""
TRIES = 10


@dataclass(frozen=True)
class LogFile:
    """One file of the log; ``hour`` is when the hour began whose answers it holds."""

    path: str
    size_bytes: int
    hour: datetime


@dataclass(frozen=True)
class Compaction:
    """What a compaction did; of several hours, the sums."""

    hours: int = 0
    """Hours that have one file now and had more before."""
    files: int = 0
    """Files that went into them."""
    rows: int = 0
    bytes_before: int = 0
    bytes_after: int = 0

    def __add__(self, other: "Compaction") -> "Compaction":
        return Compaction(
            self.hours + other.hours,
            self.files + other.files,
            self.rows + other.rows,
            self.bytes_before + other.bytes_before,
            self.bytes_after + other.bytes_after,
        )


@dataclass(frozen=True)
class _Manifest:
    """``tag``: what the store calls this content of it; None where it was read without asking."""

    file: str
    replaced: frozenset[str]
    tag: str | None = None


@dataclass(frozen=True)
class _Listed:
    """What a folder holds: files that count, files that were replaced, and merged ones that nothing names."""

    counted: tuple[LogFile, ...]
    replaced: tuple[str, ...]
    unnamed: tuple[str, ...]
    manifest: _Manifest | None


class LogHour:
    """The folder of the hour that begins at ``hour``; ``is_local`` says whether it is on this machine."""

    def __init__(self, filesystem: Any, folder: str, hour: datetime, *, is_local: bool) -> None:
        self._filesystem, self._folder, self._hour, self._is_local = filesystem, folder, hour, is_local

    def files(self) -> list[LogFile]:
        """The files whose rows count, in the order of their names; [] for a folder that is not there."""
        return list(self._list().counted)

    def compact(self, schema: "pa.Schema", store: ConditionalStore | None = None) -> Compaction:
        """Makes one file of those that count. Changes nothing where there is one already.

        ``store`` is what an object store's ``_compacted.json`` is written with; None for a local folder,
        whose lock the caller holds. Raises DataError when a file cannot be read: then nothing is replaced.
        """
        for _ in range(TRIES):
            listed = self._list(store)
            if len(listed.counted) > 1:
                done = self._merge(listed, schema, store)
                if done is None:
                    continue
                return done
            # Whoever wrote a merged file had more files before him, and of these the manifest has moved on.
            self._delete([*listed.replaced, *(listed.unnamed if listed.manifest else ())])
            return Compaction()
        raise DataError(f"{self._folder} was compacted by others {TRIES} times meanwhile; try again later")

    def _list(self, store: ConditionalStore | None = None) -> _Listed:
        from pyarrow import fs

        for _ in range(TRIES):
            found = {
                one.base_name: one
                for one in self._filesystem.get_file_info(fs.FileSelector(self._folder, allow_not_found=True))
                if one.type == fs.FileType.File
                and one.base_name.endswith(".parquet")
                and not one.base_name.startswith(".")
            }
            manifest = self._manifest(store)
            if manifest is not None and manifest.file not in found:
                # It is younger than the listing, or was replaced in turn.
                merged = self._filesystem.get_file_info(f"{self._folder}/{manifest.file}")
                if merged.type != fs.FileType.File:
                    continue
                found[manifest.file] = merged
            return self._sorted_out(found, manifest)
        raise DataError(
            f"{self._folder}/{MANIFEST} names a file that is not there; restore it, or remove {MANIFEST} to "
            "count the other files"
        )

    def _sorted_out(self, found: dict[str, Any], manifest: _Manifest | None) -> _Listed:
        counted, replaced, unnamed = [], [], []
        for name, one in sorted(found.items()):
            if manifest is not None and name in manifest.replaced:
                replaced.append(one.path)
            elif name.startswith(MERGED) and (manifest is None or name != manifest.file):
                unnamed.append(one.path)
            else:
                counted.append(LogFile(one.path, int(one.size), self._hour))
        return _Listed(tuple(counted), tuple(replaced), tuple(unnamed), manifest)

    def _manifest(self, store: ConditionalStore | None = None) -> _Manifest | None:
        path, before = f"{self._folder}/{MANIFEST}", b""
        for _ in range(TRIES):
            tag = None
            if store is not None:
                held = store.read(path)
                if held is None:
                    return None
                text, tag = held.content, held.tag
            else:
                try:
                    with self._filesystem.open_input_file(path) as stream:
                        text = stream.read()
                except FileNotFoundError:
                    return None
            try:
                document = json.loads(text)
                return _Manifest(document["file"], frozenset(document["replaced"]), tag)
            except (ValueError, KeyError, TypeError) as error:
                failed = error
            # An object that is replaced between asking for its size and reading it ends in the middle. What
            # says the same twice is broken.
            if text == before:
                break
            before = text
        raise DataError(f"{path} is not what a compaction writes: {failed!r}") from failed

    # -- merging -------------------------------------------------------------------------------------

    def _merge(
        self, listed: _Listed, schema: "pa.Schema", store: ConditionalStore | None
    ) -> Compaction | None:
        """One file of those that count; None when another compaction was first, and nothing was changed."""
        before = listed.manifest
        paths = [file.path for file in listed.counted]
        names = sorted(path.rsplit("/", 1)[1] for path in paths)
        replaced = frozenset({*names, *(before.replaced if before else ())})
        merged = _merged_name(replaced, is_alone=store is None)
        own = f"{self._folder}/{merged}"
        try:
            rows = self._write_merged(merged, paths, schema)
            size = self._filesystem.get_file_info(own).size
        except DataError:
            if store is not None and self._manifest(store) != before:
                return None  # What could not be read was replaced meanwhile.
            raise
        if not self._commit(_Manifest(merged, replaced), before, store):
            self._delete([own])  # Nobody else can have named it.
            return None
        self._delete([*paths, *listed.replaced, *(path for path in listed.unnamed if path != own)])
        return Compaction(
            hours=1,
            files=len(names),
            rows=rows,
            bytes_before=sum(file.size_bytes for file in listed.counted),
            bytes_after=int(size),
        )

    def _commit(self, after: _Manifest, before: _Manifest | None, store: ConditionalStore | None) -> bool:
        """Declares what counts from here on; False when somebody else did since ``before``."""
        document = {"file": after.file, "replaced": sorted(after.replaced)}
        content = json.dumps(document, indent=0).encode()
        if store is None:
            self._put(MANIFEST, content)
            return True
        path = f"{self._folder}/{MANIFEST}"
        if store.write(path, content, replacing=before.tag if before else None):
            return True
        # A write whose answer was lost is tried again, and refused because of itself.
        found = self._manifest(store)
        return found is not None and found.file == after.file

    def _write_merged(self, name: str, paths: Sequence[str], schema: "pa.Schema") -> int:
        """Writes the rows of these files as one; how many there are."""
        import pyarrow as pa
        import pyarrow.dataset as ds
        import pyarrow.parquet as pq

        written = 0
        waiting: list[Any] = []
        with self._written(name) as sink, pq.ParquetWriter(sink, schema, compression="zstd") as writer:

            def flush() -> None:
                nonlocal written, waiting
                if waiting:
                    table = pa.Table.from_batches(waiting, schema)
                    writer.write_table(table, row_group_size=GROUP_ROWS)
                    written, waiting = written + table.num_rows, []

            try:
                source = ds.dataset(list(paths), schema=schema, format="parquet", filesystem=self._filesystem)
                for batch in source.to_batches():
                    waiting.append(batch)
                    if sum(one.num_rows for one in waiting) >= GROUP_ROWS:
                        flush()
            except (OSError, ValueError) as error:  # Arrow's errors are among these, and name the file.
                raise DataError(f"Cannot compact the prediction log {self._folder}: {error}") from error
            flush()
        return written

    @contextmanager
    def _written(self, name: str) -> Iterator[Any]:
        """A stream to a file that appears under its name when the block ends, and not when it raises."""
        if not self._is_local:
            stream = self._filesystem.open_output_stream(f"{self._folder}/{name}")
            # Not a with block: closing would complete the upload, also after an error.
            yield stream
            stream.close()
            return
        target = Path(self._folder) / name
        partial = target.with_name(f".{name}.partial")
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            # A power cut must not leave the sources deleted and the new name unknown.
            os.fsync(folder)
        finally:
            os.close(folder)

    def _put(self, name: str, content: bytes) -> None:
        with self._written(name) as stream:
            stream.write(content)

    def _delete(self, paths: Sequence[str]) -> None:
        for path in paths:
            try:
                self._filesystem.delete_file(path)
            except FileNotFoundError:
                continue


def _merged_name(replaced: frozenset[str], *, is_alone: bool) -> str:
    """Made of the names that go into it; a compaction that may have company gets a name of its own."""
    digest = hashlib.sha256("/".join(sorted(replaced)).encode()).hexdigest()[:16]
    # Alone, it writes over what a compaction left that was cut off.
    return f"{MERGED}{digest}.parquet" if is_alone else f"{MERGED}{digest}-{uuid.uuid4().hex[:16]}.parquet"


@contextmanager
def one_at_a_time(folder: str) -> Iterator[None]:
    """Waits until no other process compacts in this local folder. Ends with the process that holds it."""
    with (Path(folder) / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
