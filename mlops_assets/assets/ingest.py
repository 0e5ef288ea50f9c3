"""Reading a topic into its table: the one way, for runs and for the long-lived consumer.

Belongs here: opening table and topic, the order in which things are asked and written, what is told of it.
Does not belong here: the asset (``stream.py``), the consumer (``commands/streaming.py``), every decision
(``streams/``).

Order: the table is opened, the offsets are read from it, the topic is read from there, and rows and offsets
are committed together through the table that was opened. Whatever ends in between leaves the table as it was.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mlops_assets.documents.stream import StreamDeclaration
from mlops_assets.errors import DataError
from mlops_assets.resources.kafka import Batch, OutOfRange, TopicReader, topic_reader
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.schema_registry import registered
from mlops_assets.resources.stream_table import StreamTable
from mlops_assets.streams.formats import Decode
from mlops_assets.streams.history import CommitFacts
from mlops_assets.streams.offsets import begin, content_version, lag
from mlops_assets.streams.records import EVENT_DATE, rows_of, table_schema

MOST_BYTES = 256 * 2**20
"""Bytes of keys and values that one commit holds in memory, at most (and one poll more)."""


@dataclass(frozen=True)
class DeclaredStream:
    """A stream as declared, and the folder that its files lie in."""

    declared: StreamDeclaration
    folder: Path


@dataclass(frozen=True)
class Ingested:
    """What one commit brought. ``lag``: records per partition that the topic had beyond it; ``reasons``:
    (partition, offset, why) of records that could not be decoded; ``seconds``: reading and writing them;
    ``complete``: Unix seconds up to which the table has everything in the topic, None: nobody knows.
    """

    records: int
    seconds: float
    following: Mapping[int, int]
    lag: Mapping[int, int]
    complete: float | None
    days: Sequence[str]
    reasons: Sequence[tuple[int, int, str]]
    unseen: Sequence[str]
    newest: datetime | None
    version: int
    uri: str
    data_version: str


def stream_table(lake: Lake, declared: StreamDeclaration) -> StreamTable:
    """The stream's table as of now, made where there is none. DataError when it does not fit the document."""
    return StreamTable.opened(
        lake,
        declared.table,
        declared.topic,
        table_schema(declared.columns),
        partition_column=EVENT_DATE,
        timezone=declared.timezone,
    )


@contextmanager
def ingesting(
    lake: Lake, source: DeclaredStream, run_id: str, clock: Callable[[], float] = time.time
) -> "Iterator[Ingest]":
    """The stream, ready to be read from where its table ends; ``clock`` gives Unix seconds.

    Raises DataError: no broker, no topic, records lost, a table that was restored, a topic made anew.
    """
    declared = source.declared
    decode = declared.value.decoder(source.folder, registered)
    table = stream_table(lake, declared)
    with topic_reader(declared.broker(), declared.topic, clock) as topic:
        made = Ingest(declared, table, topic, decode, run_id)
        made.assign()
        yield made


