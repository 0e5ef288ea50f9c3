"""A feature view document becomes an asset of features as they were known before each event."""

from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from mlops_assets.asset_keys import asset_key
from mlops_assets_tests.components.test_dataset import checks, failure, materialize

TRIPS, WEATHER, PLANES = (asset_key("dataset", name) for name in ("trips", "weather", "planes"))
FEATURES = asset_key("features", "trips")
ALL = (TRIPS, WEATHER, PLANES, FEATURES)
DAYS = [f"2024-01-0{day}" for day in range(1, 7)]
DATASETS = """
type: mlops_assets.components.DatasetComponent
attributes:
  name: trips
  source: {format: csv, path: "raw/trips-{partition}.csv"}
  partitions: {start: "2024-01-01", end: "2024-01-07", column: day}
  columns: {id: string, day: string, leaves: timestamp, left: timestamp, origin: string, plane: string,
            delay: number}
  primary_key: [id]
---
type: mlops_assets.components.DatasetComponent
attributes:
  name: weather
  source: {format: csv, path: "raw/weather-{partition}.csv"}
  partitions: {start: "2024-01-01", end: "2024-01-07", column: day}
  columns: {origin: string, day: string, known_at: timestamp, temp: number}
---
type: mlops_assets.components.DatasetComponent
attributes:
  name: planes
  source: {format: csv, path: raw/planes.csv}
  columns: {plane: string, seats: integer}
---
"""
VIEW = """
type: mlops_assets.components.FeatureViewComponent
attributes:
  name: trips
  entity: {name: trip, join_keys: [id]}
  event_timestamp: leaves
  base: trips
  joins:
    - {dataset: weather, keys: [origin], timestamp: known_at, tolerance: 3h, columns: [temp]}
    - {dataset: planes, keys: [plane], columns: [seats]}
  lookback_days: 2
  rolling:
    - {name: delay_24h, keys: [origin], value: delay, known_at: left, window: 24h, aggregate: mean}
  features:
    - {name: origin, type: category}
    - {name: temp, type: number, minimum: -50, maximum: 50}
    - {name: seats, type: integer, minimum: 1}
    - {name: delay_24h, type: number, minimum: -60}
"""


