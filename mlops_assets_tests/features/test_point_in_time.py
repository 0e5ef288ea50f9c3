"""Joins and aggregates see what was known before the event, and nothing else."""

import math
from datetime import timedelta
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.errors import DataError, UnknownName
from mlops_assets.features.point_in_time import (
    AGGREGATES,
    Aggregate,
    PastRows,
    RollingAggregate,
    as_of_join,
    left_join,
)

NOON = pd.Timestamp("2013-03-10 12:00", tz="UTC")
HOUR = timedelta(hours=1)


def at(minutes: float | None) -> pd.Timestamp:
    return pd.NaT if pd.isna(minutes) else NOON + pd.Timedelta(minutes=minutes)


def flights(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    """Rows of (origin, scheduled minute, known minute, delay); minutes count from noon."""
    frame = pd.DataFrame(rows, columns=["origin", "scheduled", "known", "delay"])
    for column in ("scheduled", "known"):
        frame[column] = pd.to_datetime([at(value) for value in frame[column]], utc=True).as_unit("us")
    frame["scheduled"] = frame["scheduled"].dt.as_unit("us")
    frame["delay"] = frame["delay"].astype("float64")
    return frame


def rolling(
    frame: pd.DataFrame,
    *,
    event_time: str,
    events: Any = None,
    longest_delay: timedelta | None = None,
    **aggregate: Any,
) -> Any:
    """One aggregate of rows that nothing else looks at."""
    return PastRows(frame, event_time, events).rolling(RollingAggregate(**aggregate), longest_delay)


def mean_delay(
    frame: pd.DataFrame, window: timedelta = HOUR, aggregate: Aggregate = "mean", **more: Any
) -> list[float]:
    return rolling(
        frame,
        keys=["origin"],
        event_time="scheduled",
        known_at="known",
        window=window,
        aggregate=aggregate,
        value="delay",
        **more,
    ).tolist()


def test_a_flight_that_arrived_before_departure_counts_and_one_that_arrived_later_does_not() -> None:
    frame = flights([("EWR", -50, -10, 30), ("EWR", -40, 5, 99), ("EWR", 0, 60, 1)])
    assert mean_delay(frame)[2] == 30


def test_a_row_known_exactly_at_the_event_is_not_seen() -> None:
    frame = flights([("EWR", -50, -10, 30), ("EWR", -40, 0, 99), ("EWR", 0, 60, 1)])
    assert mean_delay(frame)[2] == 30


def test_a_row_known_one_window_before_the_event_is_the_oldest_that_counts() -> None:
    frame = flights([("EWR", -70, -60, 10), ("EWR", -70, -60.001, 99), ("EWR", 0, 60, 1)])
    assert mean_delay(frame)[2] == 10


def test_a_flight_that_left_early_does_not_see_itself() -> None:
    frame = flights([("EWR", 0, -6, -6)])
    assert math.isnan(mean_delay(frame)[0])


def test_a_flight_scheduled_later_is_not_seen_although_it_left_earlier() -> None:
    frame = flights([("EWR", 0, 60, 1), ("EWR", 3, -5, -8)])
    assert math.isnan(mean_delay(frame)[0])


def test_a_row_known_later_than_the_longest_delay_never_counts() -> None:
    frame = flights([("EWR", -100, -10, 30), ("EWR", -40, -20, 10), ("EWR", 0, 60, 1)])
    assert mean_delay(frame)[2] == 20
    assert mean_delay(frame, longest_delay=timedelta(minutes=89))[2] == 10
    assert mean_delay(frame, longest_delay=timedelta(minutes=90))[2] == 20


def test_other_keys_and_missing_keys_do_not_count() -> None:
    frame = flights([("JFK", -50, -10, 99), (None, -50, -10, 99), ("EWR", 0, 60, 1), (None, 0, 60, 1)])
    assert all(math.isnan(value) for value in mean_delay(frame)[2:])


def test_missing_values_and_missing_times_do_not_count() -> None:
    frame = flights(
        [("EWR", -50, -10, None), ("EWR", -50, None, 99), ("EWR", -50, -5, 7), ("EWR", 0, None, None)]
    )
    assert mean_delay(frame)[3] == 7


def test_without_rows_a_count_is_zero_and_a_mean_is_missing() -> None:
    frame = flights([("EWR", 0, 60, 1)])
    for aggregate, expected in (
        ("count", 0.0),
        ("sum", 0.0),
        ("mean", math.nan),
        ("max", math.nan),
        ("last", math.nan),
    ):
        found = rolling(
            frame,
            keys=[],
            event_time="scheduled",
            known_at="known",
            window=HOUR,
            aggregate=aggregate,
            value="delay",
        )  # type: ignore[arg-type]
        assert found.tolist() == pytest.approx([expected], nan_ok=True), aggregate


def test_fractions_are_summed_exactly_whatever_else_is_in_the_table() -> None:
    window = [("EWR", -50, -10 + i / 100, 0.1 * i) for i in range(30)]
    event = ("EWR", 0, 60, 1)
    old = [("EWR", -5000 + i, -4000 + i, 1e9 / 3 + i / 7) for i in range(50)]
    alone = mean_delay(flights([*window, event]))[-1]
    among = mean_delay(flights([*old, *window, event]))[-1]
    assert alone == among
    assert alone == pytest.approx(np.mean([0.1 * i for i in range(30)]))


def test_a_sum_beyond_the_largest_number_is_an_error() -> None:
    frame = flights([("EWR", -20, -10, 1e308), ("EWR", -10, -5, 1e308), ("EWR", 0, 60, 1)])
    with pytest.raises(DataError, match="beyond the largest number"):
        mean_delay(frame, aggregate="sum")
    assert mean_delay(frame)[-1] == 1e308


MINUTES = st.integers(-30, 30)
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["EWR", "JFK", None]),
        MINUTES,
        st.one_of(st.none(), MINUTES),
        st.one_of(
            st.none(), st.integers(-3, 3), st.sampled_from([0.1, 0.25, -1 / 3, 1e-20, 5e-324, 1e300, 2.0**53])
        ),
    ),
    max_size=14,
)


