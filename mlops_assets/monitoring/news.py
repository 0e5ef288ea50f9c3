"""When a deployment's answers are due to be measured again. Pure.

Belongs here: what a measurement was launched on, and which days of the log are read anew since. Does not
belong here: collecting that from the event log and the log's files (``sensors/drift.py``), measuring.
"""

import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from mlops_assets.monitoring.windows import window_of


@dataclass(frozen=True)
class Measured:
    """What a measurement was launched on. ``at`` is data time, ISO; ``day`` the newest day it read.

    It travels as a tag of the run into the metadata of ``<model>_drift``: only what was measured counts as
    measured, however many runs failed since.
    """

    at: str = ""
    day: str = ""
    log: str = ""
    labels: float = 0.0
    stable: str = ""

    @staticmethod
    def read(text: str | None) -> "Measured":
        return Measured(**json.loads(text)) if text else Measured()


def due(
    before: Measured, now: Measured, *, every: timedelta, length: timedelta
) -> tuple[tuple[str, str] | None, str]:
    """First and last day of the log to read anew, or None; and why.

    New labels, another stable version and the end of a window are news at once; new answers only every
    ``every``, since there are always some.
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
        return days, f"{now.stable or 'nothing'} answers now, {before.stable or 'nothing'} did"
    if now.labels > before.labels:
        return days, "labels arrived"
    if window_of(at, length) != window_of(then, length):
        return days, "a window ended"
    if now.log != before.log and at - then >= every:
        return days, "new answers"
    return None, "no news since the last measurement" if now.log == before.log else "new answers wait"