def write_trips(folder: Path, day: str, delay: float, temp: float = 10.0) -> None:
    """Two trips of EWR a day, at 08:00 and 20:00; both leave ``delay`` minutes late."""
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    lines = ["id,leaves,left,origin,plane,delay"]
    for hour in ("08", "20"):
        lines.append(f"{day}-{hour},{day}T{hour}:00:00Z,{day}T{hour}:30:00Z,EWR,N1,{delay}")
    (raw / f"trips-{day}.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    observed = [f"EWR,{day}T07:00:00Z,{temp}", f"EWR,{day}T20:00:00Z,99"]
    (raw / f"weather-{day}.csv").write_text(
        "\n".join(["origin,known_at,temp", *observed, ""]), encoding="utf-8"
    )
    (raw / "planes.csv").write_text("plane,seats\nN1,100\nN2,200\n", encoding="utf-8")


@pytest.fixture
def raw(use_case):
    for position, day in enumerate(DAYS):
        write_trips(use_case, day, delay=10.0 * position)
    return use_case


@pytest.fixture
def trips(raw, load):
    return load(DATASETS + VIEW)


def read(lake):
    return lake.read("features/trips").sort_values("id").set_index("id")


def stale(defs, instance):
    graph = defs.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return [day for day in DAYS if resolver.get_status(FEATURES, day).value == "STALE"]


def test_the_asset_carries_what_a_person_looks_for(trips):
    node = trips.resolve_asset_graph().get(FEATURES)
    assert node.group_name == "shop"
    assert node.parent_keys == {TRIPS, WEATHER, PLANES}
    assert node.partitions_def.get_partition_keys() == DAYS
    assert node.backfill_policy == dg.BackfillPolicy.single_run()
    columns = [column.name for column in node.metadata["dagster/column_schema"].columns]
    assert columns == ["id", "leaves", "day", "origin", "temp", "seats", "delay_24h"]


def test_features_are_those_known_before_each_event(trips, lake, instance):
    result = materialize(trips, instance, DAYS[0], DAYS[2], ALL)
    assert result.success
    made = read(lake)
    assert list(made.columns) == ["leaves", "day", "origin", "temp", "seats", "delay_24h"]
    # The first trip ever looks back on nothing. The trip at 20:00 on the third day looks back on
    # the one at 20:00 (left 20:30) of the day before and the one of that morning.
    assert made["delay_24h"].isna().tolist() == [True] + [False] * 5
    assert made["delay_24h"].tolist()[1:] == [0, 0, 5, 10, 15]
    # An observation known at 20:00 sharp is not known before 20:00; the one of 07:00 is too old by then.
    assert made["temp"].tolist()[::2] == [10, 10, 10]
    assert made["temp"].isna().tolist()[1::2] == [True, True, True]
    assert made["seats"].tolist() == [100] * 6
    (check,) = [found for found in result.get_asset_check_evaluations() if found.asset_key == FEATURES]
    assert (check.check_name, check.passed, check.blocking) == ("features_valid", True, True)
    assert "| temp | number | 50.00% | 10 to 10 | -50 to 50 |" in check.metadata["observed"].value


def test_a_day_alone_and_within_a_range_give_the_same_features_and_version(trips, lake, instance):
    assert materialize(trips, instance, DAYS[0], DAYS[-1], ALL).success
    together = read(lake)
    assert stale(trips, instance) == []
    for day in DAYS:
        assert materialize(trips, instance, day, day, (FEATURES,)).success
    assert read(lake).equals(together)
    filters = {day: dg.AssetRecordsFilter(asset_key=FEATURES, asset_partitions=[day]) for day in DAYS}
    for day, one in filters.items():
        versions = {
            record.asset_materialization.tags["dagster/data_version"]
            for record in instance.fetch_materializations(one, limit=10).records
            # The first event of a range run carries the version of the whole range.
        }
        latest = instance.fetch_materializations(one, limit=2).records
        assert (
            latest[0].asset_materialization.tags["dagster/data_version"]
            == (latest[1].asset_materialization.tags["dagster/data_version"])
        ), (day, versions)


def test_a_change_makes_the_days_that_look_back_on_it_stale_and_the_same_again_does_not(trips, raw, instance):
    assert materialize(trips, instance, DAYS[0], DAYS[-1], ALL).success
    assert materialize(trips, instance, DAYS[0], DAYS[-1], (TRIPS, WEATHER)).success
    assert stale(trips, instance) == []
    write_trips(raw, DAYS[1], delay=55.0)
    assert materialize(trips, instance, DAYS[1], DAYS[1], (TRIPS,)).success
    assert stale(trips, instance) == DAYS[1:4]


def test_a_day_the_base_never_had_is_an_error_that_says_how_to_make_it(trips, lake, instance):
    assert materialize(trips, instance, DAYS[1], DAYS[1], (TRIPS, WEATHER, PLANES)).success
    result = materialize(trips, instance, DAYS[2], DAYS[2], (FEATURES,))
    assert "trips was never materialised for 2024-01-03; make it with: dg launch" in failure(result)
    result = materialize(trips, instance, DAYS[1], DAYS[2], (FEATURES,))
    assert not result.success
    assert "2024-01-03: trips was never materialised for it; make it with" in failure(result)
    assert set(read(lake)["day"]) == {DAYS[1]}
    assert instance.get_materialized_partitions(FEATURES) == {DAYS[1]}
    result = materialize(trips, instance, DAYS[1], DAYS[1], (FEATURES,))
    assert result.success
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["lookback_days_missing"].value == 1


def fails_when_hot(joined: pd.DataFrame) -> pd.DataFrame:
    """The view's transform in a test: it takes no temperature above 60."""
    if (joined["temp"] > 60).any():
        raise ValueError("too hot")
    return joined.assign(warm=joined["temp"] > 5)


def fails_always(joined: pd.DataFrame) -> pd.DataFrame:
    raise ValueError("never works")


def with_transform(function) -> str:
    declared = f"  transform: {function.__module__}.{function.__name__}\n  features:\n"
    return DATASETS + VIEW.replace("  features:\n", declared)


def test_a_transform_that_fails_on_one_day_fails_that_day_only(raw, load, lake, instance):
    write_trips(raw, DAYS[2], delay=20.0, temp=70.0)
    trips = load(with_transform(fails_when_hot))
    result = materialize(trips, instance, DAYS[0], DAYS[4], ALL)
    assert not result.success
    assert "1 of 5 partitions are not as declared" in failure(result)
    assert "2024-01-03: mlops_assets_tests.components.test_feature_view.fails_when_hot failed" in failure(
        result
    )
    assert "ValueError: too hot" in failure(result)
    check = checks(result)["features_valid"]
    assert (check.passed, check.metadata["partitions_failed"].value) == (False, 1)
    assert "too hot" in check.metadata["problems"].value
    apart = read(lake)
    assert sorted(set(apart["day"])) == [DAYS[0], DAYS[1], DAYS[3], DAYS[4]]
    # The good days are what they are without the bad one's failure: they still look back on its rows.
    with_all = load(DATASETS + VIEW.replace("maximum: 50", "maximum: 70"))
    assert materialize(with_all, instance, DAYS[0], DAYS[4], ALL).success
    together = read(lake)
    pd.testing.assert_frame_equal(apart, together[together["day"] != DAYS[2]])


def test_a_transform_that_fails_on_every_day_fails_the_run_once(raw, load, lake, instance):
    result = materialize(load(with_transform(fails_always)), instance, DAYS[0], DAYS[2], ALL)
    assert "fails_always failed with ValueError: never works" in failure(result)
    assert "partitions are not as declared" not in failure(result)
    assert not lake.exists("features/trips")


def gives_back_what_it_got(joined: pd.DataFrame) -> pd.DataFrame:
    return joined


@pytest.mark.parametrize("transform", [False, True])
def test_a_column_of_integers_is_a_category_of_their_texts(transform, raw, load, lake, instance):
    text = with_transform(gives_back_what_it_got) if transform else DATASETS + VIEW
    category = "{name: seats, type: category, categories: ['100', '7']}"
    trips = load(text.replace("{name: seats, type: integer, minimum: 1}", category))
    path = raw / "raw" / f"trips-{DAYS[1]}.csv"
    path.write_text(path.read_text().replace("EWR,N1", "EWR,N9", 1))
    assert materialize(trips, instance, DAYS[0], DAYS[1], ALL).success
    seats = read(lake)["seats"]
    assert seats.isna().tolist() == [False, False, True, False]
    assert seats.dropna().tolist() == ["100", "100", "100"]


def test_a_whole_number_that_a_model_would_not_hold_exactly_is_refused(raw, load, lake, instance):
    (raw / "raw" / "planes.csv").write_text(f"plane,seats\nN1,{2**53 + 1}\n", encoding="utf-8")
    result = materialize(load(DATASETS + VIEW), instance, DAYS[0], DAYS[0], ALL)
    assert "feature 'seats' must be within -2^53 and 2^53, but 2 rows are beyond" in failure(result)
    assert not lake.exists("features/trips")


def test_a_row_without_the_time_of_its_event_fails_its_day_only(trips, raw, lake, instance):
    path = raw / "raw" / f"trips-{DAYS[1]}.csv"
    path.write_text(path.read_text().replace(f"{DAYS[1]}T20:00:00Z,", ",", 1))
    result = materialize(trips, instance, DAYS[0], DAYS[2], ALL)
    assert f"{DAYS[1]}: column 'leaves' must be present, but 1 rows are missing" in failure(result)
    assert set(read(lake)["day"]) == {DAYS[0], DAYS[2]}


def test_a_day_that_breaks_the_declaration_keeps_what_it_held(trips, raw, lake, instance):
    assert materialize(trips, instance, DAYS[0], DAYS[2], ALL).success
    before = read(lake)
    write_trips(raw, DAYS[1], delay=10.0, temp=70.0)
    write_trips(raw, DAYS[2], delay=33.0)
    result = materialize(trips, instance, DAYS[0], DAYS[2], ALL)
    assert not result.success
    message = failure(result)
    assert "1 of 3 partitions are not as declared" in message
    assert "2024-01-02: feature 'temp' must be at most 50, but 1 rows are as high as 70" in message
    check = checks(result)["features_valid"]
    assert (check.passed, check.metadata["partitions_failed"].value) == (False, 1)
    after = read(lake)
    assert after[after["day"] == DAYS[1]].equals(before[before["day"] == DAYS[1]])
    assert not after[after["day"] == DAYS[2]].equals(before[before["day"] == DAYS[2]])
    events = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=FEATURES, asset_partitions=[DAYS[1]]), limit=10
    ).records
    assert result.run_id not in {event.run_id for event in events}


