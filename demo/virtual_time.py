"""The clock file that the world moves: one instant that the platform takes for now.

Belongs here: setting it. Does not belong here: reading it (``serve/clock.py``,
``mlops_assets/resources/clock.py``).
"""

from datetime import UTC, date, datetime, time
from pathlib import Path

from mlops_assets.errors import StackError


class ClockFile:
    """Virtual time, kept in a file. It stands still until ``set`` is called, and never goes back."""

    def __init__(self, file: Path, start: datetime) -> None:
        self.file, self._now = file, _utc(start)
        self._write()

    @property
    def now(self) -> datetime:
        """The instant in the file, UTC."""
        return self._now

    def set(self, instant: datetime) -> None:
        """Moves the clock on; StackError when that would turn it back: answers would be out of order."""
        instant = _utc(instant)
        if instant < self._now:
            raise StackError(
                f"the virtual clock is at {self._now.isoformat()}; it cannot go back to {instant}."
            )
        if instant > self._now:
            self._now = instant
            self._write()

    def _write(self) -> None:
        partial = self.file.with_suffix(".partial")
        partial.write_text(self._now.isoformat() + "\n", encoding="utf-8")
        # A reader finds the old instant or the new one, never half of one.
        partial.replace(self.file)


def midnight(day: date) -> datetime:
    """The first instant of a day, UTC."""
    return datetime.combine(day, time(), tzinfo=UTC)


def _utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise StackError(f"{instant} has no zone; the virtual clock needs one.")
    return instant.astimezone(UTC)
