"""Grouped evaluation says what Great Expectations says, and its traps are closed."""

import numpy as np
import pandas as pd
import pytest

from mlops_assets.data import expectations
from mlops_assets.data.expectations import Expectation, check_rules, check_suite


def frame() -> pd.DataFrame:
    random = np.random.default_rng(3)
    values = random.normal(10, 5, 60).round(1)
    values[[3, 17, 40]] = np.nan
    return pd.DataFrame(
        {
            "day": np.repeat(["a", "b", "c"], 20),
            "value": values,
            "shop": np.repeat([["x", "y"], ["x", "z"], ["x", "y"]], 10, axis=0).ravel()[:60],
            "id": range(60),
        }
    )


BOUNDED = [name for name in expectations._STATISTICS if name.endswith("_to_be_between")]


def bounds(name: str) -> list[dict]:
    """Bounds around what the three days show, so that verdicts differ between them."""
    low = {
        "row_count": 20,
        "proportion": 0.95,
        "unique": 17,
        "mean": 9.5,
        "median": 9.5,
        "min": 0,
        "stdev": 5,
    }
    found = next((value for part, value in low.items() if part in name), 180)
    return [
        {"min_value": found},
        {"max_value": found},
        {"min_value": found, "strict_min": True},
        {"max_value": found, "strict_max": True},
        {"min_value": found * 0.9, "max_value": found * 1.1},
    ]


@pytest.mark.parametrize("name", BOUNDED)
def test_every_grouped_statistic_agrees_with_great_expectations(name, monkeypatch):
    column = {} if "row_count" in name else {"column": "value"}
    suite = [Expectation(name, {**column, **limits}) for limits in bounds(name)]
    assert set(agree(suite, monkeypatch)) == {True, False}


@pytest.mark.parametrize("name", [name for name in expectations._STATISTICS if "distinct" in name])
@pytest.mark.parametrize("value_set", [["x"], ["x", "y"], ["x", "y", "z"], ["q"]])
def test_every_set_of_values_agrees_with_great_expectations(name, value_set, monkeypatch):
    agree([Expectation(name, {"column": "shop", "value_set": value_set})], monkeypatch)


def test_row_count_and_shares_agree_with_great_expectations(monkeypatch):
    agree(
        [
            Expectation("expect_table_row_count_to_equal", {"value": 20}),
            Expectation(
                "expect_column_values_to_be_between", {"column": "value", "min_value": 5, "mostly": 0.8}
            ),
            Expectation(
                "expect_column_values_to_be_between", {"column": "value", "min_value": 5, "mostly": 0.9}
            ),
            Expectation("expect_column_values_to_not_be_null", {"column": "value", "mostly": 0.95}),
            Expectation("expect_column_values_to_not_be_null", {"column": "value"}),
            Expectation("expect_column_values_to_be_null", {"column": "value", "mostly": 0.05}),
        ],
        monkeypatch,
    )


def agree(suite, monkeypatch) -> list[bool]:
    data, days = frame(), ["a", "b", "c"]
    ours = check_suite(data, suite, partition_column="day", partitions=days)
    with monkeypatch.context() as patch:
        patch.setattr(expectations, "_STATISTICS", {})
        patch.setattr(expectations, "ROW_RULES", ())
        theirs = check_suite(data, suite, partition_column="day", partitions=days)

    def verdicts(results):
        return {(str(result.expectation), result.partition): result.met for result in results}

    assert not any(result.error for result in theirs), [result.error for result in theirs]
    assert verdicts(ours) == verdicts(theirs)
    assert len(verdicts(ours)) == 3 * len(suite)
    return list(verdicts(ours).values())


def one(expectation: Expectation, data: pd.DataFrame):
    (result,) = check_suite(data, [expectation])
    return result


