"""What a gateway replica counts, as Prometheus text.

Belongs here: metric names, labels and buckets. Does not belong here: deciding what a failure is
(``serve/traffic.py``).

Every series carries the ``replica`` that counted it and only ever grows with that replica, so
``sum without (replica)`` over the replicas is the whole, whichever replica answers a scrape.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from serve.schema import WEIGHT_TOTAL, Routing

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

NONE = "none"
"""Label of what is not known: a request refused before a version was chosen has no version."""


class GatewayMetrics:
    """All metrics of one gateway replica, on a registry of its own."""

    def __init__(self, *, deployment: str, replica: str) -> None:
        self._registry = CollectorRegistry()
        constant = {"deployment": deployment, "replica": replica}
        self._constant = tuple(constant.values())
        names = tuple(constant)

        def labels(*more: str) -> tuple[str, ...]:
            return names + more

        registry = self._registry
        self._requests = Counter(
            "mlops_requests_total",
            "Requests, by endpoint, HTTP status, and the variant and version that answered.",
            labels("endpoint", "status", "variant", "version"),
            registry=registry,
        )
        self._errors = Counter(
            "mlops_errors_total",
            "Refused or failed requests, by error code.",
            labels("code"),
            registry=registry,
        )
        self._latency = Histogram(
            "mlops_request_latency_seconds",
            "Time from the request's headers to its answer, by variant and version; predictions only.",
            labels("variant", "version"),
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._rows = Counter(
            "mlops_rows_total", "Rows predicted.", labels("variant", "version"), registry=registry
        )
        self._fallbacks = Counter(
            "mlops_fallbacks_total",
            "Requests that stable answered because the chosen version failed, by that version and reason.",
            labels("version", "reason"),
            registry=registry,
        )
        self._retries = Counter(
            "mlops_retries_total",
            "Calls repeated because a replica died.",
            labels("version"),
            registry=registry,
        )
        self._weights = Gauge(
            "mlops_traffic_weight",
            "Declared share of the traffic, 0 to 1.",
            labels("version"),
            registry=registry,
        )
        self._answers = Gauge(
            "mlops_version_answers",
            "1 when the version answers, else 0.",
            labels("version"),
            registry=registry,
        )
        self._revision = Gauge(
            "mlops_routing_revision", "Revision of the routing in force.", labels(), registry=registry
        )
        self._request_children: dict[tuple[str, int, str, str], Counter] = {}
        self._answer_children: dict[tuple[str, str], tuple[Histogram, Counter]] = {}

    def count_request(self, endpoint: str, status: int, variant: str, version: str) -> None:
        key = (endpoint, status, variant, version)
        child = self._request_children.get(key)
        if child is None:
            child = self._requests.labels(*self._constant, endpoint, str(status), variant, version)
            self._request_children[key] = child
        child.inc()

    def count_answer(self, variant: str, version: str, *, rows: int, seconds: float) -> None:
        children = self._answer_children.get((variant, version))
        if children is None:
            labels = (*self._constant, variant, version)
            children = self._latency.labels(*labels), self._rows.labels(*labels)
            self._answer_children[variant, version] = children
        children[0].observe(seconds)
        children[1].inc(rows)

    def count_error(self, code: str) -> None:
        self._errors.labels(*self._constant, code).inc()

    def count_fallback(self, version: str, reason: str) -> None:
        self._fallbacks.labels(*self._constant, version, reason).inc()

    def count_retry(self, version: str) -> None:
        self._retries.labels(*self._constant, version).inc()

    def set_routing(self, routing: Routing) -> None:
        """Weights of exactly these versions; a version that left the routing leaves the metric."""
        self._weights.clear()
        self._answers.clear()
        for version, route in routing.routes.items():
            self._weights.labels(*self._constant, version).set(route.weight / WEIGHT_TOTAL)
        self._revision.labels(*self._constant).set(routing.revision)

    def set_answers(self, version: str, answers: bool) -> None:
        self._answers.labels(*self._constant, version).set(answers)

    def text(self) -> bytes:
        """The exposition, as ``CONTENT_TYPE``."""
        return generate_latest(self._registry)
