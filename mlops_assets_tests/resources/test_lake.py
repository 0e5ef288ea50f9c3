"""A write replaces exactly what it names, in one commit, and a read gives back the same content."""

import datetime
import os
import threading
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlops_assets.data.content import content_version
from mlops_assets.data.loading import Source, load
from mlops_assets.data.schema import column_schema, type_name, typed_table
from mlops_assets.data.sources import FileReader
from mlops_assets.data.sources.csv_format import CsvFormat
from mlops_assets.errors import DataError
from mlops_assets.resources.lake import Lake, S3Config

TABLE = "datasets/sales"
COMMIT = {"run_id": "run-1"}


def sales(*days: str, amount: float = 1.0, rows: int = 3) -> pd.DataFrame:
    return pd.DataFrame({"day": np.repeat(list(days), rows), "amount": amount, "id": range(rows * len(days))})


def table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)


def write(lake: Lake, frame: pd.DataFrame, *days: str):
    return lake.write(TABLE, table(frame), partition_column="day", partitions=list(days), commit=COMMIT)


def amounts(lake: Lake, **options) -> dict[str, float]:
    return lake.read(TABLE, **options).groupby("day")["amount"].sum().to_dict()


def test_a_range_is_one_commit_with_its_metadata(lake):
    wrote = write(lake, sales("a", "b", "c"), "a", "b", "c")
    assert (wrote.version, wrote.rows, wrote.uri) == (0, 9, lake.table_uri(TABLE))
    (commit,) = lake.history(TABLE)
    assert commit["run_id"] == "run-1"


def test_a_write_replaces_exactly_the_named_partitions(lake):
    write(lake, sales("a", "b", "c"), "a", "b", "c")
    assert write(lake, sales("b", amount=5.0), "b").version == 1
    assert amounts(lake) == {"a": 3.0, "b": 15.0, "c": 3.0}


def test_a_named_partition_without_rows_becomes_empty(lake):
    write(lake, sales("a", "b"), "a", "b")
    write(lake, sales("a", amount=2.0), "a", "b")
    assert amounts(lake) == {"a": 6.0}
    write(lake, sales("a").iloc[:0], "a")
    assert lake.read(TABLE).empty
    assert list(lake.read(TABLE).columns) == ["day", "amount", "id"]


def test_rows_outside_the_named_partitions_are_refused(lake):
    with pytest.raises(DataError, match=r"outside those to be replaced were given: \['b'\]"):
        write(lake, sales("a", "b"), "a")
    with pytest.raises(DataError, match="1 rows have no day"):
        write(lake, pd.DataFrame({"day": ["a", None], "amount": 1.0, "id": 1}), "a")
    assert not lake.exists(TABLE)


def test_a_table_without_partitions_is_replaced_as_a_whole(lake):
    for frame in (sales("a"), sales("b").rename(columns={"amount": "price"})):
        lake.write("datasets/plain", table(frame), partition_column=None, partitions=None, commit=COMMIT)
    found = lake.read("datasets/plain")
    assert set(found["day"]) == {"b"}
    assert list(found.columns) == ["day", "price", "id"]


def test_earlier_versions_stay_readable(lake):
    write(lake, sales("a"), "a")
    write(lake, sales("a", amount=7.0), "a")
    assert amounts(lake, version=0) == {"a": 3.0}
    assert amounts(lake) == {"a": 21.0}
    assert lake.version(TABLE) == 1
    with pytest.raises(DataError, match="at version 9"):
        lake.read(TABLE, version=9)


def test_a_read_can_name_partitions_and_columns(lake):
    write(lake, sales("a", "b", "c"), "a", "b", "c")
    found = lake.read(TABLE, partitions=["a", "c"], partition_column="day", columns=["day"])
    assert found["day"].value_counts().to_dict() == {"a": 3, "c": 3}
    assert list(found.columns) == ["day"]
    assert lake.read(TABLE, partitions=[], partition_column="day").empty


