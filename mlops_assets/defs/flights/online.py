"""The features of one flight that need more than a join, from plain values: ``features.py`` on one row.

Belongs here: the same features as ``flight_features`` computes on frames, to the bit; examples in every model
package hold the two together. Does not belong here: anything that needs more than the standard library, since
the source of this file answers requests.
"""

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

ORIGIN_ZONE = ZoneInfo("America/New_York")


def flight_features(flight: Mapping[str, Any]) -> dict[str, Any]:
    """The joined row with its computed features."""
    local = flight["scheduled_departure"].astimezone(ORIGIN_ZONE)
    built, arrival = flight["plane_year"], flight["scheduled_arrival"]
    duration = None if arrival is None else arrival - flight["scheduled_departure"]
    return {
        **flight,
        "scheduled_duration_min": None if duration is None else duration.total_seconds() / 60,
        "minute_of_day": local.hour * 60 + local.minute,
        "weekday": local.weekday(),
        "plane_age": None if built is None else local.year - built,
        "origin_waiting_2h": flight["origin_scheduled_2h"] - flight["origin_departed_2h"],
        "origin_waiting_4h": flight["origin_scheduled_4h"] - flight["origin_departed_4h"],
        "carrier_origin_waiting_2h": (
            flight["carrier_origin_scheduled_2h"] - flight["carrier_origin_departed_2h"]
        ),
    }
