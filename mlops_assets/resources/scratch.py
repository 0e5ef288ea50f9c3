"""Room for computations on more rows than memory should hold: DuckDB on files of the installation's own.

Belongs here: where such files lie, how much memory is used before they are, and that none stays behind. Does
not belong here: what is computed (``assets/logged_days.py``, ``assets/joined_answers.py``).

DuckDB reads no store by itself here: rows come as Arrow batches, from the lake or the log, whose credentials
and file systems are known already. Its own readers of S3 are an extension that it would download at run time.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LOCK = ".used"
ROOM = "room-"


class Scratch(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Databases that live as long as one computation."""

    folder: str = Field(description="Folder of the files, on a local disk.")
    memory_limit: str = Field(
        default="256MB", description="Memory that DuckDB takes before it moves rows to the folder."
    )
    threads: int = Field(default=2, ge=1, description="Threads of DuckDB: each takes a share of the memory.")

    @contextmanager
    def room(self) -> Iterator[Path]:
        """A folder of its own that is gone afterwards.

        Also removes those of processes that were killed: their locks went with them.
        """
        root = Path(self.folder).absolute()
        root.mkdir(parents=True, exist_ok=True)
        with (root / LOCK).open("w") as alone:
            # Between making a room and locking it, another process would take it for left behind.
            fcntl.flock(alone, fcntl.LOCK_EX)
            for left in root.glob(f"{ROOM}*"):
                _remove_unless_used(left)
            folder = Path(tempfile.mkdtemp(prefix=ROOM, dir=root))
            lock = (folder / LOCK).open("w")
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
            lock.close()

    @contextmanager
    def database(self) -> "Iterator[DuckDBPyConnection]":
        """An empty database. Beyond the memory limit its rows lie in a room. Nothing is downloaded by it."""
        import duckdb

        with self.room() as folder:
            settings = {
                "memory_limit": self.memory_limit,
                "threads": self.threads,
                "temp_directory": str(folder),
                "autoinstall_known_extensions": False,
                "preserve_insertion_order": False,
            }
            with duckdb.connect(":memory:", config=settings) as connection:
                yield connection


def _remove_unless_used(folder: Path) -> None:
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(folder)
