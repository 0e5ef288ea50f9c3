"""Faults are found in the partitions that have them, or stop everything when nobody can say where."""

import pandas as pd
import pytest

from mlops_assets.data.loading import Source, load
from mlops_assets.data.sources import CsvFormat
from mlops_assets.errors import DataError

COLUMNS = {"day": "string", "id": "integer"}


def from_file(folder, text, partitions=("2024-01-01", "2024-01-02"), transform=None, columns=COLUMNS):
    (folder / "all.csv").write_text(text, encoding="utf-8")
    return run(Source("all.csv", CsvFormat(), folder, transform), partitions, columns)


def run(source, partitions, columns=COLUMNS):
    return load(source, columns, partition_column="day", partitions=partitions, s3_options=dict)


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
    loaded = run(Source("{partition}.csv", CsvFormat(), tmp_path), ["2024-01-01", "2024-01-02"])
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
        Source("{partition}.csv", CsvFormat(), tmp_path, check), ["2024-01-01", "2024-01-02", "2024-01-03"]
    )
    assert loaded.frame.to_dict("list") == {"day": ["2024-01-02"], "id": [6]}
    assert [found.partition for found in loaded.findings] == ["2024-01-01", "2024-01-03"]
    assert "looks cut off" in loaded.findings[0].observed
    assert "does not exist" in loaded.findings[1].observed


def test_no_readable_file_at_all_still_has_the_columns(tmp_path):
    loaded = run(Source("{partition}.csv", CsvFormat(), tmp_path), ["2024-01-01"])
    assert list(loaded.frame.columns) == ["day", "id"]
    assert len(loaded.findings) == 1


def test_declared_text_keeps_its_leading_zeros(tmp_path):
    loaded = from_file(tmp_path, "day,id\n2024-01-01,007\n", columns={"day": "string", "id": "string"})
    assert loaded.frame["id"].tolist() == ["007"]
