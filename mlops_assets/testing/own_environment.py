"""A virtual environment of its own for what cannot be installed beside the project, made on first use.

Belongs here: making it from pinned requirements, and knowing whether it is current. Does not belong here:
what runs in it (``serve/clients``, ``bench/peers``).
"""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

MADE = "requirements.sha256"


class NotInstalled(RuntimeError):
    """The environment could not be made; the message ends with what uv said."""


def environment(requirements: Path, name: str) -> Path:
    """Folder of the executables of ``.venv/own/<name>``. Raises NotInstalled.

    The pins are complete, so nothing is resolved; hashes are checked where the file has them. Whoever comes
    meanwhile waits.
    """
    return environment_in(Path(sys.prefix) / "own" / name, requirements)


def environment_in(folder: Path, requirements: Path) -> Path:
    """The same in a folder of the caller's choice."""
    content = requirements.read_bytes()
    wanted = hashlib.sha256(content).hexdigest()
    made = folder / MADE
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists() or made.read_text() != wanted:
            _uv(requirements, "venv", "--clear", "--python", sys.executable, str(folder))
            hashes = ["--require-hashes"] if b"--hash=" in content else []
            python = str(folder / "bin" / "python")
            _uv(
                requirements,
                "pip",
                "install",
                "--python",
                python,
                "--no-deps",
                *hashes,
                "-r",
                str(requirements),
            )
            made.write_text(wanted)
    return folder / "bin"


def _uv(requirements: Path, *arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("uv")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotInstalled(
            f"{requirements.parent.name}: uv {arguments[0]} failed. The first time it needs the package "
            f"index, so the network: {done.stderr.strip()[-2_000:]}"
        )
