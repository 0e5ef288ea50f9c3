"""What every expectation takes, and of which columns: what a declaration is checked against at loading.

Belongs here: names and kinds of arguments, as data, and bringing them into the types of the columns. Does not
belong here: evaluating an expectation, and
Great Expectations itself (``data/expectations.py``): importing it takes 6 s. A test holds the names to
Great Expectations' own.
"""

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeGuard, get_args

from mlops_assets.data.conversion import EXACT, ColumnType
from mlops_assets.data.expectations import CHOICE_OF_ROWS, ROW_RULES, Expectation
from mlops_assets.errors import UnknownName

ANY = frozenset(get_args(ColumnType))
NUMBERS = frozenset({"integer", "number"})
COUNTED = NUMBERS | {"boolean"}
ORDERED = NUMBERS | {"timestamp", "date"}
TEXT = frozenset({"string"})

COLUMN, PAIR, SEVERAL = ("column",), ("column_A", "column_B"), ("column_list",)
BOUNDS = ("min_value", "max_value")
STRICT = ("strict_min", "strict_max")


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
    """The arguments of an expectation that judges rows: a share of them may be enough."""
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
    extra = () if name in ROW_RULES else CHOICE_OF_ROWS
    for given in kwargs:
        if given not in (*taken.names(), *extra):
            yield f"{name}: {UnknownName('argument', given, taken.names())}"
    for needed in (*taken.columns, *taken.required):
        if kwargs.get(needed) is None:
            yield f"{name} needs the argument {needed}"
    if taken.bounds:
        yield from _bound_problems(name, kwargs)
    yield from _kind_problems(name, taken, kwargs)
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


def _kind_problems(name: str, taken: Arguments, kwargs: Mapping[str, Any]) -> Iterator[str]:
    """Arguments that Great Expectations would refuse only at run time, or read as something else."""
    if ("condition_parser" in kwargs) > ("row_condition" in kwargs):
        yield f"{name}: condition_parser goes with a row_condition"
    choices = {
        **_CHOICES,
        "ignore_row_if": _IGNORED[taken.columns] if "ignore_row_if" in taken.optional else (),
    }
    for argument, given in kwargs.items():
        if argument in choices and given not in choices[argument]:
            yield f"{name}: {UnknownName(argument, str(given), choices[argument])}"
        elif argument in _KINDS and given is not None and not _KINDS[argument][1](given):
            yield f"{name}: {argument} is {given!r}; it is {_KINDS[argument][0]}"


_PAIR_IGNORED = ("both_values_are_missing", "either_value_is_missing", "neither")
_IGNORED: Mapping[tuple[str, ...], tuple[str, ...]] = {
    PAIR: _PAIR_IGNORED,
    SEVERAL: ("all_values_are_missing", "any_value_is_missing", "never"),
}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "match_on": ("any", "all"),
    "condition_parser": ("pandas", "great_expectations"),
}


def _are_quantile_ranges(value: object) -> bool:
    if not isinstance(value, dict) or set(value) != {"quantiles", "value_ranges"}:
        return False
    shares, ranges = value["quantiles"], value["value_ranges"]
    return (
        isinstance(shares, list)
        and isinstance(ranges, list)
        and len(shares) == len(ranges) > 0
        and all(_is_number(share) and 0 <= share <= 1 for share in shares)
        and all(isinstance(one, (list, tuple)) and len(one) == 2 for one in ranges)
        and all(bound is None or _is_number(bound) for one in ranges for bound in one)
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_TRUTH = ("true or false", lambda value: isinstance(value, bool))
_TEXT = ("text", lambda value: isinstance(value, str))
_KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys((*STRICT, "strictly", "or_equal", "ties_okay", "double_sided", "bucketize_data"), _TRUTH),
    **dict.fromkeys(("column", "column_A", "column_B", "regex", "strftime_format", "row_condition"), _TEXT),
    **dict.fromkeys(("threshold", "sum_total"), ("a number", lambda value: _is_number(value))),
    "value": ("a whole number", _is_whole),
    "json_schema": ("a JSON schema", lambda value: isinstance(value, dict)),
    "quantile_ranges": (
        "{quantiles: [shares], value_ranges: [[from, to] for each]}",
        _are_quantile_ranges,
    ),
    "value_pairs_set": (
        "a list of pairs",
        lambda value: (
            isinstance(value, (list, tuple))
            and all(isinstance(one, (list, tuple)) and len(one) == 2 for one in value)
        ),
    ),
}
"""What a value of an argument is, in words and as a test."""


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
        if name == JUDGED_AS_FLOATS and not taken.counts:
            yield from _rounded_bounds(name, expectation.kwargs, named[0], kinds)
    for argument, value, column in _values(expectation, taken):
        kind = columns.get(column)
        if kind is not None and value is not None and not _IS_VALUE[kind](value):
            yield (
                f"{name}: {argument} holds {value!r}, which is no value of column {column!r}, declared as "
                f"{kind}{_written([kind])}"
            )


