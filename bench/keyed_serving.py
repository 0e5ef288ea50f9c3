"""Requests per second and latency with keys beside finished features, of one gateway in one run.

Belongs here: the model and its requests, the order of measuring, the ratio. Does not belong here: what a
look-up costs in one process (``bench/by_key.py``), other servers (``bench/serving.py``).

One gateway replica on a Ray Serve cluster of its own, with its prediction log, answers the same flights of a
real afternoon both ways, each a body of its own and all of them in turn, so that a cache holds what it would
hold. Keys are looked up in the store of flights, filled with the real December. Finished features
and keys take turns within every round; the ratio is of the medians over the rounds.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from bench.by_key import keyed_flights
from bench.peers.model import LEAVES, TREES
from bench.peers.on_ray import served
from bench.peers.others import Target
from bench.serving import Measured, measured_load
from serve.encoding import Encoder
from serve.schema import FeatureSpec, GoldenRow, ModelManifest, OnlineView
from serve.scoring import write_package
from serve.validation import Row

FINISHED, KEYS = "finished features", "keys"
WARM_UP_S = 2.0
LOGGED_S = 1.5
"""When the log is written of what was answered before."""


@dataclass(frozen=True)
class Bodies:
    """The same rows as both sorts of requests, one body a line, and the probability of the first one."""

    by_kind: Mapping[str, bytes]
    score: float


def _categories(spec: FeatureSpec, rows: Sequence[Row]) -> FeatureSpec:
    if spec.type != "category":
        return spec
    values = sorted({str(row[spec.name]) for row in rows if row[spec.name] is not None})
    return spec.model_copy(update={"categories": tuple(values)})


def _model(specs: Sequence[FeatureSpec], rows: Sequence[Row]) -> lightgbm.Booster:
    """As many trees as the booster of ``bench/serving.py`` has, on rows whose columns are drawn apart."""
    random = np.random.default_rng(20)
    real = Encoder(specs).rows(rows)
    matrix = np.column_stack([random.choice(column, 20_000) for column in real.T])
    # Ranks, so that every column counts; a missing value has the highest.
    ranks = matrix.argsort(axis=0).argsort(axis=0) / len(matrix) - 0.5
    drawn = ranks @ random.normal(size=len(specs)) + random.normal(size=len(matrix))
    target = (drawn > 0).astype(float)
    params = {"objective": "binary", "num_leaves": LEAVES, "num_threads": 1, "seed": 20, "verbose": -1}
    return lightgbm.train(params, lightgbm.Dataset(matrix, target), num_boost_round=TREES)


def _package(folder: Path, view: OnlineView, specs: Sequence[FeatureSpec], rows: Sequence[Row]) -> float:
    """Writes the package of the model, and gives the probability of the first row."""
    model = _model(specs, rows)
    score = float(model.predict(Encoder(specs).rows(rows[:1]), num_threads=1)[0])
    manifest = ModelManifest(
        name="bench",
        task="binary",
        trainer="lightgbm",
        model_format="lightgbm-text",
        model_file="model.txt",
        target="late",
        features=tuple(specs),
        classes=("on time", "late"),
        golden=(GoldenRow(features=rows[0], scores=(score,)),),
        entity=view.entity,
        online=view,
    )
    write_package(str(folder), manifest, model.model_to_string().encode())
    return score


def prepare(folder: Path) -> Bodies:
    """Store, package and requests, all under ``folder``; seconds."""
    flights = keyed_flights(folder, now=datetime.now(UTC))
    looked = flights.looked_up(lambda: 0.0).look_up(flights.rows, lambda number: f"row {number}")
    specs = [_categories(spec, looked.rows) for spec in flights.features]
    score = _package(folder / "package", flights.view, specs, looked.rows)
    sent: dict[str, list[Any]] = {
        FINISHED: [
            {"features": row, "entity": one.entity}
            for row, one in zip(looked.rows, flights.rows, strict=True)
        ],
        KEYS: [{"entity": one.entity, "request": one.request} for one in flights.rows],
    }
    lines = {kind: "\n".join(json.dumps(one) for one in bodies).encode() for kind, bodies in sent.items()}
    return Bodies(lines, score)


@contextmanager
def gateway(folder: Path, bodies: Bodies) -> Iterator[Mapping[str, Target]]:
    """One gateway replica, ready for both kinds; ServerNotUp when one does not give the offline score."""
    arguments = {
        "online_uri": str(folder / "online"),
        "prediction_log": {"uri": str(folder / "log"), "flush_interval_s": 0.5, "max_queued_rows": 200_000},
    }
    with served(str(folder / "package"), bodies.by_kind, bodies.score, arguments) as targets:
        yield targets


@dataclass(frozen=True)
class Load:
    """A load of the client; with a pause, far from what the gateway can do."""

    connections: int
    pause_ms: int = 0

    @property
    def told(self) -> str:
        return (
            f"{self.connections}, each silent {self.pause_ms} ms" if self.pause_ms else str(self.connections)
        )


LOADS = (Load(1), Load(16), Load(16, pause_ms=40))


@dataclass(frozen=True)
class Loaded:
    """What the client measured, and the gateway's own milliseconds for each request, from its log."""

    kind: str
    load: Load
    client: Measured
    inside: Sequence[float]


