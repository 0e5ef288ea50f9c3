"""That a sensor found nothing due, and how long it need not look again.

Belongs here: what a sensor keeps of a look that led to nothing, and when that no longer holds. Does not
belong here: what makes a look one that led to nothing (each sensor), events (``event_log/records.py``).

A look reads the events of many assets and asks the registry. Where nothing was recorded since, and no time
has gone by to speak of, it would find what it found.
"""

from dataclasses import asdict, dataclass
from typing import Any

HOLDS_S = 60.0
"""Times fall due without an event, and people change a registry without one."""


@dataclass(frozen=True)
class Quiet:
    """``event``: the newest event of the instance before the look; ``data``, ``real``: data time and real
    time of it, Unix seconds; ``reason``: what the look came to, in words.
    """

    event: int
    data: float
    real: float
    reason: str

    @staticmethod
    def read(kept: dict[str, Any] | None) -> "Quiet | None":
        """What ``written`` gave; None for None."""
        return Quiet(**kept) if kept else None

    def written(self) -> dict[str, Any]:
        """Plain values, for a cursor."""
        return asdict(self)

    def holds(self, *, event: int, data: float, real: float) -> bool:
        """Whether another look would find the same: nothing was recorded, and both times are less than
        ``HOLDS_S`` on. A time that went back is one that has changed.
        """
        return event == self.event and 0 <= data - self.data < HOLDS_S and 0 <= real - self.real < HOLDS_S
