"""Great Expectations: which rows break which rule, and which partitions do not meet which expectation.

Belongs here: every call of Great Expectations, and the names it knows, so that a declaration is refused
at loading without importing it (6 s). Does not belong here: quarantine shares and verdicts on a day
(``data/validation.py``).

One validation of a day costs about 6 ms per expectation whatever the number of rows, 12 s for a year of
five. So whatever can be said about a whole frame at once is: expectations on single rows are evaluated by
one validation and counted per partition, and the plain statistics in ``_STATISTICS`` are grouped sums; a
test holds every one of them to Great Expectations' own verdict. The rest is validated per partition.

Great Expectations passes an expectation about values when there are no values. Here it fails: nothing was
seen; only a ``row_condition`` that no row meets asks nothing. An expectation that raises (no such column, a
date-only string against timestamps) has not failed but *errored*; it is reported as such, for the partitions
in whose rows it does, and blocks as well. Every call makes its own ephemeral context, since threads that
share one get each other's results (great_expectations issue 12209).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Severity = Literal["critical", "warning"]
Mask = NDArray[np.bool_]

ROW_RULES = (
    "expect_column_pair_values_a_to_be_greater_than_b",
    "expect_column_pair_values_to_be_equal",
    "expect_column_pair_values_to_be_in_set",
    "expect_column_value_lengths_to_be_between",
    "expect_column_value_lengths_to_equal",
    "expect_column_values_to_be_between",
    "expect_column_values_to_be_dateutil_parseable",
    "expect_column_values_to_be_in_set",
    "expect_column_values_to_be_json_parseable",
    "expect_column_values_to_be_null",
    "expect_column_values_to_match_json_schema",
    "expect_column_values_to_match_regex",
    "expect_column_values_to_match_regex_list",
    "expect_column_values_to_match_strftime_format",
    "expect_column_values_to_not_be_in_set",
    "expect_column_values_to_not_be_null",
    "expect_column_values_to_not_match_regex",
    "expect_column_values_to_not_match_regex_list",
    "expect_multicolumn_sum_to_equal",
    "expect_multicolumn_values_to_be_equal",
    "expect_select_column_values_to_be_unique_within_record",
)
"""Expectations that judge a row by itself. A missing value meets those on one column, but not_be_null; a row
that misses one of several columns breaks those on them, unless ``ignore_row_if`` says otherwise.
"""

SUITE_ONLY = (
    "expect_column_distinct_values_to_be_in_set",
    "expect_column_distinct_values_to_contain_set",
    "expect_column_distinct_values_to_equal_set",
    "expect_column_kl_divergence_to_be_less_than",
    "expect_column_max_to_be_between",
    "expect_column_mean_to_be_between",
    "expect_column_median_to_be_between",
    "expect_column_min_to_be_between",
    "expect_column_most_common_value_to_be_in_set",
    "expect_column_proportion_of_non_null_values_to_be_between",
    "expect_column_proportion_of_unique_values_to_be_between",
    "expect_column_quantile_values_to_be_between",
    "expect_column_stdev_to_be_between",
    "expect_column_sum_to_be_between",
    "expect_column_unique_value_count_to_be_between",
    "expect_column_value_z_scores_to_be_less_than",
    "expect_column_values_to_be_decreasing",
    "expect_column_values_to_be_increasing",
    "expect_column_values_to_be_unique",
    "expect_compound_columns_to_be_unique",
    "expect_table_row_count_to_be_between",
    "expect_table_row_count_to_equal",
)
"""Expectations about all rows of a partition together."""

SUITE = tuple(sorted(ROW_RULES + SUITE_ONLY))

CHOICE_OF_ROWS = ("row_condition", "condition_parser")
"""What an expectation of a suite takes besides: Great Expectations' choice of rows."""


