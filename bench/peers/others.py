"""How each peer is started, at its best settings for one row on two cores, and what it is asked.

Belongs here: commands, settings, request bodies. Does not belong here: installing
(``bench/peers/environments.py``), the load (``bench/serving.py``).

All load the same booster and get the same row. Access logs are off everywhere. Each speaks its own
protocol, with the body that its documentation shows for one row.
"""

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.peers.environments import PEERS, peer_environment
from bench.peers.model import NAMES, BenchModel
from bench.peers.processes import running, unused_port, wait_for_score


@dataclass(frozen=True)
class Target:
    """Where to send the load; ``pids`` gives the server's processes, ``pid`` one that may be profiled."""

    url: str
    body: bytes
    pid: int
    pids: Callable[[], list[int]]


Started = AbstractContextManager[Target]


@dataclass(frozen=True)
class Exchange:
    """One request, and the ``score`` that its response must have at ``place`` (names joined by dots)."""

    url: str
    body: object
    score: float
    place: str


def fastapi(model: BenchModel, folder: Path, cache: Path, *, workers: int) -> Started:
    """Bare FastAPI on uvicorn (uvloop, httptools) calling ``Booster.predict``: what Python HTTP can do."""
    (folder / "model.txt").write_text(model.text)
    port = unused_port()
    command = [
        str(peer_environment("fastapi", cache) / "uvicorn"), "app:app", f"--app-dir={PEERS / 'fastapi'}",
        "--host=127.0.0.1", f"--port={port}", f"--workers={workers}", "--no-access-log",
        "--log-level=warning", "--loop=uvloop", "--http=httptools",
    ]  # fmt: skip
    body = {"features": model.row}
    url = f"http://127.0.0.1:{port}/predict"
    return _serve(command, folder, Exchange(url, body, model.score, "probability"))


def mlflow(model: BenchModel, folder: Path, cache: Path, *, workers: int) -> Started:
    """``mlflow models serve`` on a saved LightGBM model."""
    binaries = peer_environment("mlflow", cache)
    (folder / "model.txt").write_text(model.text)
    save = [str(binaries / "python"), str(PEERS / "mlflow" / "save.py"), "model.txt", "model"]
    subprocess.run(save, cwd=folder, check=True, capture_output=True, text=True)
    port = unused_port()
    command = [
        str(binaries / "mlflow"), "models", "serve", "-m", str(folder / "model"), "--env-manager=local",
        "--host=127.0.0.1", f"--port={port}", f"--workers={workers}",
    ]  # fmt: skip
    body = {"dataframe_split": {"columns": list(NAMES), "data": [list(model.row.values())]}}
    # The command starts its server by name from the search path.
    path = {"PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin"}
    url = f"http://127.0.0.1:{port}/invocations"
    return _serve(command, folder, Exchange(url, body, model.score, "predictions.0"), path)


def mlserver(model: BenchModel, folder: Path, cache: Path) -> Started:
    """MLServer with its LightGBM runtime, in one process: its workers do not start here."""
    (folder / "model.bst").write_text(model.text)
    http, grpc, metrics = unused_port(), unused_port(), unused_port()
    settings = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": 0,
        "debug": False,
    }
    declared = {
        "name": "bench",
        "implementation": "mlserver_lightgbm.LightGBMModel",
        "parameters": {"uri": "./model.bst"},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(declared))
    command = [str(peer_environment("mlserver", cache) / "mlserver"), "start", str(folder)]
    tensor = {"name": "x", "shape": [1, len(NAMES)], "datatype": "FP64", "data": list(model.row.values())}
    url = f"http://127.0.0.1:{http}/v2/models/bench/infer"
    exchange = Exchange(url, {"inputs": [tensor]}, model.score, "outputs.0.data.0")
    return _serve(command, folder, exchange)


def bentoml(model: BenchModel, folder: Path, cache: Path) -> Started:
    """A BentoML service of one worker with an async API."""
    binaries = peer_environment("bentoml", cache)
    (folder / "model.txt").write_text(model.text)
    (folder / "service.py").write_text((PEERS / "bentoml" / "service.py").read_text())
    port = unused_port()
    command = [
        str(binaries / "bentoml"), "serve", "service:Bench", "--working-dir", str(folder),
        "--host=127.0.0.1", f"--port={port}",
    ]  # fmt: skip
    environment = {"BENTOML_HOME": str(folder / "home"), "MODEL_FILE": str(folder / "model.txt")}
    url, body = f"http://127.0.0.1:{port}/predict", {"features": model.row}
    return _serve(command, folder, Exchange(url, body, model.score, "probability"), environment)


@contextlib.contextmanager
def _serve(
    command: list[str], folder: Path, exchange: Exchange, environment: dict[str, str] | None = None
) -> Iterator[Target]:
    content = json.dumps(exchange.body).encode()
    request = httpx.Request(
        "POST", exchange.url, content=content, headers={"content-type": "application/json"}
    )
    with running(command, folder, environment) as server:
        wait_for_score(server.process, folder, request, exchange.score, exchange.place)
        yield Target(exchange.url, content, server.process.pid, server.pids)
