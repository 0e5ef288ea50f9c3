"""What a declaration may say about an expectation is what Great Expectations takes."""

import datetime

import pytest

from mlops_assets.data.expectation_arguments import ARGUMENTS, argument_problem, typed
from mlops_assets.data.expectations import CHOICE_OF_ROWS, ROW_RULES, SUITE, Expectation

GENERAL = {
    "id", "meta", "notes", "result_format", "description", "catch_exceptions", "rendered_content", "severity",
    "windows", "batch_id", "expectation_type", "library_metadata", *CHOICE_OF_ROWS,
}  # fmt: skip
"""Fields of every expectation."""


def test_there_is_an_entry_for_every_expectation_that_can_be_declared():
    assert set(ARGUMENTS) == set(SUITE)


@pytest.mark.parametrize("name", SUITE)
def test_the_arguments_are_great_expectations_own(name):
    from great_expectations.expectations.registry import get_expectation_impl

    fields = get_expectation_impl(name).__fields__
    theirs = {argument for argument in fields if argument not in GENERAL}
    ours = ARGUMENTS[name]
    assert set(ours.names()) == theirs
    needed = {argument for argument in theirs if fields[argument].required}
    assert needed <= {*ours.columns, *ours.required}


@pytest.mark.parametrize(
    ("name", "kwargs", "problem"),
    [
        ("expect_column_values_to_be_in_set", {"column": "x"}, "needs the argument value_set"),
        (
            "expect_column_values_to_be_in_set",
            {"column": "x", "value_set": []},
            "a list with at least one entry",
        ),
        (
            "expect_column_values_to_be_in_set",
            {"column": "x", "value_set": "ab"},
            "a list with at least one entry",
        ),
        ("expect_column_values_to_be_in_set", {"value_set": [1]}, "needs the argument column"),
        ("expect_column_values_to_be_in_set", {"column": "x", "values": [1]}, "Unknown argument 'values'"),
        ("expect_column_mean_to_be_between", {"column": "x"}, "without either it is always met"),
        (
            "expect_column_mean_to_be_between",
            {"column": "x", "min_value": 2, "max_value": 1},
            "is greater than",
        ),
        (
            "expect_column_mean_to_be_between",
            {"column": "x", "min_value": 2, "max_value": "a"},
            "be compared",
        ),
        (
            "expect_column_values_to_not_be_null",
            {"column": "x", "mostly": 95},
            "a share greater than 0 and at most 1",
        ),
        ("expect_column_values_to_match_regex", {"column": "x", "regex": "("}, "is no regular expression"),
        ("expect_column_values_to_match_regex", {"column": "x"}, "needs the argument regex"),
        ("expect_table_row_count_to_equal", {}, "needs the argument value"),
        ("expect_table_row_count_to_equal", {"value": "5"}, "value is '5'; it is a whole number"),
        (
            "expect_column_pair_values_to_be_equal",
            {"column_A": "x", "column_B": "y", "ignore_row_if": "never"},
            "Unknown ignore_row_if 'never'. Allowed: both_values_are_missing, either_value_is_missing",
        ),
        (
            "expect_compound_columns_to_be_unique",
            {"column_list": ["x", "y"], "ignore_row_if": "neither"},
            "Allowed: all_values_are_missing, any_value_is_missing, never",
        ),
        (
            "expect_column_values_to_be_between",
            {"column": "x", "min_value": 0, "strict_min": "no"},
            "strict_min is 'no'; it is true or false",
        ),
        (
            "expect_column_quantile_values_to_be_between",
            {"column": "x", "quantile_ranges": {"quantiles": [0.5], "value_ranges": [0, 1]}},
            "it is {quantiles: [shares], value_ranges: [[from, to] for each]}",
        ),
        (
            "expect_column_values_to_be_unique",
            {"column": "x", "condition_parser": "pandas"},
            "condition_parser goes with a row_condition",
        ),
        (
            "expect_column_values_to_be_unique",
            {"column": "x", "row_condition": "y > 1", "condition_parser": "sql"},
            "Unknown condition_parser 'sql'. Allowed: great_expectations, pandas",
        ),
        (
            "expect_column_pair_values_to_be_in_set",
            {"column_A": "x", "column_B": "y", "value_pairs_set": [[1, 2, 3]]},
            "it is a list of pairs",
        ),
        (
            "expect_column_values_to_match_json_schema",
            {"column": "x", "json_schema": "object"},
            "json_schema is 'object'; it is a JSON schema",
        ),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(name, kwargs, problem):
    assert problem in str(argument_problem(Expectation(name, kwargs)))


COLUMNS = {"n": "integer", "x": "number", "s": "string", "t": "timestamp", "d": "date", "b": "boolean"}


@pytest.mark.parametrize(
    ("name", "kwargs", "problem"),
    [
        (
            "expect_column_mean_to_be_between",
            {"column": "s", "min_value": 1},
            "declared as string; it takes: boolean",
        ),
        (
            "expect_column_max_to_be_between",
            {"column": "t", "min_value": 1},
            "min_value is 1, which cannot be compared",
        ),
        (
            "expect_column_max_to_be_between",
            {"column": "t", "min_value": "2024-01-01"},
            "with its time and zone",
        ),
        (
            "expect_column_max_to_be_between",
            {"column": "d", "min_value": "2024-01-01T00:00:00Z"},
            'like "2024-01-31"',
        ),
        ("expect_column_values_to_be_in_set", {"column": "n", "value_set": ["1"]}, "no value of column 'n'"),
        ("expect_column_values_to_be_in_set", {"column": "s", "value_set": [1]}, "no value of column 's'"),
        ("expect_column_pair_values_to_be_equal", {"column_A": "n", "column_B": "s"}, "columns of one type"),
        (
            "expect_column_value_lengths_to_equal",
            {"column": "n", "value": 2},
            "declared as integer; it takes: string",
        ),
        (
            "expect_multicolumn_sum_to_equal",
            {"column_list": ["n", "t"], "sum_total": 2},
            "'t', which is declared as",
        ),
        ("expect_column_values_to_be_unique", {"column": "nope"}, "Unknown column 'nope'"),
        (
            "expect_column_unique_value_count_to_be_between",
            {"column": "s", "min_value": "2"},
            "a count, a share",
        ),
        (
            "expect_column_values_to_be_in_set",
            {"column": "n", "value_set": [1, 0.5]},
            "holds 0.5, which is no",
        ),
        ("expect_column_values_to_be_in_set", {"column": "n", "value_set": [2.0**60]}, "which is no value"),
        ("expect_column_values_to_be_in_set", {"column": "x", "value_set": [2**53 + 1]}, "which is no value"),
        (
            "expect_column_values_to_be_between",
            {"column": "n", "max_value": 2**63 - 2},
            "which tell them apart only below 9007199254740992 (2^53)",
        ),
        (
            "expect_column_pair_values_to_be_in_set",
            {"column_A": "d", "column_B": "n", "value_pairs_set": [["2024-01-01", "1"]]},
            "value_pairs_set holds '1', which is no value of column 'n'",
        ),
    ],
)
def test_an_argument_that_its_column_cannot_have_is_named(name, kwargs, problem):
    assert problem in str(argument_problem(Expectation(name, kwargs), COLUMNS))


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("expect_column_max_to_be_between", {"column": "t", "min_value": "2024-01-01T00:00:00+00:00"}),
        ("expect_column_values_to_be_between", {"column": "d", "max_value": "2024-01-01"}),
        ("expect_column_values_to_be_between", {"column": "n", "max_value": 1.5, "strict_max": True}),
        ("expect_column_values_to_be_in_set", {"column": "b", "value_set": [True]}),
        ("expect_column_values_to_be_in_set", {"column": "x", "value_set": [1, 2.5]}),
        ("expect_column_pair_values_a_to_be_greater_than_b", {"column_A": "n", "column_B": "x"}),
        ("expect_compound_columns_to_be_unique", {"column_list": ["n", "s"]}),
        ("expect_table_row_count_to_be_between", {"min_value": 0}),
        ("expect_column_sum_to_be_between", {"column": "n", "max_value": 2**60}),
        (
            "expect_column_quantile_values_to_be_between",
            {
                "column": "x",
                "quantile_ranges": {"quantiles": [0.5, 1], "value_ranges": [[0, None], [1, 2.5]]},
            },
        ),
    ],
)
def test_what_fits_has_no_problem(name, kwargs):
    assert argument_problem(Expectation(name, kwargs), COLUMNS) is None


