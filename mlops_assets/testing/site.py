"""An endpoint under test: the whole ASGI application over real models in this process.

Belongs here: the site, how a story is played on it, what holds for every refusal. Does not belong here:
stories (the tests).
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

import httpx

from mlops_assets.testing.small_models import ROW, LocalVersion, LocalVersions, package, routing
from serve.aggregator import Aggregator, AggregatorLink, AggregatorProxy, Gathered, Reply, Report
from serve.coalescing import Coalescing
from serve.endpoint import Endpoint, Limits
from serve.inference_log import PredictionLog
from serve.metrics import GatewayMetrics
from serve.online.lookup import Lookups
from serve.schema import MonitoringReport
from serve.security import Protection
from serve.traffic import Embed, Traffic

MODELS = {task: package(task) for task in ("binary", "multiclass", "regression")}
CANARY = package("binary", seed=1)
JSON = {"content-type": "application/json"}


class InProcessAggregator(AggregatorProxy):
    """An aggregator without an actor around it."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator

    async def push(self, report: Report) -> Reply:
        return self._aggregator.push(report)

    async def gathered(self) -> Gathered:
        return self._aggregator.gathered()

    async def monitor(self, report: MonitoringReport) -> None:
        self._aggregator.monitor(report)


class Site:
    """An endpoint under test with its versions, routing and an HTTP client."""

    def __init__(
        self,
        task: str = "binary",
        *,
        keys_file: str | None = None,
        embed: Embed | None = None,
        log: PredictionLog | None = None,
        max_shadows: int = 64,
        aggregator: Aggregator | None = None,
        replica: str = "r1",
        wall_clock: Callable[[], float] | None = None,
        online_uri: str = "",
        **limits: int,
    ) -> None:
        self.v1 = LocalVersion("v1", *MODELS[task])
        self.v2 = LocalVersion("v2", *CANARY)
        self.versions = LocalVersions(v1=self.v1, v2=self.v2)
        self.metrics = GatewayMetrics(deployment="flights", replica=replica)
        self.now = 100.0
        self.traffic = Traffic(
            self.versions,
            self.metrics,
            clock=lambda: self.now,
            wrap=Coalescing,
            embed=embed,
            looked_up=Lookups(online_uri, wall_clock or (lambda: self.now)).of,
            max_shadows=max_shadows,
        )
        self.aggregator = aggregator or Aggregator(clock=lambda: self.now, steady=lambda: self.now)
        self.link = AggregatorLink(
            name="flights",
            replica=replica,
            collector=self.traffic.collector,
            metrics=self.metrics,
            connect=self.connect,
            on_trip=self.traffic.apply_trip,
            clock=lambda: self.now,
            steady=lambda: self.now,
        )
        self.protection = Protection(keys_file, max_body_bytes=20_000, clock=lambda: self.now)
        self.endpoint = Endpoint(
            "flights",
            self.traffic,
            self.protection,
            self.metrics,
            Limits(max_batch_rows=50, **limits),
            self.link,
            log=log,
            clock=lambda: self.now,
            wall_clock=wall_clock or (lambda: self.now),
        )
        transport = httpx.ASGITransport(cast(Any, self.endpoint), root_path="/flights")
        self.http = httpx.AsyncClient(transport=transport, base_url="http://test/flights")

    async def connect(self) -> AggregatorProxy:
        return InProcessAggregator(self.aggregator)

    async def declare(self, raw: dict[str, Any]) -> None:
        taken = self.traffic.declare(raw)
        if taken is not None:
            self.link.declare(taken)
        await self.traffic.settle()

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(path, content=content, headers={**JSON, **headers})

    async def predict(self, features: Any = ROW, **more: Any) -> httpx.Response:
        return await self.post("/predict", {"features": features, **more})

    async def metric(self, line: str) -> float:
        text = (await self.http.get("/metrics")).text
        values = [float(entry.rsplit(" ", 1)[1]) for entry in text.splitlines() if entry.startswith(line)]
        assert len(values) == 1, (line, text)
        return values[0]

    async def waiting(self, requests: int) -> None:
        """Returns once so many requests are being answered."""
        while self.endpoint.in_flight != requests:
            await asyncio.sleep(0)

    def errors(self, code: str) -> float:
        labels = f'mlops_errors_total{{code="{code}",deployment="flights"}} '
        lines = self.metrics.text().decode().splitlines()
        return sum(float(line.removeprefix(labels)) for line in lines if line.startswith(labels))


Story = Callable[[Site], Awaitable[None]]


def run(story: Story, site: Site | None = None, first: dict[str, Any] | None = None) -> None:
    """Plays a story on a site that answers with v1 (or as ``first`` says)."""

    async def play() -> None:
        there = site or Site()
        await there.declare(first or routing())
        async with there.http:
            await story(there)

    asyncio.run(play())


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error of a refusal, after checking everything that holds for all of them."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    body = answer.json()
    if answer.url.path.removeprefix("/flights").startswith("/v2"):
        # The protocol's clients show what stands under "error", and take it for a string.
        assert list(body) == ["error", "code", "details"] and type(body["error"]) is str
        error = {"code": body["code"], "message": body["error"], "details": body["details"]}
    else:
        assert list(body) == ["error"]
        assert list(body["error"]) == ["code", "message", "details"]
        error = body["error"]
    assert error["code"] == code
    assert error["message"]
    return error


def reasons(answer: httpx.Response) -> dict[str, str]:
    return {entry["field"]: entry["reason"] for entry in refused(answer, 400, "invalid_fields")["details"]}