def slow(frame: pd.DataFrame, aggregate: str, window: timedelta, longest: timedelta | None) -> list[float]:
    """The definition, word for word, one pair of rows at a time."""
    result = []
    for _, event in frame.iterrows():
        seen = []
        for _, row in frame.iterrows():
            if pd.isna(row.known) or pd.isna(row.delay) or row.origin is None or row.origin != event.origin:
                continue
            known = max(row.known, row.scheduled)
            if longest is not None and known - row.scheduled > longest:
                continue
            if event.scheduled - window <= known < event.scheduled:
                seen.append((known, row.delay))
        result.append(_slow_aggregate(aggregate, seen))
    return result


def _slow_aggregate(aggregate: str, seen: list[tuple[Any, float]]) -> float:
    delays = [delay for _, delay in seen]
    if aggregate == "count":
        return float(len(delays))
    total = sum(map(Fraction, delays), Fraction(0))
    if aggregate == "sum":
        return float(total)
    if not delays:
        return math.nan
    return {
        "mean": float(total / len(delays)),
        "share": sum(delay > 0.2 for delay in delays) / len(delays),
        "max": max(delays),
        "last": max(seen)[1],
    }[aggregate]


@settings(max_examples=60, deadline=None)
@given(
    rows=ROWS,
    aggregate=st.sampled_from(AGGREGATES),
    window=st.integers(1, 40),
    longest=st.one_of(st.none(), st.integers(0, 20)),
)
def test_aggregates_are_what_the_definition_says(
    rows: list[tuple[Any, ...]], aggregate: Aggregate, window: int, longest: int | None
) -> None:
    frame = flights(rows)
    delay = None if longest is None else timedelta(minutes=longest)
    found = rolling(
        frame,
        keys=["origin"],
        event_time="scheduled",
        known_at="known",
        window=timedelta(minutes=window),
        aggregate=aggregate,
        value="delay",
        above=0.2 if aggregate == "share" else None,
        longest_delay=delay,
    )
    expected = slow(frame, aggregate, timedelta(minutes=window), delay)
    # Equal to the last digit, however small or large the numbers are beside each other.
    assert list(map(repr, found.tolist())) == list(map(repr, expected))


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, aggregate=st.sampled_from(AGGREGATES), data=st.data())
def test_neither_the_order_nor_what_happens_later_changes_an_aggregate(
    rows: list[tuple[Any, ...]], aggregate: Aggregate, data: st.DataObject
) -> None:
    def compute(frame: pd.DataFrame, events: Any = None) -> list[float]:
        return rolling(
            frame,
            keys=["origin"],
            event_time="scheduled",
            known_at="known",
            window=timedelta(minutes=25),
            aggregate=aggregate,
            value="delay",
            above=0.0 if aggregate == "share" else None,
            events=events,
        ).tolist()

    frame = flights(rows)
    now = at(data.draw(MINUTES))
    past = (frame["scheduled"] <= now).to_numpy(dtype=bool)
    before = compute(frame, past)
    changed = frame.copy()
    changed.loc[frame["known"].isna() | (frame["known"] >= now), "delay"] = 1e6
    order = data.draw(st.permutations(range(len(frame))))
    shuffled = changed.iloc[order].reset_index(drop=True)
    after = compute(shuffled, past[order])
    expected = dict(zip(np.flatnonzero(past), before, strict=True))
    # To the last bit: a data version depends on it.
    found = dict(zip(np.asarray(order, dtype=int)[past[order]], after, strict=True))
    assert {k: repr(v) for k, v in found.items()} == {k: repr(v) for k, v in expected.items()}


