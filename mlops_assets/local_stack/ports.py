"""Ports: is one free, who holds it, which variable moves it.

Belongs here: asking the kernel about TCP ports. Does not belong here: which ports a process needs
(``processes.py``).
"""

import random
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.errors import StackError

UNUSED = range(10_000, 22_000)
"""Below what Linux gives to whoever connects or asks for any port (from 32,768 on): a free one of those may
be taken a moment later.
"""
LISTEN = "0A"
"""TCP_LISTEN as /proc/net/tcp writes it."""


@dataclass(frozen=True)
class Port:
    """A port that must be free before its process starts."""

    number: int
    variable: str
    purpose: str


def require_free(ports: Iterable[Port]) -> None:
    """Raises StackError naming every taken port, its variable and, where readable, its holder."""
    wanted = list(ports)
    numbers = [port.number for port in wanted]
    twice = [port for port in wanted if numbers.count(port.number) > 1]
    if twice:
        names = ", ".join(f"{port.variable} ({port.purpose})" for port in twice)
        raise StackError(f"port {twice[0].number} is asked for more than once: {names}. Give each its own.")
    taken = [port for port in wanted if not is_free(port.number)]
    if taken:
        raise StackError(" ".join(_taken(port) for port in taken))


def is_free(number: int) -> bool:
    """Whether nothing listens on the port, on loopback or on all interfaces."""
    with socket.socket() as probe:
        # Connections of an earlier run that linger in TIME_WAIT do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", number))
        except OSError:
            return False
        return True


def unused(count: int) -> list[int]:
    """Ports that nobody listens on right now, all different; for what nobody needs to know.

    From UNUSED, whichever comes first in random order: two platforms that start at once rarely meet.
    """
    found: list[int] = []
    for number in random.SystemRandom().sample(UNUSED, len(UNUSED)):
        if len(found) == count:
            break
        if is_free(number):
            found.append(number)
    return found


def holder(number: int) -> tuple[int, str] | None:
    """Pid and command line of the process that listens on the port, or None when it cannot be read."""
    inodes = _listening_inodes(number)
    for process in Path("/proc").glob("[0-9]*"):
        if inodes & _open_files(process):
            return int(process.name), _command(process)
    return None


def _open_files(process: Path) -> set[str]:
    found = set()
    try:
        for link in (process / "fd").iterdir():
            # A file may be closed between listing and looking.
            with suppress(FileNotFoundError):
                found.add(str(link.readlink()))
    # Another user's process, or one that has just ended.
    except (PermissionError, FileNotFoundError, ProcessLookupError):
        return set()
    return found


def _command(process: Path) -> str:
    try:
        raw = (process / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return "ended meanwhile"
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()


def _listening_inodes(number: int) -> set[str]:
    found = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if not table.exists():
            continue
        for line in table.read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and int(fields[1].rsplit(":", 1)[1], 16) == number:
                found.add(f"socket:[{fields[9]}]")
    return found


def _taken(port: Port) -> str:
    held_by = holder(port.number)
    by = f" by pid {held_by[0]} ({held_by[1][:120]})" if held_by else ""
    return (
        f"Port {port.number} ({port.purpose}) is taken{by}. Stop that, or set {port.variable} to a free port."
    )
