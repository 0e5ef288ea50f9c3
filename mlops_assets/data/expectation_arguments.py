"""What every expectation takes, and of which columns: what a declaration is checked against at loading.

Belongs here: names and kinds of arguments, as data. Does not belong here: evaluating an expectation, and
Great Expectations itself (``data/expectations.py``): importing it takes 6 s. A test holds the names to
Great Expectations' own.
"""

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, get_args

from mlops_assets.data.conversion import ColumnType
from mlops_assets.data.expectations import ROW_RULES, Expectation
from mlops_assets.errors import UnknownName

ANY = frozenset(get_args(ColumnType))
NUMBERS = frozenset({"integer", "number"})
COUNTED = NUMBERS | {"boolean"}
ORDERED = NUMBERS | {"timestamp", "date"}
TEXT = frozenset({"string"})

COLUMN, PAIR, SEVERAL = ("column",), ("column_A", "column_B"), ("column_list",)
BOUNDS = ("min_value", "max_value")
STRICT = ("strict_min", "strict_max")
EVERYWHERE = ("row_condition", "condition_parser")
"""What an expectation of a suite takes besides: Great Expectations' choice of rows."""


@dataclass(frozen=True)
class Arguments:
    """Arguments of one expectation: those that name columns, those it needs, and the rest.

    ``bounds``: at least one of ``min_value`` and ``max_value``, of the column's own kind unless ``counts``:
    then they are numbers whatever the column is. ``values``: the arguments that hold values of the column.
    """

    columns: tuple[str, ...] = COLUMN
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    bounds: bool = False
    counts: bool = False
    values: tuple[str, ...] = ()
    kinds: Collection[str] = ANY

    def names(self) -> tuple[str, ...]:
        bounds = (*BOUNDS, *STRICT) if self.bounds else ()
        return (*self.columns, *self.required, *bounds, *self.optional)


def _rows(arguments: Arguments) -> Arguments:
    """Of an expectation that judges rows: a share of them may be enough."""
    return Arguments(**{**vars(arguments), "optional": (*arguments.optional, "mostly")})


def _statistic(kinds: Collection[str], *, counts: bool = False) -> Arguments:
    return Arguments(bounds=True, counts=counts, kinds=kinds)


_SET = Arguments(required=("value_set",), values=("value_set",))
_SEVERAL = Arguments(SEVERAL, optional=("ignore_row_if",))