def weather(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["origin", "known", "temp"])
    frame["known"] = pd.to_datetime([at(value) for value in frame["known"]], utc=True)
    return frame


def with_weather(rows: list[tuple[Any, ...]], tolerance: timedelta = HOUR) -> list[Any]:
    events = flights([("EWR", 0, None, None)])
    joined = as_of_join(
        events,
        weather(rows),
        keys=["origin"],
        event_time="scheduled",
        known_at="known",
        tolerance=tolerance,
        columns=["temp"],
    )
    assert list(joined.index) == list(events.index)
    return [None if pd.isna(value) else value for value in joined["temp"]]


def test_the_last_observation_before_the_event_is_joined() -> None:
    assert with_weather([("EWR", -30, 50.0), ("EWR", -20, 51.0), ("JFK", -10, 99.0)]) == [51.0]


def test_an_observation_at_or_after_the_event_is_not_joined() -> None:
    assert with_weather([("EWR", -30, 50.0), ("EWR", 0, 98.0), ("EWR", 0.001, 99.0)]) == [50.0]


def test_an_observation_older_than_the_tolerance_is_not_joined() -> None:
    assert with_weather([("EWR", -60, 50.0)]) == [50.0]
    assert with_weather([("EWR", -60.001, 50.0)]) == [None]


def test_of_two_observations_at_the_same_time_the_same_one_is_joined_in_any_order() -> None:
    rows = [("EWR", -30, 50.0), ("EWR", -30, 52.0), ("EWR", -30, 51.0)]
    assert with_weather(rows) == with_weather(rows[::-1]) == [52.0]


@settings(max_examples=40, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.sampled_from(["EWR", "JFK", None]), st.one_of(st.none(), MINUTES)), max_size=8
    ),
    known=st.lists(
        st.tuples(st.sampled_from(["EWR", "JFK", None]), st.one_of(st.none(), MINUTES), st.integers(0, 5)),
        max_size=8,
    ),
)
def test_an_as_of_join_is_what_the_definition_says(
    events: list[tuple[Any, ...]], known: list[tuple[Any, ...]]
) -> None:
    left = flights([(key, minute, None, None) for key, minute in events])
    left.index = pd.RangeIndex(5, 5 + len(left))
    tolerance = timedelta(minutes=20)
    joined = as_of_join(
        left,
        weather(known),
        keys=["origin"],
        event_time="scheduled",
        known_at="known",
        tolerance=tolerance,
        columns=["temp"],
        prefix="w_",
    )
    expected: list[Any] = []
    for key, minute in events:
        seen = [
            (when, temp)
            for k, when, temp in known
            if k is not None and k == key and None not in (when, minute) and minute - 20 <= when < minute
        ]
        expected.append(max(seen)[1] if seen else None)
    pd.testing.assert_frame_equal(joined[left.columns], left)
    assert [None if pd.isna(value) else int(value) for value in joined["w_temp"]] == expected


