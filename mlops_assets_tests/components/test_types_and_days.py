"""Inputs as they come from the field: each value as declared or refused, a bad day one day's affair."""

import datetime
import io
from decimal import Decimal

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from mlops_assets.asset_keys import asset_key
from mlops_assets.data.content import content_version
from mlops_assets_tests.components.test_dataset import checks, failure, materialize

ITEMS = asset_key("dataset", "items")
DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]
ID = 1582218195625938945


def twice(raw: pd.DataFrame) -> pd.DataFrame:
    """Keeps the rows, and says how many orders each customer has."""
    return raw.assign(orders=raw.groupby("customer")["customer"].transform("size").astype("Int64"))


def ratio(raw: pd.DataFrame) -> pd.DataFrame:
    """Fails on a day whose amounts are text."""
    return raw.assign(amount=raw["amount"] / 2)


def since(raw: pd.DataFrame) -> pd.DataFrame:
    """A duration, where a number is declared."""
    return raw.assign(waited=raw["t"] - raw["last_seen"])


def document(columns: str, *, daily: bool = False, source: str = "format: csv", more: str = "") -> str:
    path = '"raw/{partition}.csv"' if daily else "raw.csv"
    if "parquet" in source:
        path = path.replace("csv", "parquet")
    partitions = (
        '  partitions: {start: "2024-01-01", end: "2024-01-04", column: day}\n'
        if daily and "partitions:" not in more
        else ""
    )
    return (
        "type: mlops_assets.components.DatasetComponent\nattributes:\n  name: items\n"
        f"  source: {{{source}, path: {path}}}\n{partitions}  columns: {{{columns}}}\n{more}"
    )


def csv(folder, text, day=None):
    path = folder / "raw.csv" if day is None else folder / "raw" / f"{day}.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def make(defs, instance):
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, raise_on_error=False)


def recorded(instance, day):
    """The data version of the latest event of one day."""
    wanted = dg.AssetRecordsFilter(asset_key=ITEMS, asset_partitions=[day])
    (record,) = instance.fetch_materializations(wanted, limit=1).records
    return record.asset_materialization.tags["dagster/data_version"]


@pytest.mark.parametrize(
    ("before", "after", "value", "stored"),
    [
        ("integer", "number", "2.75", 2.75),
        ("integer", "string", "00501", "00501"),
        ("date", "timestamp", "2024-01-02T13:45:00Z", pd.Timestamp("2024-01-02T13:45Z")),
    ],
)
def test_another_type_is_stored_when_every_day_is_made_anew_and_refused_before(
    use_case, load, lake, instance, before, after, value, stored
):
    first = "2024-01-02" if before == "date" else "1"
    for day in DAYS[:2]:
        csv(use_case, f"x\n{first}\n", day)
    defs = load(document(f"day: string, x: {before}", daily=True))
    assert materialize(defs, instance, DAYS[0], DAYS[1], (ITEMS,)).success

    csv(use_case, f"x\n{value}\n", DAYS[1])
    (use_case / "defs.yaml").unlink()
    defs = load(document(f"day: string, x: {after}", daily=True))
    result = materialize(defs, instance, DAYS[1], DAYS[1], (ITEMS,))
    assert not result.success
    assert f"column 'x' is {before} in the table and {after} as declared" in failure(result)
    assert "dg launch --assets 'key:\"items\"' --partition-range 2024-01-01...2024-01-02" in failure(result)

    assert materialize(defs, instance, DAYS[0], DAYS[1], (ITEMS,)).success
    table = lake.read("datasets/items").set_index("day")
    assert table.loc[DAYS[1], "x"] == stored
    for day in DAYS[:2]:
        part = lake.read("datasets/items", partitions=[day], partition_column="day")
        assert content_version(part) == recorded(instance, day)


