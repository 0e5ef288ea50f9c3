"""Where the microseconds of one request go inside our endpoint, without a network and without Ray.

Belongs here: the whole ASGI call, and each part of it on its own. Does not belong here: requests per
second (``bench/serving.py``). The parts are called as the endpoint calls them; what is left over is the
endpoint's own bookkeeping. The model is measured inside the request, as the difference that it makes: a
booster called again and again finds its trees in the processor's cache, and its neighbours lose theirs.
Each figure is the fastest of several repeats of a mean over many calls.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.peers.model import BenchModel, bench_model
from mlops_assets.testing.small_models import LocalVersion, LocalVersions, routing
from serve.aggregator import AggregatorLink
from serve.answers import answerer
from serve.bodies import parse_object
from serve.endpoint import Endpoint, Limits
from serve.evidence import Collector
from serve.formats.lightgbm_text import LightGbmScorer
from serve.metrics import GatewayMetrics
from serve.schema import FeatureSpec, ModelManifest
from serve.scoring import Matrix, Scorer
from serve.security import Protection
from serve.traffic import Traffic
from serve.validation import RowValidator, single_row

NAME = "flights"
HEADERS = [
    (b"host", b"127.0.0.1"),
    (b"content-type", b"application/json"),
    (b"x-request-id", b"0f8fad5b-d9cb-469f-a165-70867728950e"),
    (b"user-agent", b"bench"),
    (b"accept", b"*/*"),
]


def manifest_of(model: BenchModel) -> ModelManifest:
    """The manifest under which the endpoint serves the booster."""
    return ModelManifest(
        name=NAME,
        task="binary",
        trainer="lightgbm",
        model_format="lightgbm-text",
        model_file="model.txt",
        target="positive",
        features=tuple(FeatureSpec(name=name, type="number") for name in model.row),
        classes=("no", "yes"),
    )


class Replaceable(LightGbmScorer):
    """The booster, or ``constant`` in its place."""

    constant: Matrix | None = None

    def score(self, matrix: Matrix) -> Matrix:
        return super().score(matrix) if self.constant is None else self.constant


class Site:
    """An endpoint whose stable model is in its own process, and one request to it."""

    def __init__(self, model: BenchModel) -> None:
        self.manifest = manifest_of(model)
        payload = model.text.encode()
        self.scorer = Replaceable(self.manifest, payload)
        self.metrics = GatewayMetrics(deployment=NAME, replica="r1")
        self.traffic = Traffic(
            LocalVersions(v1=LocalVersion("v1", self.manifest, payload)),
            self.metrics,
            Collector(),
            embed=self._embed,
        )
        link = AggregatorLink(
            name=NAME,
            replica="r1",
            collector=self.traffic.collector,
            metrics=self.metrics,
            connect=self._no_aggregator,
            on_trip=self.traffic.apply_trip,
        )
        protection = Protection(None, max_body_bytes=1_048_576)
        limits = Limits(max_batch_rows=1_000)
        self.endpoint = Endpoint(
            NAME, self.traffic, protection, self.metrics, limits, link, adds_request_id=False
        )
        self.body = json.dumps({"features": model.row}).encode()
        self.sent: list[dict[str, Any]] = []

    async def _embed(self, _: Any) -> Scorer:
        return self.scorer

    async def _no_aggregator(self) -> Any:
        raise ConnectionError("there is no aggregator in this benchmark")

    async def start(self, score: float) -> None:
        """Declares the routing and checks that the answer is the offline score."""
        self.traffic.declare(routing())
        await self.traffic.settle()
        await self.predict()
        answer = json.loads(self.sent[1]["body"])
        assert answer["probability"] == score, answer
        assert self.traffic.stable is not None and self.traffic.stable.local is not None

    async def predict(self) -> None:
        """One request through ASGI."""
        self.sent.clear()
        scope = {
            "type": "http",
            "method": "POST",
            "path": f"/{NAME}/predict",
            "root_path": f"/{NAME}",
            "headers": HEADERS,
        }
        await self.endpoint(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": self.body, "more_body": False}

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


def parts(site: Site) -> dict[str, Callable[[], Any]]:
    """The steps of one request, each on values that the step before it gives."""
    document = parse_object(site.body)
    validator = RowValidator(site.manifest.features)
    row = single_row(document, validator)
    score = site.scorer.score_rows([row]).tolist()[0]
    answer = answerer(site.manifest)
    encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    answered = {"request_id": "0f8fad5b-d9cb-469f-a165-70867728950e", "model_version": "v1"}

    def count() -> None:
        site.metrics.count_request("/predict", 200, "stable", "v1")
        site.metrics.count_answer("stable", "v1", rows=1, seconds=0.0003)
        site.traffic.collector.answered("v1", 0.0003, score)

    return {
        "parse the body": lambda: parse_object(site.body),
        "validate the row": lambda: single_row(document, validator),
        "choose the version": lambda: site.traffic.choose("0f8fad5b-d9cb-469f-a165-70867728950e"),
        "encode the matrix": lambda: site.scorer.encoder.rows([row]),
        "write the answer": lambda: encode({**answered, "variant": "stable", **answer(score)}).encode(),
        "count": count,
    }


def microseconds(step: Callable[[], Any], *, calls: int, repeats: int) -> float:
    """Time of one call: the fastest repeat's mean."""
    means = []
    for _ in range(repeats):
        started = time.perf_counter()
        for _ in range(calls):
            step()
        means.append((time.perf_counter() - started) / calls)
    return min(means) * 1e6


async def _awaited(step: Callable[[], Awaitable[Any]], *, calls: int, repeats: int) -> float:
    means = []
    for _ in range(repeats):
        started = time.perf_counter()
        for _ in range(calls):
            await step()
        means.append((time.perf_counter() - started) / calls)
    return min(means) * 1e6


def costs(*, calls: int, repeats: int) -> dict[str, float]:
    """Microseconds by part; ``one request`` is last and the sum of the others."""
    model = bench_model()

    async def measure() -> dict[str, float]:
        site = Site(model)
        await site.start(model.score)
        found = {name: microseconds(step, calls=calls, repeats=repeats) for name, step in parts(site).items()}
        whole = await _awaited(site.predict, calls=calls, repeats=repeats)
        site.scorer.constant = np.array([model.score])
        without = await _awaited(site.predict, calls=calls, repeats=repeats)
        return {
            **found,
            "everything else but the model": without - sum(found.values()),
            "score, inside the request": whole - without,
            "one request": whole,
        }

    return asyncio.run(measure())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints; some seconds."""
    parser = argparse.ArgumentParser(prog="python -m bench.endpoint", description=__doc__)
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    found = costs(calls=options.calls, repeats=options.repeats)
    table = Table(title="One row through the endpoint (microseconds)", title_justify="left")
    table.add_column("part")
    table.add_column("time", justify="right")
    table.add_column("share", justify="right")
    for name, cost in found.items():
        table.add_row(name, f"{cost:.1f}", f"{cost / found['one request']:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main()