def test_content_survives_the_round_trip(lake):
    frame = pd.DataFrame(
        {
            "day": ["a", "a", "b"],
            "text": ["x", None, ""],
            "nothing": [None, None, None],
            "number": [1.5, np.nan, -0.0],
            "whole": [1, 2, 3],
            "count": pd.array([1, None, 2**60 + 1], dtype="Int64"),
            "flag": [True, False, True],
            "maybe": pd.array([True, None, False], dtype="boolean"),
            "at": pd.to_datetime(
                ["2024-01-01T00:00:00.123456Z", None, "2024-06-01T12:00Z"], format="ISO8601"
            ),
            "on": [pd.Timestamp("2024-01-01").date(), None, None],
        }
    )
    kinds = {
        **{"day": "string", "text": "string", "nothing": "integer", "number": "number", "whole": "integer"},
        **{"count": "integer", "flag": "boolean", "maybe": "boolean", "at": "timestamp", "on": "date"},
    }
    rows = typed_table(frame, column_schema(kinds))
    lake.write(TABLE, rows, partition_column="day", partitions=["a", "b"], commit=COMMIT)
    assert lake.columns(TABLE) == rows.schema
    found = lake.read(TABLE)
    assert content_version(found) == content_version(frame)
    assert str(found["at"].dtype) == "datetime64[us, UTC]"
    assert found["count"].dropna().max() == 2**60 + 1
    for day in ("a", "b"):
        part = lake.read(TABLE, partitions=[day], partition_column="day")
        assert content_version(part) == content_version(frame[frame["day"] == day])


@pytest.mark.parametrize("changed", ["text", 7, datetime.date(2024, 1, 1)])
def test_another_type_is_refused_while_partitions_of_the_old_one_remain(lake, changed):
    write(lake, sales("a", "b", "c"), "a", "b", "c")
    with pytest.raises(DataError) as caught:
        write(lake, sales("b", "d").assign(amount=changed), "b", "d")
    kind = type_name(table(pd.DataFrame({"x": [changed]})).schema.field("x").type)
    assert f"column 'amount' is number in the table and {kind} as declared" in str(caught.value)
    assert "2 partitions of the old form would remain, a first" in str(caught.value)
    assert "dg launch --assets 'key:\"sales\"' --partition-range a...d" in str(caught.value)
    assert amounts(lake) == {"a": 3.0, "b": 3.0, "c": 3.0}


def test_a_table_made_anew_with_all_its_partitions_has_the_new_types_and_no_old_column(lake):
    write(lake, sales("a", "b").assign(old=1), "a", "b")
    write(lake, sales("a", "b", "c").assign(amount="00501"), "a", "b", "c")
    assert lake.columns(TABLE) == table(sales("a").assign(amount="x")).schema
    assert set(lake.read(TABLE)["amount"]) == {"00501"}
    # And from then on a day is a day again.
    write(lake, sales("b").assign(amount="7"), "b")
    assert lake.read(TABLE).groupby("day")["amount"].first().to_dict() == {
        "a": "00501",
        "b": "7",
        "c": "00501",
    }


def test_another_partition_column_is_refused_while_old_partitions_remain(lake):
    write(lake, sales("a", "b").assign(week="w1"), "a", "b")
    moved = sales("a", "b").assign(week="w1")
    with pytest.raises(DataError, match="partitioned by day, and as declared by week"):
        lake.write(
            TABLE, table(moved.assign(week="w2")), partition_column="week", partitions=["w2"], commit=COMMIT
        )
    lake.write(TABLE, table(moved), partition_column="week", partitions=["w1"], commit=COMMIT)
    assert lake.read(TABLE, partitions=["w1"], partition_column="week")["day"].nunique() == 2
    lake.write(TABLE, table(sales("a")), partition_column=None, partitions=None, commit=COMMIT)
    assert len(lake.read(TABLE)) == 3