def test_a_day_keeps_its_version_when_the_table_gains_a_column(use_case, load, lake, instance):
    for day in DAYS[:2]:
        csv(use_case, "x,y\n1,2\n", day)
    defs = load(document("day: string, x: integer", daily=True))
    assert materialize(defs, instance, DAYS[0], DAYS[1], (ITEMS,)).success
    (use_case / "defs.yaml").unlink()
    defs = load(document("day: string, x: integer, y: integer", daily=True))
    assert materialize(defs, instance, DAYS[1], DAYS[1], (ITEMS,)).success
    assert lake.read("datasets/items").set_index("day")["y"].isna().to_dict() == {
        DAYS[0]: True,
        DAYS[1]: False,
    }
    for day in DAYS[:2]:
        part = lake.read("datasets/items", partitions=[day], partition_column="day")
        assert content_version(part) == recorded(instance, day)


def test_a_type_that_only_the_quarantine_holds_is_refused_before_either_table_is_written(
    use_case, load, lake, instance
):
    rule = "expect_column_values_to_not_be_null, kwargs: {column: y}"
    more = f"  max_quarantine_share: 1.0\n  row_rules:\n    - {{type: {rule}}}\n"
    csv(use_case, "x,y\n1,1\n", DAYS[0])
    csv(use_case, "x,y\n2,\n", DAYS[1])
    defs = load(document("day: string, x: integer, y: integer", daily=True, more=more))
    assert materialize(defs, instance, DAYS[0], DAYS[1], (ITEMS,)).success
    csv(use_case, "x,y\n00501,1\n", DAYS[0])
    (use_case / "defs.yaml").unlink()
    defs = load(document("day: string, x: string, y: integer", daily=True, more=more))
    result = materialize(defs, instance, DAYS[0], DAYS[0], (ITEMS,))
    assert "Table 'quarantine/items' cannot change for a part of its partitions" in failure(result)
    assert "dg launch --assets 'key:\"items\"' --partition-range 2024-01-01...2024-01-02" in failure(result)
    assert lake.read("datasets/items")["x"].tolist() == [1]
    assert content_version(lake.read("datasets/items")) == recorded(instance, DAYS[0])
    assert materialize(defs, instance, DAYS[0], DAYS[1], (ITEMS,)).success
    assert lake.read("quarantine/items")["x"].tolist() == ["2"]


def test_a_number_beyond_the_range_is_refused_with_value_and_range(use_case, load, lake, instance):
    values = pa.array([11069825858223412227], pa.uint64())
    parquet.write_table(pa.table({"x": values}), use_case / "raw.parquet")
    result = make(load(document("x: integer", source="format: parquet")), instance)
    assert "11069825858223412227" in failure(result)
    assert "from -9223372036854775808 to 9223372036854775807" in failure(result)
    assert not lake.exists("datasets/items")


def test_a_duration_is_no_number_with_and_without_a_missing_one(use_case, load, lake, instance):
    moments = [datetime.datetime(2024, 1, 1, 12), None]
    frame = pa.table({"t": pa.array([moments[0]] * 2), "last_seen": pa.array(moments)})
    parquet.write_table(frame, use_case / "raw.parquet")
    more = f"  transform: {since.__module__}.{since.__name__}\n"
    result = make(load(document("waited: number", source="format: parquet", more=more)), instance)
    assert "a duration says no unit as a number" in failure(result)
    assert not lake.exists("datasets/items")


@pytest.mark.parametrize("transform", [False, True])
@pytest.mark.parametrize("source", ["csv", "parquet"])
def test_an_id_keeps_every_digit_beside_a_missing_one(use_case, load, lake, instance, source, transform):
    ids = [ID, None, ID + 1]
    csv(use_case, f"row,customer\n1,{ID}\n2,\n3,{ID + 1}\n")
    parquet.write_table(pa.table({"row": [1, 2, 3], "customer": pa.array(ids)}), use_case / "raw.parquet")
    columns, more = "row: integer, customer: integer", ""
    if transform:
        columns, more = f"{columns}, orders: integer", f"  transform: {twice.__module__}.{twice.__name__}\n"
    assert make(load(document(columns, source=f"format: {source}", more=more)), instance).success
    table = lake.read("datasets/items").sort_values("row")
    assert [None if pd.isna(one) else one for one in table["customer"]] == ids
    if transform:
        assert table["orders"].tolist()[::2] == [1, 1]


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(
    "values", [[True, False], [pd.Timestamp("2024-01-01")] * 2], ids=["boolean", "timestamp"]
)
def test_what_is_no_number_is_no_integer_missing_values_or_not(
    use_case, load, lake, instance, values, missing
):
    parquet.write_table(pa.table({"x": pa.array([*values, *([None] * missing)])}), use_case / "raw.parquet")
    result = make(load(document("x: integer", source="format: parquet")), instance)
    assert "2 values that do not fit" in failure(result)
    assert not lake.exists("datasets/items")


