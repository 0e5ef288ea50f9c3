"""Shared YAML fields accept what they say and refuse the rest with the allowed values."""

from datetime import date, timedelta

import great_expectations.expectations.expectation as expectation
import pytest
from great_expectations.expectations import registry
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from mlops_assets.data.expectations import ROW_RULES, SUITE
from mlops_assets.data.sources import SOURCES
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.documents.fields import DailyPartitions, RowRule, SuiteExpectation, parse_duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("1.5h", timedelta(minutes=90)),
        ("14d", timedelta(days=14)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text, expected):
    assert parse_duration(text) == expected


@pytest.mark.parametrize("text", ["", "2", 2, "h", "2 hours", "-2h", "2y", None, "0h"])
def test_anything_else_is_no_duration(text):
    with pytest.raises(ValueError, match=r"like 30m, 2h or 14d|longer than zero"):
        parse_duration(text)


def test_the_end_of_daily_partitions_is_not_a_partition():
    declared = DailyPartitions(start=date(2024, 2, 28), end=date(2024, 3, 2), column="day")
    assert declared.definition().get_partition_keys() == ["2024-02-28", "2024-02-29", "2024-03-01"]


def test_a_known_empty_day_must_be_a_partition():
    with pytest.raises(ValidationError, match="known_empty days outside the partitions: 2024-03-02"):
        DailyPartitions(
            start=date(2024, 3, 1), end=date(2024, 3, 2), column="day", known_empty=(date(2024, 3, 2),)
        )


def test_a_row_rule_cannot_be_mostly_true():
    with pytest.raises(ValidationError, match="declare max_quarantine_share instead"):
        RowRule(type="expect_column_values_to_not_be_null", kwargs={"column": "a", "mostly": 0.5})


def test_severity_is_one_of_two():
    with pytest.raises(ValidationError, match="'critical' or 'warning'"):
        SuiteExpectation.model_validate({"type": "expect_table_row_count_to_equal", "severity": "info"})


def test_the_declared_names_are_those_great_expectations_knows():
    known = set(registry.list_registered_expectation_implementations())
    assert set(SUITE) <= known
    row_by_row = (
        expectation.ColumnMapExpectation,
        expectation.ColumnPairMapExpectation,
        expectation.MulticolumnMapExpectation,
    )
    for name in ROW_RULES:
        assert issubclass(registry.get_expectation_impl(name), row_by_row), name


def test_the_schema_takes_a_source_for_that_of_its_own_format_alone():
    """`dg check defs` and editors go by the schema; CSV and Parquet files have the same required fields."""
    schema = DatasetDeclaration.model_json_schema()
    source = Draft202012Validator({**schema["properties"]["source"], "$defs": schema.get("$defs", {})})
    assert {"csv", "parquet"} < set(SOURCES)
    for name in ("csv", "parquet"):
        assert source.is_valid({"format": name, "path": "raw"}), name
    assert not source.is_valid({"format": "xls", "path": "raw"})
    assert not source.is_valid({"path": "raw"})
