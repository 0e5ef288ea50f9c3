"""What callers ask: every flight once, at its departure, with what the declarations make of the raw files."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from demo.callers import Ask, Flights, by_hour

DAY = date(2013, 4, 2)


@pytest.fixture(scope="module")
def flights():
    return Flights()


@pytest.fixture(scope="module")
def asks(flights):
    return flights.asks(DAY, DAY + timedelta(days=1))


def test_every_flight_of_a_utc_day_is_asked_about_once_in_order(asks):
    assert list(asks) == [DAY, DAY + timedelta(days=1)]
    for day, of_day in asks.items():
        assert 800 < len(of_day) < 1_100
        assert {ask.at.date() for ask in of_day} == {day}
        assert of_day == sorted(of_day, key=lambda ask: (ask.at, ask.flight_id))
    everything = [ask.flight_id for of_day in asks.values() for ask in of_day]
    assert len(set(everything)) == len(everything)
    # A flight that leaves in the evening of New York leaves on the next day of UTC.
    assert {ask.flight_id[:10] for ask in asks[DAY]} == {"2013-04-01", "2013-04-02"}


def test_values_are_plain_and_typed_and_the_outcome_is_no_part_of_the_request(asks, flights):
    ask = asks[DAY][100]
    body = json.loads(ask.body())
    assert body == {"features": dict(ask.features), "entity": {"flight_id": ask.flight_id}}
    assert isinstance(body["features"]["minute_of_day"], int)
    assert isinstance(body["features"]["carrier"], str)
    assert isinstance(body["features"]["temp"], float)
    values = [value for of_day in asks.values() for one in of_day for value in one.features.values()]
    # A missing value is null: NaN would be no JSON.
    assert all(value is None or value == value for value in values)
    assert {ask.label for of_day in asks.values() for ask in of_day} == {0, 1, None}
    assert flights.classes == ("on_time", "late")


def test_a_caller_without_the_weather_feed_sends_nulls_in_its_place(asks, flights):
    ask = asks[DAY][100]
    known, unknown = (json.loads(ask.body(names))["features"] for names in ((), flights.weather))
    assert set(flights.weather) == {"temp", "dewp", "wind_dir", "wind_speed", "precip", "pressure", "visib"}
    assert {name for name in known if known[name] != unknown[name]} <= set(flights.weather)
    assert all(unknown[name] is None for name in flights.weather)


def test_hours_come_in_order_with_their_last_moment():
    def ask(hour, minute):
        return Ask(datetime(2013, 4, 2, hour, minute, tzinfo=UTC), f"{hour}-{minute}", {}, None)

    late, early, first = ask(9, 50), ask(9, 5), ask(1, 0)
    assert list(by_hour([late, first, early])) == [(first.at, [first]), (late.at, [late, early])]
    assert list(by_hour([])) == []