def test_a_partition_column_that_the_table_never_had_loses_no_partition(lake):
    write(lake, sales("a", "b"), "a", "b")
    renamed = sales("a").rename(columns={"day": "date"})

    def replace(*days: str):
        rows = table(sales(*days).rename(columns={"day": "date"}))
        return lake.write(TABLE, rows, partition_column="date", partitions=list(days), commit=COMMIT)

    with pytest.raises(DataError, match="1 partitions of the old form would remain, b first"):
        replace("a")
    assert amounts(lake) == {"a": 3.0, "b": 3.0}
    replace("a", "b")
    assert set(lake.read(TABLE)["date"]) == {"a", "b"}

    plain = "datasets/plain"
    lake.write(plain, table(sales("a", "b")), partition_column=None, partitions=None, commit=COMMIT)
    with pytest.raises(
        DataError, match=r"nobody can say which of them would remain. Delete .*/plain/ to begin"
    ):
        lake.write(plain, table(renamed), partition_column="date", partitions=["a"], commit=COMMIT)
    assert len(lake.read(plain)) == 6


class Overtaken(Lake):
    """A lake in which another run writes ``other`` right after the table was opened for a write."""

    def _open_or_none(self, table, version=None):
        found = super()._open_or_none(table, version)
        if OTHER:
            frame, days = OTHER.pop()
            write(Lake(uri=self.uri, s3=self.s3), frame, *days)
        return found


OTHER: list[tuple[pd.DataFrame, list[str]]] = []


def test_two_runs_that_make_a_table_at_once_both_succeed(lake):
    OTHER.append((sales("a"), ["a"]))
    assert write(Overtaken(uri=lake.uri, s3=lake.s3), sales("b", amount=5.0), "b").version == 1
    assert amounts(lake) == {"a": 3.0, "b": 15.0}


def test_a_table_made_anew_is_refused_when_another_partition_came_in_between(lake):
    write(lake, sales("a"), "a")
    OTHER.append((sales("b"), ["b"]))
    text = sales("a").assign(amount="00501")
    with pytest.raises(DataError, match="Cannot write 3 rows to table"):
        write(Overtaken(uri=lake.uri, s3=lake.s3), text, "a")
    assert amounts(lake) == {"a": 3.0, "b": 3.0}
    with pytest.raises(DataError, match="1 partitions of the old form would remain, b first"):
        write(lake, text, "a")


def test_a_write_can_be_refused_before_it_is_made(lake):
    write(lake, sales("a", "b"), "a", "b")
    schema = table(sales("a").assign(amount="00501")).schema
    with pytest.raises(DataError, match="column 'amount' is number in the table and string as declared"):
        lake.require_writable(TABLE, schema, partition_column="day", partitions=["a"])
    lake.require_writable(TABLE, schema, partition_column="day", partitions=["a", "b"])


def test_a_version_stays_readable_after_a_month_and_a_hundred_commits(tmp_path):
    lake = Lake(uri=str(tmp_path))
    write(lake, sales("a", amount=7.0), "a")
    log = Path(lake.table_uri(TABLE)) / "_delta_log"
    for _ in range(101):
        for file in log.iterdir():
            os.utime(file, (0, 0))
        write(lake, sales("a").iloc[:0], "a")
    assert amounts(lake, version=0) == {"a": 21.0}


@pytest.mark.parametrize(
    "column",
    ["order date", "order-date", "a.b", 'a"b', "a`b", "a'b", "a/b", "a=b", "select", "Tag", "日", "%20"],
)
def test_any_printable_name_can_be_the_partition_column(tmp_path, column):
    lake = Lake(uri=str(tmp_path))
    for day, amount in (("a", 1.0), ("b", 1.0), ("a", 2.0), ("a", 3.0)):
        frame = sales(day, amount=amount).rename(columns={"day": column})
        lake.write(TABLE, table(frame), partition_column=column, partitions=[day], commit=COMMIT)
    assert lake.read(TABLE).groupby(column)["amount"].sum().to_dict() == {"a": 9.0, "b": 3.0}
    assert len(lake.read(TABLE, partitions=["b"], partition_column=column)) == 3


