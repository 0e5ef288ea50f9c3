"""A server process with everything it starts: on loopback, one thread per model call, gone afterwards.

Belongs here: start, wait until it answers, stop. Does not belong here: which command
(``bench/peers/others.py``). Descendants are found by a mark in their environment and ended by process id.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

MARK = "MLOPS_BENCH_SERVER"
START_DEADLINE_S = 90.0
STOP_GRACE_S = 8.0
QUIET = {
    "OMP_NUM_THREADS": "1",
    "DO_NOT_TRACK": "true",
    "BENTOML_DO_NOT_TRACK": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONUNBUFFERED": "1",
}


class ServerNotUp(RuntimeError):
    """A server ended, or did not give the right answer in time; the message ends with its output."""


@dataclass(frozen=True)
class Running:
    """A started command, and the mark that it and its descendants carry."""

    process: "subprocess.Popen[bytes]"
    mark: str

    def pids(self) -> list[int]:
        """The command and everything that it started."""
        return _marked(self.mark)


@contextlib.contextmanager
def running(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Runs a command in ``folder`` until the block ends; its output goes to ``folder/server.log``."""
    mark = f"{os.getpid()}-{time.monotonic_ns()}"
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env={**os.environ, **QUIET, **(environment or {}), MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield Running(process, mark)
        finally:
            _stop(process, mark)


def wait_for_score(
    process: "subprocess.Popen[bytes]", folder: Path, ask: httpx.Request, wanted: float, found: str
) -> None:
    """Returns once the server gives the score ``wanted``; ``found`` names the answer's field.

    Raises ServerNotUp when it ends, stays silent until the deadline, or gives another score.
    """
    end = time.monotonic() + START_DEADLINE_S
    while True:
        said = "no answer"
        try:
            with httpx.Client(trust_env=False, timeout=10) as client:
                answer = client.send(ask)
            if answer.status_code == 200:
                score = score_in(answer.json(), found)
                if abs(score - wanted) > 1e-12:
                    raise ServerNotUp(f"gives {score}, offline it is {wanted}")
                return
            said = f"{answer.status_code} {answer.text[:300]}"
        except httpx.TransportError as error:
            said = repr(error)
        output = (folder / "server.log").read_text(errors="replace")[-2_000:]
        if process.poll() is not None:
            raise ServerNotUp(f"ended with {process.returncode}: {output}")
        if time.monotonic() > end:
            raise ServerNotUp(f"not up after {START_DEADLINE_S:g} s ({said}): {output}")
        time.sleep(0.2)


def score_in(document: object, path: str) -> float:
    """The number at a dotted path such as ``outputs.0.data.0``."""
    found: object = document
    for part in path.split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]  # type: ignore[index]
    return float(found)  # type: ignore[arg-type]


def unused_port() -> int:
    """A port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes so far; what ended meanwhile counts nothing."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _stop(process: "subprocess.Popen[bytes]", mark: str) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_GRACE_S)
    end = time.monotonic() + STOP_GRACE_S
    while left := _marked(mark):
        if time.monotonic() > end:
            raise RuntimeError(f"processes of a server do not end: {left}")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    process.wait(STOP_GRACE_S)


def _marked(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{MARK}={mark}\0".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found