def test_namibia_is_a_country_and_no_amount(use_case, load, lake, instance):
    csv(use_case, "id,country,amount\n1,NA,12.5\n2,DE,NA\n")
    assert make(load(document("id: integer, country: string, amount: number")), instance).success
    table = lake.read("datasets/items").sort_values("id")
    assert table["country"].tolist() == ["NA", "DE"]
    assert table["amount"].isna().tolist() == [False, True]


def test_a_column_without_a_value_has_its_declared_type_in_the_table(use_case, load, lake, instance):
    kinds = {"a": "string", "b": "integer", "c": "number", "d": "boolean", "e": "timestamp", "f": "date"}
    csv(use_case, "row,a,b,c,d,e,f\n1,,,,,,\n")
    columns = ", ".join(f"{name}: {kind}" for name, kind in {"row": "integer", **kinds}.items())
    assert make(load(document(columns)), instance).success
    types = {field.name: str(field.type) for field in lake.columns("datasets/items")}
    assert types == {
        "row": "int64", "a": "string", "b": "int64", "c": "double", "d": "bool",
        "e": "timestamp[us, tz=UTC]", "f": "date32[day]",
    }  # fmt: skip
    assert lake.columns("quarantine/items").field("b").type == pa.int64()


def test_decimals_and_far_dates_are_kept(use_case, load, lake, instance):
    far = [datetime.datetime(1582, 10, 15), datetime.datetime(9999, 12, 31, 23, 59, 59, 999_999)]
    frame = pa.table({"t": pa.array(far, pa.timestamp("us")), "x": pa.array([Decimal("0.10"), None])})
    parquet.write_table(frame, use_case / "raw.parquet")
    assert make(load(document("t: timestamp, x: number", source="format: parquet")), instance).success
    table = lake.read("datasets/items").sort_values("t")
    assert [one.to_pydatetime().replace(tzinfo=None) for one in table["t"]] == far
    assert table["x"].tolist()[0] == 0.1


# -- a bad day ---------------------------------------------------------------------------------------------


