"""Faults are found in the partitions that have them, or stop everything when nobody can say where."""

import pandas as pd
import pytest

from mlops_assets.data.loading import Source, load
from mlops_assets.data.sources import FileReader
from mlops_assets.data.sources.csv_format import CsvFormat
from mlops_assets.errors import DataError
from mlops_assets.resources.lake import Lake

COLUMNS = {"day": "string", "id": "integer"}


def from_file(folder, text, partitions=("2024-01-01", "2024-01-02"), transform=None, columns=COLUMNS):
    (folder / "all.csv").write_text(text, encoding="utf-8")
    return run(Source(FileReader("all.csv", CsvFormat(), folder), transform), partitions, columns)


def run(source, partitions, columns=COLUMNS):
    return load(source, columns, partition_column="day", partitions=partitions, lake=Lake(uri="unused"))


def test_one_file_for_all_gives_the_asked_for_days(tmp_path):
    text = "day,id\n2024-01-01,1\n2024-01-02,2\n2024-01-03,3\n"
    loaded = from_file(tmp_path, text)
    assert loaded.frame.to_dict("list") == {"day": ["2024-01-01", "2024-01-02"], "id": [1, 2]}
    assert loaded.findings == []


def test_a_wrong_value_is_found_in_its_day_only(tmp_path):
    loaded = from_file(tmp_path, "day,id\n2024-01-01,1\n2024-01-02,x\n2024-01-02,y\n2024-01-03,z\n")
    (finding,) = loaded.findings
    assert finding.partition == "2024-01-02"
    assert finding.observed == "2 values that do not fit, e.g. 'x'"


def test_a_missing_column_is_missing_on_every_day(tmp_path):
    loaded = from_file(tmp_path, "day\n2024-01-01\n")
    assert [(found.partition, found.observed) for found in loaded.findings] == [
        ("2024-01-01", "missing: id"),
        ("2024-01-02", "missing: id"),
    ]


def test_a_missing_partition_column_is_found_on_every_day(tmp_path):
    loaded = from_file(tmp_path, "id\n1\n")
    assert [found.expected for found in loaded.findings] == ["a column day"] * 2


def test_rows_without_a_day_stop_everything(tmp_path):
    with pytest.raises(DataError, match=r"1 of 2 rows of all\.csv have no day"):
        from_file(tmp_path, "day,id\n2024-01-01,1\n,2\n")


def test_a_failing_transform_stops_everything_and_is_named(tmp_path):
    def explode(raw: pd.DataFrame) -> pd.DataFrame:
        return raw[["absent"]]

    with pytest.raises(DataError, match=r"explode failed .* KeyError.* Columns read: day, id") as caught:
        from_file(tmp_path, "day,id\n2024-01-01,1\n", transform=explode)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_file_per_day_names_its_day_and_must_hold_no_other(tmp_path):
    (tmp_path / "2024-01-01.csv").write_text("id\n1\n")
    (tmp_path / "2024-01-02.csv").write_text("day,id\n2024-01-02,1\n2024-01-09,2\n")
    loaded = run(Source(FileReader("{partition}.csv", CsvFormat(), tmp_path)), ["2024-01-01", "2024-01-02"])
    assert loaded.frame.to_dict("list") == {"day": ["2024-01-01"], "id": [1]}
    (finding,) = loaded.findings
    assert finding.partition == "2024-01-02"
    assert finding.observed == "1 rows of others, e.g. '2024-01-09'"


def test_a_fault_in_one_file_leaves_the_other_days(tmp_path):
    (tmp_path / "2024-01-01.csv").write_text("id\n1\n2")
    (tmp_path / "2024-01-02.csv").write_text("id\n3\n")

    def check(raw: pd.DataFrame) -> pd.DataFrame:
        return raw.assign(id=raw["id"] * 2)

    loaded = run(
        Source(FileReader("{partition}.csv", CsvFormat(), tmp_path), check),
        ["2024-01-01", "2024-01-02", "2024-01-03"],
    )
    assert loaded.frame.to_dict("list") == {"day": ["2024-01-02"], "id": [6]}
    assert [found.partition for found in loaded.findings] == ["2024-01-01", "2024-01-03"]
    assert "looks cut off" in loaded.findings[0].observed
    assert "does not exist" in loaded.findings[1].observed


