"""A virtual environment per peer, made on first use from its pinned requirements.

Belongs here: where each peer's is. Does not belong here: making it
(``mlops_assets/testing/own_environment.py``), what runs in it. The pins are complete, so nothing is resolved:
two peers disagree with each other, and one with its own declared bounds (``bentoml/requirements.txt`` says
which).
"""

from pathlib import Path

from mlops_assets.testing.own_environment import environment_in

PEERS = Path(__file__).resolve().parent


def peer_environment(name: str, cache: Path) -> Path:
    """Folder of the peer's executables. Raises NotInstalled."""
    return environment_in(cache / name, PEERS / name / "requirements.txt")