def test_a_new_column_is_missing_in_earlier_partitions(lake):
    write(lake, sales("a"), "a")
    write(lake, sales("b").assign(shop="x"), "b")
    assert lake.read(TABLE).groupby("day")["shop"].count().to_dict() == {"a": 0, "b": 3}


def test_an_absent_table_or_column_is_named_with_what_there_is(lake):
    write(lake, sales("a"), "a")
    with pytest.raises(
        DataError, match=r"no table 'datasets/shops'.*Tables of kind 'datasets': datasets/sales\."
    ):
        lake.read("datasets/shops")
    with pytest.raises(DataError, match=r"no columns \['price'\]. It has: day, amount, id"):
        lake.read(TABLE, columns=["price"])


def test_concurrent_writers_of_different_partitions_all_succeed(lake):
    days = [f"day {number}" for number in range(6)]
    write(lake, sales(*days), *days)
    failures = []

    def rewrite(day):
        try:
            write(lake, sales(day, amount=2.0), day)
        except DataError as error:
            failures.append(error)

    threads = [threading.Thread(target=rewrite, args=(day,)) for day in days]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert amounts(lake) == dict.fromkeys(days, 6.0)
    assert lake.version(TABLE) == 6


def test_a_quote_in_a_partition_key_is_only_text(lake):
    write(lake, sales("o'clock", "b"), "o'clock", "b")
    write(lake, sales("o'clock", amount=2.0), "o'clock")
    assert amounts(lake) == {"b": 3.0, "o'clock": 6.0}


def test_packages_lie_under_the_same_root(lake):
    assert lake.package_uri("flights", "v1") == lake.table_uri("packages/flights/v1")


def test_a_relative_root_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Lake(uri="lake").table_uri("datasets/x") == str(tmp_path / "lake/datasets/x")


def test_the_s3_fields_are_those_of_dagster_aws():
    from dagster_aws.s3 import S3Resource

    for name, field in S3Config.model_fields.items():
        assert S3Resource.model_fields[name].default == field.default
    resource = S3Config(endpoint_url="http://127.0.0.1:1", region_name="eu-central-1").resource()
    assert (resource.endpoint_url, resource.region_name) == ("http://127.0.0.1:1", "eu-central-1")


def test_credentials_come_from_botos_chain_and_plain_http_only_where_declared(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    options = Lake(uri="s3://b/p", s3=S3Config(endpoint_url="https://store")).storage_options()
    assert options["AWS_ACCESS_KEY_ID"] == "from-the-environment"
    assert "AWS_ALLOW_HTTP" not in options
    options = Lake(uri="s3://b/p", s3=S3Config(endpoint_url="http://store")).storage_options()
    assert options["AWS_ALLOW_HTTP"] == "true"
    assert Lake(uri="/local").storage_options() == {}


def test_no_credentials_anywhere_is_an_error_that_says_where_they_go(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(DataError, match="Set AWS_ACCESS_KEY_ID"):
        Lake(uri="s3://b/p").storage_options()


def test_a_source_file_in_s3_is_read_with_the_lakes_credentials(s3_server, s3_config, tmp_path):
    s3_server.client().put_object(Bucket=s3_server.bucket, Key="raw/a.csv", Body=b"id\n1\n2\n")
    lake = Lake(uri=str(tmp_path), s3=s3_config)
    source = Source(FileReader(f"s3://{s3_server.bucket}/raw/{{partition}}.csv", CsvFormat(), tmp_path))
    loaded = load(
        source,
        {"id": "integer", "day": "string"},
        partition_column="day",
        partitions=["a", "b"],
        lake=lake,
    )
    assert loaded.frame.to_dict("list") == {"id": [1, 2], "day": ["a", "a"]}
    (finding,) = loaded.findings
    assert finding.partition == "b" and "does not exist" in finding.observed


def test_an_asset_uses_the_lake_as_a_configured_resource(lake):
    @dg.asset
    def made(lake: Lake):
        write(lake, sales("a"), "a")

    assert dg.materialize([made], resources={"lake": lake}).success
    assert amounts(lake) == {"a": 3.0}
