"""YAML fields that several components share, with errors that name the allowed values.

Belongs here: field types and small models used by more than one declaration. Does not belong here: the
declarations themselves (one component file each).
"""

import re
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import dagster as dg
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails, core_schema

from mlops_assets.data.expectation_arguments import argument_problem
from mlops_assets.data.expectations import ROW_RULES, SUITE, Expectation, Severity
from mlops_assets.documents._base import Declaration
from mlops_assets.errors import MlopsError
from serve.families import Family

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(value: object) -> timedelta:
    """A timedelta from "90s", "30m", "2h", "14d" or "2w"; ValueError says what is allowed."""
    if isinstance(value, timedelta):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            f"{value!r} is not a duration: write a number and a unit, like 30m, 2h or 14d "
            f"(units: {', '.join(f'{short} = {name}' for short, name in _UNITS.items())})"
        )
    duration = timedelta(**{_UNITS[found[2]]: float(found[1])})
    if not duration:
        raise ValueError("a duration must be longer than zero")
    return duration


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
"""A positive length of time, written like 2h."""


class OneOf:
    """Annotates the name of a member of a family, whatever members there are when the document is read."""

    def __init__(self, family: Family[Any]) -> None:
        self._family = family

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        return {**handler(schema), "enum": list(self._family)}

    def _known(self, name: str) -> str:
        try:
            return str(self._family[name].name)
        except MlopsError as error:
            raise ValueError(str(error)) from error


class ReadBy:
    """Annotates a part of a document that the member reads whom its ``field`` names.

    The members are pydantic models. Whichever there are when the document is read count, and what is wrong is
    told of the field where it stands, as in any document.
    """

    def __init__(self, family: Family[Any], field: str) -> None:
        self._family, self._field = family, field

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._read, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> Any:
        return {"oneOf": [self._schema(name, handler) for name in self._family]}

    def _schema(self, name: str, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Of one member; its field is the member's name, or a document would fit several members."""
        # By the handler, so that models within the member are defined where the document defines its own.
        schema = handler.resolve_ref_schema(handler(self._family[name].__pydantic_core_schema__))
        field = {**schema["properties"][self._field], "const": name}
        return {**schema, "properties": {**schema["properties"], self._field: field}}

    def _read(self, value: Any) -> Any:
        if isinstance(value, BaseModel):
            return value
        names = ", ".join(self._family)
        if not isinstance(value, Mapping):
            raise ValueError(f"{value!r} is no mapping with a {self._field} ({names})")
        if self._field not in value:
            raise self._wrong(value, f"Field required. Allowed: {names}.")
        try:
            member = self._family[str(value[self._field])]
        except MlopsError as error:
            raise self._wrong(value[self._field], str(error)) from error
        return member.model_validate(dict(value))

    def _wrong(self, value: Any, said: str) -> ValidationError:
        # Dagster makes the error anew, with the line it stands on, and knows pydantic's own types only.
        problem = InitErrorDetails(
            type="value_error", loc=(self._field,), input=value, ctx={"error": ValueError(said)}
        )
        return ValidationError.from_exception_data(self._field, [problem])


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="Lower case, digits and underscores.")]


def _column_name(value: object) -> object:
    if isinstance(value, str) and (not value.strip() or not value.isprintable()):
        raise ValueError(f"{value!r} is not a column name: it needs a visible character, and no control ones")
    return value


ColumnName = Annotated[str, BeforeValidator(_column_name)]
"""Name of a column as a file may have it: blanks and signs are allowed, control characters are not."""


def require_distinct_names(names: Iterable[str], *, reserved: Mapping[str, str]) -> None:
    """ValueError for names that a table cannot hold: the same but for upper and lower case, or taken."""
    seen: dict[str, str] = {}
    taken = {name.lower(): what for name, what in reserved.items()}
    for name in names:
        lower = name.lower()
        if lower in seen:
            raise ValueError(f"columns {seen[lower]!r} and {name!r} differ in upper and lower case only")
        if lower in taken:
            raise ValueError(f"column name {name!r} is taken: it is {taken[lower]}; choose another")
        seen[lower] = name