BAD_FILES = {
    "a header in another encoding": ("größe,x\n1,2\n".encode("latin-1"), "is not utf-8"),
    "a column twice": (b"x,x\n1,2\n", "has columns twice: 'x'"),
    "a file of zeros": (b"\0" * 100 + b"\n", "missing: x"),
    "an open quote": (b'x\n"1\n', "an opening quote only"),
    "a value too large": (b"x\n9223372036854775808\n", "9223372036854775808"),
    "an exponent too large": (b"x\n1e9999999999999999999\n", "1e9999999999999999999"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_that_cannot_be_read_fails_its_day_only(use_case, load, lake, instance, kind):
    content, reason = BAD_FILES[kind]
    for day in DAYS:
        csv(use_case, "x\n1\n", day)
    csv(use_case, content, DAYS[1])
    defs = load(document("day: string, x: integer", daily=True))
    result = materialize(defs, instance, DAYS[0], DAYS[2], (ITEMS,))
    assert not result.success
    assert "1 of 3 partitions" in failure(result)
    assert reason in failure(result)
    assert sorted(lake.read("datasets/items")["day"]) == [DAYS[0], DAYS[2]]
    assert instance.get_materialized_partitions(ITEMS) == {DAYS[0], DAYS[2]}
    assert checks(result)["schema"].metadata["partitions_failed"].value == 1


@pytest.mark.parametrize("daily", [True, False])
def test_a_transform_that_fails_on_one_day_fails_that_day_only(use_case, load, lake, instance, daily):
    rows = {DAYS[0]: "1", DAYS[1]: "one", DAYS[2]: "3"}
    more = f"  transform: {ratio.__module__}.{ratio.__name__}\n"
    if daily:
        for day, amount in rows.items():
            csv(use_case, f"day,amount\n{day},{amount}\n", day)
        text = document("day: string, amount: number", daily=True, more=more)
    else:
        # In one file the text makes a text column of it, on which the transform fails on every day.
        sink = io.BytesIO()
        frame = pd.DataFrame({"day": list(rows), "amount": [1, "one", 3]})
        frame["amount"] = frame["amount"].map(lambda value: [value] if value == "one" else [])
        parquet.write_table(pa.Table.from_pandas(frame, preserve_index=False), sink)
        (use_case / "raw.parquet").write_bytes(sink.getvalue())
        more = f"  transform: {first_item.__module__}.{first_item.__name__}\n" + (
            '  partitions: {start: "2024-01-01", end: "2024-01-04", column: day}\n'
        )
        text = document("day: string, amount: number", source="format: parquet", more=more)
    result = materialize(load(text), instance, DAYS[0], DAYS[2], (ITEMS,))
    assert not result.success
    assert "1 of 3 partitions" in failure(result)
    assert DAYS[1] in failure(result)
    assert sorted(lake.read("datasets/items")["day"]) == [DAYS[0], DAYS[2]]


def first_item(raw: pd.DataFrame) -> pd.DataFrame:
    """Fails on rows whose list holds text."""
    return raw.assign(amount=[float(value[0]) if len(value) else 0.0 for value in raw["amount"]])


def moves_a_day(raw: pd.DataFrame) -> pd.DataFrame:
    """The rows of one raw day belong to the next; it fails on rows whose list holds text."""
    later = pd.to_datetime(raw["day"]) + pd.Timedelta(days=1)
    return first_item(raw).assign(day=later.dt.strftime("%Y-%m-%d"))


def test_a_failing_transform_that_moves_rows_between_days_fails_the_run(use_case, load, lake, instance):
    frame = pd.DataFrame({"day": DAYS, "amount": [[], ["one"], []]})
    parquet.write_table(pa.Table.from_pandas(frame, preserve_index=False), use_case / "raw.parquet")
    more = f"  transform: {moves_a_day.__module__}.{moves_a_day.__name__}\n" + (
        '  partitions: {start: "2024-01-01", end: "2024-01-05", column: day}\n'
    )
    defs = load(document("day: string, amount: number", source="format: parquet", more=more))
    result = materialize(defs, instance, DAYS[0], DAYS[2], (ITEMS,))
    assert "moves_a_day failed" in failure(result)
    assert not lake.exists("datasets/items")


def test_rows_of_no_day_that_can_exist_are_not_dropped(use_case, load, lake, instance):
    csv(use_case, "day,x\n2024-01-01,1\n2024-1-2,2\n")
    more = '  partitions: {start: "2024-01-01", end: "2024-01-04", column: day}\n'
    defs = load(document("day: string, x: integer", more=more))
    result = materialize(defs, instance, DAYS[0], DAYS[0], (ITEMS,))
    assert "1 of 2 rows of raw.csv have a day that is the key of no partition" in failure(result)
    assert "'2024-1-2'" in failure(result)
    assert not lake.exists("datasets/items")


SUITES = {
    "largest time": (
        "expect_column_max_to_be_between",
        'column: t, min_value: "2024-01-01T00:00:00+00:00"',
        True,
    ),
    "largest time too early": (
        "expect_column_max_to_be_between",
        'column: t, min_value: "2024-02-01T00:00:00+00:00"',
        False,
    ),
    "smallest time": (
        "expect_column_min_to_be_between",
        'column: t, max_value: "2024-02-01T00:00:00+00:00"',
        True,
    ),
    "values of a text": (
        "expect_column_unique_value_count_to_be_between",
        "column: name, min_value: 1",
        True,
    ),
    "most common text": (
        "expect_column_most_common_value_to_be_in_set",
        "column: name, value_set: [a]",
        True,
    ),
    "set of a text": ("expect_column_distinct_values_to_equal_set", "column: name, value_set: [a]", True),
    "times in a set": (
        "expect_column_values_to_be_in_set",
        'column: t, value_set: ["2024-01-01T00:00:00+00:00"]',
        None,
    ),
    "times between": (
        "expect_column_values_to_be_between",
        'column: t, min_value: "2024-01-01T00:00:00+00:00"',
        True,
    ),
    "days between": ("expect_column_values_to_be_between", 'column: d, min_value: "2024-01-01"', True),
    "largest day": ("expect_column_max_to_be_between", 'column: d, max_value: "2024-01-31"', True),
    "booleans": ("expect_column_mean_to_be_between", "column: flag, min_value: 0", None),
}


@pytest.mark.parametrize("kind", SUITES)
def test_a_statistic_of_times_or_text_is_judged_or_an_error_of_its_day(use_case, load, lake, instance, kind):
    expectation, kwargs, met = SUITES[kind]
    for day in DAYS[:2]:
        csv(use_case, f"t,d,name,flag\n{day}T00:00:00Z,{day},a,true\n", day)
    more = f"  suite:\n    - {{type: {expectation}, kwargs: {{{kwargs}}}}}\n"
    text = document("day: string, t: timestamp, d: date, name: string, flag: boolean", daily=True, more="")
    result = materialize(load(text + more), instance, DAYS[0], DAYS[1], (ITEMS,))
    check = checks(result)["expectations"]
    if met is None:
        # Great Expectations' own business; whatever it makes of it, no day ends the run for the others.
        assert check.passed or "partitions_failed" in check.metadata
        return
    assert check.passed is met
    assert "errored" not in check.metadata


def test_a_row_rule_that_raises_on_one_day_fails_that_day_only(use_case, load, lake, instance):
    for day, text in zip(DAYS, ("{}", "not json", "{}"), strict=True):
        csv(use_case, f"x\n{text}\n", day)
    rule = "expect_column_values_to_match_json_schema, kwargs: {column: x, json_schema: {type: object}}"
    more = f"  row_rules:\n    - {{type: {rule}}}\n"
    defs = load(document("day: string, x: string", daily=True, more=more))
    result = materialize(defs, instance, DAYS[0], DAYS[2], (ITEMS,))
    assert sorted(lake.read("datasets/items")["day"]) == [DAYS[0], DAYS[2]]
    assert DAYS[1] in failure(result)


def test_a_day_that_a_rule_forbids_is_forbidden_however_it_is_written(use_case, load, lake, instance):
    rule = 'expect_column_values_to_not_be_in_set, kwargs: {column: d, value_set: ["1900-01-01"]}'
    csv(use_case, "id,d\n1,1900-01-01\n2,2024-01-02\n")
    more = f"  max_quarantine_share: 0.5\n  row_rules:\n    - {{type: {rule}}}\n"
    assert make(load(document("id: integer, d: date", more=more)), instance).success
    assert lake.read("datasets/items")["id"].tolist() == [2]
    assert lake.read("quarantine/items")["id"].tolist() == [1]


def test_a_source_that_nobody_can_reach_fails_the_run_and_says_so(
    use_case, load, lake, instance, monkeypatch
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    text = document("day: string, x: integer", daily=True).replace('"raw/', '"s3://bucket/raw/')
    defs = load(text)
    unreachable = type(lake)(
        uri=lake.uri, s3={"endpoint_url": "http://127.0.0.1:9", "region_name": "us-east-1"}
    )
    defs = dg.Definitions.merge(
        dg.Definitions(assets=defs.assets), dg.Definitions(resources={"lake": unreachable})
    )
    result = materialize(defs, instance, DAYS[0], DAYS[2], (ITEMS,))
    assert "Cannot read anything from s3://bucket" in failure(result)
    assert "partitions are not good enough" not in failure(result)
