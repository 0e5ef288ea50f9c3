"""What a gateway counts, as Prometheus text.

Belongs here: metric names, labels and buckets, counting on the hot path, summing over replicas. Does
not belong here: deciding what a failure is (``serve/traffic.py``), carrying snapshots between replicas
(``serve/aggregator.py``), what a routing's versions did (``serve/evidence.py``).

Counters only ever grow with the life of a replica, so the sum over all replicas, the dead ones
included, is exact whichever replica answers a scrape. Gauges are of living replicas only.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, TypedDict

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from serve.schema import WEIGHT_TOTAL, DriftStatistic, MonitoringReport, Routing

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

NONE = "none"
"""Label of what is not known: a request refused before a version was chosen has no version."""

ShadowOutcome = Literal["answered", "failed", "shed"]
LogOutcome = Literal["logged", "dropped"]


class _Counter(NamedTuple):
    name: str
    help: str
    labels: tuple[str, ...]


REQUESTS = _Counter(
    "mlops_requests_total",
    "Requests, by endpoint, HTTP status, and the variant and version that answered.",
    ("endpoint", "status", "variant", "version"),
)
ERRORS = _Counter("mlops_errors_total", "Refused or failed requests, by error code.", ("code",))
ROWS = _Counter("mlops_rows_total", "Rows predicted.", ("variant", "version"))
FALLBACKS = _Counter(
    "mlops_fallbacks_total",
    "Requests that stable answered because the chosen version failed, by that version and reason.",
    ("version", "reason"),
)
RETRIES = _Counter("mlops_retries_total", "Calls repeated because a replica died.", ("version",))
FAILURES = _Counter(
    "mlops_version_failures_total",
    "Requests that a version was chosen for and failed, by reason, whoever answered them in the end.",
    ("version", "reason"),
)
SHADOWS = _Counter(
    "mlops_shadow_requests_total", "Mirrored requests, by what became of them.", ("version", "outcome")
)
LOGGED = _Counter(
    "mlops_prediction_log_rows_total", "Rows given to the prediction log, by outcome.", ("outcome",)
)
LOOK_UPS = _Counter(
    "mlops_online_lookups_total",
    "Rows of features that were looked up by key, by view and state of the store then.",
    ("view", "state"),
)
TRIPS = _Counter("mlops_guard_trips_total", "Times that a version was taken out.", ("version",))
COUNTERS = (REQUESTS, ERRORS, ROWS, FALLBACKS, RETRIES, FAILURES, SHADOWS, LOGGED, LOOK_UPS)

Labels = tuple[str | int, ...]


class Latency(NamedTuple):
    """Requests per bucket of ``LATENCY_BUCKETS_S`` (not cumulative, one more for the rest), and seconds."""

    counts: tuple[int, ...]
    seconds: float


class MetricsSnapshot(TypedDict):
    """All metrics of one replica, or of several whose counters were summed, as plain values."""

    replica: str
    revision: int
    """Of the routing in force; -1 before the first."""
    counters: dict[str, dict[Labels, int]]
    """By metric name, by label values in the metric's order."""
    latency: dict[Labels, Latency]
    """By variant and version."""
    trips: tuple[tuple[str, int], ...]
    """Version and revision of every trip it knows of: a set, for replicas hear of each other's trips."""
    weights: dict[str, int]
    """Basis points, by version; as all the following."""
    answers: dict[str, bool]
    tripped: dict[str, bool]
    in_gateway: dict[str, bool]
    in_flight: int
    online_age: dict[str, float]
    """Seconds, by view; infinite for a store that cannot be read."""


