"""Dagster's event log on SQLite, made fit for runs over a year of partitions.

Belongs here: how events are written. What is stored is Dagster's own, in Dagster's own files and tables:
taking this class out of ``dagster.yaml`` again loses nothing. Does not belong here: what events say
(``components/``), Postgres (which needs none of this).

One run over 365 partitions of three assets writes about 2,600 events. Dagster's SQLite storage makes a
SQLAlchemy engine, thus a new cache of compiled statements, for each connection, syncs the disk twice per
event, and stores a batch one by one: 60 s of which 15 are work. Here connections are kept open
(``kept_connections.py``) and a batch is one transaction.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.events import ASSET_EVENTS
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData

from mlops_assets.environment import DAGSTER_HOME, batch_dagster_events
from mlops_assets.resources.kept_connections import KeptFile, kept
from mlops_assets.resources.opened_storage import is_opened, remember_opened


class BatchedSqliteEventLog(SqliteEventLogStorage):
    """``event_log_storage`` for ``dagster.yaml``.

    ``base_dir`` is what it is for Dagster's class; left out, it is the folder where Dagster would keep
    the log of the same instance: ``history/runs`` under DAGSTER_HOME.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        batch_dagster_events()
        super().__init__(base_dir, inst_data)
        if is_opened(base_dir, INDEX_SHARD_NAME):
            self._initialized_dbs.add(INDEX_SHARD_NAME)

    @classmethod
    def config_type(cls) -> Any:
        return {"base_dir": dg.Field(dg.StringSource, is_required=False)}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Any
    ) -> "BatchedSqliteEventLog":
        base_dir = config_value.get("base_dir") or str(Path(DAGSTER_HOME.read()) / "history" / "runs")
        return cls(inst_data=inst_data, base_dir=base_dir)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Asset events of one run in two transactions; anything else one by one, as Dagster does."""
        runs = {event.run_id for event in events}
        kinds = {event.dagster_event_type if event.is_dagster_event else None for event in events}
        if len(runs) != 1 or not kinds <= set(ASSET_EVENTS):
            super().store_event_batch(events)
            return
        statements = [self.prepare_insert_event(event) for event in events]
        with self.run_connection(runs.pop()) as connection:
            for statement in statements:
                connection.execute(statement)
        with self.index_transaction() as connection:
            keys = [_inserted_key(connection.execute(statement)) for statement in statements]
            self._store_asset_event_tags(connection, events, keys)
            # The row of an asset holds the latest event of each kind: earlier ones would be overwritten.
            latest = {
                (event.get_dagster_event().asset_key, event.dagster_event_type): (event, key)
                for event, key in zip(events, keys, strict=True)
            }
            for event, key in latest.values():
                self._store_asset_event(connection, event, key)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Any]:
        with self._db_lock:
            engine = self._kept(shard).engine
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
                if shard == INDEX_SHARD_NAME:
                    remember_opened(self._base_dir, shard)
            with engine.connect() as connection, connection.begin():
                yield connection

    def _kept(self, shard: str) -> KeptFile:
        return kept(self.conn_string_for_shard(shard), timeout_s=SQLITE_BUSY_TIMEOUT_SECONDS)

    def has_secondary_index(self, name: str) -> bool:
        """Whether a migration of data is done; once it is, it stays so."""
        known = self._kept(INDEX_SHARD_NAME).known
        if name not in known and super().has_secondary_index(name):
            known.add(name)
        return name in known

    def _has_asset_key_col_on_connection(self, conn: Any, column_name: str) -> bool:
        known = self._kept(INDEX_SHARD_NAME).known
        column = ("column of assets", column_name)
        if column not in known and super()._has_asset_key_col_on_connection(conn, column_name):
            known.add(column)
        return column in known


def _inserted_key(result: Any) -> int:
    return int(result.inserted_primary_key[0])
