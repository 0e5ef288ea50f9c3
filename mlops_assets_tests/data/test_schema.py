"""Declared types: what reads as one does, and what does not is named."""

import datetime

import numpy as np
import pandas as pd
import pytest

from mlops_assets.data.schema import conform


def converted(values, kind):
    frame = pd.DataFrame({"x": pd.Series(values)})
    return conform(frame, {"x": kind})


@pytest.mark.parametrize(
    ("values", "kind", "dtype"),
    [
        (["a", None], "string", "object"),
        ([1, 2], "integer", "int64"),
        ([1.0, None], "integer", "Int64"),
        (["1", "2"], "integer", "int64"),
        ([1, 2], "number", "float64"),
        (["1.5", None], "number", "float64"),
        ([True, False], "boolean", "bool"),
        (["true", "False", None], "boolean", "boolean"),
        ([1, 0], "boolean", "bool"),
        (["2024-01-01T00:00:00Z", None], "timestamp", "datetime64[us, UTC]"),
        ([pd.Timestamp("2024-01-01")], "timestamp", "datetime64[us, UTC]"),
        (["2024-01-01", None], "date", "object"),
        ([None, None], "string", "object"),
        ([None, None], "integer", "Int64"),
        ([None, None], "timestamp", "datetime64[us, UTC]"),
    ],
)
def test_values_that_read_as_the_type_have_it(values, kind, dtype):
    result = converted(values, kind)
    assert result.misfits == {}
    assert str(result.frame["x"].dtype) == dtype
    assert result.frame["x"].isna().tolist() == pd.isna(pd.Series(values)).tolist()


@pytest.mark.parametrize(
    ("values", "kind", "wrong"),
    [
        ([1, 2], "string", [True, True]),
        (["a", 3], "string", [False, True]),
        ([1.5, 2.0], "integer", [True, False]),
        (["1", "x"], "integer", [False, True]),
        ([2.0**60, 1.0], "integer", [True, False]),
        ([True, False], "integer", [True, True]),
        (["1", "x"], "number", [False, True]),
        ([np.inf, 1.0], "number", [True, False]),
        ([True], "number", [True]),
        (["yes", "true"], "boolean", [True, False]),
        ([2, 1], "boolean", [True, False]),
        (["2024-13-01", "2024-01-01"], "timestamp", [True, False]),
        ([1704067200], "timestamp", [True]),
        (["soon"], "date", [True]),
    ],
)
def test_values_that_do_not_are_missing_and_marked(values, kind, wrong):
    result = converted(values, kind)
    assert result.misfits["x"].rows.tolist() == wrong
    assert result.frame["x"].isna().tolist() == wrong
    value = pd.Series(values)[wrong.index(True)]
    assert result.misfits["x"].example == (repr(value) if isinstance(value, str) else str(value))


def test_a_zone_is_converted_and_none_means_utc():
    result = converted(["2024-07-01T08:00:00-04:00"], "timestamp").frame["x"][0]
    assert result == pd.Timestamp("2024-07-01T12:00Z")
    assert converted(["2024-07-01T08:00:00"], "timestamp").frame["x"][0] == pd.Timestamp("2024-07-01T08:00Z")


def test_a_date_is_a_date():
    assert converted(["2024-07-01"], "date").frame["x"].tolist() == [datetime.date(2024, 7, 1)]


def test_undeclared_columns_are_dropped_and_absent_ones_named_in_declared_order():
    frame = pd.DataFrame({"b": [1], "extra": [2], "a": ["x"]}, index=[7])
    result = conform(frame, {"a": "string", "c": "number", "b": "integer", "d": "number"})
    assert list(result.frame.columns) == ["a", "b"]
    assert result.missing == ("c", "d")
    assert result.frame.index.tolist() == [0]
