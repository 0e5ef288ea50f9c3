"""What a declaration may say about an expectation is what Great Expectations takes."""

import pytest

from mlops_assets.data.expectation_arguments import ARGUMENTS, EVERYWHERE, argument_problem
from mlops_assets.data.expectations import ROW_RULES, SUITE, Expectation

GENERAL = {
    "id", "meta", "notes", "result_format", "description", "catch_exceptions", "rendered_content", "severity",
    "windows", "batch_id", "expectation_type", "library_metadata", *EVERYWHERE,
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