def test_no_readable_file_at_all_still_has_the_columns(tmp_path):
    loaded = run(Source(FileReader("{partition}.csv", CsvFormat(), tmp_path)), ["2024-01-01"])
    assert list(loaded.frame.columns) == ["day", "id"]
    assert len(loaded.findings) == 1


def test_declared_text_keeps_its_leading_zeros(tmp_path):
    loaded = from_file(tmp_path, "day,id\n2024-01-01,007\n", columns={"day": "string", "id": "string"})
    assert loaded.frame["id"].tolist() == ["007"]


def twice(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.assign(id=raw["id"] * 2)


def first_two(raw: pd.DataFrame) -> pd.DataFrame:
    return raw.head(2)


def test_text_that_a_transform_computes_is_no_number(tmp_path):
    rows = "2024-01-01,12\n2024-01-02,13\n"
    assert from_file(tmp_path, f"day,id\n{rows}", transform=twice).frame["id"].tolist() == [24, 26]
    # One text in the column, on another day: '12' times two is '1212'.
    loaded = from_file(tmp_path, f"day,id\n{rows}2024-01-03,n/a\n", transform=twice)
    assert loaded.frame["id"].isna().all()
    assert [(found.partition, found.observed) for found in loaded.findings] == [
        ("2024-01-01", "1 values that do not fit, e.g. '1212'"),
        ("2024-01-02", "1 values that do not fit, e.g. '1313'"),
    ]
    assert "an integer that a transform computes is not text" in loaded.findings[0].expected
    assert from_file(tmp_path, f"day,id\n{rows}x,n/a\n", transform=first_two).findings


@pytest.mark.parametrize(
    ("kind", "fields", "values"),
    [
        ("integer", ["007", "+5"], [7, 5]),
        ("number", ["007", "1.50"], [7.0, 1.5]),
        ("boolean", ["true", "0"], [True, False]),
    ],
)
def test_text_that_goes_through_a_transform_is_what_it_is_declared_as(tmp_path, kind, fields, values):
    text = f"day,x\n2024-01-01,{fields[0]}\n2024-01-02,{fields[1]}\n"
    loaded = from_file(tmp_path, text, transform=first_two, columns={"day": "string", "x": kind})
    assert loaded.findings == []
    assert loaded.frame["x"].tolist() == values


def fails_on_two(raw: pd.DataFrame) -> pd.DataFrame:
    if (raw["id"] == 2).any():
        raise ValueError("two")
    return raw


def adds_up(raw: pd.DataFrame) -> pd.DataFrame:
    return fails_on_two(raw).assign(id=raw["id"].cumsum())


def test_a_day_that_depends_on_a_failing_one_is_not_written(tmp_path):
    text = "day,id\n2024-01-01,1\n2024-01-02,2\n2024-01-03,3\n"
    days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    loaded = from_file(tmp_path, text, days, fails_on_two)
    assert loaded.frame["id"].tolist() == [1, 3]
    assert [found.partition for found in loaded.findings] == ["2024-01-02"]
    with pytest.raises(DataError, match="makes something else of 2024-01-03 beside other days than alone"):
        from_file(tmp_path, text, days, adds_up)


def test_a_partition_column_of_another_type_is_named(tmp_path):
    def as_time(raw: pd.DataFrame) -> pd.DataFrame:
        return raw.assign(day=pd.to_datetime(raw["day"]))

    with pytest.raises(
        DataError, match=r"1 of 1 rows of all\.csv have a day that is no text, for example 2024"
    ):
        from_file(tmp_path, "day,id\n2024-01-01,1\n", transform=as_time)