class GatewayMetrics:
    """All metrics of one gateway replica. Lives on one event loop; counting costs about a microsecond.

    ``count_logged`` alone may be called from one other thread.
    """

    def __init__(self, *, deployment: str, replica: str) -> None:
        self.deployment, self.replica = deployment, replica
        self._counters: dict[str, dict[Labels, int]] = {counter.name: {} for counter in COUNTERS}
        self._requests = self._counters[REQUESTS.name]
        # Both exist from the start: the log's thread only ever changes values, never the set of keys.
        self._counters[LOGGED.name] = {("logged",): 0, ("dropped",): 0}
        self._rows = self._counters[ROWS.name]
        self._latency: dict[Labels, list[float]] = {}
        self._trips: dict[tuple[str, int], None] = {}
        self._revision = -1
        self._weights: dict[str, int] = {}
        self._answers: dict[str, bool] = {}
        self._tripped: dict[str, bool] = {}
        self._stable: str | None = None
        self._in_gateway: dict[str, bool] = {}
        self._in_flight = 0
        self._online_age: dict[str, float] = {}

    # -- counters ------------------------------------------------------------------------------------

    def count_request(self, endpoint: str, status: int, variant: str, version: str) -> None:
        key = (endpoint, status, variant, version)
        self._requests[key] = self._requests.get(key, 0) + 1

    def count_answer(self, variant: str, version: str, *, rows: int, seconds: float) -> None:
        key = (variant, version)
        latency = self._latency.get(key)
        if latency is None:
            latency = self._latency[key] = [0.0] * (len(LATENCY_BUCKETS_S) + 2)
            self._rows[key] = 0
        latency[bisect_left(LATENCY_BUCKETS_S, seconds)] += 1
        latency[-1] += seconds
        self._rows[key] += rows

    def count_error(self, code: str) -> None:
        self._add(ERRORS, (code,))

    def count_fallback(self, version: str, reason: str) -> None:
        self._add(FALLBACKS, (version, reason))

    def count_retry(self, version: str) -> None:
        self._add(RETRIES, (version,))

    def count_failure(self, version: str, reason: str) -> None:
        self._add(FAILURES, (version, reason))

    def count_shadow(self, version: str, outcome: ShadowOutcome) -> None:
        self._add(SHADOWS, (version, outcome))

    def count_logged(self, outcome: LogOutcome, rows: int) -> None:
        self._add(LOGGED, (outcome,), rows)

    def count_looked_up(self, view: str, state: str, rows: int) -> None:
        self._add(LOOK_UPS, (view, state), rows)

    def count_trip(self, version: str) -> None:
        """A trip under the routing in force, decided here or heard of: it counts once over all replicas."""
        self._trips[version, self._revision] = None

    def _add(self, counter: _Counter, key: Labels, amount: int = 1) -> None:
        counts = self._counters[counter.name]
        counts[key] = counts.get(key, 0) + amount

    # -- gauges --------------------------------------------------------------------------------------

    def set_routing(self, routing: Routing) -> None:
        """Weights of exactly these versions; a version that left the routing leaves the gauges.

        A new revision has no trips; the same one again keeps them.
        """
        kept = self._tripped if routing.revision == self._revision else {}
        self._revision = routing.revision
        self._weights = routing.weights()
        self._answers = {}
        self._tripped = {version: kept.get(version, False) for version in routing.routes}
        self._stable = routing.stable
        self._in_gateway = {v: is_in for v, is_in in self._in_gateway.items() if v in routing.routes}

    def set_answers(self, version: str, answers: bool) -> None:
        self._answers[version] = answers

    def set_tripped(self, version: str, tripped: bool) -> None:
        self._tripped[version] = tripped

    def set_in_gateway(self, version: str, in_gateway: bool) -> None:
        """Whether this replica scores small requests of the version in its own process."""
        self._in_gateway[version] = in_gateway

    def set_online_ages(self, ages: Mapping[str, float]) -> None:
        """Ages of exactly these views' stores, in seconds."""
        self._online_age = dict(ages)

    def set_in_flight(self, requests: int) -> None:
        self._in_flight = requests

    # -- reading -------------------------------------------------------------------------------------

    def snapshot(self) -> MetricsSnapshot:
        """The metrics so far, as plain values that later calls do not change."""
        stable = self._stable
        return {
            "replica": self.replica,
            "revision": self._revision,
            "counters": {name: dict(counts) for name, counts in self._counters.items() if counts},
            "latency": {
                key: Latency(tuple(map(int, values[:-1])), values[-1])
                for key, values in self._latency.items()
            },
            "trips": tuple(self._trips),
            "weights": dict(self._weights),
            "answers": dict(self._answers),
            "tripped": dict(self._tripped),
            "in_gateway": {} if stable is None else {stable: self._in_gateway.get(stable, False)},
            "in_flight": self._in_flight,
            "online_age": dict(self._online_age),
        }

    def text(self) -> bytes:
        """The exposition of this replica alone, as ``CONTENT_TYPE``."""
        return exposition([self.snapshot()], deployment=self.deployment)


