"""The prediction log of one gateway replica: what was asked, what was answered, by which version.

Belongs here: the bounded queue between the event loop and the disk, the log's columns and file names.
Does not belong here: what is worth logging (``serve/endpoint.py``), reading it back
(``mlops_assets/resources/inference_log.py``).

Guarantees. ``put`` never waits, never raises and touches no file: it takes an answer or refuses it, and
what is refused is counted. Rows that were taken and are not in the lake yet are never more than
``max_queued_rows``, also while writing fails. A file appears under its name only when it is whole; a
write that failed is tried again under the same name, so it cannot appear twice. ``close`` writes what is
left. A replica that is killed loses what it took in the last ``flush_interval_s`` and during the write
under way, nothing older.

Layout: ``<uri>/<deployment>/dt=YYYY-MM-DD/hr=HH/<milliseconds>-<replica>-<sequence>.parquet``, days and
hours of the answers in UTC. A name that starts with a dot is a file being written.
"""

import atexit
import json
import logging
import math
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from serve.schema import PredictionLogArgs
from serve.validation import Entity, Row
from serve.versions import Scores

SCHEMA = pa.schema(
    [
        ("answer_id", pa.string()),
        ("request_id", pa.string()),
        ("row", pa.int32()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("unit", pa.string()),
        ("entity", pa.string()),
        ("variant", pa.string()),
        ("version", pa.string()),
        ("revision", pa.int64()),
        ("weight", pa.int32()),
        ("endpoint", pa.string()),
        ("latency_ms", pa.float64()),
        ("features", pa.string()),
        ("score", pa.float64()),
        ("scores", pa.list_(pa.float64())),
        ("fell_back_from", pa.string()),
        ("request", pa.string()),
        ("online", pa.string()),
    ]
)
"""Columns of every file, one line per row of a request. ``answer_id`` is the gateway's own and never null; a
shadow's answer to the same request carries the same one. ``request_id`` is what the caller sent, else the
answer id; callers may send the same one as often as they like. ``row`` counts from zero within the request,
``weight`` is in basis points, ``features`` is the row as JSON text, ``entity`` its join keys as a JSON object
in the manifest's order, null where the request carried none. ``score`` is the probability of the
positive class, or the value; for several classes it is null and ``scores`` holds one probability each. Of
rows that were looked up by key, ``request`` is what came beside the keys and ``online`` what the store knew
then, as JSON objects; both are null of others.
"""

EARLY_ROWS = 4_000
"""So many rows waiting are written at once, before the interval is over."""
FILE_ROWS = 20_000
"""Rows that are written together at most."""
CHUNK_ROWS = 64
"""Rows prepared before the event loop gets its turn: half a millisecond of Python."""
PAUSE_S = 0.0002
"""How long the writer stands back between chunks. Merely yielding would take the GIL right back."""
RETRY_S = 0.1
"""Between attempts while ``close`` waits; otherwise a failed write is tried again after one interval."""
JOIN_GRACE_S = 1.0
S3_TIMEOUT_S = 5.0
S3 = "s3://"

logger = logging.getLogger(__name__)
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode


class Answered(NamedTuple):
    """One answer to one request of one or more rows; a shadow's answer to it is another one.

    ``answer_id`` tells the request from all others; ``at`` is in Unix seconds, ``weight`` the version's share
    in basis points at that moment. ``rows``, ``scores`` and ``entities`` (where there are any) have the same
    length and must not be changed afterwards.
    """

    at: float
    answer_id: str
    request_id: str
    unit: str | None
    variant: str
    version: str
    revision: int
    weight: int
    endpoint: str
    latency_s: float
    rows: Sequence[Row]
    scores: Scores
    fell_back_from: str | None = None
    entities: Sequence[Entity | None] | None = None
    requests: Sequence[dict[str, Any]] | None = None
    knew: str | None = None
    """JSON of what the store of online features knew, and what came with each row (``requests``)."""


class Store(ABC):
    """Where files go."""

    @abstractmethod
    def write(self, path: str, content: pa.Buffer) -> None:
        """Puts a whole file at ``path`` (relative to the root), in place of one of that name."""


class LocalFolder(Store):
    """Files under a local folder, made when needed."""

    def __init__(self, root: str) -> None:
        self._root = Path(root.removeprefix("file://")).absolute()

    def write(self, path: str, content: pa.Buffer) -> None:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            # Without it a power cut can leave the name with nothing behind it.
            os.fsync(stream.fileno())
        os.replace(partial, target)


class S3Prefix(Store):
    """Objects under a prefix; the store shows an object only when its upload is complete."""

    def __init__(self, root: str, options: Mapping[str, str]) -> None:
        self._root, self._options = root.removeprefix(S3).rstrip("/"), options
        self._filesystem: Any = None

    def write(self, path: str, content: pa.Buffer) -> None:
        if self._filesystem is None:
            self._filesystem = fs.S3FileSystem(
                endpoint_override=self._options.get("endpoint_url") or None,
                region=self._options.get("region") or None,
                connect_timeout=S3_TIMEOUT_S,
                request_timeout=S3_TIMEOUT_S,
                # A store that is away is tried again here, where it is counted and said.
                retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
                allow_bucket_creation=False,
            )
        with self._filesystem.open_output_stream(f"{self._root}/{path}") as stream:
            stream.write(content)


class _File(NamedTuple):
    path: str
    content: pa.Buffer
    rows: int


class PredictionLog:
    """The log of one replica. ``put`` belongs to one thread, the event loop's; the rest to any.

    ``problem`` says why writing does not work at the moment, and is None when it does; ``failed_writes``
    counts the attempts that failed. ``on_logged`` and ``on_dropped`` are told the rows that ``logged`` and
    ``dropped`` count, refusals in the thread that puts and the rest in the writer's; they must not raise.
    ``clock`` is monotonic, in seconds. ``store`` is for tests.
    """

    def __init__(
        self,
        args: PredictionLogArgs,
        *,
        deployment: str,
        replica: str,
        on_logged: Callable[[int], None] = lambda rows: None,
        on_dropped: Callable[[int], None] = lambda rows: None,
        store: Store | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._deployment, self._replica = deployment, re.sub(r"[^A-Za-z0-9_.-]", "_", replica)
        self._interval_s, self._clock = args.flush_interval_s, clock
        self._on_logged, self._on_dropped = on_logged, on_dropped
        self._store = store or store_for(args.uri, args.storage_options)
        self._sequence = count()
        # Each number has one writing thread, so none needs a lock: the event loop's two, the writer's rest.
        self._accepted = self._refused = 0
        self._drained = self._settled = self._logged = self._unreadable = self._left = 0
        self._capacity = args.max_queued_rows
        self._early = max(1, min(EARLY_ROWS, args.max_queued_rows // 2))
        self._wake_at = self._early
        self._queue: deque[Answered] = deque()
        # What is on its way from the queue to a file; each stage is left only when the next one is done.
        self._taken: list[Answered] = []
        self._batches: dict[int, list[pa.RecordBatch]] = {}
        self._encoded_rows = 0
        self._files: list[_File] = []
        self._wake, self._closing = threading.Event(), threading.Event()
        self._progress = threading.Condition()
        self._deadline = math.inf
        self.problem: str | None = None
        self.failed_writes = 0
        _batch([])  # The first array imports pandas: now, not while callers wait.
        self._thread = threading.Thread(target=self._work, name="prediction-log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @property
    def logged(self) -> int:
        """Rows that are in the lake."""
        return self._logged

    @property
    def dropped(self) -> int:
        """Rows that never will be: refused by a full queue, not writable as rows, or left by ``close``."""
        return self._refused + self._unreadable + self._left

    @property
    def queued(self) -> int:
        """Rows that were taken and are not in the lake yet."""
        return self._accepted - self._settled

    def put(self, answered: Answered) -> bool:
        """Takes an answer to be logged; False when its rows do not fit: they are dropped and counted."""
        rows = len(answered.rows)
        accepted = self._accepted + rows
        if accepted - self._settled > self._capacity:
            self._refused += rows
            self._on_dropped(rows)
            return False
        self._queue.append(answered)
        self._accepted = accepted
        if accepted >= self._wake_at and not self._wake.is_set():
            self._wake.set()
        return True

    def flush(self, timeout_s: float = 10.0) -> None:
        """Returns when everything taken so far is in the lake; TimeoutError with the reason otherwise."""
        target = self._accepted
        self._wake.set()
        with self._progress:
            if not self._progress.wait_for(lambda: self._settled >= target, timeout_s):
                raise TimeoutError(
                    f"{target - self._settled} rows of the prediction log are not written after "
                    f"{timeout_s:g} s: {self.problem or 'the writes are slow'}"
                )

    def close(self, timeout_s: float = 10.0) -> None:
        """Takes nothing more, writes what is left and ends the thread.

        What cannot be written within ``timeout_s`` is dropped, counted and said in the process's log.
        """
        if self._closing.is_set():
            return
        self._capacity = 0
        self._deadline = self._clock() + timeout_s
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s + JOIN_GRACE_S)
        atexit.unregister(self.close)
        left = self.queued
        if left:
            self._left += left
            self._on_dropped(left)
            self._settled += left
            logger.error("The prediction log ends with %d rows not written: %s", left, self.problem)

    # -- the writer thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            closing, started = self._closing.is_set(), self._clock()
            try:
                self._write_waiting()
            except Exception as error:  # Requests go on whatever it is, and the rows are kept.
                self.failed_writes += 1
                if self.problem is None:
                    logger.exception("The prediction log cannot be written; rows are kept and tried again")
                self.problem = f"{type(error).__name__}: {error}"
            else:
                if self.problem is not None:
                    logger.warning("The prediction log is written again")
                self.problem = None
            if closing and (not self.queued or self._clock() >= self._deadline):
                return
            if closing:
                time.sleep(RETRY_S)
            elif self.problem is not None:
                self._closing.wait(self._interval_s)
            else:
                # Counted from the start of the last turn: a row waits one interval at most.
                self._wake.wait(max(0.0, started + self._interval_s - self._clock()))
                self._wake.clear()

    def _write_waiting(self) -> None:
        """Writes everything that was taken before now. Whatever raises leaves its rows in place."""
        target = self._accepted
        while True:
            while self._files:
                file = self._files[0]
                self._store.write(file.path, file.content)
                del self._files[0]
                self._logged += file.rows
                self._on_logged(file.rows)
                self._settle(file.rows)
            if self._drained >= target and not self._batches:
                return
            self._encode_waiting()

    def _encode_waiting(self) -> None:
        """Makes files of about ``FILE_ROWS`` rows of the queue, a chunk at a time."""
        while (self._queue or self._taken) and self._encoded_rows < FILE_ROWS:
            rows = sum(len(answered.rows) for answered in self._taken)
            while self._queue and rows < CHUNK_ROWS:
                answered = self._queue.popleft()
                self._taken.append(answered)
                rows += len(answered.rows)
            batches, unreadable = batches_by_hour(self._taken, pause=lambda: time.sleep(PAUSE_S))
            for hour, made in batches.items():
                self._batches.setdefault(hour, []).extend(made)
            self._taken = []
            self._drained += rows
            self._encoded_rows += rows
            if unreadable:
                self._unreadable += unreadable
                self._on_dropped(unreadable)
                self._settle(unreadable)
        self._files = [
            self._file(hour, pa.Table.from_batches(made)) for hour, made in sorted(self._batches.items())
        ]
        self._batches, self._encoded_rows = {}, 0
        self._wake_at = self._drained + self._early

    def _file(self, hour: int, table: pa.Table) -> _File:
        first_ms = table.column("at")[0].value // 1_000
        name = f"{first_ms}-{self._replica}-{next(self._sequence):06d}.parquet"
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return _File(f"{self._deployment}/{hour_folder(hour)}/{name}", sink.getvalue(), table.num_rows)

    def _settle(self, rows: int) -> None:
        with self._progress:
            self._settled += rows
            self._progress.notify_all()


def store_for(uri: str, storage_options: Mapping[str, str]) -> Store:
    """The store behind a local path, ``file://`` or ``s3://``."""
    return S3Prefix(uri, storage_options) if uri.startswith(S3) else LocalFolder(uri)


def hour_folder(hour: int) -> str:
    """``dt=YYYY-MM-DD/hr=HH`` of an hour since 1970, UTC."""
    return time.strftime("dt=%Y-%m-%d/hr=%H", time.gmtime(hour * 3600))


def _lines(answered: Answered) -> "list[_Line]":
    nothing: list[Any] = [None] * len(answered.rows)
    each = zip(
        answered.rows,
        answered.scores,
        answered.entities or nothing,
        answered.requests or nothing,
        strict=True,
    )
    return [_Line(answered, position, *one) for position, one in enumerate(each)]


def batches_by_hour(
    answers: Sequence[Answered], *, pause: Callable[[], None] = lambda: None
) -> tuple[dict[int, list[pa.RecordBatch]], int]:
    """{hour since 1970: batches} of the answers' rows, and how many rows could not be written as such.

    One broken row must not hold up the others, nor be tried for ever: it is left out and said in the
    process's log. ``pause`` is called after every batch, of ``CHUNK_ROWS`` rows at most.
    """
    lines: dict[int, list[_Line]] = {}
    unreadable = 0
    for answered in answers:
        try:
            rows = _lines(answered)
            lines.setdefault(int(answered.at // 3600), []).extend(rows)
        except (TypeError, ValueError, OverflowError) as error:
            unreadable += len(answered.rows)
            logger.error("Answer %s cannot be logged: %s", answered.answer_id, error)
    batches: dict[int, list[pa.RecordBatch]] = {}
    for hour, found in lines.items():
        for start in range(0, len(found), CHUNK_ROWS):
            batch, lost = _readable_batch(found[start : start + CHUNK_ROWS])
            unreadable += lost
            if batch.num_rows:
                batches.setdefault(hour, []).append(batch)
            pause()
    return batches, unreadable


class _Line(NamedTuple):
    answered: Answered
    position: int
    row: Row
    score: Any
    entity: Entity | None
    request: dict[str, Any] | None


def _readable_batch(lines: list[_Line]) -> tuple[pa.RecordBatch, int]:
    try:
        return _batch(lines), 0
    except (TypeError, ValueError, OverflowError):  # Arrow's own errors are among these.
        good = []
        for line in lines:
            try:
                _batch([line])
            except (TypeError, ValueError, OverflowError) as error:
                logger.error(
                    "Row %d of answer %s cannot be logged: %s", line.position, line.answered.answer_id, error
                )
            else:
                good.append(line)
        return _batch(good), len(lines) - len(good)


def _batch(lines: list[_Line]) -> pa.RecordBatch:
    answers = [line.answered for line in lines]
    scores = [line.score for line in lines]
    columns = [
        [one.answer_id for one in answers],
        [one.request_id for one in answers],
        [line.position for line in lines],
        [round(one.at * 1e6) for one in answers],
        [one.unit for one in answers],
        [None if line.entity is None else _encode(line.entity) for line in lines],
        [one.variant for one in answers],
        [one.version for one in answers],
        [one.revision for one in answers],
        [one.weight for one in answers],
        [one.endpoint for one in answers],
        [one.latency_s * 1e3 for one in answers],
        [_encode(line.row) for line in lines],
        [None if isinstance(score, list) else score for score in scores],
        [score if isinstance(score, list) else None for score in scores],
        [one.fell_back_from for one in answers],
        [None if line.request is None else _encode(line.request) for line in lines],
        [one.knew for one in answers],
    ]
    return pa.record_batch(
        [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )
