"""Where the local platform keeps its files: one state folder, and a short one for Ray's sockets.

Belongs here: paths and the files that make a folder usable as DAGSTER_HOME. Does not belong here:
processes (``processes.py``).
"""

import hashlib
import json
import os
import secrets
import shlex
import stat
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlops_assets.errors import StackError

# A Unix socket's path may have 107 bytes. The longest below the folder is HAProxy's admin socket, in a folder
# named after the node: h/<56 characters>/admin.sock.<pid>.tmp
LOCATION = "mlops_assets"
"""Name of the code location, as in ``workspace.yaml``."""
LONGEST_SOCKET_FOLDER = 107 - len(f"/h/{'n' * 56}/admin.sock.4194304.tmp")


@dataclass(frozen=True)
class Layout:
    """Paths below one state folder. Nothing exists until ``prepare``."""

    state: Path

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def run(self) -> Path:
        """Lock, record of the supervisor, and the working directory of every process."""
        return self.state / "run"

    @property
    def dagster_home(self) -> Path:
        return self.state / "dagster"

    @property
    def mlflow(self) -> Path:
        return self.state / "mlflow"

    @property
    def environment_file(self) -> Path:
        return self.state / "env"

    @property
    def desired_state(self) -> Path:
        return self.state / "serve" / "desired_state.json"

    @property
    def ray_token(self) -> Path:
        """What the local Ray asks of whoever talks to it; made anew at each start."""
        return self.run / "ray_token"

    @property
    def temporary(self) -> Path:
        """Temporary files of all processes; what Dagster's code server starts has its sockets there."""
        return self.sockets / "t"

    @property
    def code_socket(self) -> Path:
        """Where the code server listens."""
        return self.sockets / "code.sock"

    @property
    def workspace(self) -> Path:
        """Tells Dagster's webserver and daemon where the code server is."""
        return self.run / "workspace.yaml"

    @property
    def sockets(self) -> Path:
        """A short folder outside the state folder, which only its owner may enter; removed when the platform
        stops.
        """
        name = f"mlops-{hashlib.sha256(str(self.state).encode()).hexdigest()[:8]}"
        below_temp = Path(tempfile.gettempdir()) / name
        return below_temp if len(str(below_temp)) <= LONGEST_SOCKET_FOLDER else Path("/tmp") / name  # noqa: S108

    @property
    def ray_temp(self) -> Path:
        """Ray's own folder; Ray lets everybody write to it."""
        return self.sockets / "ray"

    @property
    def haproxy(self) -> Path:
        return self.sockets / "h"

    def prepare(self, *, dagster_yaml: Path) -> None:
        """Makes the folders, a token for Ray and the workspace; links ``dagster_yaml`` into DAGSTER_HOME."""
        if not dagster_yaml.is_file():
            raise StackError(f"{dagster_yaml} does not exist; run this from a checkout of the project.")
        for folder in (self.logs, self.run, self.dagster_home, self.mlflow, self.desired_state.parent):
            folder.mkdir(parents=True, exist_ok=True)
        make_private(self.sockets)
        self.temporary.mkdir(exist_ok=True)
        write_private(self.ray_token, secrets.token_hex(32))
        # JSON is YAML, and needs no quoting of its own.
        server = {"socket": str(self.code_socket), "location_name": LOCATION}
        self.workspace.write_text(json.dumps({"load_from": [{"grpc_server": server}]}), encoding="utf-8")
        # A server that was killed leaves its socket, and no other can listen there.
        self.code_socket.unlink(missing_ok=True)
        link = self.dagster_home / "dagster.yaml"
        if not (link.is_symlink() and link.readlink() == dagster_yaml):
            link.unlink(missing_ok=True)
            link.symlink_to(dagster_yaml)

    def write_environment(self, variables: Mapping[str, str]) -> None:
        """Writes the file to ``source`` before using dagster, dg or mlflow by hand."""
        lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
        lines.append(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH")
        self.environment_file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_private(folder: Path) -> None:
    """Makes a folder that only this user may enter, or makes its own one so.

    Raises StackError when the name is somebody else's: a temporary folder is everybody's, and whoever made
    this one could reach what is put into it.
    """
    # A link is not followed: it may lead to anywhere.
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise StackError(
            f"{folder} is not a folder of this user (owner: uid {found.st_uid}). Remove it, or set TMPDIR to "
            "a folder of your own."
        )
    folder.chmod(0o700)


def write_private(file: Path, text: str) -> None:
    """Writes a file that only this user may read, from its first moment on."""
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
        made.write(text)
    partial.replace(file)
