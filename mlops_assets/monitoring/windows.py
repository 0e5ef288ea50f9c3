"""Tumbling windows of data time. Pure.

Belongs here: where windows begin and end, which of them are over. Does not belong here: which rows lie in
one (callers select by time), whether enough of them is there to judge (``drift.py``, ``labels.py``).

Every window begins a whole number of lengths after Monday, 1970-01-05, 00:00 UTC. So windows of a week are
calendar weeks, windows of a day are days, and two processes that never met cut time in the same places.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

ORIGIN = datetime(1970, 1, 5, tzinfo=UTC)
"""A Monday."""
YEAR = timedelta(days=365)
"""The time that rates of false alarms are per."""
MIN_COVERAGE = 0.6
"""Share of a window that a version has to have answered in for the window to be judged."""


@dataclass(frozen=True, order=True)
class Window:
    """From ``start`` (inclusive) to ``end`` (exclusive), both UTC."""

    start: datetime
    end: datetime

    @property
    def key(self) -> str:
        """``2013-04-01T00:00:00+00:00/2013-04-08T00:00:00+00:00``, an ISO 8601 interval."""
        return f"{self.start.isoformat()}/{self.end.isoformat()}"

    @property
    def days(self) -> float:
        """Its length in days."""
        return (self.end - self.start) / timedelta(days=1)

    def holds(self, time: datetime) -> bool:
        """Whether ``time`` lies in the window."""
        return self.start <= time < self.end

    def __str__(self) -> str:
        form = "%Y-%m-%d" if self.start.time() == self.end.time() == datetime.min.time() else "%Y-%m-%d %H:%M"
        return f"{self.start:{form}} to {self.end:{form}}"


def window_of(time: datetime, length: timedelta) -> Window:
    """The window of this length that ``time`` lies in.

    Raises ValueError for a time without a zone, or a length that is not positive.
    """
    if time.tzinfo is None:
        raise ValueError(f"{time.isoformat()} needs a time zone: windows are cut in UTC")
    if length <= timedelta(0):
        raise ValueError(f"a window must be longer than zero, not {length}")
    start = ORIGIN + ((time - ORIGIN) // length) * length
    return Window(start, start + length)


def ended_windows(first: datetime, now: datetime, length: timedelta) -> list[Window]:
    """Every window that is over at ``now``, oldest first, from the one that ``first`` lies in.

    The first window may have begun before ``first``. [] when none is over yet.
    """
    window, found = window_of(first, length), []
    while window.end <= now:
        found.append(window)
        window = Window(window.end, window.end + length)
    return found


def uncovered(
    window: Window, first: datetime, last: datetime, *, open_for: timedelta | None = None
) -> str | None:
    """Why answers from ``first`` to ``last`` cannot stand for the window, in words; None when they can.

    Thresholds and intervals are of whole windows. The two days before a version was replaced are not a
    sample of its week, however many rows they have. ``open_for``: from the first to the last answer of any
    version in the window, where callers do not ask round the clock; None: the whole window.
    """
    whole = window.end - window.start if open_for is None else open_for
    if last - first >= MIN_COVERAGE * whole:
        return None
    return f"it answered from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} only, in {window}"


def windows_touched(times: Iterable[datetime], length: timedelta) -> list[Window]:
    """The distinct windows that these times lie in, oldest first."""
    return sorted({window_of(time, length) for time in times})
