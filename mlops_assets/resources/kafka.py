"""Kafka: reading a topic from given offsets, and what the broker says of it.

Belongs here: the client, its errors in words. Does not belong here: which offset to read from
(``streams/offsets.py``), what records say (``streams/records.py``).

Offsets are the caller's: nothing is committed to the broker and no group is joined, so nobody else moves
them. An offset that the topic does not have any more is an error, never a jump to another. Values of
settings may be secrets: errors show the variable that holds one in its stead.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mlops_assets import environment
from mlops_assets.errors import DataError, SourceUnavailable
from mlops_assets.streams.records import TopicRecord

OWN: Mapping[str, Any] = {
    # The client wants a group; with partitions assigned and nothing committed, it is only a name.
    "group.id": "mlops-assets",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    "check.crcs": True,
}
"""Settings that the promises rest on; no document may change them."""
ANSWER_S, TOPIC_ID_S = 10.0, 5.0
POLL_S = 0.1
POLL_RECORDS = 1_000
TRY_OUT = "python -m mlops_assets.testing.kafka_broker"

_log = logging.getLogger(f"{__name__}.client")
# The client writes a line for each try to connect; the last error is told where it matters.
_log.addHandler(logging.NullHandler())
_log.propagate = False


@dataclass(frozen=True)
class Broker:
    """Where a broker is, and how to get in: ``options`` are settings of librdkafka, each by its variable."""

    variable: str
    options: Mapping[str, str] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Settings of a client. Holds secrets: never log it. SourceUnavailable when a variable is not set."""
        servers = environment.value_of(self.variable, "the addresses of the Kafka brokers, like host:9092")
        given = {
            name: environment.value_of(variable, f"the Kafka setting {name}")
            for name, variable in self.options.items()
        }
        return {**given, **OWN, "bootstrap.servers": servers}

    def told(self, text: str) -> str:
        """The text with each value of a setting replaced by the variable that holds it."""
        for variable in self.options.values():
            text = text.replace(environment.value_of(variable, ""), f"${variable}")
        return text

    @property
    def address(self) -> str:
        return f"{environment.value_of(self.variable, '')} (environment variable {self.variable})"


