"""The table of a stream: rows are only ever added, and the offsets they reach stand in the same commit.

Belongs here: opening, appending, reading the history. Does not belong here: which offset follows
(``streams/offsets.py``), what a history means (``streams/history.py``), other tables (``lake.py``).

Guarantees. Rows and offsets are one atomic commit: an offset per topic partition is an application
transaction of Delta's, whose version is the next offset. The commit goes through the very object that the
offsets were read from, so of two writers who read the same offsets one fails, whatever the other is: a
second run, a consumer, another host. (Written by address, Delta would open the table anew and take both.)
A table that was restored is not written to any more.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_assets.errors import AnotherWasFirst, DataError
from mlops_assets.resources.lake import GROUP_ROWS, Lake, TableWrite
from mlops_assets.streams.history import CommitFacts, Since, newest_commit, newest_time, restored, since
from mlops_assets.streams.offsets import require_forward
from mlops_assets.streams.records import EVENT_DATE

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

APPEND_ONLY = {"delta.appendOnly": "true"}
"""Delta itself refuses to delete and to replace rows of such a table."""


@dataclass
class StreamTable:
    """A stream's table as of the version it was opened or last written at.

    ``newest`` are the facts of its newest commit of records, None when it has none.
    """

    name: str
    topic: str
    newest: CommitFacts | None
    _delta: "DeltaTable"

    @staticmethod
    def opened(
        lake: Lake, name: str, topic: str, schema: "pa.Schema", *, partition_column: str, timezone: str
    ) -> "StreamTable":
        """The table, made where there is none. DataError when it was restored, or when it holds a column of
        ``schema`` in another type, or rows by the days of another time zone.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        uri, options = lake.table_uri(name), lake.storage_options()
        try:
            # Of two that make it at once the second finds it made.
            delta = DeltaTable.create(
                uri,
                schema,
                mode="ignore",
                partition_by=[partition_column],
                configuration=APPEND_ONLY,
                storage_options=options,
            )
            found = StreamTable(name, topic, None, delta)
            found._look_at_history()
        except DeltaError as error:
            raise DataError(f"Cannot open table {name!r} ({uri}): {error}") from error
        found._require_types(schema)
        found._require_days_of(timezone)
        return found

    @property
    def version(self) -> int:
        return int(self._delta.version())

    @property
    def uri(self) -> str:
        return str(self._delta.table_uri)

    def following(self, partitions: Sequence[int]) -> dict[int, int | None]:
        """The next offset of each partition; None for one that the table holds nothing of."""
        return {one: self._delta.transaction_version(self._app_id(one)) for one in partitions}

    def append(
        self, rows: "pa.Table", reached: Mapping[int, int], facts: Callable[[int], CommitFacts]
    ) -> TableWrite:
        """One commit of rows and of the offsets that follow them; ``facts`` is given the version before it.

        Raises AnotherWasFirst, and nothing is written, when anybody has moved one of these offsets since the
        table was opened; DataError when an offset would go back.
        """
        from deltalake import (
            CommitProperties,
            PostCommitHookProperties,
            Transaction,
            WriterProperties,
            write_deltalake,
        )
        from deltalake.exceptions import CommitFailedError, DeltaError

        require_forward(self.following(list(reached)), reached)
        said = facts(self.version)
        try:
            write_deltalake(
                self._delta,
                rows,
                mode="append",
                schema_mode="merge",
                commit_properties=CommitProperties(
                    custom_metadata=said.metadata(),
                    app_transactions=[
                        Transaction(self._app_id(partition), offset) for partition, offset in reached.items()
                    ],
                ),
                writer_properties=WriterProperties(max_row_group_size=GROUP_ROWS),
                post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
            )
        except CommitFailedError as error:
            raise AnotherWasFirst(
                f"Another run or consumer committed to table {self.name!r} first, so nothing of this one was "
                f"written and nothing is there twice: {error}"
            ) from error
        except DeltaError as error:
            raise DataError(
                f"Cannot append {len(rows)} rows to table {self.name!r} ({self.uri}): {error}"
            ) from error
        self.newest = said
        return TableWrite(version=self.version, rows=len(rows), uri=self.uri)

    def _app_id(self, partition: int) -> str:
        return _app_id(self.topic, partition)

    def _look_at_history(self) -> None:
        """The facts of the newest commit, and that no restore came behind it."""
        limit = 10
        while True:
            history: list[dict[str, Any]] = self._delta.history(limit)
            self.newest = newest_commit(history)
            seen = self.newest.opened if self.newest is not None else 0
            if len(history) < limit or history[-1]["version"] <= seen:
                break
            limit *= 10
        at = restored(history)
        if at is not None:
            raise DataError(
                f"Table {self.name!r} was restored in its version {at}. Delta keeps the offsets of a table "
                "that is restored, so the records between are not in it and would never be read again. Read "
                "the topic from its beginning under another name of the stream, and delete "
                f"{self.uri} when that has all you need."
            )

    def _require_types(self, schema: "pa.Schema") -> None:
        import pyarrow as pa

        held = {field.name: field.type for field in pa.schema(self._delta.schema())}
        changed = [
            f"{field.name!r} is {held[field.name]} in the table and {field.type} as declared"
            for field in schema
            if field.name in held and _plain(held[field.name]) != _plain(field.type)
        ]
        if changed:
            raise DataError(
                f"A column of table {self.name!r} cannot change its type, for its rows are never written "
                f"again: {'; '.join(changed)}. Declare the column under another name (`fields` says where it "
                "is in a record), or the stream."
            )

    def _require_days_of(self, timezone: str) -> None:
        if self.newest is not None and self.newest.timezone != timezone:
            raise DataError(
                f"The days of table {self.name!r} cannot change their time zone, for its rows are never "
                f"written again: they are those of {self.newest.timezone} in the table and of {timezone} as "
                f"declared. Say `timezone: {self.newest.timezone}`, or read the topic under another name of "
                "the stream."
            )