def test_without_time_and_partitions_a_table_is_all_there_is(use_case, load, lake, instance):
    (use_case / "flowers.csv").write_text("id,width,kind\n1,2.5,a\n2,3.5,b\n", encoding="utf-8")
    defs = load(
        """
type: mlops_assets.components.DatasetComponent
attributes:
  name: flowers
  source: {format: csv, path: flowers.csv}
  columns: {id: integer, width: number, kind: string}
---
type: mlops_assets.components.FeatureViewComponent
attributes:
  name: flowers
  entity: {name: flower, join_keys: [id]}
  base: flowers
  features: [{name: width, type: number}]
"""
    )
    assert defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance).success
    made = lake.read("features/flowers")
    assert made.sort_values("id").to_dict("list") == {"id": [1, 2], "width": [2.5, 3.5]}


WRONG = {
    "unknown dataset": (
        "base: trips",
        "base: tips",
        r"defs.yaml:\d+: Unknown dataset 'tips'. Allowed: planes",
    ),
    "unknown joined dataset": ("dataset: weather", "dataset: wether", "Unknown dataset 'wether'"),
    "unknown column": (
        "columns: [temp]",
        "columns: [rain]",
        "column of dataset 'weather' 'rain'. Allowed: day",
    ),
    "text as a time": (
        "event_timestamp: leaves",
        "event_timestamp: origin",
        "is a string; here it must be: timestamp",
    ),
    "text as a value": ("value: delay", "value: origin", "must be: boolean, integer, number"),
    "window beyond the look back": ("window: 24h", "window: 72h", "needs lookback_days of 4 at least"),
    "feature of nowhere": ("name: seats,", "name: chairs,", "Unknown feature 'chairs'. Allowed: day"),
    "a partitioned dataset by key alone": (
        "timestamp: known_at, tolerance: 3h, ",
        "",
        "declare timestamp and tolerance",
    ),
    "unknown aggregate": ("aggregate: mean", "aggregate: median", "'mean', 'sum', 'count'"),
    "a value too few": ("value: delay, ", "", "aggregate mean needs a value"),
    "the same feature twice": ("name: seats,", "name: temp,", "features declared twice: temp"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_declaration_says_where_and_what_is_allowed(kind, raw, load):
    right, wrong, reason = WRONG[kind]
    assert right in VIEW
    with pytest.raises(Exception) as caught:  # noqa: PT011  # Dagster wraps it; the chain is looked at
        load(DATASETS + VIEW.replace(right, wrong))
    chain, text = caught.value, ""
    while chain is not None:
        text += str(chain)
        chain = chain.__cause__ or chain.__context__
    import re

    assert re.search(reason, text), text
    assert "defs.yaml:" in text


def test_a_function_that_lacks_a_feature_is_told_which_and_what_it_made(raw, load, instance, lake):
    defs = load(
        DATASETS
        + VIEW.replace(
            "  features:", "  transform: mlops_assets_tests.components.test_feature_view.same\n  features:"
        ).replace("name: seats,", "name: chairs,")
    )
    result = materialize(defs, instance, DAYS[0], DAYS[0], ALL)
    assert not result.success
    assert (
        "['chairs'], which no join, rolling aggregate or function produced. Available columns: id, day"
        in (failure(result))
    )


def same(frame):
    return frame


def requested(defs, instance, cursor=None):
    result = dg.evaluate_automation_conditions(
        defs, instance, asset_selection=dg.AssetSelection.assets(FEATURES), cursor=cursor
    )
    return sorted(result.get_requested_partitions(FEATURES)), result.cursor


def test_new_and_changed_days_flow_to_features_by_themselves(trips, raw, instance):
    wanted, cursor = requested(trips, instance)
    assert wanted == []
    assert materialize(trips, instance, DAYS[0], DAYS[2], (TRIPS, WEATHER)).success
    wanted, cursor = requested(trips, instance, cursor)
    assert wanted == [], "planes are missing"
    assert materialize(trips, instance, DAYS[0], DAYS[0], (PLANES,)).success
    wanted, cursor = requested(trips, instance, cursor)
    assert wanted == DAYS[:3]
    assert materialize(trips, instance, DAYS[0], DAYS[2], (FEATURES,)).success
    wanted, cursor = requested(trips, instance, cursor)
    assert wanted == []

    # The same content again wakes nobody.
    assert materialize(trips, instance, DAYS[0], DAYS[2], (TRIPS, WEATHER, PLANES)).success
    wanted, cursor = requested(trips, instance, cursor)
    assert wanted == []

    # A correction of the second day reaches every day made so far that looks back on it.
    write_trips(raw, DAYS[1], delay=55.0)
    assert materialize(trips, instance, DAYS[1], DAYS[1], (TRIPS,)).success
    wanted, cursor = requested(trips, instance, cursor)
    assert wanted == DAYS[1:3]
    assert materialize(trips, instance, DAYS[1], DAYS[2], (FEATURES,)).success

    # The next day arrives.
    assert materialize(trips, instance, DAYS[3], DAYS[3], (TRIPS,)).success
    wanted, cursor = requested(trips, instance, cursor)
    assert wanted == [], "its weather is missing"
    assert materialize(trips, instance, DAYS[3], DAYS[3], (WEATHER,)).success
    wanted, cursor = requested(trips, instance, cursor)
    assert wanted == [DAYS[3]]
