"""Strict validation of requests against a model's features: every problem named, fast when there is none.

Belongs here: checking the values of a body. Does not belong here: reading it as JSON (``serve/bodies.py``),
HTTP codes (``serve/errors.py``), encoding valid values into a matrix (``serve/scoring.py``). Pure.

Strict means that JSON types count: ``"1.5"`` and ``true`` are not numbers, ``1`` is not a boolean,
``NaN`` and ``1e999`` are nothing. An integer may be written ``3`` or ``3.0``. Every feature must be
present; one that is not known is sent as ``null`` where the feature allows it. A category whose dictionary
holds texts of whole numbers only may be sent as the number: ``3`` and ``3.0`` are ``"3"``.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from serve.bodies import is_unicode, kind_of
from serve.errors import EmptyBatch, InvalidFields, Problems, TooLarge
from serve.schema import FeatureSpec, FeatureValue, ModelManifest

Row = dict[str, FeatureValue]
Entity = dict[str, str | int]
"""Which real thing a row is about: its join keys, in the manifest's order."""
Check = Callable[[Any], str | None]
"""Gives the reason why a value is not valid, or None."""

MAX_UNIT_LENGTH = 256
MAX_KEY_LENGTH = 256
SMALLEST_KEY, LARGEST_KEY = -(2**63), 2**63 - 1
EXACT_INTEGER = 2**53
"""Integers beyond this are not exact as the float64 that the model takes."""


class RowValidator:
    """Checks rows against the features of one model, and join keys against its entity. Built once per
    version; ``entity`` empty: the model takes no keys.
    """

    def __init__(self, features: Sequence[FeatureSpec], entity: Sequence[str] = ()) -> None:
        self._entity = tuple(entity)
        self._checks: tuple[tuple[str, Check], ...] = tuple((f.name, _check(f)) for f in features)
        self._names = frozenset(name for name, _ in self._checks)
        self._coded = tuple(feature.name for feature in features if feature.coded)
        self.takes_codes = bool(self._coded)
        """Whether ``row`` has anything to do."""
        self._count = len(self._checks)

    def problems(self, row: Any, field: str) -> Problems:
        """Every problem of one row, [] when it is valid; ``field`` is where the row stands."""
        if type(row) is not dict:
            return [{"field": field, "reason": f"must be an object of features, not {kind_of(row)}"}]
        found: Problems = []
        present = 0
        for name, check in self._checks:
            try:
                value = row[name]
            except KeyError:
                found.append({"field": f"{field}.{name}", "reason": "is missing"})
                continue
            present += 1
            reason = check(value)
            if reason is not None:
                found.append({"field": f"{field}.{name}", "reason": reason})
        if len(row) != present:
            found += [
                {"field": f"{field}.{name}", "reason": "is not a feature of this model"}
                for name in row
                if name not in self._names
            ]
        return found

    def is_valid(self, row: Any) -> bool:
        return not self.problems(row, "")

    def row(self, valid: dict[str, Any]) -> Row:
        """A valid row as it is scored and logged: categories as text, however they were sent."""
        numbers = {
            name: str(int(value)) for name in self._coded if type(value := valid[name]) in (int, float)
        }
        return {**valid, **numbers} if numbers else valid

    def entity_problems(self, entity: Any, field: str) -> Problems:
        """Every problem of one row's join keys, [] when they are valid or null."""
        if not self._entity:
            return [{"field": field, "reason": "is not taken: this model was declared without join keys"}]
        if entity is None:
            return []
        if type(entity) is not dict:
            return [{"field": field, "reason": f"must be an object of join keys, not {kind_of(entity)}"}]
        found = [
            {"field": f"{field}.{name}", "reason": "is missing"}
            for name in self._entity
            if name not in entity
        ]
        for name, value in entity.items():
            known = name in self._entity
            allowed = ", ".join(self._entity)
            reason = _key_problem(value) if known else f"is not a join key of this model; allowed: {allowed}"
            if reason is not None:
                found.append({"field": f"{field}.{name}", "reason": reason})
        return found

    def batch_entity_problems(self, entities: Any, rows: int) -> Problems:
        """Every problem of a batch's join keys: one object or null per row."""
        if not self._entity:
            return self.entity_problems(entities, "entities")
        if entities is None:
            return []
        if type(entities) is not list:
            return [{"field": "entities", "reason": f"must be an array of objects, not {kind_of(entities)}"}]
        if len(entities) != rows:
            reason = f"must hold one object (or null) per instance: {len(entities)} for {rows} instances"
            return [{"field": "entities", "reason": reason}]
        found: Problems = []
        for position, entity in enumerate(entities):
            found += self.entity_problems(entity, f"entities[{position}]")
        return found

    def entities(self, valid: Sequence[Any]) -> list[Entity | None]:
        """Valid join keys as they are logged: in the manifest's order, integers as integers."""
        return [
            None
            if entity is None
            else {
                name: int(value) if type(value := entity[name]) is float else value for name in self._entity
            }
            for entity in valid
        ]


