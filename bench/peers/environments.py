"""A virtual environment per peer, made on first use from its pinned requirements.

Belongs here: making it and knowing whether it is current. Does not belong here: what runs in it.
The pins are complete, so nothing is resolved: two peers disagree with each other, and one with its own
declared bounds (``bentoml/requirements.txt`` says which).
"""

import hashlib
import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).resolve().parent
MADE = "requirements.sha256"


class PeerNotInstalled(RuntimeError):
    """The environment of a peer could not be made; the message ends with what uv said."""


def peer_environment(name: str, cache: Path) -> Path:
    """Folder of the peer's executables. Raises PeerNotInstalled."""
    requirements = PEERS / name / "requirements.txt"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    folder = cache / name
    made = folder / MADE
    if not made.exists() or made.read_text() != wanted:
        python = folder / "bin" / "python"
        _uv(name, "venv", "--clear", "--python", sys.executable, str(folder))
        _uv(name, "pip", "install", "--python", str(python), "--no-deps", "-r", str(requirements))
        made.write_text(wanted)
    return folder / "bin"


def _uv(name: str, *arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("uv")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerNotInstalled(f"{name}: uv {arguments[0]} failed: {done.stderr.strip()[-2_000:]}")
