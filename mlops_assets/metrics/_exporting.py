"""Answering scrapes: collectors are asked when somebody scrapes, and no scrape waits long for them.

Belongs here: the list of collectors, keeping their answers for some seconds, the HTTP server. Does not belong
here: what is collected (one file each beside this one).

Nothing happens while nobody scrapes. A collector that takes longer than a scrape waits goes on beside it, and
its answer is for the next one; until then its former answer stands, with the time it is of.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_assets.errors import StackError, UnknownName
from mlops_assets.metrics._base import MetricSample, MetricsCollector, MetricSeries
from serve.families import Family

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

COLLECTORS: Family[MetricsCollector] = Family(
    "collector", "mlops_assets.metrics", MetricsCollector, unknown=UnknownName
)
KEPT_S, PATIENCE_S = 5.0, 1.5
HOST = "127.0.0.1"
METRICS_PATH, HEALTH_PATH = "/metrics", "/healthy"

UP = MetricSeries(
    "mlops_exporter_up",
    "gauge",
    ("collector",),
    "1 when the collector's last try succeeded, 0 when it failed",
)
COLLECTED = MetricSeries(
    "mlops_exporter_collected_timestamp_seconds",
    "gauge",
    ("collector",),
    "when what stands here was collected, in seconds since 1970",
)
EXPORTER_SERIES = (UP, COLLECTED)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collected:
    """What a collector said, when (Unix seconds), and why it failed ("": it did not)."""

    samples: Sequence[MetricSample]
    at: float
    problem: str = ""


class Kept:
    """The newest answer of a collector, asked for anew when it is older than ``KEPT_S``."""

    def __init__(
        self,
        collector: MetricsCollector,
        *,
        clock: Callable[[], float] = time.time,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.name = collector.name
        self._collector, self._clock, self._patience_s = collector, clock, patience_s
        self._lock = threading.Lock()
        self._newest: Collected | None = None
        self._asking: threading.Thread | None = None

    def begin(self) -> None:
        """Asks the collector, unless its answer is new enough or it is being asked already."""
        with self._lock:
            fresh = self._newest is not None and self._clock() < self._newest.at + KEPT_S
            if fresh or (self._asking is not None and self._asking.is_alive()):
                return
            self._asking = threading.Thread(target=self._ask, name=f"collect {self.name}", daemon=True)
            self._asking.start()

    def newest(self, waited_s: float = 0.0) -> Collected | None:
        """The answer, or the former one when that takes too long; None when there never was one."""
        asking = self._asking
        if asking is not None:
            asking.join(max(0.0, self._patience_s - waited_s))
        return self._newest

    def _ask(self) -> None:
        before = self._newest
        at = self._clock()
        try:
            found = Collected(tuple(self._collector.collect()), at)
        # Whatever it was, the other collectors are asked, and the series says that this one failed.
        except Exception as error:  # noqa: BLE001
            found = Collected((), at, f"{type(error).__name__}: {error}")
            if before is None or before.problem != found.problem:
                _log.exception("collector %s failed", self.name)
        self._newest = found


class Exported:
    """All collectors as prometheus_client's registry wants one."""

    def __init__(self, collectors: Iterable[Kept]) -> None:
        self._collectors = list(collectors)

    def describe(self) -> Iterator["Metric"]:
        """Nothing: registering would collect otherwise."""
        return iter(())

    def collect(self) -> Iterator["Metric"]:
        """The series of all collectors, each once."""
        for kept in self._collectors:
            kept.begin()
        began = time.monotonic()
        samples: list[MetricSample] = []
        for kept in self._collectors:
            found = kept.newest(time.monotonic() - began)
            if found is not None:
                labels = {"collector": kept.name}
                samples += found.samples
                samples += [
                    MetricSample(UP, labels, float(not found.problem)),
                    MetricSample(COLLECTED, labels, found.at),
                ]
        return families(samples)


def families(samples: Iterable[MetricSample]) -> Iterator["Metric"]:
    """The samples, by series, as prometheus_client writes them."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    made: dict[MetricSeries, Any] = {}
    for series, labels, value in samples:
        if series not in made:
            kind = CounterMetricFamily if series.kind == "counter" else GaugeMetricFamily
            made[series] = kind(series.name, series.meaning, labels=series.labels)
        made[series].add_metric([labels[name] for name in series.labels], value)
    return iter(made.values())


@contextmanager
def exporting(
    collectors: Iterable[MetricsCollector], port: int, *, patience_s: float = PATIENCE_S
) -> Iterator[str]:
    """The address of the series, served on loopback until the block ends; port 0: any that is unused.

    A scrape waits ``patience_s`` for collectors.

    Raises StackError when the port is taken.
    """
    from wsgiref.simple_server import WSGIRequestHandler, make_server

    from prometheus_client import CollectorRegistry, make_wsgi_app
    from prometheus_client.exposition import ThreadingWSGIServer

    class Unlogged(WSGIRequestHandler):
        """Writes no line for each scrape."""

        def log_message(self, *_: Any) -> None:
            return

    registry = CollectorRegistry()
    registry.register(Exported(Kept(one, patience_s=patience_s) for one in collectors))
    app = _paths(make_wsgi_app(registry))
    try:
        server = make_server(HOST, port, app, ThreadingWSGIServer, handler_class=Unlogged)
    except OSError as error:
        raise StackError(f"Metrics cannot be served at {HOST}:{port}: {error}. Give another port.") from None
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}{METRICS_PATH}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _paths(metrics: Any) -> Callable[..., Iterable[bytes]]:
    """The series under their path alone, so that asking for health collects nothing."""

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == METRICS_PATH:
            return metrics(environ, start)
        status, said = ("200 OK", "ok") if path == HEALTH_PATH else ("404 Not Found", f"Ask {METRICS_PATH}")
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{said}\n".encode()]

    return app