def test_what_has_no_grouped_way_is_validated_day_by_day():
    suite = [
        Expectation("expect_column_values_to_be_unique", {"column": "id"}),
        Expectation(
            "expect_column_quantile_values_to_be_between",
            {
                "column": "value",
                "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[0, 100]]},
            },
        ),
    ]
    data = frame()
    data.loc[21, "id"] = 20
    results = check_suite(data, suite, partition_column="day", partitions=["a", "b", "c"])
    met = {(result.expectation.type, result.partition): result.met for result in results}
    assert met[("expect_column_values_to_be_unique", "b")] is False
    assert sum(met.values()) == 5


BETWEEN = Expectation("expect_column_values_to_be_between", {"column": "value", "min_value": 0})


@pytest.mark.parametrize(
    "expectation",
    [
        BETWEEN,
        Expectation("expect_column_mean_to_be_between", {"column": "value", "max_value": 1}),
        Expectation("expect_column_sum_to_be_between", {"column": "value", "min_value": 0}),
        Expectation("expect_column_unique_value_count_to_be_between", {"column": "value", "min_value": 0}),
        Expectation("expect_column_distinct_values_to_be_in_set", {"column": "value", "value_set": [1]}),
    ],
)
def test_nothing_seen_is_not_met(expectation):
    nothing = pd.DataFrame({"value": [np.nan, np.nan, np.nan]})
    result = one(expectation, nothing)
    assert (result.met, result.observed, result.error) == (False, "no values", None)


@pytest.mark.parametrize(
    "expectation",
    [
        Expectation("expect_column_values_to_be_unique", {"column": "value"}),
        Expectation("expect_column_values_to_be_increasing", {"column": "value"}),
        Expectation("expect_column_pair_values_to_be_equal", {"column_A": "value", "column_B": "value"}),
    ],
)
def test_nothing_seen_is_not_met_day_by_day_either(expectation):
    nothing = pd.DataFrame({"value": [np.nan, np.nan, np.nan]})
    result = one(expectation, nothing)
    assert (result.met, result.observed, result.error) == (False, "no values", None)


CHOSEN = {"row_condition": 'shop=="x"', "condition_parser": "pandas"}


def test_a_share_is_of_the_rows_that_the_condition_chooses():
    data = pd.DataFrame({"value": [-1.0] * 5 + [1.0] * 95, "shop": ["x"] * 5 + ["y"] * 95})
    kwargs = {"column": "value", "min_value": 0, "mostly": 0.9}
    assert one(Expectation("expect_column_values_to_be_between", kwargs), data).met
    assert not one(Expectation("expect_column_values_to_be_between", {**kwargs, **CHOSEN}), data).met
    # A condition that no row meets asks nothing.
    others = data.assign(shop="y")
    assert one(Expectation("expect_column_values_to_be_between", {**kwargs, **CHOSEN}), others).met


def test_a_missing_value_in_one_of_two_whole_numbers_is_a_value_that_differs():
    data = pd.DataFrame(
        {
            "a": pd.array([1, 2, None, None, 2**53 + 1], "Int64"),
            "b": pd.array([1, None, 3, None, 2**53], "Int64"),
        }
    ).assign(c=[1.0, 2.0, np.nan, np.nan, 4.0], yes=pd.array([True, None, False, None, True], "boolean"))

    def broken(name: str, **kwargs: object) -> list[bool]:
        (result,) = check_rules(data, [Expectation(name, kwargs)])
        assert result.error is None
        return result.broken.tolist()

    equal = "expect_column_pair_values_to_be_equal"
    assert broken(equal, column_A="a", column_B="b") == [False, True, True, False, True]
    assert broken(equal, column_A="a", column_B="c") == [False, False, False, False, True]
    assert broken(equal, column_A="yes", column_B="a") == [False, True, True, False, True]
    either = {"ignore_row_if": "either_value_is_missing"}
    assert broken(equal, column_A="a", column_B="b", **either) == [False, False, False, False, True]
    greater = "expect_column_pair_values_a_to_be_greater_than_b"
    assert broken(greater, column_A="a", column_B="b") == [True, True, True, False, False]
    total = "expect_multicolumn_sum_to_equal"
    assert broken(total, column_list=["a", "b"], sum_total=2) == [False, True, True, False, True]


