"""Replicas of a gateway with a real aggregator in one process, which can be killed, restarted or hang."""

import asyncio
import pickle
from collections.abc import Callable, Coroutine
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from mlops_assets.testing.small_models import routing
from serve.aggregator import (
    Aggregator,
    AggregatorLink,
    AggregatorProxy,
    Gathered,
    Reply,
    Report,
)
from serve.evidence import Collector
from serve.metrics import GatewayMetrics
from serve.schema import Evidence, GuardRules, MonitoringReport, Routing, Trip


class Unreachable(ConnectionError):
    pass


class Hall:
    """Where the aggregator is, if it is anywhere: it can be killed, restarted and made to hang.

    ``patience``: for how many real seconds its replicas wait for one that hangs.
    """

    def __init__(self, *, patience: float = 10.0) -> None:
        self.now = 1_000.0
        self.patience = patience
        self.aggregator: Aggregator | None = None
        self.hangs = False
        self.connects = 0
        self.restart()

    def clock(self) -> float:
        return self.now

    def restart(self) -> None:
        self.aggregator = Aggregator(clock=self.clock, steady=self.clock)

    def kill(self) -> None:
        self.aggregator = None

    async def connect(self) -> AggregatorProxy:
        self.connects += 1
        return Near(self, self.alive())

    def alive(self) -> Aggregator:
        if self.aggregator is None:
            raise Unreachable("no actor of this name")
        return self.aggregator


class Near(AggregatorProxy):
    """A handle to one life of the aggregator. What passes is pickled, as between processes."""

    def __init__(self, hall: Hall, aggregator: Aggregator) -> None:
        self._hall, self._aggregator = hall, aggregator

    async def push(self, report: Report) -> Reply:
        await self._arrive()
        return pickle.loads(pickle.dumps(self._aggregator.push(pickle.loads(pickle.dumps(report)))))

    async def gathered(self) -> Gathered:
        await self._arrive()
        return pickle.loads(pickle.dumps(self._aggregator.gathered()))

    async def monitor(self, report: MonitoringReport) -> None:
        await self._arrive()
        self._aggregator.monitor(pickle.loads(pickle.dumps(report)))

    async def _arrive(self) -> None:
        if self._hall.hangs:
            await asyncio.Event().wait()
        if self._hall.alive() is not self._aggregator:
            raise Unreachable("the actor died")


class Replica:
    """One gateway replica without its traffic."""

    def __init__(self, hall: Hall, name: str, declared: Routing) -> None:
        self.name = name
        self.collector = Collector(clock=hall.clock)
        self.metrics = GatewayMetrics(deployment="flights", replica=name)
        self.applied: list[Trip] = []
        self.link = AggregatorLink(
            name="flights",
            replica=name,
            collector=self.collector,
            metrics=self.metrics,
            connect=hall.connect,
            on_trip=self.applied.append,
            clock=hall.clock,
            steady=hall.clock,
            interval_s=0.001,
            push_timeout_s=hall.patience,
            gather_timeout_s=hall.patience,
        )
        self.declare(declared)

    def declare(self, declared: Routing) -> None:
        self.metrics.set_routing(declared)
        self.link.declare(declared)

    def answer(self, times: int = 1, version: str = "v1") -> None:
        for _ in range(times):
            self.collector.answered(version, 0.01, 0.5)
            self.metrics.count_request("/predict", 200, "stable", version)
            self.metrics.count_answer("stable", version, rows=1, seconds=0.01)

    def fail(self, times: int = 1, version: str = "v2") -> None:
        for _ in range(times):
            self.collector.failed(version, "model_error", 0.01)
            self.metrics.count_failure(version, "model_error")
            self.metrics.count_request("/predict", 200, "stable", "v1")


def declared(revision: int = 1, **guard: Any) -> Routing:
    rules = GuardRules(**guard).model_dump()
    return Routing.model_validate({**routing(revision=revision, v1=9000, v2=1000), "guard": rules})


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def total(text: bytes, name: str, **labels: str) -> float:
    """Sum of a metric's samples that carry these labels; fails unless the whole text is valid."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def requests_of(found: Evidence) -> int:
    return sum(version.requests for version in found.versions.values())