ARGUMENTS: Mapping[str, Arguments] = {
    "expect_column_distinct_values_to_be_in_set": _SET,
    "expect_column_distinct_values_to_contain_set": _SET,
    "expect_column_distinct_values_to_equal_set": _SET,
    "expect_column_kl_divergence_to_be_less_than": Arguments(
        required=("partition_object", "threshold"),
        optional=("internal_weight_holdout", "tail_weight_holdout", "bucketize_data", *BOUNDS),
    ),
    "expect_column_max_to_be_between": _statistic(ORDERED),
    "expect_column_mean_to_be_between": _statistic(COUNTED),
    "expect_column_median_to_be_between": _statistic(NUMBERS),
    "expect_column_min_to_be_between": _statistic(ORDERED),
    "expect_column_most_common_value_to_be_in_set": Arguments(
        required=("value_set",), optional=("ties_okay",), values=("value_set",)
    ),
    "expect_column_pair_values_a_to_be_greater_than_b": _rows(
        Arguments(PAIR, optional=("or_equal", "ignore_row_if"), kinds=ORDERED)
    ),
    "expect_column_pair_values_to_be_equal": _rows(Arguments(PAIR, optional=("ignore_row_if",))),
    "expect_column_pair_values_to_be_in_set": _rows(
        Arguments(PAIR, required=("value_pairs_set",), optional=("ignore_row_if",))
    ),
    "expect_column_proportion_of_non_null_values_to_be_between": _statistic(ANY, counts=True),
    "expect_column_proportion_of_unique_values_to_be_between": _statistic(ANY, counts=True),
    "expect_column_quantile_values_to_be_between": Arguments(
        required=("quantile_ranges",), optional=("allow_relative_error",), kinds=NUMBERS
    ),
    "expect_column_stdev_to_be_between": _statistic(NUMBERS),
    "expect_column_sum_to_be_between": _statistic(COUNTED),
    "expect_column_unique_value_count_to_be_between": _statistic(ANY, counts=True),
    "expect_column_value_lengths_to_be_between": _rows(_statistic(TEXT, counts=True)),
    "expect_column_value_lengths_to_equal": _rows(Arguments(required=("value",), kinds=TEXT)),
    "expect_column_value_z_scores_to_be_less_than": _rows(
        Arguments(required=("threshold", "double_sided"), kinds=NUMBERS)
    ),
    "expect_column_values_to_be_between": _rows(_statistic(ORDERED)),
    "expect_column_values_to_be_dateutil_parseable": _rows(Arguments(kinds=TEXT)),
    "expect_column_values_to_be_decreasing": _rows(Arguments(optional=("strictly",), kinds=ORDERED)),
    "expect_column_values_to_be_in_set": _rows(_SET),
    "expect_column_values_to_be_increasing": _rows(Arguments(optional=("strictly",), kinds=ORDERED)),
    "expect_column_values_to_be_json_parseable": _rows(Arguments(kinds=TEXT)),
    "expect_column_values_to_be_null": _rows(Arguments()),
    "expect_column_values_to_be_unique": _rows(Arguments()),
    "expect_column_values_to_match_json_schema": _rows(Arguments(required=("json_schema",), kinds=TEXT)),
    "expect_column_values_to_match_regex": _rows(Arguments(required=("regex",), kinds=TEXT)),
    "expect_column_values_to_match_regex_list": _rows(
        Arguments(required=("regex_list",), optional=("match_on",), kinds=TEXT)
    ),
    "expect_column_values_to_match_strftime_format": _rows(
        Arguments(required=("strftime_format",), kinds=TEXT)
    ),
    "expect_column_values_to_not_be_in_set": _rows(_SET),
    "expect_column_values_to_not_be_null": _rows(Arguments()),
    "expect_column_values_to_not_match_regex": _rows(Arguments(required=("regex",), kinds=TEXT)),
    "expect_column_values_to_not_match_regex_list": _rows(Arguments(required=("regex_list",), kinds=TEXT)),
    "expect_compound_columns_to_be_unique": _rows(_SEVERAL),
    "expect_multicolumn_sum_to_equal": _rows(
        Arguments(SEVERAL, required=("sum_total",), optional=("ignore_row_if",), kinds=NUMBERS)
    ),
    "expect_multicolumn_values_to_be_equal": _rows(_SEVERAL),
    "expect_select_column_values_to_be_unique_within_record": _rows(_SEVERAL),
    "expect_table_row_count_to_be_between": Arguments((), bounds=True, counts=True),
    "expect_table_row_count_to_equal": Arguments((), required=("value",)),
}


_OF_DIFFERENT_TYPES = ("expect_compound_columns_to_be_unique", "expect_column_pair_values_to_be_in_set")


def argument_problem(expectation: Expectation, columns: Mapping[str, ColumnType] | None = None) -> str | None:
    """What is wrong with the arguments, or None; with ``columns`` given, also what does not fit them."""
    taken = ARGUMENTS[expectation.type]
    return next(_problems(expectation, taken, columns), None)


def _problems(
    expectation: Expectation, taken: Arguments, columns: Mapping[str, ColumnType] | None
) -> Iterator[str]:
    kwargs, name = expectation.kwargs, expectation.type
    extra = () if name in ROW_RULES else EVERYWHERE
    for given in kwargs:
        if given not in (*taken.names(), *extra):
            yield f"{name}: {UnknownName('argument', given, taken.names())}"
    for needed in (*taken.columns, *taken.required):
        if kwargs.get(needed) is None:
            yield f"{name} needs the argument {needed}"
    if taken.bounds:
        yield from _bound_problems(name, kwargs)
    mostly = kwargs.get("mostly")
    if mostly is not None and not (_is_number(mostly) and 0 < mostly <= 1):
        yield f"{name}: mostly is {mostly!r}; it is a share greater than 0 and at most 1"
    for listed in ("value_set", "value_pairs_set", "regex_list", "column_list"):
        entries = kwargs.get(listed)
        if entries is not None and (not isinstance(entries, (list, tuple)) or not entries):
            yield f"{name}: {listed} is {entries!r}; it is a list with at least one entry"
    for pattern in (kwargs.get("regex"), *(kwargs.get("regex_list") or ())):
        yield from _pattern_problems(name, pattern)
    if columns is not None:
        yield from _column_problems(expectation, taken, columns)