@dataclass(frozen=True)
class StreamPosition:
    """How far a stream's table goes, as of one version of it.

    ``following``: the next offset of each partition. ``days``: event days that it has rows of, in order.
    ``since``: what came after the offsets that were asked about.
    """

    following: Mapping[int, int]
    days: Sequence[str]
    since: Since


def position(lake: Lake, name: str, topic: str, *, applied: Mapping[int, int]) -> StreamPosition:
    """How far the table goes, and what it got since it went up to ``applied``. DataError: there is none."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    uri = lake.table_uri(name)
    try:
        delta = DeltaTable(uri, storage_options=lake.storage_options())
        found, newest = _since(delta, applied)
        partitions = newest.partitions if newest is not None and newest.partitions else _partitions(delta)
        ends = {one: delta.transaction_version(f"{topic}/{one}") for one in partitions}
        days = sorted({str(one[EVENT_DATE]) for one in delta.partitions() if one[EVENT_DATE] is not None})
    except TableNotFoundError:
        raise DataError(
            f"There is no table {name!r} ({uri}): its stream was never read. Read it with: dg launch "
            f"--assets 'key:\"{name.partition('/')[2]}_stream\"'"
        ) from None
    except DeltaError as error:
        raise DataError(f"Cannot read table {name!r} ({uri}): {error}") from error
    return StreamPosition({one: end for one, end in ends.items() if end is not None}, days, found)


def _since(delta: "DeltaTable", applied: Mapping[int, int]) -> tuple[Since, CommitFacts | None]:
    """Reads the history back as far as it has to be read."""
    limit = 10
    while True:
        history: list[dict[str, Any]] = delta.history(limit)
        whole = len(history) < limit
        found = since(history, applied, whole=whole)
        if found is not None:
            return found, newest_commit(history)
        limit *= 10


def _partitions(delta: "DeltaTable") -> list[int]:
    """The topic's partitions that the table has rows of, where its commits do not tell."""
    return sorted(set(delta.to_pyarrow_table(columns=["partition"]).column(0).to_pylist()))


@dataclass(frozen=True)
class StreamHead:
    """How far a stream's table is, for whoever only looks: where there is no table, none is made.

    ``rows``: records that it holds. ``committed_at``: when records were added last, in seconds since 1970,
    None when never.
    """

    rows: int = 0
    committed_at: float | None = None
    _topic: str = ""
    _partitions: int = 0
    _delta: "DeltaTable | None" = None

    @staticmethod
    def read(lake: Lake, name: str, topic: str) -> "StreamHead":
        """The newest version of the table, from its log alone. DataError when that cannot be read."""
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        uri = lake.table_uri(name)
        try:
            delta = DeltaTable(uri, storage_options=lake.storage_options())
            files = delta.get_add_actions(flatten=True)
            limit = 10
            while True:
                history = delta.history(limit)
                at = newest_time(history)
                if at is not None or len(history) < limit:
                    break
                limit *= 10
        except TableNotFoundError:
            return StreamHead()
        except DeltaError as error:
            raise DataError(f"Cannot read table {name!r} ({uri}): {error}") from error
        rows = sum(one for one in files.column("num_records").to_pylist() if one is not None)
        largest = list(files.column("max.partition").to_pylist()) if files.num_rows else []
        partitions = max((one + 1 for one in largest if one is not None), default=0)
        return StreamHead(rows, at, topic, partitions, delta)

    def following(self, partitions: Sequence[int]) -> dict[int, int | None]:
        """The next offset of each partition; None for one that the table holds nothing of."""
        return {
            one: self._delta.transaction_version(_app_id(self._topic, one)) if self._delta else None
            for one in partitions
        }

    def known(self) -> dict[int, int]:
        """The next offset of each partition that the table holds records of."""
        found = self.following(range(self._partitions))
        return {one: offset for one, offset in found.items() if offset is not None}


def _app_id(topic: str, partition: int) -> str:
    """Under which name Delta keeps the next offset of a partition."""
    return f"{topic}/{partition}"


def _plain(kind: "pa.DataType") -> str:
    """The type without what Delta changes of it: names of items, text and bytes of 64-bit length."""
    text = str(kind).replace("large_", "").replace("_view", "")
    return text.replace("element:", "item:")
