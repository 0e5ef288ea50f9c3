"""Lengths of time: pauses that double, and their text. Pure.

Belongs here: arithmetic and text of durations. Does not belong here: which pause a policy declares
(``governor.py``, ``relaunch.py``), windows of time (``windows.py``).
"""

from datetime import timedelta


def doubled(first: timedelta, longest: timedelta, times: int) -> timedelta:
    """The pause after so many failures in a row (0: none): ``first``, doubled up to ``longest``."""
    if times <= 0:
        return timedelta(0)
    pause = first
    for _ in range(times - 1):
        if not timedelta(0) < pause < longest:
            break
        pause *= 2
    return min(pause, longest)


def duration_text(length: timedelta) -> str:
    """A length of time in its largest whole unit: ``7 days``, ``90 minutes``."""
    seconds = length.total_seconds()
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size and seconds % size == 0:
            count = seconds / size
            return f"{count:g} {unit}{'s' if count != 1 else ''}"
    return f"{seconds:g} seconds"