def single_row(document: dict[str, Any], validator: RowValidator) -> Row:
    """The valid row of a ``/predict`` body; InvalidFields names every problem."""
    found = envelope_problems(document, ("features", "unit", "entity"))
    if "features" in document:
        found += validator.problems(document["features"], "features")
    if "entity" in document:
        found += validator.entity_problems(document["entity"], "entity")
    if found:
        raise InvalidFields(found)
    row: Row = document["features"]
    return validator.row(row) if validator.takes_codes else row


def batch_rows(document: dict[str, Any], validator: RowValidator, *, max_rows: int) -> list[Row]:
    """The valid rows of a ``/batch-predict`` body; InvalidFields names every problem of every row."""
    found = envelope_problems(document, ("instances", "unit", "entities"))
    rows = document.get("instances", [])
    if type(rows) is not list:
        found.append({"field": "instances", "reason": f"must be an array of objects, not {kind_of(rows)}"})
        raise InvalidFields(found)
    if len(rows) > max_rows:
        raise TooLarge("batch", limit=max_rows, unit="rows")
    for position, row in enumerate(rows):
        found += validator.problems(row, f"instances[{position}]")
    if "entities" in document:
        found += validator.batch_entity_problems(document["entities"], len(rows))
    if found:
        raise InvalidFields(found)
    if not rows:
        raise EmptyBatch("instances")
    return [validator.row(row) for row in rows] if validator.takes_codes else rows


def example_row(manifest: ModelManifest) -> Row:
    """A row that the model answers: a golden row where there is a valid one, else made of the examples."""
    validator = RowValidator(manifest.features)
    for golden in manifest.golden:
        if validator.is_valid(golden.features):
            return dict(golden.features)
    return {feature.name: _example(feature) for feature in manifest.features}


def _example(feature: FeatureSpec) -> FeatureValue:
    if feature.example is not None and _check(feature)(feature.example) is None:
        return feature.example
    if feature.nullable:
        return None
    if feature.type == "boolean":
        return False
    if feature.type == "category":
        return feature.categories[0] if feature.categories else "a"
    bounds = [bound for bound in (feature.minimum, feature.maximum) if bound is not None]
    return bounds[0] if bounds else 0


def request_entities(document: dict[str, Any], validator: RowValidator) -> list[Entity | None] | None:
    """Join keys of a valid body, one entry per row; None when it carries none."""
    if "entity" in document:
        return validator.entities([document["entity"]])
    entities = document.get("entities")
    return None if entities is None else validator.entities(entities)


def envelope_problems(document: dict[str, Any], names: tuple[str, ...]) -> Problems:
    """The problems of the body around the rows; the first of ``names`` holds them and must be there."""
    payload = names[0]
    found: Problems = [] if payload in document else [{"field": payload, "reason": "is missing"}]
    found += _unit_problems(document)
    found += [
        {"field": name, "reason": f"is not a field of this request; allowed: {', '.join(names)}"}
        for name in document
        if name not in names
    ]
    return found


def _unit_problems(document: dict[str, Any]) -> Problems:
    unit = document.get("unit")
    if unit is None or (type(unit) is str and 0 < len(unit) <= MAX_UNIT_LENGTH):
        return []
    return [{"field": "unit", "reason": f"must be a string of 1 to {MAX_UNIT_LENGTH} characters, or null"}]


