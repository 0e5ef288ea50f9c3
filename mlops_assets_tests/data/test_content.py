"""Content versions say the same about the same content and differ with any difference."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pytest

from mlops_assets.data.content import content_version, content_versions


def frame(rows: int = 200) -> pd.DataFrame:
    random = np.random.default_rng(7)
    numbers = random.normal(size=rows)
    numbers[::5] = np.nan
    return pd.DataFrame(
        {
            "day": random.choice(["2024-01-01", "2024-01-02", "2024-01-03"], rows),
            "text": [None if index % 7 == 0 else f"name {index % 11}" for index in range(rows)],
            "number": numbers,
            "count": pd.array([None if index % 9 == 0 else index for index in range(rows)], dtype="Int64"),
            "flag": random.random(rows) > 0.5,
            "at": pd.date_range("2024-01-01", periods=rows, freq="h", tz="UTC").as_unit("us"),
        }
    )


def test_rows_and_columns_in_another_order_are_the_same_content():
    one = frame()
    shuffled = one.sample(frac=1, random_state=1)[list(reversed(one.columns))]
    assert content_version(shuffled) == content_version(one)


@pytest.mark.parametrize("column", ["day", "text", "number", "count", "flag", "at"])
def test_one_changed_value_is_another_content(column):
    one, other = frame(), frame()
    other.loc[1, column] = other.loc[4, column] if column != "flag" else not other.loc[1, "flag"]
    assert not other.equals(one)
    assert content_version(other) != content_version(one)


@pytest.mark.parametrize("column", ["text", "number", "count", "at"])
def test_a_missing_value_is_not_an_empty_or_zero_one(column):
    one, other = frame(), frame()
    one.loc[3, column] = {"text": "", "number": 0.0, "count": 0, "at": pd.Timestamp(0, tz="UTC")}[column]
    other.loc[3, column] = None
    assert content_version(other) != content_version(one)


def test_swapped_columns_of_the_same_values_differ():
    one = pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, 1.0]})
    other = pd.DataFrame({"a": [2.0, 1.0], "b": [2.0, 1.0]})
    assert content_version(other) != content_version(one)


def test_how_often_a_row_occurs_matters():
    one = frame()
    assert content_version(pd.concat([one, one.iloc[[0]]])) != content_version(one)
    twice, thrice = pd.concat([one, one.iloc[[0]]] * 1), pd.concat([one, one.iloc[[0]], one.iloc[[0]]])
    assert content_version(thrice) != content_version(twice)


def test_another_column_name_or_kind_is_another_content():
    one = frame()
    assert content_version(one.rename(columns={"flag": "mark"})) != content_version(one)
    assert content_version(one.assign(flag=one["flag"].astype("int64"))) != content_version(one)


def test_a_column_without_a_value_says_nothing():
    one = frame()
    assert content_version(one.assign(new=None)) == content_version(one)
    assert content_version(one.assign(new=None).iloc[:0]) == content_version(one.iloc[:0])
    assert content_version(one.iloc[:0]) != content_version(one.iloc[:1])


def test_a_day_keeps_its_version_when_only_other_days_have_a_value_in_a_new_column():
    one = frame()
    of_day = one["day"] == "2024-01-02"
    grown = one.assign(new=np.where(of_day, 1.0, np.nan))
    before, after = content_versions(one, "day"), content_versions(grown, "day")
    assert {day for day in before if before[day] != after[day]} == {"2024-01-02"}
    assert content_version(grown[~of_day]) == content_version(one[~of_day])


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pd.Series([1.0, None]), pd.Series([1.0, np.nan])),
        (pd.Series([0.0]), pd.Series([-0.0])),
        (pd.Series([1, 2]), pd.Series([1, 2], dtype="Int64")),
        (pd.Series([1, 2], dtype="int32"), pd.Series([1, 2])),
        (pd.Series([True, False]), pd.Series([True, False], dtype="boolean")),
        (pd.Series(["a", None]), pd.Series(["a", np.nan], dtype=object)),
        (pd.Series(["a", "b"]), pd.Series(["a", "b"], dtype="category")),
        (pd.Series(["a", None]), pd.Series(["a", pd.NA], dtype="string")),
        (
            pd.Series(pd.to_datetime(["2024-01-01T12:00Z"])),
            pd.Series(pd.to_datetime(["2024-01-01T07:00-05:00"])).dt.as_unit("us"),
        ),
    ],
)
def test_the_same_values_held_differently_are_the_same_content(left, right):
    assert content_version(left.to_frame("x")) == content_version(right.to_frame("x"))


def test_the_version_of_a_partition_is_that_of_its_rows_alone():
    one = frame()
    versions = content_versions(one, "day")
    assert list(versions) == ["2024-01-01", "2024-01-02", "2024-01-03"]
    for day, version in versions.items():
        assert content_version(one[one["day"] == day]) == version


def test_a_partition_without_a_value_in_a_column_has_the_version_of_its_rows_alone():
    one = pd.DataFrame({"day": ["1", "2"], "on": [datetime.date(2024, 1, 1), None], "name": [None, "x"]})
    one["count"] = pd.array([None, 2], dtype="Int64")
    for day, version in content_versions(one, "day").items():
        alone = one[one["day"] == day]
        assert content_version(alone) == version
        if day == "2":
            assert content_version(alone.assign(count=alone["count"].astype("int64"))) == version


def test_a_change_in_one_partition_leaves_the_others():
    one, other = frame(), frame()
    row = other.index[other["day"] == "2024-01-02"][0]
    other.loc[row, "number"] = 99.0
    before, after = content_versions(one, "day"), content_versions(other, "day")
    assert {day for day in before if before[day] != after[day]} == {"2024-01-02"}


def test_dates_are_content_and_other_objects_an_error():
    days = pd.DataFrame({"day": [datetime.date(2024, 1, 1), None]})
    assert content_version(days) != content_version(days.iloc[:1])
    assert content_version(days) != content_version(pd.DataFrame({"day": ["2024-01-01", None]}))
    with pytest.raises(TypeError, match="cannot version a Decimal"):
        content_version(pd.DataFrame({"x": [decimal.Decimal(1)]}))


def test_a_row_without_partition_is_an_error():
    with pytest.raises(ValueError, match="1 rows have no day"):
        content_versions(pd.DataFrame({"day": ["2024-01-01", None]}), "day")


def test_the_version_is_the_same_in_every_process_and_release():
    assert content_version(pd.DataFrame({"a": [1, 2], "b": ["x", None]})) == "3fdfa54bbe5de5ed8c58"
