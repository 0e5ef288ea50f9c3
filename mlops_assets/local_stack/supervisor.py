"""Starts, watches and stops processes, and leaves none behind.

Belongs here: the life of a list of ``ProcessSpec``. Does not belong here: which processes there are
(``processes.py``) or what is printed (``up.py``).

Guarantees. After ``stop`` no process that was started here runs, nor any descendant, wherever it
moved: descendants are found by the mark in their environment. A process that dies is not started
again; ``check`` names it and shows the end of its log, because a part that dies once dies again.
"""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

from mlops_assets.errors import StackError
from mlops_assets.local_stack import process_table
from mlops_assets.local_stack.layout import Layout
from mlops_assets.local_stack.ports import require_free
from mlops_assets.local_stack.processes import MARKER, ProcessSpec, Stage

POLL_S = 0.2
TAIL_LINES = 15


@dataclass
class Running:
    """A started process; ``ready_after`` is set, in seconds, once it was seen ready."""

    spec: ProcessSpec
    process: "subprocess.Popen[bytes]"
    log: Path
    started: float
    ready_after: float | None = None


class Supervisor:
    """Owns the processes of one platform."""

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        layout: Layout,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.specs, self.layout = list(specs), layout
        self.running: list[Running] = []
        self._clock, self._sleep = clock, sleep

    def require_ports(self) -> None:
        """Raises StackError when a port of any process is taken; nothing is started then."""
        require_free(port for spec in self.specs for port in spec.ports)

    def start(self, stage: Stage) -> list[ProcessSpec]:
        """Starts the processes of a stage, without waiting for them."""
        started = [spec for spec in self.specs if spec.stage == stage]
        for spec in started:
            self.running.append(self._launch(spec))
        return started

    def poll(self) -> list[Running]:
        """The processes that turned ready since the last call; raises StackError when one died or is late."""
        self.check()
        fresh = []
        for running in self.running:
            if running.ready_after is not None:
                continue
            waited = self._clock() - running.started
            if _is_ready(running):
                running.ready_after = waited
                fresh.append(running)
            elif waited > running.spec.ready_deadline_s:
                raise StackError(
                    f"{running.spec.name} did not answer within {running.spec.ready_deadline_s:.0f} s "
                    f"({running.spec.ready_url or running.spec.ready_text!r}).\n{_tail(running.log)}"
                )
        return fresh

    def check(self) -> None:
        """Raises StackError naming the first process that died, with the end of its log."""
        for running in self.running:
            code = running.process.poll()
            if code is not None:
                how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
                raise StackError(f"{running.spec.name} {how}.\n{_tail(running.log)}")

    @property
    def waiting_for(self) -> list[str]:
        """Names of the processes that are not ready yet."""
        return [running.spec.name for running in self.running if running.ready_after is None]

    def stop(self, report: Callable[[str], None] = lambda line: None) -> None:
        """Ends every process, the last started first, then whatever descendant is left.

        All are asked at once: they do not need each other to end. Each has its own deadline before
        it is killed.
        """
        asked = self._clock()
        # Looked up while their parents live: an orphan no longer tells whose it is.
        family = [
            child for running in self.running for child in process_table.descendants(running.process.pid)
        ]
        for running in reversed(self.running):
            if running.process.poll() is None:
                report(f"stopping {running.spec.name}")
                running.process.send_signal(signal.SIGTERM)
        for running in reversed(self.running):
            left = max(0.0, running.spec.stop_deadline_s - (self._clock() - asked))
            try:
                running.process.wait(timeout=left)
            except subprocess.TimeoutExpired:
                report(f"{running.spec.name} does not stop; killing it")
                running.process.kill()
                running.process.wait()
        self.running.clear()
        process_table.end_all(family)
        process_table.end_marked(MARKER, str(self.layout.state))
        shutil.rmtree(self.layout.sockets, ignore_errors=True)

    def _launch(self, spec: ProcessSpec) -> Running:
        log = self.layout.logs / f"{spec.name}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                spec.command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=spec.folder,
                env=dict(spec.environment),
                # Ctrl-C in the terminal is for the supervisor alone: it knows the order.
                start_new_session=True,
            )
        return Running(spec, process, log, self._clock())


def answers(url: str, *, token: str = "", timeout_s: float = 2.0) -> bool:
    """Whether the URL answers 2xx, told the token if there is one; proxies of the environment are not asked,
    everything here is local.
    """
    request = Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=timeout_s) as response:
            return bool(200 <= response.status < 300)
    # Not listening yet, or answering with an error while it starts.
    except (URLError, OSError):
        return False


def _is_ready(running: Running) -> bool:
    spec = running.spec
    if spec.ready_url:
        return answers(spec.ready_url, token=spec.ready_token.read_text() if spec.ready_token else "")
    return spec.ready_text in running.log.read_text(encoding="utf-8", errors="replace")


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    shown = "\n".join(f"  | {line}" for line in lines[-TAIL_LINES:]) or "  | (it wrote nothing)"
    return f"The end of {log}:\n{shown}"
