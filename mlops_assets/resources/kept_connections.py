"""Connections to SQLite files that stay open between two uses, and what is known of each file's tables.

Belongs here: one engine per file and process. Does not belong here: what is stored (``event_log.py``,
``opened_storage.py``), when a database has all its tables (``opened_storage.py``).

Dagster's SQLite storages make an engine for each statement. That compiles the statement anew, and closing the
only connection of a file writes its log back into it and waits for the disk: more than half of what the ticks
of an idle platform cost.

Guarantees. A file that was taken away, or replaced, is opened anew. A process that was forked opens its own
connections. At most ``MOST_FILES`` stay open, those that were used last: runs have a file each.
"""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

MOST_FILES = 8
SQLITE_PREFIX = "sqlite:///"

_kept: "OrderedDict[str, KeptFile]" = OrderedDict()
_lock = threading.Lock()


@dataclass
class KeptFile:
    """An engine whose connections stay open; ``known``: what was found true of the file's tables once."""

    engine: "Engine"
    inode: int
    known: set[object] = field(default_factory=set)


def kept(address: str, *, timeout_s: float = 5.0) -> KeptFile:
    """The engine of the SQLite database at ``address``; ``timeout_s``: how long a lock is waited for.

    Connections sync the disk at checkpoints only, SQLite's choice for its write-ahead log: a power cut can
    lose the last moments, never the integrity of the file.
    """
    with _lock:
        inode = _inode(address)
        found = _kept.pop(address, None)
        if found is not None and found.inode != inode:
            found.engine.dispose()
            found = None
        if found is None:
            engine = _engine(address, timeout_s)
            # A file that is not there yet is made by the first connection; the next call finds it changed.
            found = KeptFile(engine, inode)
        _kept[address] = found
        while len(_kept) > MOST_FILES:
            _, oldest = _kept.popitem(last=False)
            oldest.engine.dispose()
        return found


def _inode(address: str) -> int:
    try:
        return Path(address.removeprefix(SQLITE_PREFIX)).stat().st_ino
    except FileNotFoundError:
        return 0


def _engine(address: str, timeout_s: float) -> "Engine":
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import QueuePool

    engine = create_engine(
        address,
        poolclass=QueuePool,
        pool_size=2,
        # As many as ask at once, as without a pool; those beyond two are closed after use.
        max_overflow=-1,
        connect_args={"timeout": timeout_s, "check_same_thread": False},
    )
    event.listen(engine, "connect", _sync_at_checkpoints)
    return engine


def _sync_at_checkpoints(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")


def _forget() -> None:
    """In a process that was forked: the connections belong to the one that it was forked from."""
    global _lock
    _lock = threading.Lock()
    for one in _kept.values():
        one.engine.dispose(close=False)
    _kept.clear()


os.register_at_fork(after_in_child=_forget)