def test_a_suite_may_choose_rows_and_a_row_rule_may_not():
    chosen = {"column": "x", "row_condition": "n > 1", "condition_parser": "pandas"}
    suite = Expectation("expect_column_max_to_be_between", {**chosen, "min_value": 1})
    assert argument_problem(suite, COLUMNS) is None
    assert ROW_RULES
    rule = Expectation("expect_column_values_to_not_be_null", chosen)
    assert "Unknown argument 'row_condition'" in str(argument_problem(rule, COLUMNS))


def test_values_of_a_set_are_what_their_column_holds():
    def values(column: str, *given: object) -> list[object]:
        expectation = Expectation("expect_column_values_to_be_in_set", {"column": column, "value_set": given})
        return list(typed(expectation, COLUMNS).kwargs["value_set"])

    day, noon = datetime.date(2024, 1, 31), datetime.datetime(2024, 1, 31, 12, tzinfo=datetime.UTC)
    assert values("d", "2024-01-31", day) == [day, day]
    assert values("t", "2024-01-31T12:00:00Z", noon) == [noon, noon]
    assert list(map(repr, values("n", 1.0, 2**60 + 1))) == ["1", str(2**60 + 1)]
    assert list(map(repr, values("b", 1, False))) == ["True", "False"]
    pairs = {"column_A": "d", "column_B": "s", "value_pairs_set": [["2024-01-31", "2024-01-31"]]}
    made = typed(Expectation("expect_column_pair_values_to_be_in_set", pairs), COLUMNS)
    assert made.kwargs["value_pairs_set"] == [[day, "2024-01-31"]]