class Ingest:
    """A stream that is being read. Made by ``ingesting``."""

    def __init__(
        self, declared: StreamDeclaration, table: StreamTable, topic: TopicReader, decode: Decode, run_id: str
    ) -> None:
        self._declared, self._table, self._topic = declared, table, topic
        self._decode, self._run_id = decode, run_id
        self._topic_id = ""

    def assign(self) -> None:
        """Reading goes on where the table ends, in every partition that the topic has now."""
        partitions = self._topic.partitions()
        self._topic_id = self._topic.topic_id()
        self._require_same_topic()
        self._topic.assign(self._begins(partitions))

    def partitions_changed(self) -> bool:
        """Whether the topic has partitions that are not read yet."""
        return self._topic.partitions() != sorted(self._topic.following)

    def commit_next(self, ends: Callable[[int, bool], bool]) -> Ingested:
        """Reads until ``ends(records, at_end)``, or ``max_rows`` are read, and commits what was read.

        Raises AnotherWasFirst, LostOffsets, and DataError for a topic that cannot be read.
        """
        started = time.monotonic()
        try:
            batch = self._topic.read(most_rows=self._declared.max_rows, most_bytes=MOST_BYTES, ends=ends)
        except OutOfRange as error:
            raise self._gone(error) from error
        return self._committed(batch, started)

    def _committed(self, batch: Batch, started: float) -> Ingested:
        rows = rows_of(batch.records, self._declared.wanted(), self._decode)
        complete = self._topic.complete
        if batch.reached:
            self._table.append(
                rows.table,
                batch.reached,
                lambda opened: CommitFacts(
                    opened,
                    self._topic_id,
                    rows.days,
                    len(batch.records),
                    self._run_id,
                    reached={str(one): offset for one, offset in batch.reached.items()},
                    partitions=sorted(self._topic.following),
                    complete=complete,
                    timezone=self._declared.timezone,
                ),
            )
        following = self._topic.following
        return Ingested(
            records=len(batch.records),
            seconds=time.monotonic() - started,
            following=following,
            lag=lag(following, self._topic.known_ends()),
            complete=complete,
            days=rows.days,
            reasons=rows.reasons,
            unseen=rows.unseen,
            newest=rows.newest,
            version=self._table.version,
            uri=self._table.uri,
            data_version=content_version(self._declared.topic, following),
        )

    def require_answers(self, found: Ingested) -> None:
        """SourceUnavailable for a reading that brought nothing and reached no end."""
        if not found.records and not self._topic.at_end:
            raise self._topic.unavailable()

    def _begins(self, partitions: Sequence[int]) -> dict[int, int]:
        accepted = self._declared.losses()
        return {
            one: begin(self._declared.topic, one, following, self._topic.kept(one)[0], accepted)
            for one, following in self._table.following(partitions).items()
        }

    def _gone(self, error: OutOfRange) -> DataError:
        """What an offset means that the topic does not have: it is lost, or the topic is not the same."""
        self._begins([error.partition])
        _, end = self._topic.kept(error.partition)
        return DataError(
            f"{error} It has offsets below {end} only, so it is not the topic that table "
            f"{self._declared.table!r} was read from. {_MADE_ANEW}"
        )

    def _require_same_topic(self) -> None:
        known = self._table.newest.topic_id if self._table.newest is not None else ""
        if known and self._topic_id and known != self._topic_id:
            raise DataError(
                f"Topic {self._declared.topic!r} was deleted and made anew: its offsets begin again, and "
                f"table {self._declared.table!r} holds those of the former one. {_MADE_ANEW}"
            )


_MADE_ANEW = (
    "Read it as a stream of another name; the former rows stay where they are, for whoever wants them."
)


def complete_now(lake: Lake, declared: StreamDeclaration, clock: Callable[[], float]) -> float | None:
    """Unix seconds at which the table has everything in the topic; None when it has not.

    Raises DataError: no broker, no topic.
    """
    asked = clock()
    _, lags = _behind(lake, declared)
    return None if any(lags.values()) else asked


def behind(lake: Lake, source: DeclaredStream) -> tuple[dict[int, int], dict[int, int]]:
    """The next offset of each partition of the topic, and how many records the topic has beyond it."""
    return _behind(lake, source.declared)


def _behind(lake: Lake, declared: StreamDeclaration) -> tuple[dict[int, int], dict[int, int]]:
    table = stream_table(lake, declared)
    return topic_lag(declared, table.following)


def topic_lag(
    declared: StreamDeclaration,
    held: Callable[[Sequence[int]], Mapping[int, int | None]],
    *,
    answer_s: float | None = None,
) -> tuple[dict[int, int], dict[int, int]]:
    """What ``behind`` gives, of a table that is open: ``held`` says its next offset of each partition.

    A broker may take ``answer_s`` for each answer, left out: as long as for reading.
    """
    with topic_reader(declared.broker(), declared.topic, answer_s=answer_s) as topic:
        partitions = topic.partitions()
        kept = {one: topic.kept(one) for one in partitions}
    found = held(partitions)
    following = {one: kept[one][0] if found[one] is None else int(found[one] or 0) for one in partitions}
    return following, lag(following, {one: end for one, (_, end) in kept.items()})