def measure(folder: Path, targets: Mapping[str, Target], *, rounds: int, seconds: float) -> list[Loaded]:
    """Both kinds in turn, round by round."""
    found = []
    for target in targets.values():
        measured_load("warm-up", target, connections=16, number=0, seconds=WARM_UP_S)
    for number in range(1, rounds + 1):
        for load in LOADS:
            for kind, target in targets.items():
                time.sleep(LOGGED_S)
                _take_log(folder)
                client = measured_load(
                    kind,
                    target,
                    connections=load.connections,
                    number=number,
                    seconds=seconds,
                    pause_ms=load.pause_ms,
                )
                time.sleep(LOGGED_S)
                found.append(Loaded(kind, load, client, _take_log(folder)))
    return found


def _take_log(folder: Path) -> list[float]:
    """The latencies that were logged since the last time."""
    files = sorted((folder / "log").rglob("*.parquet"))
    found = [pq.read_table(file, columns=["latency_ms"]).column(0).to_pylist() for file in files]
    for file in files:
        file.unlink()
    return [one for values in found for one in values]


def table(found: Sequence[Loaded]) -> Table:
    """Medians over the rounds; ``inside`` is the gateway's own time for a request, CPU that of everything."""
    made = Table(title="One gateway replica, flights by key", title_justify="left")
    columns = (
        "",
        "connections",
        "req/s",
        "p50 ms",
        "p99 ms",
        "inside p50",
        "inside p99",
        "CPU us",
        "errors",
        "ratio",
    )
    for name in columns:
        made.add_column(name, justify="right" if name else "left")
    for load in LOADS:
        for kind in (FINISHED, KEYS):
            cells = [one for one in found if (one.kind, one.load) == (kind, load)]
            plain = [one for one in found if (one.kind, one.load) == (FINISHED, load)]
            inside = np.concatenate([one.inside for one in cells])
            made.add_row(
                kind,
                load.told,
                f"{_median([one.client.rps for one in cells]):,.0f}",
                f"{_median([one.client.p50_ms for one in cells]):.2f}",
                f"{_median([one.client.p99_ms for one in cells]):.2f}",
                f"{np.quantile(inside, 0.5):.2f}",
                f"{np.quantile(inside, 0.99):.2f}",
                f"{_median([one.client.cpu_us for one in cells]):,.0f}",
                str(sum(one.client.errors for one in cells)),
                f"{_median([a.client.rps / b.client.rps for a, b in zip(cells, plain, strict=True)]):.2f}",
            )
    return made


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def main(arguments: Sequence[str] = ()) -> None:
    """Measures and prints; two minutes."""
    parser = argparse.ArgumentParser(prog="python -m bench.keyed_serving", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="per load")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    if shutil.which("wrk") is None:
        sys.exit("The client wrk is missing: apt install wrk")
    with tempfile.TemporaryDirectory(prefix="mlops-bench-") as made:
        folder = Path(made)
        bodies = prepare(folder)
        with gateway(folder, bodies) as targets:
            found = measure(folder, targets, rounds=options.rounds, seconds=options.seconds)
    Console(width=130).print(table(found))


if __name__ == "__main__":
    main(sys.argv[1:])
