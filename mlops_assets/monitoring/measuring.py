"""When a deployment's answers are measured again, and which days of the log that reads. Pure.

Belongs here: the checkpoint of a measurement, and the days to read since. Does not belong here: collecting
a checkpoint from the event log and the log's files (``sensors/measuring.py``), measuring (``assets/``).
"""

import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from mlops_assets.monitoring.windows import window_of


@dataclass(frozen=True)
class Checkpoint:
    """How far a measurement reads.

    ``at`` is data time, ISO; ``day`` the newest day of the log; ``log`` its newest file; ``labels`` the time
    of the newest labels; ``stable`` the version that answers. It travels as a tag of the run into the
    metadata of ``<model>_drift``, so only a run that succeeded moves it.
    """

    at: str = ""
    day: str = ""
    log: str = ""
    labels: float = 0.0
    stable: str = ""

    @staticmethod
    def read(text: str | None) -> "Checkpoint":
        return Checkpoint(**json.loads(text)) if text else Checkpoint()


def days_to_measure(
    before: Checkpoint, now: Checkpoint, *, every: timedelta, length: timedelta
) -> tuple[tuple[str, str] | None, str]:
    """First and last day of the log to read again, or None; and why.

    New labels, another stable version and the end of a window start a measurement at once; new answers only
    every ``every``, because new answers always come.
    """
    if not now.log:
        return None, "nothing was logged yet"
    first = min(before.day or now.day, now.day)
    # Gateways write with a delay: the day before may have got its last answers since.
    eve = (date.fromisoformat(first) - timedelta(days=1)).isoformat()
    days = (eve, now.day)
    if not before.at:
        return days, "the first measurement"
    then, at = datetime.fromisoformat(before.at), datetime.fromisoformat(now.at)
    if now.stable != before.stable:
        return days, f"{now.stable or 'nothing'} answers now, {before.stable or 'nothing'} before"
    if now.labels > before.labels:
        return days, "labels arrived"
    if window_of(at, length) != window_of(then, length):
        return days, "a window ended"
    if now.log != before.log and at - then >= every:
        return days, "new answers"
    return None, "nothing new since the last measurement" if now.log == before.log else "new answers wait"