def _bound_problems(name: str, kwargs: Mapping[str, Any]) -> Iterator[str]:
    low, high = (kwargs.get(bound) for bound in BOUNDS)
    if low is None and high is None:
        yield f"{name} needs min_value or max_value; without either it is always met"
    if low is not None and high is not None:
        try:
            reversed_bounds = low > high
        except TypeError:
            yield f"{name}: min_value {low!r} and max_value {high!r} cannot be compared"
        else:
            if reversed_bounds:
                yield f"{name}: min_value {low!r} is greater than max_value {high!r}"


def _pattern_problems(name: str, pattern: object) -> Iterator[str]:
    if pattern is None:
        return
    try:
        re.compile(str(pattern))
    except re.error as error:
        yield f"{name}: {pattern!r} is no regular expression: {error}"


def _column_problems(
    expectation: Expectation, taken: Arguments, columns: Mapping[str, ColumnType]
) -> Iterator[str]:
    name = expectation.type
    named: list[str] = []
    for argument in taken.columns:
        given = expectation.kwargs[argument]
        named += map(str, given) if argument == "column_list" else [str(given)]
    for column in named:
        if column not in columns:
            yield str(UnknownName("column", column, columns))
        elif columns[column] not in taken.kinds:
            yield (
                f"{name} cannot be asked of column {column!r}, which is declared as {columns[column]}; it "
                f"takes: {', '.join(sorted(taken.kinds))}"
            )
    kinds = [columns[column] for column in named if column in columns]
    if len(set(kinds)) > 1 and not set(kinds) <= NUMBERS and name not in _OF_DIFFERENT_TYPES:
        shown = ", ".join(f"{column} ({columns[column]})" for column in named)
        yield f"{name} compares columns of one type; these differ: {shown}"
    if taken.bounds:
        fits = _FITS["number"] if taken.counts or not kinds else _FITS[kinds[0]]
        for bound in BOUNDS:
            value = expectation.kwargs.get(bound)
            if value is not None and not fits(value):
                what = "a count, a share or a length" if taken.counts or not kinds else f"a {kinds[0]}"
                yield f"{name}: {bound} is {value!r}, which cannot be compared with {what}{_written(kinds)}"
    for argument in taken.values:
        for value in expectation.kwargs.get(argument) or ():
            if kinds and value is not None and not _FITS[kinds[0]](value):
                yield (
                    f"{name}: {argument} holds {value!r}, which is no value of column {named[0]!r}, declared "
                    f"as {kinds[0]}{_written(kinds)}"
                )


def _written(kinds: list[ColumnType]) -> str:
    """How a value of such a column is written, where that is not plain."""
    if kinds and kinds[0] == "timestamp":
        return '; write it with its time and zone, like "2024-01-31T00:00:00+00:00"'
    return '; write it like "2024-01-31"' if kinds and kinds[0] == "date" else ""


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_moment(value: object) -> bool:
    """A time of a day with its zone, as YAML reads one or as ISO 8601 text: pandas compares nothing else."""
    if isinstance(value, str) and "T" in value:
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return False
    return isinstance(value, datetime) and value.tzinfo is not None


def _is_day(value: object) -> bool:
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value)
        except ValueError:
            return False
    return isinstance(value, date) and not isinstance(value, datetime)


_FITS: Mapping[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": _is_number,
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool) or (_is_number(value) and value in (0, 1)),
    "timestamp": _is_moment,
    "date": _is_day,
}
"""Whether an argument can be a value of a column of that type."""
