"""Windows are cut in the same places whoever cuts them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.monitoring.windows import ORIGIN, Window, ended_windows, window_of, windows_touched

WEEK = timedelta(days=7)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_time_without_a_zone_or_a_length_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a time zone"):
        window_of(datetime(2013, 4, 3), WEEK)
    with pytest.raises(ValueError, match="longer than zero"):
        window_of(at("2013-04-03"), timedelta(0))


def test_weeks_begin_on_monday_and_the_end_belongs_to_the_next() -> None:
    monday = at("2013-04-01")
    assert ORIGIN.weekday() == monday.weekday() == 0
    week = Window(monday, monday + WEEK)
    assert window_of(monday, WEEK) == window_of(at("2013-04-07T23:59:59.999999"), WEEK) == week
    assert window_of(monday + WEEK, WEEK).start == week.end
    assert week.holds(monday) and not week.holds(week.end)
    assert str(week) == "2013-04-01 to 2013-04-08"
    assert week.key == "2013-04-01T00:00:00+00:00/2013-04-08T00:00:00+00:00"


def test_a_time_in_another_zone_lies_in_the_window_of_its_instant() -> None:
    local = datetime(2013, 4, 7, 22, tzinfo=timezone(timedelta(hours=-4)))
    assert window_of(local, WEEK).start == at("2013-04-08")
    assert window_of(local, WEEK).start.tzinfo is UTC


def test_ended_windows_hold_the_first_time_and_stop_before_the_running_one() -> None:
    assert ended_windows(at("2013-01-01"), at("2013-01-06T23:59"), WEEK) == []
    found = ended_windows(at("2013-01-01"), at("2013-01-14"), WEEK)
    assert [str(one) for one in found] == ["2012-12-31 to 2013-01-07", "2013-01-07 to 2013-01-14"]


@given(
    st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    st.timedeltas(timedelta(seconds=1), timedelta(days=400)),
)
def test_every_time_lies_in_its_window_and_windows_meet(time: datetime, length: timedelta) -> None:
    window = window_of(time, length)
    assert window.holds(time) and window.end - window.start == length
    assert window_of(window.end, length).start == window.end
    assert windows_touched([window.end, time, time], length) == [window, window_of(window.end, length)]