def _is_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{value!r} is no time zone: write a name like UTC or Europe/Berlin") from error
    return value


TimeZone = Annotated[str, AfterValidator(_is_zone)]
"""A time zone by its name, as the tz database has it."""


class DailyPartitions(Declaration):
    """Daily partitions; a partition key is the text of the day, like 2013-03-10."""

    kind: Literal["daily"] = Field(default="daily", description="One partition per day.")
    start: date = Field(description="First day.")
    end: date | None = Field(default=None, description="The day after the last; open-ended when left out.")
    column: ColumnName = Field(description="Column whose text is the partition key.")
    known_empty: tuple[date, ...] = Field(
        default=(),
        description="Days the source is known to hold no rows for. Any other day without rows fails.",
    )
    empty_days: Literal["fail", "allow"] = Field(
        default="fail",
        description="Whether any day without rows fails, or is written as one that has none.",
    )

    @model_validator(mode="after")
    def _days_are_in_order(self) -> "DailyPartitions":
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end {self.end} must be after start {self.start}")
        outside = [day for day in self.known_empty if day < self.start or (self.end and day >= self.end)]
        if outside:
            raise ValueError(f"known_empty days outside the partitions: {', '.join(map(str, outside))}")
        return self

    @staticmethod
    def is_key(text: str) -> bool:
        """Whether a text is the key of some day, inside the partitions or not: written as 2013-03-10."""
        try:
            return date.fromisoformat(text).isoformat() == text
        except ValueError:
            return False

    def declares(self, key: str) -> bool:
        """Whether a key is that of a declared day: from ``start`` on, and before ``end``."""
        return self.start.isoformat() <= key and (self.end is None or key < self.end.isoformat())

    def definition(self) -> dg.DailyPartitionsDefinition:
        """Dagster's definition. Declared days are calendar days; no time zone moves them."""
        return dg.DailyPartitionsDefinition(
            start_date=self.start.isoformat(), end_date=self.end.isoformat() if self.end else None
        )


def _known_row_rule(value: Any) -> Any:
    return _known(value, ROW_RULES, "a rule on single rows (others go into the suite, or primary_key)")


def _known_expectation(value: Any) -> Any:
    return _known(value, SUITE, "an expectation of a suite")


def _known(value: Any, allowed: tuple[str, ...], what: str) -> Any:
    if value not in allowed:
        raise ValueError(f"{value!r} is not {what}. Allowed: {', '.join(allowed)}")
    return value


def _require_arguments(expectation: Expectation) -> None:
    problem = argument_problem(expectation)
    if problem is not None:
        raise ValueError(problem)


class RowRule(Declaration):
    """A Great Expectations expectation on single rows; a row that breaks it goes to quarantine."""

    type: Annotated[str, BeforeValidator(_known_row_rule)] = Field(description="Name of the expectation.")
    kwargs: dict[str, Any] = Field(description="Its arguments; write timestamps with their time of day.")

    @model_validator(mode="after")
    def _every_row_counts(self) -> "RowRule":
        if "mostly" in self.kwargs:
            raise ValueError("mostly has no meaning for single rows; declare max_quarantine_share instead")
        _require_arguments(self.expectation())
        return self

    def expectation(self) -> Expectation:
        return Expectation(type=self.type, kwargs=self.kwargs)


class SuiteExpectation(Declaration):
    """A Great Expectations expectation on the kept rows of a partition."""

    type: Annotated[str, BeforeValidator(_known_expectation)] = Field(description="Name of the expectation.")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Its arguments.")
    severity: Severity = Field(
        default="critical", description="critical: the partition is not written; warning: it is, and shown."
    )

    @model_validator(mode="after")
    def _arguments_are_there(self) -> "SuiteExpectation":
        _require_arguments(self.expectation())
        return self

    def expectation(self) -> Expectation:
        return Expectation(type=self.type, kwargs=self.kwargs, severity=self.severity)
