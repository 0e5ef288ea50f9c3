"""Plain functions of the flights model: features from what was known before departure, and the label.

Belongs here: what a feature of a flight means. Does not belong here: which features there are and the
joins and rolling aggregates under them (``defs.yaml`` beside this file), the event columns themselves
(``datasets.py``).

The month is no feature: with less than a year of data every later month is one the model never saw, and
it would learn the dates of single storms.
"""

from typing import TYPE_CHECKING

from mlops_assets.defs.flights.datasets import ORIGIN_ZONE

if TYPE_CHECKING:
    import pandas as pd

LATE_MINUTES = 15
"""An arrival more than this many minutes after schedule is late, as the US authorities count it."""


def flight_features(joined: "pd.DataFrame") -> "pd.DataFrame":
    """The joined frame with the features that need more than a join; one row per flight, in its order.

    Adds the scheduled duration in minutes, the local minute of the day and weekday (Monday is 0) of scheduled
    departure, the aircraft's age in years, and how many flights are waiting: those scheduled in the last
    hours less those that left in the same time. Cancelled flights count as waiting, since nobody said when
    they were cancelled.
    """
    local = joined["scheduled_departure"].dt.tz_convert(ORIGIN_ZONE)
    duration = joined["scheduled_arrival"] - joined["scheduled_departure"]
    return joined.assign(
        scheduled_duration_min=duration.dt.total_seconds() / 60,
        minute_of_day=local.dt.hour * 60 + local.dt.minute,
        weekday=local.dt.dayofweek,
        plane_age=local.dt.year - joined["plane_year"],
        origin_waiting_2h=joined["origin_scheduled_2h"] - joined["origin_departed_2h"],
        origin_waiting_4h=joined["origin_scheduled_4h"] - joined["origin_departed_4h"],
        carrier_origin_waiting_2h=(
            joined["carrier_origin_scheduled_2h"] - joined["carrier_origin_departed_2h"]
        ),
    )


def arrived_late(flights: "pd.DataFrame") -> "pd.Series[bool]":
    """Whether each flight arrived more than 15 minutes late; missing when it never arrived as planned.

    A cancelled or diverted flight has no arrival delay, so it has no label and trains nothing.
    """
    delay = flights["arr_delay"]
    return (delay > LATE_MINUTES).astype("boolean").mask(delay.isna())
