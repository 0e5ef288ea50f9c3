"""What the processes of a platform listen on, as the kernel says it.

Belongs here: reading ``/proc``. Does not belong here: which sockets there should be
(``docs/operations.md``, compared by a test).
"""

import ipaddress
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

Kind = Literal["tcp", "udp", "unix"]

LISTENING, UNCONNECTED = "0A", "07"
"""States of TCP and UDP sockets as /proc/net writes them."""
ACCEPTS_CONNECTIONS, DATAGRAM = 0x10000, 2
"""A flag and a type of Unix sockets."""


@dataclass(frozen=True)
class Listener:
    """One socket that waits for others. ``address`` is the path of a Unix socket, whose port is 0."""

    process: str
    pid: int
    kind: Kind
    address: str
    port: int = 0

    @property
    def host(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The address of a TCP or UDP socket; that of IPv4 where an IPv6 socket is bound to one."""
        address = ipaddress.ip_address(self.address)
        return getattr(address, "ipv4_mapped", None) or address


def listeners(pids: Iterable[int]) -> list[Listener]:
    """Every socket by which somebody can reach one of these processes; those that have ended have none."""
    known = _sockets()
    found = []
    for pid in sorted(set(pids)):
        folder = Path("/proc") / str(pid)
        # It may end at any moment, and files are closed while they are listed.
        with suppress(FileNotFoundError, ProcessLookupError):
            name = process_name((folder / "cmdline").read_bytes().split(b"\0"))
            for link in (folder / "fd").iterdir():
                with suppress(FileNotFoundError):
                    for kind, address, port in known.get(str(link.readlink()), ()):
                        found.append(Listener(name, pid, kind, address, port))
    return found


def process_name(command: list[bytes]) -> str:
    """What a process is: the title that Ray gave it, the module or script of Python's, or the program."""
    words = [word.decode(errors="replace") for word in command if word]
    if not words:
        return ""
    title = words[0].split()[0]
    program = Path(title).name
    if title.startswith("ray") or not program.startswith("python"):
        return title if title.startswith("ray") else program
    for before, word in pairwise(words):
        if before == "-m":
            return word
        if not word.startswith("-") and before != "-c":
            return Path(word).name
    return program


def _sockets() -> dict[str, list[tuple[Kind, str, int]]]:
    """{link in a process's folder of files: its sockets that wait for others}."""
    found: dict[str, list[tuple[Kind, str, int]]] = {}
    for table, state in (
        ("tcp", LISTENING),
        ("tcp6", LISTENING),
        ("udp", UNCONNECTED),
        ("udp6", UNCONNECTED),
    ):
        for fields in _rows(table):
            if fields[3] == state:
                kind: Kind = "tcp" if table.startswith("tcp") else "udp"
                found.setdefault(f"socket:[{fields[9]}]", []).append((kind, *_address(fields[1])))
    for fields in _rows("unix"):
        path = fields[7] if len(fields) > 7 else ""
        if int(fields[3], 16) & ACCEPTS_CONNECTIONS or (path and int(fields[4], 16) == DATAGRAM):
            found.setdefault(f"socket:[{fields[6]}]", []).append(("unix", path, 0))
    return found


def _rows(table: str) -> list[list[str]]:
    file = Path("/proc/net") / table
    return [line.split() for line in file.read_text().splitlines()[1:]] if file.exists() else []


def _address(text: str) -> tuple[str, int]:
    """``0100007F:1F90`` is 127.0.0.1, 8080: groups of four bytes, each back to front on this hardware."""
    host, port = text.split(":")
    raw = bytes.fromhex(host)
    packed = b"".join(raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, packed), int(port, 16)