JUDGED_AS_FLOATS = "expect_column_values_to_be_between"


def _rounded_bounds(
    name: str, kwargs: Mapping[str, Any], column: str, kinds: list[ColumnType]
) -> Iterator[str]:
    for bound in BOUNDS:
        value = kwargs.get(bound)
        if kinds == ["integer"] and _is_number(value) and abs(value) >= EXACT:
            yield (
                f"{name}: {bound} is {value!r}; Great Expectations compares whole numbers as floats, "
                f"which tell them apart only below {EXACT} (2^53). Declare column {column!r} as a string, or "
                "judge it in the transform"
            )


def _values(expectation: Expectation, taken: Arguments) -> Iterator[tuple[str, Any, str]]:
    """(argument, value, column that it is a value of)."""
    kwargs = expectation.kwargs
    for argument in taken.values:
        for value in kwargs.get(argument) or ():
            yield argument, value, str(kwargs.get(taken.columns[0]))
    for pair in kwargs.get("value_pairs_set") or ():
        if isinstance(pair, (list, tuple)):
            for value, column in zip(pair, taken.columns, strict=False):
                yield "value_pairs_set", value, str(kwargs.get(column))


def typed(expectation: Expectation, columns: Mapping[str, ColumnType]) -> Expectation:
    """The expectation with the values of its sets as its columns hold them: a day written as text is a date.

    As text it would equal no date, and ``expect_column_values_to_not_be_in_set`` would always be met.
    """
    kwargs = dict(expectation.kwargs)
    taken = ARGUMENTS[expectation.type]
    for argument in taken.values:
        kind = columns[kwargs["column"]]
        kwargs[argument] = [_as(value, kind) for value in kwargs[argument]]
    if "value_pairs_set" in kwargs:
        kinds = [columns[kwargs[column]] for column in taken.columns]
        kwargs["value_pairs_set"] = [
            [_as(value, kind) for value, kind in zip(pair, kinds, strict=True)]
            for pair in kwargs["value_pairs_set"]
        ]
    return Expectation(expectation.type, kwargs, expectation.severity)


def _as(value: Any, kind: ColumnType) -> Any:
    if kind == "date" and isinstance(value, str):
        return date.fromisoformat(value)
    if kind == "timestamp" and isinstance(value, str):
        return datetime.fromisoformat(value)
    if kind == "boolean" and value is not None:
        return bool(value)
    return int(value) if kind == "integer" and value is not None else value


def _written(kinds: list[ColumnType]) -> str:
    """How a value of such a column is written, where that is not plain."""
    if kinds and kinds[0] == "timestamp":
        return '; write it with its time and zone, like "2024-01-31T00:00:00+00:00"'
    return '; write it like "2024-01-31"' if kinds and kinds[0] == "date" else ""


def _is_number(value: object) -> TypeGuard[int | float]:
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
"""Whether an argument can be compared with values of a column of that type."""
_IS_VALUE: Mapping[str, Callable[[object], bool]] = {
    **_FITS,
    "integer": lambda value: (
        _is_number(value) and value == int(value) and (_is_whole(value) or abs(value) < EXACT)
    ),
    "number": lambda value: _is_number(value) and float(value) == value,
}
"""Whether an argument can be a value of a column of that type."""
