"""Which process carries a run, and what becomes of the run when it is gone.

Belongs here: naming a process so that it cannot be mistaken for a later one, and ending runs without one.
Does not belong here: launching runs (``commands/decisions.py``), deciding what is due (``rollout/plan.py``).

A run that a command carries out in its own process stays started for ever when that process is killed:
Dagster asks only its own launchers. It would keep its place in the pool and hold up every act after it.
"""

import os
import socket
from pathlib import Path

import dagster as dg

OWNER_TAG = "mlops/process"


def this_process() -> str:
    """``host:pid:start`` of the calling process; the start time keeps a reused pid apart."""
    return process_name(os.getpid())


def process_name(pid: int) -> str:
    """``host:pid:start`` of a process of this host; one that has ended has no start."""
    return f"{socket.gethostname()}:{pid}:{_started(str(pid))}"


def is_gone(owner: str) -> bool:
    """Whether the process is known to have ended. One on another host is never known to have."""
    host, pid, started = owner.rsplit(":", 2)
    return host == socket.gethostname() and (not started or _started(pid) != started)


def pid_here(owner: str) -> int | None:
    """The pid of the process; None when it is of another host, where the number names another process."""
    host, pid, _ = owner.rsplit(":", 2)
    return int(pid) if host == socket.gethostname() else None


def end_lost(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Fails a run whose process has ended and frees its place in the pools; False when it may be alive."""
    owner = run.tags.get(OWNER_TAG)
    if owner is None or not is_gone(owner):
        return False
    # It may have ended well between the look at the run and the look at its process.
    now = instance.get_run_by_id(run.run_id)
    if now is None or not now.is_finished:
        end(instance, run, f"its process ({owner}) has ended")
    return True


def end(instance: dg.DagsterInstance, run: dg.DagsterRun, why: str) -> None:
    """Fails a run and frees its place in the pools."""
    instance.report_run_failed(run, message=f"The run was lost: {why}.")
    if instance.event_log_storage.supports_global_concurrency_limits:
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _started(pid: str) -> str:
    """Clock ticks after boot at which the process started; "" when there is none."""
    try:
        text = (Path("/proc") / pid / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rsplit(")", 1)[1].split()[19]
