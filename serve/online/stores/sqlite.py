"""One SQLite file per view: for gateways on one host, or with the file on a disk that they share.

Belongs here: the file and how it is opened. Does not belong here: what it holds (``serve/online/held.py``).

Readers and the writer do not wait for each other (write-ahead log). Values lie in the tree of their keys
(``WITHOUT ROWID``), so that a look-up walks one tree.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar

from serve.online.held import HEAD
from serve.online.stores._base import Content, OnlineStore, StoreLost, StoreMoved

BUSY_MS = 10_000
"""How long a writer waits for another one."""
PAGES = 900
"""Keys of one statement; older SQLite takes 999 parameters."""
MMAP_BYTES = 1 << 30
TABLE = "CREATE TABLE IF NOT EXISTS held (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"


class SqliteStore(OnlineStore):
    """``uri`` is a folder of this host."""

    name: ClassVar[str] = "sqlite"

    def __init__(self, uri: str, *, view: str) -> None:
        self._file = Path(uri.removeprefix("file://")).absolute() / f"{view}.sqlite"
        self._path = str(self._file)
        self._reader: sqlite3.Connection | None = None
        self._file_read: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def read(self, keys: Sequence[str]) -> list[Content]:
        found: dict[str, bytes] = {}
        with self._lock:
            try:
                # A connection goes on reading a file that was deleted or replaced.
                if self._reader is None or self._file_now() != self._file_read:
                    self._close_reader()
                    self._file_read = self._file_now()
                    self._reader = self._open("ro")
                if len(keys) <= PAGES:
                    found.update(self._reader.execute(_selection(len(keys)), keys))
                else:
                    # One transaction, so that all parts see the same commit.
                    self._reader.execute("BEGIN")
                    for start in range(0, len(keys), PAGES):
                        part = keys[start : start + PAGES]
                        found.update(self._reader.execute(_selection(len(part)), part))
                    self._reader.execute("COMMIT")
            except sqlite3.Error as error:
                self._close_reader()
                raise self._lost(error) from error
        return [found.get(key) for key in keys]

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        try:
            with closing(self._open("ro")) as connection:
                # Keys are ordered by their bytes, and no text has a greater character than this one.
                yield from connection.execute(
                    "SELECT key, value FROM held WHERE key >= ? AND key < ?", (prefix, f"{prefix}\U0010ffff")
                )
        except sqlite3.Error as error:
            raise self._lost(error) from error

    def commit(
        self, puts: Mapping[str, Content], *, head: bytes, expected: Content, clear: bool = False
    ) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open("rwc")) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(TABLE)
                connection.execute("BEGIN IMMEDIATE")
                with connection:
                    found = connection.execute("SELECT value FROM held WHERE key = ?", (HEAD,)).fetchone()
                    if (found[0] if found else None) != expected:
                        raise StoreMoved(f"{self._file} was written meanwhile; read its head and try again.")
                    if clear:
                        connection.execute("DELETE FROM held")
                    gone = [(key,) for key, value in puts.items() if value is None]
                    kept = [(key, value) for key, value in puts.items() if value is not None]
                    connection.executemany("DELETE FROM held WHERE key = ?", gone)
                    connection.executemany("INSERT OR REPLACE INTO held VALUES (?, ?)", [*kept, (HEAD, head)])
        except (sqlite3.Error, OSError) as error:
            raise self._lost(error) from error

    def close(self) -> None:
        with self._lock:
            self._close_reader()

    def _file_now(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - asked for every look-up, and a Path costs more
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def _open(self, mode: str) -> sqlite3.Connection:
        # A process may have several threads; each use holds the lock.
        connection = sqlite3.connect(
            f"{self._file.as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_MS / 1e3,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute(f"PRAGMA mmap_size = {MMAP_BYTES}")
        return connection

    def _lost(self, error: Exception) -> StoreLost:
        return StoreLost(
            f"The online store {self._file} cannot be used: {error}. It is filled by the asset "
            "<view>_online_features; materialise it, or see that this process may read the folder."
        )


def _selection(keys: int) -> str:
    return f"SELECT key, value FROM held WHERE key IN ({','.join('?' * keys)})"  # noqa: S608 - marks only
