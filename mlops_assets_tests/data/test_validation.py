"""The verdict on a day depends on that day alone, and every row left out has its reason."""

import numpy as np
import pandas as pd
import pytest

from mlops_assets.data.expectations import Expectation
from mlops_assets.data.validation import REASONS, Finding, Rules, validate

POSITIVE = Expectation("expect_column_values_to_be_between", {"column": "value", "min_value": 0})
FEW = Expectation("expect_table_row_count_to_be_between", {"max_value": 3})


def day(name, *values, ids=None):
    return pd.DataFrame(
        {
            "day": name,
            "id": list(range(len(values)) if ids is None else ids),
            "value": [float(v) for v in values],
        }
    )


def judge(frame, partitions, **rules):
    return validate(frame, Rules(**rules), partition_column="day", partitions=partitions)


def test_good_rows_are_kept_as_they_are():
    frame = pd.concat([day("a", 1, 2), day("b", 3)])
    result = judge(frame, ["a", "b"], primary_key=["id"], row_rules=[POSITIVE], suite=[FEW])
    pd.testing.assert_frame_equal(result.kept, frame.reset_index(drop=True))
    assert result.quarantined.empty
    assert list(result.quarantined.columns) == ["day", "id", "value", REASONS]
    assert (result.findings, result.good) == ([], ["a", "b"])


def test_a_row_has_every_reason_it_was_left_out_for():
    frame = day("a", 1, -2, 3, ids=[1, None, 3])
    result = judge(frame, ["a"], primary_key=["id"], row_rules=[POSITIVE], max_quarantine_share=0.5)
    assert result.quarantined[REASONS].tolist() == [f"primary key is missing; {POSITIVE}"]
    assert result.broken_rules == {"primary key is missing": 1, str(POSITIVE): 1}
    assert result.quarantined_rows == {"a": 1}


def test_of_identical_rows_one_stays_and_of_conflicting_ones_none():
    frame = day("a", 1, 1, 5, 6, 9, ids=[1, 1, 2, 2, 3])
    for order in (frame, frame.iloc[::-1]):
        result = judge(order, ["a"], primary_key=["id"], max_quarantine_share=1)
        assert sorted(result.kept["id"]) == [1, 3]
        assert sorted(result.quarantined["value"]) == [1, 5, 6]


def test_the_same_key_on_two_days_is_no_duplicate():
    frame = pd.concat([day("a", 1), day("b", 2)])
    assert judge(frame, ["a", "b"], primary_key=["id"]).good == ["a", "b"]


@pytest.mark.parametrize(("share", "good"), [(0.5, ["a"]), (0.49, [])])
def test_the_share_in_quarantine_has_a_limit(share, good):
    result = judge(day("a", 1, -1), ["a"], row_rules=[POSITIVE], max_quarantine_share=share)
    assert result.good == good
    if not good:
        (finding,) = result.findings
        assert str(finding) == (
            "share of rows in quarantine: expected at most 0.49, observed 0.5 (1 of 2 rows)"
        )


def test_a_day_without_rows_is_bad_unless_it_is_known_to_be_empty():
    result = judge(day("a", 1), ["a", "b", "c"], known_empty={"c"}, suite=[FEW])
    assert result.good == ["a", "c"]
    assert [(found.partition, found.what, found.observed) for found in result.findings] == [
        ("b", "row count", "0")
    ]
    assert "unless partitions say known_empty or empty_days: allow" in result.findings[0].expected
    assert judge(day("a", 1), ["a", "b"], may_be_empty=True).good == ["a", "b"]


def test_the_suite_judges_the_kept_rows_of_each_day():
    frame = pd.concat([day("a", 1, 2, 3, 4, -1), day("b", 1, 2, 3, -1)])
    result = judge(frame, ["a", "b"], row_rules=[POSITIVE], max_quarantine_share=1, suite=[FEW])
    assert result.good == ["b"]
    assert [(found.concern, found.partition, found.observed) for found in result.findings] == [
        ("expectations", "a", "4")
    ]


def test_a_warning_is_found_and_the_day_is_good():
    suite = [Expectation(FEW.type, {"max_value": 1}, severity="warning")]
    result = judge(day("a", 1, 2), ["a"], suite=suite)
    assert [found.severity for found in result.findings] == ["warning"]
    assert result.good == ["a"]


def test_a_rule_that_errors_makes_every_day_bad_even_as_a_warning():
    broken = Expectation("expect_column_values_to_be_between", {"column": "day", "min_value": 0})
    result = judge(pd.concat([day("a", 1), day("b", 1)]), ["a", "b"], row_rules=[broken])
    assert result.good == []
    assert all(found.errored for found in result.findings)
    warning = Expectation(broken.type, broken.kwargs, severity="warning")
    assert judge(day("a", 1), ["a"], suite=[warning]).good == []


def test_a_day_that_is_already_bad_is_not_looked_at():
    earlier = [Finding("schema", "a", "columns", "all", "missing: value")]
    frame = pd.concat([day("a", -1), day("b", 1)])
    result = validate(
        frame, Rules(row_rules=[POSITIVE]), partition_column="day", partitions=["a", "b"], earlier=earlier
    )
    assert result.good == ["b"]
    assert set(result.kept["day"]) == {"b"}
    assert result.findings == earlier


def test_a_verdict_on_a_day_does_not_depend_on_the_other_days():
    random = np.random.default_rng(5)
    days = [f"{number:02d}" for number in range(8)]
    frame = pd.concat([day(name, *random.normal(1, 1, 6), ids=random.integers(0, 8, 6)) for name in days])
    rules = Rules(
        primary_key=["id"],
        row_rules=[POSITIVE],
        max_quarantine_share=0.9,
        suite=[Expectation("expect_column_mean_to_be_between", {"column": "value", "min_value": 1})],
    )
    together = validate(frame, rules, partition_column="day", partitions=days)
    assert 0 < len(together.good) < len(days)
    for name in days:
        alone = validate(frame, rules, partition_column="day", partitions=[name])
        assert list(map(str, alone.findings)) == list(map(str, together.of(name)))
        kept = together.kept[together.kept["day"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone.kept, kept)


def test_unpartitioned_data_is_one_partition():
    frame = day("a", 1, -1)
    rules = Rules(row_rules=[POSITIVE], max_quarantine_share=0.5, suite=[FEW])
    result = validate(frame, rules, partition_column=None, partitions=None)
    assert (result.good, result.rows, result.quarantined_rows) == ([None], {None: 2}, {None: 1})
    empty = validate(frame.iloc[:0], rules, partition_column=None, partitions=None)
    assert empty.good == []