@dataclass(frozen=True)
class Expectation:
    """One declared expectation, in Great Expectations' own words."""

    type: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity = "critical"

    def __str__(self) -> str:
        facts = [f"{name}={value}" for name, value in self.kwargs.items()]
        return f"{self.type}({', '.join(facts)})"


@dataclass(frozen=True)
class RowResult:
    """Which rows break one rule. ``error`` is set when it could not be evaluated: for all rows, or for the
    groups in ``errors``, whose rows count as not broken.
    """

    expectation: Expectation
    broken: Mask
    error: str | None = None
    errors: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SuiteResult:
    """What one partition showed for one expectation. ``met`` is False when it errored."""

    expectation: Expectation
    partition: str | None
    met: bool
    observed: str
    error: str | None = None


def check_rules(
    frame: "pd.DataFrame", rules: Sequence[Expectation], groups: NDArray[np.int64] | None = None
) -> list[RowResult]:
    """One result per rule, evaluated once over the whole frame. No rows: nothing is broken.

    A rule that errors there is evaluated for each of the ``groups`` of rows by itself (numbers of groups, one
    per row): only where it errors again is it an error.
    """
    if not rules:
        return []
    frame = frame.reset_index(drop=True)
    if frame.empty:
        return [RowResult(rule, np.zeros(0, dtype=bool)) for rule in rules]
    results = []
    for rule, found in zip(rules, _validate([frame], rules), strict=True):
        error = _error(found)
        if error is None:
            results.append(RowResult(rule, _broken(found, len(frame))))
        elif groups is None or len(set(groups.tolist())) < 2:
            of_all = {} if groups is None else {int(groups[0]): error}
            results.append(RowResult(rule, np.zeros(len(frame), dtype=bool), error, of_all))
        else:
            results.append(_rule_by_group(frame, rule, groups, error))
    return results


def _rule_by_group(
    frame: "pd.DataFrame", rule: Expectation, groups: NDArray[np.int64], error: str
) -> RowResult:
    broken = np.zeros(len(frame), dtype=bool)
    errors: dict[int, str] = {}
    rows = [(group, np.flatnonzero(groups == group)) for group in sorted(set(groups.tolist()))]
    found = _validate([frame.iloc[mine].reset_index(drop=True) for _, mine in rows], [rule])
    for (group, mine), result in zip(rows, found, strict=True):
        own = _error(result)
        if own is None:
            broken[mine] = _broken(result, len(mine))
        else:
            errors[group] = own
    return RowResult(rule, broken, error if errors else None, errors)


def _broken(found: Any, rows: int) -> Mask:
    broken = np.zeros(rows, dtype=bool)
    broken[list(found.result.get("unexpected_index_list") or [])] = True
    return broken


def check_suite(
    frame: "pd.DataFrame",
    suite: Sequence[Expectation],
    *,
    partition_column: str | None = None,
    partitions: Sequence[str] = (),
) -> list[SuiteResult]:
    """One result per expectation and partition of ``partitions``, or per expectation without a column.

    A partition without rows is judged too: its row count is 0 and nothing about its values is met.
    """
    import pandas as pd

    frame = frame.reset_index(drop=True)
    keys: list[str | None] = [None] if partition_column is None else list(partitions)
    if partition_column is None:
        groups = np.zeros(len(frame), dtype=np.int64)
    else:
        groups = pd.Index(partitions).get_indexer(pd.Index(frame[partition_column]))
    whole = _Grouped(frame, groups, keys)
    results: list[SuiteResult] = []
    rowwise = [
        expectation
        for expectation in suite
        if expectation.type in ROW_RULES
        and "column" in expectation.kwargs
        and not set(CHOICE_OF_ROWS) & set(expectation.kwargs)
        and len(frame)
    ]
    by_row = dict(zip(map(id, rowwise), check_rules(frame, rowwise, groups), strict=True))
    remaining = []
    for expectation in suite:
        if id(expectation) in by_row:
            results.extend(whole.shares(by_row[id(expectation)]))
        elif expectation.type in _STATISTICS and whole.knows(expectation):
            results.extend(whole.statistics(expectation))
        else:
            remaining.append(expectation)
    if remaining:
        frames = [part for _, part in whole.parts()]
        found = _validate(frames, remaining)
        for key in keys:
            for expectation in remaining:
                result = next(found)
                error = _error(result)
                observed = _short(result.result.get("observed_value", result.result.get("unexpected_count")))
                seen = error is not None or _saw_values(expectation, result.result)
                results.append(
                    SuiteResult(
                        expectation,
                        key,
                        met=bool(result.success) and seen,
                        observed=observed if seen else "no values",
                        error=error,
                    )
                )
    return results


