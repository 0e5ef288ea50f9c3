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

import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pyarrow as pa

from serve.schema import PredictionLogArgs
from serve.validation import Row
from serve.versions import Scores

SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("row", pa.int32()),
        ("at", pa.timestamp("us", tz="UTC")),
        ("unit", pa.string()),
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
    ]
)
"""Columns of every file, one line per row of a request. ``row`` counts from zero within the request,
``weight`` is in basis points, ``features`` is the row as JSON text. ``score`` is the probability of the
positive class, or the value; for several classes it is null and ``scores`` holds one probability each.
"""

EARLY_ROWS = 4_000
"""So many rows waiting are written at once, before the interval is over."""
FILE_ROWS = 20_000
"""Rows that are written together at most."""
CHUNK_ROWS = 64
"""Rows prepared before the event loop gets its turn: half a millisecond of Python."""
PAUSE_S = 0.0002
"""How long the writer stands back between chunks. Merely yielding would take the GIL right back."""
S3 = "s3://"

logger = logging.getLogger(__name__)
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode


class Answered(NamedTuple):
    """One answer to one request of one or more rows; a shadow's answer to it is another one.

    ``at`` is in Unix seconds, ``weight`` the version's share in basis points at that moment. ``rows`` and
    ``scores`` have the same length and must not be changed afterwards.
    """

    at: float
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


class Store(ABC):
    """Where files go."""

    @abstractmethod
    def write(self, path: str, table: pa.Table) -> None:
        """Puts a whole file at ``path`` (relative to the root), replacing one of that name."""


class PredictionLog:
    """The log of one replica. ``put`` belongs to one thread, the event loop's; the rest to any.

    ``problem`` says why writing does not work at the moment, None when it does; ``failed_writes`` counts
    the attempts that failed. ``clock`` is monotonic and in seconds.
    """

    def __init__(
        self,
        args: PredictionLogArgs,
        *,
        deployment: str,
        replica: str,
        store: Store | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        raise NotImplementedError

    @property
    def logged(self) -> int:
        """Rows that are in the lake."""
        raise NotImplementedError

    @property
    def dropped(self) -> int:
        """Rows that never will be: refused by a full queue, unreadable, or left over by ``close``."""
        raise NotImplementedError

    @property
    def queued(self) -> int:
        """Rows taken and not yet in the lake."""
        raise NotImplementedError

    def put(self, answered: Answered) -> bool:
        """Takes an answer to be logged; False when it is dropped, and counted."""
        raise NotImplementedError

    def flush(self, timeout_s: float = 10.0) -> None:
        """Returns when everything taken so far is in the lake; TimeoutError with the reason otherwise."""
        raise NotImplementedError

    def close(self, timeout_s: float = 10.0) -> None:
        """Writes what is left and ends the thread. What cannot be written in time is dropped, and said."""
        raise NotImplementedError