def test_a_table_with_two_rows_for_a_key_is_refused_with_the_key() -> None:
    planes = pd.DataFrame({"tailnum": ["N1", "N1", "N2", None, None], "seats": [1, 2, 3, 4, 5]})
    with pytest.raises(DataError, match=r"2 rows whose key \['tailnum'\] is not unique.*N1"):
        left_join(pd.DataFrame({"tailnum": ["N1"]}), planes, keys=["tailnum"], columns=["seats"])


def test_a_join_by_key_keeps_every_row_in_order_and_integers_integer() -> None:
    planes = pd.DataFrame({"tailnum": ["N1", "N2", None], "seats": [100, 200, 5]})
    events = pd.DataFrame({"tailnum": ["N2", None, "N3", "N1", "N2"]}, index=[4, 3, 2, 1, 0])
    joined = left_join(events, planes, keys=["tailnum"], columns=["seats"], prefix="plane_")
    assert list(joined.index) == [4, 3, 2, 1, 0]
    assert joined["plane_seats"].tolist() == [200, pd.NA, pd.NA, 100, 200]
    assert str(joined["plane_seats"].dtype) == "Int64"


def test_a_name_taken_twice_is_refused() -> None:
    table = pd.DataFrame({"tailnum": ["N1"], "year": [2000]})
    with pytest.raises(DataError, match=r"\['year'\] exist in the events already. Give the join a prefix"):
        left_join(
            pd.DataFrame({"tailnum": ["N1"], "year": [2013]}), table, keys=["tailnum"], columns=["year"]
        )


def test_an_absent_column_is_named_with_those_there_are() -> None:
    with pytest.raises(DataError, match=r"Columns \['dep'\] are not in the base. It has: origin, scheduled"):
        rolling(
            flights([]),
            keys=[],
            event_time="scheduled",
            known_at="known",
            window=HOUR,
            aggregate="mean",
            value="dep",
        )


def test_a_text_column_is_neither_a_time_nor_a_number() -> None:
    frame = flights([("EWR", 0, 0, 1)])
    with pytest.raises(DataError, match="'origin' has type object, not a timestamp"):
        rolling(frame, keys=[], event_time="origin", known_at="known", window=HOUR, aggregate="count")
    with pytest.raises(DataError, match="'origin' has type object; an aggregate needs numbers"):
        rolling(
            frame,
            keys=[],
            event_time="scheduled",
            known_at="known",
            window=HOUR,
            aggregate="sum",
            value="origin",
        )


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1])
def test_a_whole_number_that_a_float_does_not_hold_is_not_aggregated(value: int) -> None:
    frame = flights([("EWR", 0, 0, 1)]).assign(count=pd.array([value], dtype="Int64"))
    with pytest.raises(DataError, match="column 'count' has 1 whole numbers beyond 2\\^53"):
        rolling(
            frame,
            keys=[],
            event_time="scheduled",
            known_at="known",
            window=HOUR,
            aggregate="sum",
            value="count",
        )


def test_an_unknown_aggregate_names_the_allowed_ones() -> None:
    with pytest.raises(UnknownName, match=r"'median'\. Allowed: count, last, max, mean, share, sum"):
        rolling(
            flights([]),
            keys=[],
            event_time="scheduled",
            known_at="known",
            window=HOUR,
            aggregate="median",
            value="delay",
        )  # type: ignore[arg-type]