def _saw_values(expectation: Expectation, result: Mapping[str, Any]) -> bool:
    """False when every value that was asked about is missing; True where nobody counted them."""
    rows, missing = result.get("element_count"), result.get("missing_count")
    return not rows or missing != rows or expectation.type.endswith("be_null")


class _Grouped:
    """A frame by partition, and what can be said about every partition in one pass."""

    def __init__(self, frame: "pd.DataFrame", groups: NDArray[np.int64], keys: Sequence[str | None]) -> None:
        self.frame, self.groups, self.keys = frame, groups, keys
        self.rows = np.bincount(groups[groups >= 0], minlength=len(keys))

    def parts(self) -> Iterator[tuple[str | None, "pd.DataFrame"]]:
        for number, key in enumerate(self.keys):
            yield key, self.frame[self.groups == number].reset_index(drop=True)

    def knows(self, expectation: Expectation) -> bool:
        """Whether every argument is one that the quick way honours, and the values are plain numbers or text:
        what Great Expectations makes of times, and of bounds written as text, is its own business.
        """
        import pandas as pd

        quick = {"column", "min_value", "max_value", "strict_min", "strict_max", "value", "value_set"}
        kwargs = expectation.kwargs
        if not set(kwargs) <= quick:
            return False
        if not all(_is_plain(kwargs.get(bound)) for bound in ("min_value", "max_value", "value")):
            return False
        column = kwargs.get("column")
        if column is None:
            return True
        if column not in self.frame.columns:
            return False
        dtype = self.frame[column].dtype
        if expectation.type in _OF_ANY_TYPE:
            return True
        if "value_set" in kwargs:
            wanted = kwargs["value_set"]
            if pd.api.types.is_object_dtype(dtype):
                return all(isinstance(value, str) for value in wanted) and all(
                    isinstance(value, str) for value in self.frame[column].dropna()
                )
            return pd.api.types.is_numeric_dtype(dtype) and all(map(_is_plain, wanted))
        return pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype)

    def shares(self, result: RowResult) -> Iterator[SuiteResult]:
        import pandas as pd

        expectation = result.expectation
        mostly = float(expectation.kwargs.get("mostly", 1.0))
        seen = np.ones(len(self.frame), dtype=bool)
        if not expectation.type.endswith("be_null") and expectation.kwargs["column"] in self.frame.columns:
            seen = ~pd.isna(self.frame[expectation.kwargs["column"]]).to_numpy()
        counted = np.bincount(self.groups[seen], minlength=len(self.keys))
        broken = np.bincount(self.groups[result.broken & seen], minlength=len(self.keys))
        for number, (key, total, bad) in enumerate(zip(self.keys, counted, broken, strict=True)):
            error = result.errors.get(number) if result.errors else result.error
            if error is not None:
                yield SuiteResult(expectation, key, False, "-", error)
            elif total == 0:
                yield SuiteResult(expectation, key, False, "no values")
            else:
                share = (total - bad) / total
                yield SuiteResult(expectation, key, bool(share >= mostly), f"{share:.4g} of {total} values")

    def statistics(self, expectation: Expectation) -> Iterator[SuiteResult]:
        for key, (met, observed) in zip(
            self.keys, _STATISTICS[expectation.type](self, expectation), strict=True
        ):
            yield SuiteResult(expectation, key, met, observed)

    def column(self, expectation: Expectation, statistic: str) -> list[Any]:
        """A statistic of a column by partition; None where there are no values to take it of."""
        import pandas as pd

        values = self.frame[expectation.kwargs["column"]]
        grouped = values.groupby(self.groups)
        if statistic == "set":
            found = values.dropna().groupby(self.groups[values.notna().to_numpy()]).unique()
        elif statistic == "unique_share":
            found = grouped.nunique() / grouped.count()
        elif statistic == "filled_share":
            found = grouped.count() / grouped.size()
        elif statistic == "sum" and _may_overflow(values):
            found = values.astype(object).where(values.notna(), 0).groupby(self.groups).sum()
        else:
            found = grouped.agg(statistic)
        # A sum of nothing is 0 to pandas, and 0 distinct values: neither was observed.
        counted = grouped.count()
        absent = set() if statistic == "filled_share" else set(counted.index[counted == 0])
        by_group = {group: value for group, value in found.items() if group not in absent}
        taken = [by_group.get(number) for number in range(len(self.keys))]
        return [None if pd.api.types.is_scalar(value) and pd.isna(value) else value for value in taken]


