"""Series of streams: how far each table is behind its topic, and how far it is.

Belongs here: which streams, and what is said of one. Does not belong here: reading topics and tables
(``assets/ingest.py``, ``resources/``).

All is read from the table's newest commits and asked of the broker, so it is the same whoever reads the topic
and says something while nobody does.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from mlops_assets.errors import DataError
from mlops_assets.metrics._base import MetricSample, MetricsCollector, MetricSeries

if TYPE_CHECKING:
    from mlops_assets.assets.ingest import DeclaredStream
    from mlops_assets.resources.lake import Lake

STREAM, PARTITION = ("stream",), ("stream", "partition")
UP = MetricSeries(
    "mlops_stream_up", "gauge", STREAM, "1 when the broker told of the topic, 0 when it did not"
)
LAG = MetricSeries(
    "mlops_stream_lag_records",
    "gauge",
    PARTITION,
    "records that the topic has and the table has not; absent while the broker does not answer",
)
RECORDS = MetricSeries("mlops_stream_records_total", "counter", STREAM, "records that the table holds")
NEXT = MetricSeries(
    "mlops_stream_next_offset", "gauge", PARTITION, "offset of the next record that will be read"
)
COMMIT = MetricSeries(
    "mlops_stream_last_commit_timestamp_seconds",
    "gauge",
    STREAM,
    "when records were last added to the table, in seconds since 1970",
)
ANSWER_S = 1.0
"""How long a broker may take for one answer: it is asked in a scrape."""
AT_ONCE = 8

_log = logging.getLogger(__name__)


class StreamCollector(MetricsCollector):
    """Streams that a document declares, or those that are given."""

    name = "streams"
    series = (UP, LAG, RECORDS, NEXT, COMMIT)

    def __init__(self, streams: "Callable[[], Sequence[DeclaredStream]]", lake: "Callable[[], Lake]") -> None:
        self._streams, self._lake = streams, lake
        self._problems: dict[str, str] = {}

    @classmethod
    def of_platform(cls) -> "StreamCollector":
        return cls(_Declared(), _lake)

    def collect(self) -> Iterator[MetricSample]:
        streams, lake = self._streams(), self._lake()
        if streams:
            with ThreadPoolExecutor(min(AT_ONCE, len(streams))) as pool:
                for samples in pool.map(lambda one: self._of(one, lake), streams):
                    yield from samples

    def _of(self, source: "DeclaredStream", lake: "Lake") -> list[MetricSample]:
        from mlops_assets.assets.ingest import topic_lag
        from mlops_assets.resources.stream_table import StreamHead

        declared = source.declared
        name = {"stream": declared.name}

        def by_partition(series: MetricSeries, values: Mapping[int, int]) -> Iterator[MetricSample]:
            for partition, value in values.items():
                yield MetricSample(series, {**name, "partition": str(partition)}, value)

        head = StreamHead.read(lake, declared.table, declared.topic)
        said = [MetricSample(RECORDS, name, head.rows)]
        if head.committed_at is not None:
            said.append(MetricSample(COMMIT, name, head.committed_at))
        following = head.known()
        try:
            following, lag = topic_lag(declared, head.following, answer_s=ANSWER_S)
        except DataError as error:
            self._tell(declared.name, str(error))
            said.append(MetricSample(UP, name, 0))
        else:
            self._tell(declared.name, "")
            said.append(MetricSample(UP, name, 1))
            said += by_partition(LAG, lag)
        said += by_partition(NEXT, following)
        return said

    def _tell(self, stream: str, problem: str) -> None:
        """Logs what is wrong with a stream once, and when it is over."""
        if problem != self._problems.get(stream, ""):
            _log.warning("stream %s: %s", stream, problem or "the broker answers again")
        self._problems[stream] = problem


class _Declared:
    """The streams that documents declare; they are read again when a file of theirs changed."""

    def __init__(self) -> None:
        self._files: list[tuple[str, int]] | None = None
        self._streams: Sequence[DeclaredStream] = ()

    def __call__(self) -> "Sequence[DeclaredStream]":
        from mlops_assets.components import declared_streams

        files = declared_streams.files()
        if files != self._files:
            self._streams = [one for _, one in sorted(declared_streams.declared_streams().items())]
            self._files = files
        return self._streams


def _lake() -> "Lake":
    from mlops_assets.defs.platform.resources import lake

    return lake()