def summed(snapshots: Iterable[MetricsSnapshot]) -> MetricsSnapshot:
    """The counters of several replicas that are gone as those of one; it has no gauges."""
    counters: dict[str, dict[Labels, int]] = {}
    latency: dict[Labels, Latency] = {}
    trips: dict[tuple[str, int], None] = {}
    for snapshot in snapshots:
        for name, counts in snapshot["counters"].items():
            total = counters.setdefault(name, {})
            for key, count in counts.items():
                total[key] = total.get(key, 0) + count
        for key, more in snapshot["latency"].items():
            known = latency.get(key)
            latency[key] = more if known is None else _both(known, more)
        trips.update(dict.fromkeys(snapshot["trips"]))
    return {
        "replica": "",
        "revision": -1,
        "counters": counters,
        "latency": latency,
        "trips": tuple(trips),
        "weights": {},
        "answers": {},
        "tripped": {},
        "in_gateway": {},
        "in_flight": 0,
        "online_age": {},
    }


def _both(one: Latency, other: Latency) -> Latency:
    return Latency(tuple(map(int.__add__, one.counts, other.counts)), one.seconds + other.seconds)


def exposition(
    living: Sequence[MetricsSnapshot],
    gone: Iterable[MetricsSnapshot] = (),
    *,
    deployment: str,
    aggregator_reachable: bool | None = None,
    monitoring: MonitoringReport | None = None,
) -> bytes:
    """One Prometheus text, as ``CONTENT_TYPE``: counters summed over all replicas, gauges over living.

    Gauges that are states are those of the living replicas that run the newest routing.
    ``aggregator_reachable`` and ``monitoring`` of None leave their gauges out.
    """
    registry = CollectorRegistry()
    whole = _Whole(living, summed([*living, *gone]), deployment, aggregator_reachable, monitoring)
    registry.register(whole)
    return generate_latest(registry)