def test_a_sum_of_whole_numbers_does_not_begin_again_at_the_other_end():
    data = pd.DataFrame({"id": pd.array([2**63 - 1, 2**63 - 1, None], "Int64")})
    for column in (data["id"], data["id"].dropna().astype("int64")):
        result = one(
            Expectation("expect_column_sum_to_be_between", {"column": "id", "max_value": 0}),
            pd.DataFrame({"id": column}),
        )
        assert (result.met, result.observed) == (False, str(2**64 - 2))


def test_an_argument_that_great_expectations_refuses_is_an_error_of_its_expectation():
    wrong = Expectation(
        "expect_column_pair_values_to_be_equal",
        {"column_A": "value", "column_B": "value", "ignore_row_if": "?"},
    )
    right = Expectation("expect_column_values_to_be_unique", {"column": "value"})
    data = pd.DataFrame({"value": [1.0, 2.0]})
    found = check_suite(data, [wrong, right, wrong])
    assert [result.met for result in found] == [False, True, False]
    assert "ignore_row_if" in str(found[0].error)
    assert "ignore_row_if" in str(check_rules(data, [wrong])[0].error)


def test_an_empty_frame_meets_no_expectation_about_its_values():
    empty = frame().iloc[:0]
    assert not one(Expectation("expect_table_row_count_to_be_between", {"min_value": 1}), empty).met
    assert not one(
        Expectation("expect_column_mean_to_be_between", {"column": "value", "min_value": 0}), empty
    ).met
    assert check_rules(empty, [BETWEEN])[0].broken.tolist() == []


@pytest.mark.parametrize(
    "kwargs",
    [
        {"column": "absent", "min_value": 0},
        {"column": "shop", "min_value": 0},
        {"column": "at", "min_value": "2024-01-01"},
    ],
)
def test_an_expectation_that_raises_has_errored(kwargs):
    data = frame().assign(at=pd.Timestamp("2024-01-02", tz="UTC"))
    result = one(Expectation("expect_column_values_to_be_between", kwargs), data)
    assert not result.met
    assert result.error
    rule = check_rules(data, [Expectation("expect_column_values_to_be_between", kwargs)])[0]
    assert rule.error
    assert not rule.broken.any()


def test_timestamps_are_compared_when_written_with_their_time_of_day():
    data = pd.DataFrame({"at": pd.to_datetime(["2024-01-01T12:00Z", "2024-03-01T12:00Z"])})
    kwargs = {"column": "at", "max_value": "2024-02-01T00:00:00+00:00"}
    (result,) = check_rules(data, [Expectation("expect_column_values_to_be_between", kwargs)])
    assert result.error is None
    assert result.broken.tolist() == [False, True]


def test_rules_mark_exactly_the_rows_that_break_them_in_the_order_of_the_rules():
    data = pd.DataFrame(
        {"value": [1.0, -1.0, np.nan, -2.0], "shop": ["x", "q", None, "x"]}, index=[9, 9, 4, 2]
    )
    rules = [
        Expectation("expect_column_values_to_not_be_null", {"column": "shop"}),
        BETWEEN,
        Expectation("expect_column_values_to_be_in_set", {"column": "shop", "value_set": ["x"]}),
        Expectation("expect_column_pair_values_to_be_equal", {"column_A": "shop", "column_B": "shop"}),
    ]
    found = [result.broken.tolist() for result in check_rules(data, rules)]
    assert found == [
        [False, False, True, False],
        [False, True, False, True],
        [False, True, False, False],
        [False, False, False, False],
    ]


def test_the_severity_and_the_partition_of_a_result_are_the_declared_ones():
    suite = [Expectation("expect_table_row_count_to_equal", {"value": 1}, severity="warning")]
    results = check_suite(frame(), suite, partition_column="day", partitions=["c", "absent"])
    assert [(result.partition, result.observed) for result in results] == [("c", "20"), ("absent", "0")]
    assert results[0].expectation.severity == "warning"
