"""One event from a store is what the offline view has for it, to the bit."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.data.schema import ColumnType
from mlops_assets.features.online import changes_of, held_column, online_view
from mlops_assets.features.point_in_time import AGGREGATES, RollingAggregate
from mlops_assets.features.view import Join, Rolling, View, compute
from mlops_assets.testing.online_columns import StateColumns
from serve.online.applying import Change, changed
from serve.online.held import HeldView
from serve.schema import OnlineView

NOON = pd.Timestamp("2013-03-10 12:00", tz="UTC")
MINUTE = pd.Timedelta(minutes=1)
TYPES: Mapping[str, Mapping[str, ColumnType]] = {
    "flights": {
        "id": "integer",
        "origin": "string",
        "gate": "integer",
        "scheduled": "timestamp",
        "known": "timestamp",
        "delay": "number",
    },
    "weather": {"id": "integer", "origin": "string", "seen": "timestamp", "temp": "number", "sky": "string"},
    "airports": {"origin": "string", "height": "integer"},
}
IDENTITY = {"flights": ["id"], "weather": ["id"], "airports": ["origin"]}
WINDOWS = (timedelta(minutes=30), timedelta(hours=2))


def view_of(lookback: timedelta | None) -> View:
    """Every aggregate over three sorts of keys and two windows, and both sorts of joins."""
    rolling = [
        Rolling(
            f"{aggregate}_{'_'.join(keys) or 'all'}_{window.seconds}",
            RollingAggregate(
                keys,
                known_at,
                window,
                aggregate,  # type: ignore[arg-type]
                None if aggregate == "count" else "delay",
                5.0 if aggregate == "share" else None,
            ),
        )
        for aggregate in AGGREGATES
        for keys, known_at in (((), "known"), (("origin",), "known"), (("origin", "gate"), "scheduled"))
        for window in WINDOWS
    ]
    return View(
        "scheduled",
        [
            Join("weather", ["origin"], ["temp", "sky"], "seen", timedelta(hours=1)),
            Join("airports", ["origin"], ["height"], prefix="airport_"),
        ],
        rolling,
        lookback,
    )


def online(view: View) -> OnlineView:
    return online_view(
        view,
        TYPES,
        name="flights",
        store="sqlite",
        base="flights",
        entity=("id",),
        request=("origin", "gate", "scheduled"),
        stale_after_s=60,
    )


class Kept(dict[str, bytes]):
    """A store in memory."""

    def take(
        self, held: HeldView, changes: list[Change], since: int | None = None
    ) -> dict[str, bytes | None]:
        puts = changed(held, changes, lambda keys: [self.get(key) for key in keys], since=since)
        self.update({key: value for key, value in puts.items() if value is not None})
        for key in [key for key, value in puts.items() if value is None]:
            self.pop(key, None)
        return puts


def filled(held: HeldView, tables: Mapping[str, pd.DataFrame]) -> Kept:
    store = Kept()
    for name, frame in tables.items():
        store.take(held, changes(held, name, frame))
    return store


def changes(held: HeldView, name: str, frame: pd.DataFrame) -> list[Change]:
    return changes_of(name, frame, TYPES[name], identity=IDENTITY[name], columns=held.columns(name))


def as_packaged(view: OnlineView) -> OnlineView:
    """The view as a replica reads it: in a package, names of an object have no order."""
    return OnlineView.model_validate_json(json.dumps(view.model_dump(mode="json"), sort_keys=True))


def answers(held: HeldView, store: Mapping[str, bytes], events: pd.DataFrame) -> list[dict[str, Any]]:
    held = HeldView(as_packaged(held.view))
    plain = {name: held_column(events[name], TYPES["flights"][name]) for name in held.view.columns}
    rows = [dict(zip(plain, values, strict=True)) for values in zip(*plain.values(), strict=True)]
    state = StateColumns(held, store)
    return [state.of(row) for row in rows]


def require_equal(found: list[dict[str, Any]], offline: pd.DataFrame) -> int:
    """How many values were compared."""
    compared = 0
    for position, row in enumerate(found):
        for name, value in row.items():
            expected = offline[name].iloc[position]
            if pd.isna(expected):
                assert value is None, (name, position, value)
            else:
                assert value == expected and value is not None, (name, position, value, expected)
            compared += 1
    return compared


minutes = st.one_of(st.none(), st.integers(-200, 60).map(float))
numbers = st.one_of(
    st.none(),
    st.integers(-30, 30).map(float),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.floats(-1e300, 1e300).filter(lambda value: value != 0 or str(value) == "0.0"),
)
origins = st.sampled_from(["EWR", "JFK", 'L"GA', None])


def timed(values: list[float | None]) -> Any:
    found = [pd.NaT if value is None else NOON + value * MINUTE for value in values]
    return pd.Series(pd.to_datetime(found, utc=True)).dt.as_unit("us")


def flights_of(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    columns = list(zip(*rows, strict=True)) if rows else [[], [], [], [], []]
    return pd.DataFrame(
        {
            "id": range(len(rows)),
            "origin": pd.Series(columns[0], dtype=object),
            "gate": pd.Series(columns[1], dtype="Int64"),
            "scheduled": timed(list(columns[2])),
            "known": timed(list(columns[3])),
            "delay": pd.Series(columns[4], dtype=np.float64),
        }
    )


def weather_of(rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    columns = list(zip(*rows, strict=True)) if rows else [[], [], [], []]
    return pd.DataFrame(
        {
            "id": range(len(rows)),
            "origin": pd.Series(columns[0], dtype=object),
            "seen": timed(list(columns[1])),
            "temp": pd.Series(columns[2], dtype=np.float64),
            "sky": pd.Series(columns[3], dtype=object),
        }
    )


AIRPORTS = pd.DataFrame({"origin": ["EWR", "JFK"], "height": pd.Series([5, None], dtype="Int64")})
flight_rows = st.lists(
    st.tuples(origins, st.sampled_from([1, 2, None]), minutes, minutes, numbers), min_size=1, max_size=25
)
weather_rows = st.lists(
    st.tuples(origins, minutes, st.sampled_from([None, 0.0, 1.0, 2.0]), st.sampled_from(["a", "b", None])),
    max_size=15,
)


@settings(max_examples=60)
@given(flight_rows, weather_rows, st.sampled_from([None, timedelta(hours=4)]))
def test_every_column_of_every_event_is_the_offline_one(
    flights: list[Any], weather: list[Any], lookback: timedelta | None
) -> None:
    view = view_of(lookback)
    tables = {"flights": flights_of(flights), "weather": weather_of(weather), "airports": AIRPORTS}
    held = HeldView(online(view))
    offline = compute(view, tables["flights"], tables)
    found = answers(held, filled(held, tables), tables["flights"])
    assert require_equal(found, offline) == len(flights) * (len(view.rolling) + 3)


@settings(max_examples=40)
@given(flight_rows, flight_rows, st.randoms(use_true_random=False))
def test_a_store_that_rows_were_changed_in_is_the_one_filled_with_them_at_once(
    first: list[Any], second: list[Any], random: Any
) -> None:
    held = HeldView(online(view_of(timedelta(hours=4))))
    before, after = flights_of(first), flights_of(second)
    store = filled(held, {"flights": before})
    moves = changes(held, "flights", after)
    moves += [Change("flights", (gone,), None) for gone in range(len(second), len(first))]
    random.shuffle(moves)
    for move in moves:
        store.take(held, [move])
    expected = filled(held, {"flights": after})
    assert answers(held, store, after) == answers(held, expected, after)
    assert set(store) == set(expected)
    assert store.take(held, changes(held, "flights", after)) == {}


def test_what_no_event_may_ask_for_any_more_leaves_a_run_that_changes() -> None:
    held = HeldView(online(view_of(timedelta(hours=4))))
    rows = flights_of([("EWR", 1, -200.0, -190.0, 5.0), ("EWR", 1, -10.0, -5.0, 7.0)])
    since = held_column(rows["scheduled"], "timestamp")[1]
    whole, pruned = Kept(), Kept()
    whole.take(held, changes(held, "flights", rows))
    pruned.take(held, changes(held, "flights", rows), since)
    late = rows.iloc[1:]
    assert sum(map(len, pruned.values())) < sum(map(len, whole.values()))
    assert answers(held, pruned, late) == answers(held, whole, late)


def test_two_views_that_read_the_same_of_a_store_share_its_shape() -> None:
    view = view_of(timedelta(hours=4))
    one = online(view)
    assert one.shape == one.model_copy(update={"name": "other", "stale_after_s": 5.0}).shape
    assert one.shape != online(view_of(timedelta(hours=5))).shape


@pytest.mark.parametrize("kind", ["sum", "mean"])
def test_a_sum_beyond_the_largest_number_is_an_error(kind: str) -> None:
    view = view_of(None)
    held = HeldView(online(view))
    rows = flights_of(
        [("EWR", 1, -9.0, -8.0, 1.7e308), ("EWR", 1, -9.0, -7.0, 1.7e308), ("EWR", 1, 0.0, None, 0.0)]
    )
    with pytest.raises(OverflowError):
        answers(held, filled(held, {"flights": rows}), rows)