class _Whole(Collector):
    """What prometheus_client asks for the metrics of all replicas together."""

    def __init__(
        self,
        living: Sequence[MetricsSnapshot],
        total: MetricsSnapshot,
        deployment: str,
        aggregator_reachable: bool | None,
        monitoring: MonitoringReport | None,
    ) -> None:
        self._monitoring = monitoring
        self._living, self._total, self._deployment = living, total, deployment
        self._aggregator_reachable = aggregator_reachable
        self._revision = max((snapshot["revision"] for snapshot in living), default=-1)
        self._newest = [snapshot for snapshot in living if snapshot["revision"] == self._revision]

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        for counter in COUNTERS:
            yield self._counter(counter, self._total["counters"].get(counter.name, {}))
        trips: dict[Labels, int] = {}
        for version, _ in self._total["trips"]:
            trips[version,] = trips.get((version,), 0) + 1
        yield self._counter(
            _Counter("mlops_guard_trips_total", "Times that the guard took a version out.", ("version",)),
            trips,
        )
        yield self._latencies()
        yield from self._gauges()
        if self._monitoring is not None:
            yield from self._monitored(self._monitoring)

    def _counter(self, counter: _Counter, counts: Mapping[Labels, int]) -> Metric:
        family = CounterMetricFamily(counter.name, counter.help, labels=("deployment", *counter.labels))
        for key, count in counts.items():
            family.add_metric((self._deployment, *map(str, key)), count)
        return family

    def _latencies(self) -> Metric:
        family = HistogramMetricFamily(
            "mlops_request_latency_seconds",
            "Time from the request's headers to its answer, by variant and version; predictions only.",
            labels=("deployment", "variant", "version"),
        )
        for key, latency in self._total["latency"].items():
            reached, buckets = 0, []
            for bound, count in zip((*map(str, LATENCY_BUCKETS_S), "+Inf"), latency.counts, strict=True):
                reached += count
                buckets.append((bound, reached))
            family.add_metric((self._deployment, *map(str, key)), buckets, latency.seconds)
        return family

    def _gauges(self) -> Iterator[Metric]:
        weights = self._newest[0]["weights"] if self._newest else {}
        shares = {version: weight / WEIGHT_TOTAL for version, weight in weights.items()}
        yield self._by_version("mlops_traffic_weight", "Declared share of the traffic, 0 to 1.", shares)
        yield self._by_version(
            "mlops_version_answers",
            "1 when the version answers every replica, else 0.",
            _over(min, [snapshot["answers"] for snapshot in self._newest]),
        )
        yield self._by_version(
            "mlops_version_tripped",
            "1 when the guard has taken the version out under the newest revision, else 0.",
            _over(max, [snapshot["tripped"] for snapshot in self._newest]),
        )
        yield self._by_version(
            "mlops_stable_in_gateway",
            "1 when every replica scores small requests of the version in its own process, else 0.",
            _over(min, [snapshot["in_gateway"] for snapshot in self._newest]),
        )
        if self._newest and self._revision >= 0:
            yield self._plain("mlops_routing_revision", "Newest revision in force.", self._revision)
        yield self._plain("mlops_gateway_replicas", "Replicas heard of lately.", len(self._living))
        revisions = GaugeMetricFamily(
            "mlops_replica_revision", "Revision each replica runs.", labels=("deployment", "replica")
        )
        for snapshot in self._living:
            revisions.add_metric((self._deployment, snapshot["replica"]), snapshot["revision"])
        yield revisions
        ages = GaugeMetricFamily(
            "mlops_online_age_seconds",
            "Since when the store of a view's online features may know less than the lake; the oldest.",
            labels=("deployment", "view"),
        )
        oldest: dict[str, float] = {}
        for view, age in (one for snapshot in self._living for one in snapshot["online_age"].items()):
            oldest[view] = max(age, oldest.get(view, 0.0))
        for view, age in oldest.items():
            ages.add_metric((self._deployment, view), age)
        yield ages
        in_flight = sum(snapshot["in_flight"] for snapshot in self._living)
        yield self._plain("mlops_requests_in_flight", "Requests being answered now.", in_flight)
        if self._aggregator_reachable is not None:
            yield self._plain(
                "mlops_referee_reachable",
                "1 when these are the metrics of all replicas, 0 when of the answering one alone.",
                self._aggregator_reachable,
            )

    def _monitored(self, report: MonitoringReport) -> Iterator[Metric]:
        stale = GaugeMetricFamily(
            "mlops_served_stale",
            "1 when what answers as stable is out of date, by cause; a cause that is not there is not known.",
            labels=("deployment", "cause"),
        )
        for cause, is_stale in report.stale.items():
            stale.add_metric((self._deployment, cause), float(is_stale))
        yield stale
        if report.data_until is not None:
            yield self._plain(
                "mlops_served_data_timestamp_seconds",
                "Newest row that what answers as stable was trained on.",
                report.data_until,
            )
        yield self._by_column(
            "mlops_drift_score", "Drift of the newest judged window, the worst columns.", report.drift
        )
        yield self._by_column(
            "mlops_drift_threshold", "What the drift score is held against.", report.drift_thresholds
        )
        yield self._plain(
            "mlops_drift_episode_open", "1 while a drift episode of it is open, else 0.", report.episode_open
        )

    def _by_column(
        self, name: str, about: str, values: Mapping[str, Mapping[DriftStatistic, float]]
    ) -> Metric:
        family = GaugeMetricFamily(name, about, labels=("deployment", "column", "statistic"))
        for column, scores in values.items():
            for statistic, score in scores.items():
                family.add_metric((self._deployment, column, statistic), score)
        return family

    def _by_version(self, name: str, about: str, values: Mapping[str, float]) -> Metric:
        family = GaugeMetricFamily(name, about, labels=("deployment", "version"))
        for version, value in values.items():
            family.add_metric((self._deployment, version), float(value))
        return family

    def _plain(self, name: str, about: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, about, labels=("deployment",))
        family.add_metric((self._deployment,), float(value))
        return family


def _over(choose: Callable[[Iterable[bool]], bool], states: Sequence[Mapping[str, bool]]) -> dict[str, bool]:
    """One state per version, of those of all replicas that know it."""
    versions = dict.fromkeys(version for state in states for version in state)
    return {version: choose([state[version] for state in states if version in state]) for version in versions}
