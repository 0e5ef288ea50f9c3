"""What the world counts as late: the planted loss of the story. Pure.

Belongs here: the label function of the loop's own document, and from which day on it counts otherwise. Does
not belong here: the document (``documents.py``), the bad model (``planted.py``).

A flight is late after 15 minutes, and from ``CHANGED_ON`` on after 10. No feature moves, and a few
flights more in a hundred are late: too few for one week to prove.
"""

from datetime import date
from typing import TYPE_CHECKING

from mlops_assets.defs.flights.features import LATE_MINUTES

if TYPE_CHECKING:
    import pandas as pd

CHANGED_ON = date(2013, 3, 4)
"""The first local day of departure that is counted otherwise: the story's first day of requests."""
LATE_MINUTES_SINCE = 10


def counted_late(flights: "pd.DataFrame") -> "pd.Series[bool]":
    """Whether each flight counts as late on its day; missing when it never arrived as planned."""
    delay = flights["arr_delay"]
    changed = flights["flight_date"] >= CHANGED_ON.isoformat()
    late = (delay > LATE_MINUTES) | (changed & (delay > LATE_MINUTES_SINCE))
    return late.astype("boolean").mask(delay.isna())
