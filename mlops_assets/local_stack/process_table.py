"""The kernel's process table: which processes carry a platform's mark, and ending exactly those.

Belongs here: reading ``/proc`` and signalling what was found there. Does not belong here: the order
in which a platform stops (``supervisor.py``).
"""

import os
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessIdentity:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    started: str
    """Boot id and start time in clock ticks, as the kernel writes them."""


def identity(pid: int) -> ProcessIdentity | None:
    """Identity of a running process; None when there is none, or only a zombie."""
    try:
        text = (Path("/proc") / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    # The command name is in parentheses and may hold anything, so fields are counted from the last one.
    fields = text.rsplit(")", 1)[1].split()
    state, start_ticks = fields[0], fields[19]
    return None if state == "Z" else ProcessIdentity(pid, f"{boot}/{start_ticks}")


def is_alive(process: ProcessIdentity) -> bool:
    """Whether this very process still runs."""
    return identity(process.pid) == process


def marked(name: str, value: str) -> list[ProcessIdentity]:
    """Running processes, other than this one, that were started with ``name=value`` in their environment."""
    wanted = f"{name}={value}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        # Ended meanwhile, or another user's.
        except OSError:
            continue
        pid = int(folder.name)
        if wanted in variables and pid != os.getpid():
            process = identity(pid)
            if process is not None:
                found.append(process)
    return found


def descendants(pid: int) -> list[ProcessIdentity]:
    """Running children of a process, their children, and so on.

    Needed beside the mark: a process that sets its title (Ray's agents do) writes over its environment
    in ``/proc``, and so loses the mark.
    """
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        # Ended meanwhile.
        except OSError:
            continue
        children.setdefault(int(text.rsplit(")", 1)[1].split()[1]), []).append(int(folder.name))
    found: list[ProcessIdentity] = []
    waiting = list(children.get(pid, ()))
    while waiting:
        child = waiting.pop()
        waiting += children.get(child, ())
        process = identity(child)
        if process is not None:
            found.append(process)
    return found


def command_line(process: ProcessIdentity) -> str:
    """The command as typed, shortened; empty when the process is gone."""
    try:
        raw = (Path("/proc") / str(process.pid) / "cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()[:160]


def end(process: ProcessIdentity, with_signal: signal.Signals) -> None:
    """Signals the process if it is still the same one."""
    if is_alive(process):
        try:
            os.kill(process.pid, with_signal)
        # It ended between the look and the signal.
        except ProcessLookupError:
            return


def end_all(
    processes: Collection[ProcessIdentity],
    *,
    patience_s: float = 5.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Ends those that still run, by SIGTERM, after ``patience_s`` by SIGKILL; returns when none does."""
    for process in processes:
        end(process, signal.SIGTERM)
    deadline = clock() + patience_s
    while remaining := [process for process in processes if is_alive(process)]:
        if clock() > deadline:
            for process in remaining:
                end(process, signal.SIGKILL)
        sleep(0.1)


def end_marked(
    name: str,
    value: str,
    *,
    patience_s: float = 5.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Ends every marked process, by SIGTERM, after ``patience_s`` by SIGKILL; their command lines.

    New ones are looked for until none is left: a dying parent may just have started another.
    """
    lines: dict[ProcessIdentity, str] = {}
    deadline = clock() + patience_s
    while remaining := marked(name, value):
        for process in remaining:
            if process not in lines:
                lines[process] = command_line(process)
                end(process, signal.SIGTERM)
            if clock() > deadline:
                end(process, signal.SIGKILL)
        sleep(0.1)
    return list(lines.values())