def _key_problem(value: Any) -> str | None:
    """Why a join key's value is not valid, or None. Keys are compared as text, so there are no fractions."""
    kind = type(value)
    if kind is str:
        if not 0 < len(value) <= MAX_KEY_LENGTH:
            return f"must have 1 to {MAX_KEY_LENGTH} characters"
        return None if is_unicode(value) else "must be valid Unicode"
    return _code_problem(value)


def _code_problem(value: Any) -> str | None:
    """Why a value that stands for a text, and is none, is not valid, or None: whole numbers are."""
    kind = type(value)
    if kind is int:
        return None if SMALLEST_KEY <= value <= LARGEST_KEY else "must be within -2^63 and 2^63 - 1"
    if kind is float and value.is_integer():
        # 1582218195625938945.0 is read as another number; two things must not become one.
        return None if -EXACT_INTEGER <= value <= EXACT_INTEGER else "must be an integer without a point"
    if kind is float:
        return "must be a string or an integer, not a fraction"
    return f"must be a string or an integer, not {kind_of(value)}"


def _check(feature: FeatureSpec) -> Check:
    makers: dict[str, Callable[[FeatureSpec], Check]] = {
        "number": _number_check,
        "integer": _integer_check,
        "boolean": _boolean_check,
        "category": _code_check if feature.coded else _category_check,
    }
    return makers[feature.type](feature)


def _null(feature: FeatureSpec) -> str | None:
    return None if feature.nullable else "must not be null"


def _bounds(feature: FeatureSpec) -> tuple[float, float, str]:
    low = -math.inf if feature.minimum is None else feature.minimum
    high = math.inf if feature.maximum is None else feature.maximum
    allowed = [f">= {low:g}"] * (low != -math.inf) + [f"<= {high:g}"] * (high != math.inf)
    return low, high, f"must be {' and '.join(allowed)}"


def _number_check(feature: FeatureSpec) -> Check:
    low, high, out_of_range = _bounds(feature)
    null = _null(feature)
    inf = math.inf

    def check(value: Any) -> str | None:
        kind = type(value)
        if kind is float:
            if not -inf < value < inf:
                return "must be a finite number"
        elif kind is int:
            try:
                float(value)
            except OverflowError:
                return "must be a finite number"
        elif value is None:
            return null
        else:
            return f"must be a number, not {kind_of(value)}"
        return None if low <= value <= high else out_of_range

    return check


def _integer_check(feature: FeatureSpec) -> Check:
    low, high, out_of_range = _bounds(feature)
    null = _null(feature)

    def check(value: Any) -> str | None:
        kind = type(value)
        if kind is float:
            if not value.is_integer():
                return "must be an integer, not a fraction" if math.isfinite(value) else "must be an integer"
        elif kind is not int:
            return null if value is None else f"must be an integer, not {kind_of(value)}"
        if not -EXACT_INTEGER <= value <= EXACT_INTEGER:
            return "must be within -2^53 and 2^53"
        return None if low <= value <= high else out_of_range

    return check


def _boolean_check(feature: FeatureSpec) -> Check:
    null = _null(feature)

    def check(value: Any) -> str | None:
        if value is True or value is False:
            return None
        return null if value is None else f"must be true or false, not {kind_of(value)}"

    return check


def _category_check(feature: FeatureSpec) -> Check:
    null = _null(feature)
    known = frozenset(feature.categories or ()) if feature.unseen == "reject" else None
    shown = ", ".join(repr(name) for name in (feature.categories or ())[:20])
    more = ", ..." if len(feature.categories or ()) > 20 else ""

    def check(value: Any) -> str | None:
        if type(value) is str:
            return None if known is None or value in known else f"must be one of {shown}{more}"
        return null if value is None else f"must be a string, not {kind_of(value)}"

    return check


def _code_check(feature: FeatureSpec) -> Check:
    null = _null(feature)
    of_text = _category_check(feature)

    def check(value: Any) -> str | None:
        if type(value) is str:
            return of_text(value)
        if value is None:
            return null
        return _code_problem(value) or of_text(str(int(value)))

    return check
