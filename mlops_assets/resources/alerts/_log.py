"""The log of alerts: the only memory of what was told.

Belongs here: reading and writing its lines, and what they say about an alert. Does not belong here: delivery.

Every process on the machine may write it: one JSON object per line, written under a lock. An alert's line
says ``sending`` until a line with the same ``id`` says for each channel what became of it. Only the newest
``TAIL_BYTES`` are read back, so looking costs the same however old the log is; what is further back counts as
forgotten, and is at worst told twice.
"""

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TAIL_BYTES = 2**20
LOST_AFTER_S = 120.0
"""A line that still says ``sending`` after this belongs to a process that died over it."""
KEPT_FOR_S = 24 * 3_600.0
"""An alert that a channel did not take for a whole day is no news any more; it stays in the log."""
FIRST_CHANNEL = "webhook"
"""The channel of outcomes that name none: there was no other."""


@contextmanager
def locked(path: Path) -> Iterator["AlertLog"]:
    """The log file, held by this process alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        # The kernel lets go of it when the process ends, however it ends.
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield AlertLog(stream)


class AlertLog:
    """An open, locked log."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def tail(self) -> list[dict[str, Any]]:
        """The newest lines, oldest first: at most ``TAIL_BYTES`` of them."""
        size = self._stream.seek(0, 2)
        start = max(0, size - TAIL_BYTES)
        self._stream.seek(start)
        lines = self._stream.read(size - start).split(b"\n")
        return [entry for line in (lines[1:] if start else lines) if (entry := _entry(line)) is not None]

    def write(self, line: dict[str, Any]) -> None:
        size = self._stream.seek(0, 2)
        if size:
            self._stream.seek(size - 1)
            if self._stream.read(1) != b"\n":
                # A process died in the middle of a line; its rest must not swallow this one.
                self._stream.write(b"\n")
        self._stream.write(json.dumps(line, default=str).encode() + b"\n")
        self._stream.flush()


def _entry(line: bytes) -> dict[str, Any] | None:
    """One line of the log; None for what is not one, as the half line of a process that died."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "delivery" in entry and "id" in entry else None


def last_told(
    lines: Sequence[dict[str, Any]], fingerprint: str, now: float, repeat_after_s: float
) -> float | None:
    """When the same news was told, or is being told, within the time; None when it is to be told.

    One that waits for redelivery counts, for it is going to be told; one that all channels refused does not.
    """
    known = [
        line for line in lines if line.get("fingerprint") == fingerprint and line["delivery"] != "suppressed"
    ]
    if not known or now - float(known[-1]["at"]) >= repeat_after_s:
        return None
    outcomes = {
        line.get("channel", FIRST_CHANNEL): line["delivery"]
        for line in known
        if line["id"] == known[-1]["id"] and ("channel" in line or "summary" not in line)
    }
    if outcomes and set(outcomes.values()) == {"refused"}:
        return None
    return float(known[-1]["at"])


def undelivered(lines: Sequence[dict[str, Any]], channel: str, now: float) -> dict[str, Any] | None:
    """The oldest alert, whole, whose newest outcome of a channel asks for another try; None: none does."""
    whole: dict[str, dict[str, Any]] = {}
    newest: dict[str, dict[str, Any]] = {}
    first: dict[str, float] = {}
    for line in lines:
        if line["delivery"] == "suppressed" or channel not in line.get("channels", [channel]):
            continue
        if line.get("channel", FIRST_CHANNEL if "summary" not in line else channel) != channel:
            continue
        if "summary" in line:
            whole[line["id"]] = line
        newest[line["id"]] = line
        first.setdefault(line["id"], float(line["at"]))
    for identity, line in newest.items():
        lost = line["delivery"] == "sending" and now - float(line["at"]) > LOST_AFTER_S
        waits = line["delivery"] == "failed" or lost
        if waits and identity in whole and now - first[identity] < KEPT_FOR_S:
            return whole[identity]
    return None


def unwritable(error: OSError) -> str:
    return f"the log cannot be written ({error.strerror or type(error).__name__})"
