"""Dagster's runs and schedules on SQLite, opened without asking each time whether their tables are there.

Belongs here: opening a database once per process. What is stored is Dagster's own, in Dagster's own files and
tables: taking these classes out of ``dagster.yaml`` again loses nothing. Does not belong here: the event log,
which is also written differently (``event_log.py``).

A sensor's tick gets a Dagster instance of its own. To open one, Dagster compares each database's revision
with the newest, and reads every migration that it ever had to learn that: a third of what the ticks cost.
Connections stay open, and which tables there are is asked once (``kept_connections.py``).

Processes open one after another: of two that find no tables at the same moment, Dagster's own way lets the
slower one die of the table that the other has just made.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite import create_db_conn_string
from dagster._serdes import ConfigurableClassData

from mlops_assets.environment import DAGSTER_HOME
from mlops_assets.resources.kept_connections import kept

_OPENED: set[str] = set()
"""Databases that this process, or the one it was forked from, opened by Dagster's own way."""


class _OpenedOnce:
    """What the two classes add to Dagster's: where a database lies, and that it is opened once."""

    folder: ClassVar[str]
    """In DAGSTER_HOME, where ``base_dir`` is left out."""
    database: ClassVar[str]

    _conn_string: str

    @classmethod
    def config_type(cls) -> Any:
        return {"base_dir": dg.Field(dg.StringSource, is_required=False)}

    @contextmanager
    def connect(self) -> Iterator[Any]:
        """A transaction on a connection that stays open."""
        with kept(self._conn_string).engine.connect() as connection, connection.begin():
            yield connection

    def has_built_index(self, migration_name: str) -> bool:
        """Whether a migration of data is done; once it is, it stays so."""
        known = kept(self._conn_string).known
        if migration_name not in known and super().has_built_index(migration_name):  # type: ignore[misc]
            known.add(migration_name)
        return migration_name in known

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Any:
        made: Any = cls
        folder = config_value.get("base_dir") or str(Path(DAGSTER_HOME.read()) / cls.folder)
        if is_opened(folder, cls.database):
            return made(create_db_conn_string(folder, cls.database), inst_data)
        with _alone(folder, cls.database):
            storage = made.from_local(folder, inst_data)
        remember_opened(folder, cls.database)
        return storage


class OpenedSqliteRuns(_OpenedOnce, SqliteRunStorage):
    """``run_storage`` for ``dagster.yaml``; ``base_dir`` left out: ``history`` in DAGSTER_HOME."""

    folder = "history"
    database = "runs"


class OpenedSqliteSchedules(_OpenedOnce, SqliteScheduleStorage):
    """``schedule_storage`` for ``dagster.yaml``; ``base_dir`` left out: ``schedules`` in DAGSTER_HOME."""

    folder = "schedules"
    database = "schedules"

    def has_instigators_table(self) -> bool:
        """Whether states have a table of their own; once they have, it stays so."""
        with self.connect() as connection:
            return self._has_instigators_table(connection)

    def _has_instigators_table(self, conn: Any) -> bool:
        known = kept(self._conn_string).known
        if "instigators" not in known and super()._has_instigators_table(conn):
            known.add("instigators")
        return "instigators" in known


def is_opened(folder: str, database: str) -> bool:
    """Whether this process opened the database before, and it is still there."""
    file = _file(folder, database)
    return str(file) in _OPENED and file.exists()


def remember_opened(folder: str, database: str) -> None:
    """Says that the database has all its tables."""
    _OPENED.add(str(_file(folder, database)))


@contextmanager
def _alone(folder: str, database: str) -> Iterator[None]:
    """While it lasts, no other process opens the database for the first time."""
    file = _file(folder, database)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _file(folder: str, database: str) -> Path:
    return Path(folder).absolute() / f"{database}.db"
