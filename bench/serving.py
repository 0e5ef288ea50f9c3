"""Requests per second and latency of our gateway, of its bounds, and of three peers, in one run.

Belongs here: the order of measuring, the load, the table. Does not belong here: how a server is
installed and started (``bench/peers``), the microseconds inside our endpoint (``bench/endpoint.py``).

Every server answers the same row with the same booster to the same client on the same machine. They run
one after the other, all of them in each round, so that a slow minute of the machine hits none alone. The
table shows medians over rounds; a server that cannot be installed or started has its error there.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.peers import on_ray, others
from bench.peers.model import BenchModel, bench_model
from bench.peers.others import Target
from bench.peers.processes import cpu_seconds

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".mlops" / "bench" / "peers"
CONNECTIONS = (1, 16, 64)
COMPARED = 16
WARM_UP_S = 2.0

Start = Callable[[BenchModel, Path, Path], AbstractContextManager[Target]]


@dataclass(frozen=True)
class Server:
    """``group`` is what it counts as in the ratios: ours, peer (one per product) or bound."""

    name: str
    group: str
    start: Start


SERVERS = (
    Server("gateway-1", "ours", lambda model, folder, _: on_ray.gateway(model, folder, replicas=1)),
    Server("gateway-2", "ours", lambda model, folder, _: on_ray.gateway(model, folder, replicas=2)),
    Server(
        "gateway-canary",
        "hop",
        lambda model, folder, _: on_ray.gateway(model, folder, replicas=1, canary=True),
    ),
    Server("serve-no-op", "bound", lambda model, folder, _: on_ray.no_op()),
    Server("fastapi", "bound", lambda model, folder, cache: others.fastapi(model, folder, cache, workers=2)),
    Server("mlflow-1", "peer", lambda model, folder, cache: others.mlflow(model, folder, cache, workers=1)),
    Server("mlflow-2", "peer", lambda model, folder, cache: others.mlflow(model, folder, cache, workers=2)),
    Server("mlserver", "peer", others.mlserver),
    Server("bentoml", "peer", others.bentoml),
)
NOTES = {
    "gateway-1": "our gateway on Ray Serve, one replica",
    "gateway-2": "our gateway, two replicas",
    "gateway-canary": "our gateway, every request answered by a canary an actor hop away",
    "serve-no-op": "Ray Serve alone: one replica that answers a constant",
    "fastapi": "FastAPI, uvicorn and the booster, 2 workers: what Python HTTP can do",
    "mlflow-1": "mlflow models serve, 1 worker",
    "mlflow-2": "mlflow models serve, 2 workers",
    "mlserver": "MLServer with mlserver-lightgbm, in one process",
    "bentoml": "BentoML, one worker",
}


@dataclass(frozen=True)
class Measured:
    """One run of the client. ``errors``: not connected, not read, not written, not 200, or over 2 s.

    ``cpu_us``: processor time per request of all of the server's processes, its proxy and its idle ones
    included. It moves less than the rest when something else runs on the machine.
    """

    server: str
    connections: int
    round: int
    requests: int
    errors: int
    rps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    cpu_us: float


def load(target: Target, *, connections: int, seconds: float, pause_ms: int = 0) -> dict[str, float]:
    """What wrk counted: requests, errors by kind, latencies in microseconds. RuntimeError when wrk fails.

    ``pause_ms``: about how long each connection is silent between an answer and its next request.
    """
    with tempfile.TemporaryDirectory(prefix="mlops-wrk-") as made:
        folder = Path(made)
        (folder / "body").write_bytes(target.body)
        command = [
            "wrk", "--threads=1", f"--connections={connections}", f"--duration={seconds:g}s",
            f"--script={Path(__file__).with_name('wrk.lua')}", target.url,
        ]  # fmt: skip
        told = {
            "BENCH_BODY": str(folder / "body"),
            "BENCH_RESULT": str(folder / "result"),
            "BENCH_PAUSE_MS": str(pause_ms),
        }
        done = subprocess.run(
            command, env={**os.environ, **told}, capture_output=True, text=True, check=False
        )
        if done.returncode or not (folder / "result").exists():
            raise RuntimeError(f"wrk failed: {done.stdout[-500:]} {done.stderr[-500:]}")
        counted: dict[str, float] = json.loads((folder / "result").read_text())
    return counted


def measure(server: Server, model: BenchModel, cache: Path, *, number: int, seconds: float) -> list[Measured]:
    """One round of one server, started and stopped here: a result per number of connections."""
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="mlops-bench-") as folder,
        server.start(model, Path(folder), cache) as target,
    ):
        load(target, connections=16, seconds=WARM_UP_S)
        for connections in CONNECTIONS:
            found.append(
                measured_load(server.name, target, connections=connections, number=number, seconds=seconds)
            )
    return found


def measured_load(
    name: str, target: Target, *, connections: int, number: int, seconds: float, pause_ms: int = 0
) -> Measured:
    """One run of the client on a server that is up."""
    before = cpu_seconds(target.pids())
    counted = load(target, connections=connections, seconds=seconds, pause_ms=pause_ms)
    return _measured(name, connections, number, counted, cpu_seconds(target.pids()) - before)


def _measured(
    server: str, connections: int, number: int, counted: dict[str, float], cpu_s: float
) -> Measured:
    return Measured(
        server=server,
        connections=connections,
        round=number,
        requests=int(counted["requests"]),
        errors=int(sum(counted[kind] for kind in ("connect", "read", "write", "status", "timeout"))),
        rps=round(counted["requests"] / counted["duration_us"] * 1e6, 1),
        p50_ms=round(counted["p50_us"] / 1e3, 3),
        p95_ms=round(counted["p95_us"] / 1e3, 3),
        p99_ms=round(counted["p99_us"] / 1e3, 3),
        max_ms=round(counted["max_us"] / 1e3, 3),
        cpu_us=round(cpu_s / max(1.0, counted["requests"]) * 1e6, 1),
    )


@dataclass(frozen=True)
class Results:
    """What was measured so far, and {server: error} of those that did not come up."""

    rounds: int
    seconds: float
    measured: list[Measured] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Everything as JSON, for comparing runs."""
        machine = {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "platform": platform.platform(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": machine, "servers": NOTES, **asdict(self)}, indent=1))


def run(
    servers: Sequence[Server], results: Results, *, cache: Path, path: Path, say: Callable[[str], None]
) -> None:
    """Every server in every round, into ``results``, which is written after each server."""
    model = bench_model()
    rounds, found, failed = results.rounds, results.measured, results.failed
    for number in range(1, rounds + 1):
        for server in servers:
            if server.name in failed:
                continue
            say(f"round {number} of {rounds}: {server.name}")
            try:
                found += measure(server, model, cache, number=number, seconds=results.seconds)
            except (RuntimeError, AssertionError, OSError, subprocess.CalledProcessError) as error:
                failed[server.name] = f"{type(error).__name__}: {error}"
                say(f"{server.name} failed")
            results.write(path)


def medians(found: Sequence[Measured], server: str, connections: int) -> Measured | None:
    """The rounds of one cell in one: medians, and all errors. None when there is no round."""
    rounds = [each for each in found if (each.server, each.connections) == (server, connections)]
    if not rounds:
        return None
    return Measured(
        server,
        connections,
        0,
        sum(each.requests for each in rounds),
        sum(each.errors for each in rounds),
        *(
            statistics.median(getattr(each, name) for each in rounds)
            for name in ("rps", "p50_ms", "p95_ms", "p99_ms", "max_ms", "cpu_us")
        ),
    )


def best(
    found: Sequence[Measured], servers: Sequence[Server], group: str, connections: int
) -> Measured | None:
    """The fastest server of a group at this number of connections."""
    cells = [medians(found, server.name, connections) for server in servers if server.group == group]
    return max((cell for cell in cells if cell is not None), key=lambda cell: cell.rps, default=None)


def table(found: Sequence[Measured], failed: dict[str, str], servers: Sequence[Server]) -> Table:
    """req/s, p50, p95, p99 in milliseconds; the ratio is to the best peer's req/s.

    CPU is microseconds per request at COMPARED connections, over all processes of the server.
    """
    made = Table(title="One row per request: req/s, p50 / p95 / p99 ms", title_justify="left")
    made.add_column("server")
    for connections in CONNECTIONS:
        made.add_column(f"{connections} conn.", justify="right")
        made.add_column("x peer", justify="right")
    made.add_column("CPU us", justify="right")
    made.add_column("errors", justify="right")
    for server in servers:
        if server.name in failed:
            made.add_row(server.name, "failed, see below", *[""] * (2 * len(CONNECTIONS) + 1))
            continue
        cells: list[str] = []
        errors = 0
        spent = ""
        for connections in CONNECTIONS:
            cell, peer = medians(found, server.name, connections), best(found, servers, "peer", connections)
            if cell is None:
                cells += ["", ""]
                continue
            errors += cell.errors
            spent = f"{cell.cpu_us:,.0f}" if connections == COMPARED else spent
            cells.append(f"{cell.rps:,.0f}  {cell.p50_ms:.1f} / {cell.p95_ms:.1f} / {cell.p99_ms:.1f}")
            cells.append(f"{cell.rps / peer.rps:.2f}" if peer else "")
        made.add_row(server.name, *cells, spent, f"{errors:,}")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints; about a minute per server and round."""
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=[server.name for server in SERVERS], metavar="SERVER")
    parser.add_argument("--seconds", type=float, default=8.0, help="per number of connections")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the peers' environments are kept")
    parser.add_argument("--json", type=Path, default=CACHE.parent / "serving.json", help="result file")
    options = parser.parse_args(arguments)
    if shutil.which("wrk") is None:
        sys.exit("The client wrk is missing: apt install wrk")
    console = Console(width=150)
    servers = [server for server in SERVERS if options.only is None or server.name in options.only]
    # Without this, being asked to stop would leave the server of the moment running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    results = Results(options.rounds, options.seconds)
    run(
        servers,
        results,
        cache=options.cache,
        path=options.json,
        say=lambda text: console.print(text, markup=False),
    )
    console.print(table(results.measured, results.failed, servers))
    for name, error in results.failed.items():
        console.print(f"{name}: {error}", markup=False)
    if not results.measured:
        sys.exit("No server could be measured.")


if __name__ == "__main__":
    main()
