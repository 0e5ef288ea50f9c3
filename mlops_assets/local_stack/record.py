"""Who runs the platform of a state folder: a lock that dies with its owner, and a record of the owner.

Belongs here: finding out whether a platform is up and which process supervises it. Does not belong
here: stopping it (``down.py``).
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from mlops_assets.errors import StackError
from mlops_assets.local_stack import process_table
from mlops_assets.local_stack.lacking import Lack
from mlops_assets.local_stack.layout import Layout

StackPhase = Literal["starting", "ready"]


@dataclass(frozen=True)
class Owner:
    """The supervising process, how far it got, and what of it all is not up."""

    pid: int
    started: str
    phase: StackPhase
    deployments: tuple[str, ...] = ()
    lacks: tuple[Lack, ...] = ()

    @property
    def identity(self) -> process_table.ProcessIdentity:
        return process_table.ProcessIdentity(self.pid, self.started)


def owner(layout: Layout) -> Owner | None:
    """The supervisor that runs now; None when there is none.

    A record left by a crash or a reboot is not believed: the process must be the very one, by pid,
    boot and start time.
    """
    try:
        data = json.loads(_file(layout).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    lacks = tuple(Lack(**lack) for lack in data.get("lacks", ()))
    found = Owner(**{**data, "deployments": tuple(data["deployments"]), "lacks": lacks})
    return found if process_table.is_alive(found.identity) else None


def write(
    layout: Layout, phase: StackPhase, deployments: Sequence[str] = (), lacks: Sequence[Lack] = ()
) -> None:
    """Records this process as the owner."""
    me = process_table.identity(os.getpid())
    if me is None:
        raise StackError("cannot read /proc: the local platform needs Linux.")
    _put(layout, Owner(me.pid, me.started, phase, tuple(deployments), tuple(lacks)))


def update(layout: Layout, running: Owner, deployments: Sequence[str], lacks: Sequence[Lack]) -> None:
    """Records what another process made of the platform that ``running`` owns."""
    _put(layout, replace(running, deployments=tuple(deployments), lacks=tuple(lacks)))


def _put(layout: Layout, owner: Owner) -> None:
    partial = _file(layout).with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(asdict(owner)), encoding="utf-8")
    partial.replace(_file(layout))


@contextmanager
def held(layout: Layout) -> Iterator[None]:
    """Holds the platform's lock; StackError when another process does. Released by the kernel at death."""
    layout.run.mkdir(parents=True, exist_ok=True)
    with (layout.run / "lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            running = owner(layout)
            by = f" by pid {running.pid}" if running else ""
            raise StackError(
                f"the platform in {layout.state} is already being run{by}; `make down` stops it."
            ) from error
        try:
            yield
        finally:
            _file(layout).unlink(missing_ok=True)


def _file(layout: Layout) -> Path:
    return layout.run / "owner.json"
