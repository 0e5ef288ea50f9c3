"""Runs that start at once: each is a fork of one process that has imported what runs need.

Belongs here: Dagster's run launcher for the local platform, and the process that it forks. Does not belong
here: how a process is named (``event_log/run_owner.py``), the code server, which launches nothing any more.

Dagster's own launcher starts a new interpreter for each run, which imports Dagster, pandas, MLflow, Evidently
and the rest anew: 7 s of CPU, before anything is done. Here the first run starts a process that imports them
once and then does nothing but fork. Use cases are never imported in it: every run reads documents and
functions as they are now, and a change of the platform's own code starts the process anew.

The process lives as long as whoever launches, the daemon. Runs live on without either; whether one is alive,
and how to cancel it, follows from the process that its tags name.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster._core.launcher import LaunchRunContext, RunLauncher
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData, serialize_value

from mlops_assets import environment
from mlops_assets.errors import StackError
from mlops_assets.event_log.run_owner import OWNER_TAG, is_gone, pid_here, process_name

IMPORTED = (
    "dagster._cli.api",
    "mlops_assets.definitions",
    "pandas", "pyarrow.dataset", "deltalake", "duckdb", "scipy.stats", "matplotlib.figure", "mlflow",
    "sklearn.linear_model", "lightgbm", "xgboost", "evidently",
)  # fmt: skip
"""What takes most of the start of a run. The threads that these start, OpenBLAS's and jemalloc's, come
through a fork by handlers of their own; a thread in Python would not."""
OWN_PACKAGES = ("mlops_assets", "serve")


class WarmRunLauncher(RunLauncher, ConfigurableClass):
    """``run_launcher`` for ``dagster.yaml``: runs of this environment, on this machine."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._lock = threading.Lock()
        self._warm: _Warm | None = None
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> Any:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Forks a process for the run and notes it in the run's tags; StackError when none can be forked."""
        run, origin = context.dagster_run, context.job_code_origin
        if origin is None:
            raise StackError(f"run {run.run_id} does not say which code it is of; launch it anew")
        given = serialize_value(ExecuteRunArgs(origin, run.run_id, self._instance.get_ref()))
        with self._lock:
            code = _newest_change()
            if self._warm is None or not self._warm.serves(code):
                self._end()
                self._warm = _Warm(code)
            pid = self._warm.fork(given)
        self._instance.add_run_tags(run.run_id, {OWNER_TAG: process_name(pid)})

    def terminate(self, run_id: str) -> bool:
        """Interrupts the run's process, which then reports what became of it; False for none here."""
        run = self._instance.get_run_by_id(run_id)
        owner = run.tags.get(OWNER_TAG) if run is not None and not run.is_finished else None
        pid = pid_here(owner) if owner is not None and not is_gone(owner) else None
        if run is None or pid is None:
            return False
        self._instance.report_run_canceling(run)
        os.kill(pid, signal.SIGINT)
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process is there; one that no process was noted for is unknown."""
        owner = run.tags.get(OWNER_TAG)
        if owner is None:
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, "no process is noted")
        if is_gone(owner):
            return CheckRunHealthResult(WorkerStatus.FAILED, f"its process ({owner}) has ended")
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def dispose(self) -> None:
        """Ends the process that forks; runs go on."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._warm is not None:
            self._warm.end()
            self._warm = None


class _Warm:
    """The process that forks, as seen from the launcher. ``code``: the newest change that it has imported."""

    def __init__(self, code: int) -> None:
        self._code = code
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlops_assets.local_stack.warm_runs", *IMPORTED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # An interrupt in a terminal is for the supervisor alone.
            start_new_session=True,
        )

    def serves(self, code: int) -> bool:
        return self._code == code and self._process.poll() is None

    def fork(self, given: str) -> int:
        """The pid of a process that executes a run."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(given) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            raise StackError(
                f"the process that runs are forked from ended with exit code {code}; its last words stand in "
                "the log of whoever launches (.mlops/logs/dagster-daemon.log). The next run starts another"
            )
        return int(line)

    def end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        # What it was asked before it died can reach it no more.
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _newest_change() -> int:
    """When a file of the platform's own code changed last, in nanoseconds."""
    return max(path.stat().st_mtime_ns for path in _own_files())


def _own_files() -> Iterator[Path]:
    for name in OWN_PACKAGES:
        yield from (environment.PROJECT_ROOT / name).rglob("*.py")


def main(imported: Sequence[str]) -> int:
    """Imports, then forks a process for each line on standard input until it ends; says each pid."""
    import importlib

    # Standard output is the launcher's: what libraries print goes elsewhere.
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        for name in imported:
            importlib.import_module(name)
        if threading.active_count() > 1:
            names = ", ".join(sorted(one.name for one in threading.enumerate()))
            raise StackError(
                f"nothing can be forked beside threads ({names}); look for what started them in IMPORTED"
            )
        # Whoever launched does not wait for runs: the kernel takes them away when they end.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while line := sys.stdin.readline():
            pid = os.fork()
            if pid == 0:
                _execute(json.loads(line), answers.fileno())
            answers.write(f"{pid}\n")
    return 0


def _execute(given: str, answers: int) -> None:
    """Executes a run as Dagster's own program would, and ends this process."""
    from dagster._cli.api import api_cli

    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # A pipe to the launcher that a run keeps open would look like a process that forks.
        os.close(answers)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        api_cli.main(["execute_run", given], standalone_mode=False)
        code = 0
    # Whatever it was, the traceback is printed and the exit code says so.
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Not the way out of the process that forked: its buffers and hooks are not this run's.
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