_Judged = list[tuple[bool, str]]


def _between(statistic: str) -> Callable[[_Grouped, Expectation], _Judged]:
    def judge(whole: _Grouped, expectation: Expectation) -> _Judged:
        values = whole.rows.tolist() if statistic == "rows" else whole.column(expectation, statistic)
        return [
            (False, "no values") if value is None else (_within(value, expectation.kwargs), _short(value))
            for value in values
        ]

    return judge


def _equal_rows(whole: _Grouped, expectation: Expectation) -> _Judged:
    return [(rows == expectation.kwargs["value"], str(rows)) for rows in whole.rows.tolist()]


def _distinct(met: Callable[[set[Any], set[Any]], bool]) -> Callable[[_Grouped, Expectation], _Judged]:
    def judge(whole: _Grouped, expectation: Expectation) -> _Judged:
        wanted = set(expectation.kwargs["value_set"])
        return [
            (False, "no values")
            if values is None
            else (met(set(values), wanted), _short(sorted(values, key=str)))
            for values in whole.column(expectation, "set")
        ]

    return judge


_STATISTICS: dict[str, Callable[[_Grouped, Expectation], _Judged]] = {
    "expect_table_row_count_to_be_between": _between("rows"),
    "expect_table_row_count_to_equal": _equal_rows,
    "expect_column_mean_to_be_between": _between("mean"),
    "expect_column_median_to_be_between": _between("median"),
    "expect_column_min_to_be_between": _between("min"),
    "expect_column_max_to_be_between": _between("max"),
    "expect_column_sum_to_be_between": _between("sum"),
    "expect_column_stdev_to_be_between": _between("std"),
    "expect_column_unique_value_count_to_be_between": _between("nunique"),
    "expect_column_proportion_of_unique_values_to_be_between": _between("unique_share"),
    "expect_column_proportion_of_non_null_values_to_be_between": _between("filled_share"),
    "expect_column_distinct_values_to_be_in_set": _distinct(lambda found, wanted: found <= wanted),
    "expect_column_distinct_values_to_contain_set": _distinct(lambda found, wanted: found >= wanted),
    "expect_column_distinct_values_to_equal_set": _distinct(lambda found, wanted: found == wanted),
}


_OF_ANY_TYPE = (
    "expect_column_unique_value_count_to_be_between",
    "expect_column_proportion_of_unique_values_to_be_between",
    "expect_column_proportion_of_non_null_values_to_be_between",
)
"""They count, so what they count does not matter."""


