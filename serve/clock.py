"""The time at which answers are given: the machine's clock, or one that is replayed from a file.

Belongs here: the clock file, its format and how it is followed. Does not belong here: durations and
rollouts, which stay on the machine's clock; whose time it is (``serve/endpoint.py``,
``mlops_assets/resources/clock.py``).

The file holds one ISO-8601 instant with its zone, e.g. ``2013-04-01T12:00:00+00:00``. Time stands still
until the file changes. Replace the file as a whole (write another one, then rename it): a reader must
never find half an instant.
"""

import logging
import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

logger = logging.getLogger(__name__)


class ClockFileError(ValueError):
    """The clock file holds no instant; the message names the file and what is wrong."""


def read_instant(file: str) -> datetime:
    """The instant in a clock file, with its zone; ClockFileError when there is none."""
    try:
        text = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ClockFileError(f"The clock file {file} cannot be read: {error}") from error
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ClockFileError(
            f"The clock file {file} must hold one ISO-8601 instant with its zone, like "
            f"2013-04-01T12:00:00+00:00, not {text[:80]!r}"
        )
    return instant


class FileClock:
    """Gives Unix seconds. ``problem`` says why the file is not followed, and is None while it is.

    A file that breaks later is logged once, and the last known time goes on being given. Raises
    ClockFileError when there is no time to begin with.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._stamp = self._stamp_of()
        self._now = read_instant(file).timestamp()
        self.problem: str | None = None

    def __call__(self) -> float:
        stamp = self._stamp_of()
        if stamp != self._stamp:
            # Looked at before it is read: a change in between is seen the next time.
            self._stamp = stamp
            self._follow()
        return self._now

    def _follow(self) -> None:
        try:
            self._now = read_instant(self._file).timestamp()
        except ClockFileError as error:
            self.problem = str(error)
            logger.error("%s; answers keep the last known time", error)
        else:
            self.problem = None

    def _stamp_of(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._file)  # noqa: PTH116 - asked for every answer, and a Path costs more
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def wall_clock(file: str) -> Callable[[], float]:
    """Unix seconds of the clock file, or of the machine's clock when ``file`` is empty.

    Raises ClockFileError when the file holds no instant now; one that breaks later is said (``problem``
    of the FileClock that this is then) and answers go on with the last known time.
    """
    return FileClock(file) if file else time.time