class OutOfRange(DataError):
    """The topic has no record with this offset: it was removed, or never was."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        self.topic, self.partition, self.offset = topic, partition, offset
        super().__init__(f"Topic {topic!r}, partition {partition} has no offset {offset} to read from.")


@dataclass(frozen=True)
class Batch:
    """Records in the order they were read, the offset that follows in each partition that moved, and whether
    every partition was read to its end.
    """

    records: Sequence[TopicRecord]
    reached: Mapping[int, int]
    at_end: bool


@contextmanager
def topic_reader(
    broker: Broker,
    topic: str,
    clock: Callable[[], float] = time.time,
    *,
    answer_s: float | None = None,
) -> "Iterator[TopicReader]":
    """A client of the topic, until the block ends; ``clock`` gives Unix seconds.

    The broker may take ``answer_s`` for an answer (``ANSWER_S``, unless it is given). Raises
    SourceUnavailable or DataError when there is none.
    """
    library = _library()
    last: deque[str] = deque(maxlen=1)
    try:
        consumer = library.Consumer(
            {**broker.settings(), "error_cb": lambda error: last.append(error.str())},
            logger=_log,
        )
    except library.KafkaException as error:
        raise DataError(f"Kafka settings are refused: {broker.told(str(error.args[0].str()))}") from None
    try:
        most_s = ANSWER_S if answer_s is None else answer_s
        yield TopicReader(broker, topic, consumer, last, clock, most_s)
    finally:
        consumer.close()


class TopicReader:
    """Reads one topic. Made by ``topic_reader``."""

    def __init__(
        self,
        broker: Broker,
        topic: str,
        consumer: Any,
        last_error: deque[str],
        clock: Callable[[], float],
        answer_s: float,
    ) -> None:
        self._broker, self._topic, self._consumer, self._last = broker, topic, consumer, last_error
        self._clock, self._answer_s = clock, answer_s
        self._next: dict[int, int] = {}
        self._at_end: set[int] = set()
        self._complete: float | None = None

    def partitions(self) -> list[int]:
        """The topic's partitions. DataError, with the topics there are, when there is no such topic."""
        found = self._asked(lambda: self._consumer.list_topics(timeout=self._answer_s)).topics
        topic = found.get(self._topic)
        if topic is None or topic.error is not None:
            known = ", ".join(sorted(name for name in found if not name.startswith("__"))) or "none"
            why = f" ({topic.error.str()})" if topic is not None else ""
            raise DataError(
                f"There is no topic {self._topic!r} at {self._broker.address}{why}. Topics: {known}. Create "
                "it, or correct `topic` in the stream's document."
            )
        return sorted(topic.partitions)

    def topic_id(self) -> str:
        """The broker's own name of the topic, which one that is made anew does not have; "" where it tells
        none.
        """
        from confluent_kafka import KafkaException, TopicCollection
        from confluent_kafka.admin import AdminClient

        settings = {name: value for name, value in self._broker.settings().items() if name not in OWN}
        admin = AdminClient(settings, logger=_log)
        try:
            asked = admin.describe_topics(TopicCollection([self._topic]), request_timeout=TOPIC_ID_S)
            found = asked[self._topic].result().topic_id
        except KafkaException:
            # Brokers before 2.8 and those that allow no describing tell none; reading needs it not.
            return ""
        return str(found) if found else ""

    def kept(self, partition: int) -> tuple[int, int]:
        """The first offset that the topic has, and the one behind its last."""
        at = _library().TopicPartition(self._topic, partition)
        first, end = self._asked(lambda: self._consumer.get_watermark_offsets(at, timeout=self._answer_s))
        return int(first), int(end)

    def assign(self, begins: Mapping[int, int]) -> None:
        """From now on ``read`` gives the records of these partitions from these offsets on."""
        made = _library().TopicPartition
        self._next, self._at_end, self._complete = dict(begins), set(), None
        self._consumer.assign([made(self._topic, one, offset) for one, offset in begins.items()])

    def read(self, *, most_rows: int, most_bytes: int, ends: Callable[[int, bool], bool]) -> Batch:
        """Records from where the last reading ended, until ``ends(records, at_end)`` or one of the limits.

        Raises OutOfRange, SourceUnavailable when the topic does not answer and nothing could be read, and
        DataError when reading it is not allowed.
        """
        records: list[TopicRecord] = []
        size, before = 0, dict(self._next)
        # Records keep coming, so what is read in the end is held against what there was in the beginning.
        asked, present = self._ends()
        while True:
            room = min(POLL_RECORDS, most_rows - len(records))
            if room <= 0 or size >= most_bytes:
                # There may be more than a broker knows of when it is asked: the tests' own counts too few.
                present = None
                break
            for message in self._consumer.consume(room, timeout=POLL_S):
                record = self._taken(message)
                if record is not None:
                    records.append(record)
                    size += len(record.value or b"") + len(record.key or b"")
            if ends(len(records), self.at_end):
                break
        if present is not None and all(self._next[one] >= end for one, end in present.items()):
            self._complete = asked
        moved = {one: offset for one, offset in self._next.items() if offset != before[one]}
        return Batch(records, moved, self.at_end)

    @property
    def at_end(self) -> bool:
        """Whether every partition was read to its end."""
        return len(self._at_end) == len(self._next)

    @property
    def following(self) -> dict[int, int]:
        """The offset that follows in each partition that is read."""
        return dict(self._next)

    def known_ends(self) -> dict[int, int]:
        """The offset behind the last record of each partition, as of the last answer to a reading."""
        made, ends = _library().TopicPartition, {}
        for partition, offset in self._next.items():
            # What the broker said with the records is newer than what it would be asked for.
            _, end = self._consumer.get_watermark_offsets(made(self._topic, partition), cached=True)
            ends[partition] = max(int(end), offset)
        return ends

    @property
    def complete(self) -> float | None:
        """Unix seconds up to which everything in the topic was read; None when that was never seen yet."""
        return self._complete

    def _ends(self) -> tuple[float, dict[int, int] | None]:
        """When the topic was asked for the ends of its partitions, and these; None: it does not answer."""
        asked = self._clock()
        try:
            return asked, {one: self.kept(one)[1] for one in self._next}
        except SourceUnavailable:
            return asked, None

    def unavailable(self) -> SourceUnavailable:
        """The error of a broker that does not answer, with the last thing that the client met."""
        why = f": {self._broker.told(self._last[-1])}" if self._last else ""
        return SourceUnavailable(
            f"No Kafka broker answers at {self._broker.address} within {self._answer_s:g} s{why}. Start it "
            f"or correct the address. For trying things out: {TRY_OUT} (docs/streams.md)."
        )

    def _taken(self, message: Any) -> TopicRecord | None:
        """The record of a message; None for the end of a partition."""
        error, partition = message.error(), message.partition()
        if error is not None:
            self._met(error, partition, message.offset())
            return None
        self._next[partition] = message.offset() + 1
        self._at_end.discard(partition)
        kind, at = message.timestamp()
        return TopicRecord(
            partition=partition,
            offset=message.offset(),
            timestamp_ms=at if kind else None,
            key=message.key(),
            value=message.value(),
            headers=message.headers() or (),
        )

    def _met(self, error: Any, partition: int, offset: int) -> None:
        codes = _library().KafkaError
        if error.code() == codes._PARTITION_EOF:
            # Markers of transactions have offsets and are no records: the end may lie behind the last one.
            self._next[partition] = max(self._next[partition], offset)
            self._at_end.add(partition)
        elif error.code() in (codes._AUTO_OFFSET_RESET, codes.OFFSET_OUT_OF_RANGE):
            raise OutOfRange(self._topic, partition, self._next[partition])
        elif (
            error.code() in (codes._ALL_BROKERS_DOWN, codes._TRANSPORT, codes._TIMED_OUT) or error.retriable()
        ):
            self._last.append(error.str())
        else:
            raise DataError(
                f"Topic {self._topic!r} at {self._broker.address} cannot be read: "
                f"{self._broker.told(error.str())}"
            )

    def _asked(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except _library().KafkaException as error:
            self._consumer.poll(0)
            if not self._last:
                self._last.append(error.args[0].str())
            raise self.unavailable() from None


def _library() -> Any:
    try:
        import confluent_kafka
    except ModuleNotFoundError as error:
        raise DataError(
            "A topic is read with confluent-kafka, which is not installed: install the extra 'kafka' "
            "(pip install 'mlops-assets[kafka]')."
        ) from error
    return confluent_kafka