def _is_plain(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _may_overflow(values: "pd.Series[Any]") -> bool:
    """Whether a sum of these whole numbers may leave 64 bits, where it would begin again at the other end."""
    import pandas as pd

    if not pd.api.types.is_integer_dtype(values.dtype) or values.notna().sum() == 0:
        return False
    return max(abs(int(values.min())), abs(int(values.max()))) * len(values) > np.iinfo(np.int64).max


def _within(value: Any, kwargs: Mapping[str, Any]) -> bool:
    # Python compares an int with a float exactly, NumPy does not.
    value = value.item() if isinstance(value, np.generic) else value
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    above = low is None or (value > low if kwargs.get("strict_min") else value >= low)
    below = high is None or (value < high if kwargs.get("strict_max") else value <= high)
    return bool(above and below)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _validate(frames: Sequence["pd.DataFrame"], expectations: Sequence[Expectation]) -> Iterator[Any]:
    """Great Expectations' results: for every frame, one per expectation, in order."""
    several = [one for one in expectations if {"column_A", "column_list"} & set(one.kwargs)]
    if not several:
        yield from _validated(frames, expectations)
        return
    alone = _validated(frames, [one for one in expectations if one not in several])
    together = _validated([_without_nullable(frame) for frame in frames], several)
    for _ in frames:
        for one in expectations:
            yield next(together if one in several else alone)


def _without_nullable(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The frame with plain Python integers and booleans, NaN where missing.

    What pandas says of two nullable columns with a missing value is neither true nor false, which Great
    Expectations takes for an error of the whole rule.
    """
    import pandas as pd

    nullable = {
        name: column.astype(object).where(column.notna(), np.nan)
        for name, column in frame.items()
        if isinstance(column.dtype, (pd.Int64Dtype, pd.BooleanDtype))
    }
    return frame.assign(**nullable) if nullable else frame  # type: ignore[arg-type]


def _validated(frames: Sequence["pd.DataFrame"], expectations: Sequence[Expectation]) -> Iterator[Any]:
    import great_expectations as gx

    if not expectations:
        return
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    batches = (
        context.data_sources.add_pandas("frames")
        .add_dataframe_asset("frame")
        .add_batch_definition_whole_dataframe("all")
    )
    try:
        # Great Expectations reports in an order of its own; the position in meta restores ours.
        suite = gx.ExpectationSuite(
            name="declared",
            expectations=[
                {
                    "type": one.type,
                    "kwargs": dict(one.kwargs),
                    "severity": one.severity,
                    "meta": {"position": position},
                }
                for position, one in enumerate(expectations)
            ],
        )
    except Exception as error:  # noqa: BLE001  # an argument that Great Expectations does not take
        for frame in frames:
            yield from _one_by_one(frame, expectations, error)
        return
    wanted = {"result_format": "COMPLETE", "include_unexpected_rows": False}
    for frame in frames:
        try:
            found = batches.get_batch({"dataframe": frame}).validate(suite, result_format=wanted)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is said of these rows only
            yield from _one_by_one(frame, expectations, error)
            continue
        yield from sorted(found.results, key=lambda result: result.expectation_config.meta["position"])


def _one_by_one(
    frame: "pd.DataFrame", expectations: Sequence[Expectation], error: Exception
) -> Iterator[Any]:
    """The same for rows on which one of several expectations ends the validation of all."""
    if len(expectations) > 1:
        for one in expectations:
            yield from _validated([frame], [one])
        return
    message = f"{type(error).__name__}: {error}"
    raised = {"raised_exception": True, "exception_message": message}
    yield SimpleNamespace(success=False, result={}, exception_info=raised)


def _error(result: Any) -> str | None:
    """What an expectation raised, or None. It stands in one of two shapes."""
    information = result.exception_info or {}
    for found in [information, *information.values()]:
        if isinstance(found, Mapping) and found.get("raised_exception"):
            return str(found.get("exception_message") or "raised without a message")
    return None
