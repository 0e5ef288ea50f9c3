"""The columns that come with a request: what their values may be. Pure.

Belongs here: bodies of keys, one value of JSON as a column's type. Does not belong here: features
(``serve/validation.py``), the V2 protocol (``serve/inference_protocol.py``), looking up (``lookup.py``).

As everywhere in the contract, JSON types count. A timestamp is ISO 8601 with its zone, a date is like
2013-12-31; an integer may be written 3 or 3.0. Every column must be there; one that is not known is null.
"""

import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from serve.bodies import is_unicode, kind_of
from serve.errors import EmptyBatch, InvalidFields, Problems, TooLarge
from serve.online.held import held_value
from serve.schema import ColumnKind, OnlineView, is_whole_number
from serve.validation import RowValidator, envelope_problems

EXACT_INTEGER = 2**53
LARGEST = sys.float_info.max
_ZONE = "must be a time with its zone, like 2013-12-31T22:15:00Z"
_DATE = "must be a day, like 2013-12-31"


@dataclass(frozen=True)
class KeyedRow:
    """What a caller sent of one row: valid join keys, and the request's columns."""

    entity: dict[str, Any]
    request: dict[str, Any]


def sent_row(document: dict[str, Any], view: OnlineView, validator: RowValidator) -> list[KeyedRow]:
    """The one row of a ``/predict`` body of keys; InvalidFields names every problem."""
    found = envelope_problems(document, ("request", "unit", "entity"))
    if "request" in document:
        found += request_problems(view, document["request"], "request")
    found += entity_problems(view, validator, document.get("entity"), "entity")
    if found:
        raise InvalidFields(found)
    return [KeyedRow(document["entity"], document["request"])]


def sent_rows(
    document: dict[str, Any], view: OnlineView, validator: RowValidator, *, max_rows: int
) -> list[KeyedRow]:
    """The rows of a ``/batch-predict`` body of keys; InvalidFields names every problem of every row."""
    found = envelope_problems(document, ("requests", "unit", "entities"))
    requests, entities = document.get("requests"), document.get("entities")
    if type(requests) is not list:
        kind = kind_of(requests)
        found.append({"field": "requests", "reason": f"must be an array of objects, not {kind}"})
        raise InvalidFields(found)
    if len(requests) > max_rows:
        raise TooLarge("batch", limit=max_rows, unit="rows")
    for number, request in enumerate(requests):
        found += request_problems(view, request, f"requests[{number}]")
    found += validator.batch_entity_problems(entities, len(requests))
    if type(entities) is list and len(entities) == len(requests):
        for number, entity in enumerate(entities):
            found += entity_problems(view, None, entity, f"entities[{number}]")
    elif entities is None:
        found.append({"field": "entities", "reason": "is missing: one object of join keys per request"})
    if found:
        raise InvalidFields(found)
    if not requests:
        raise EmptyBatch("requests")
    return [KeyedRow(entity, request) for entity, request in zip(entities or (), requests, strict=True)]


def entity_problems(view: OnlineView, validator: RowValidator | None, entity: Any, field: str) -> Problems:
    """Every problem of the join keys that rows are looked up by. ``validator`` None: it has had its say."""
    if entity is None:
        return [{"field": field, "reason": f"must hold the join keys: {', '.join(view.entity)}"}]
    found = validator.entity_problems(entity, field) if validator else []
    if found or type(entity) is not dict:
        return found
    return [
        {"field": f"{field}.{name}", "reason": "must be an integer"}
        for name in view.entity
        if view.columns[name] == "integer"
        and type(entity.get(name)) is str
        and not is_whole_number(entity[name])
    ]


def request_problems(view: OnlineView, request: Any, field: str) -> Problems:
    """Every problem of one row's request columns, [] when they are valid; ``field`` is where they stand."""
    if type(request) is not dict:
        return [{"field": field, "reason": f"must be an object of columns, not {kind_of(request)}"}]
    found: Problems = [
        {"field": f"{field}.{name}", "reason": "is missing"} for name in view.request if name not in request
    ]
    for name, value in request.items():
        reason = f"is not a column of this request; allowed: {', '.join(view.request)}"
        if name in view.request:
            reason = _problem(view, name, value)
        if reason:
            found.append({"field": f"{field}.{name}", "reason": reason})
    return found


def held_event(view: OnlineView, entity: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Valid keys and columns as one row, in the form of a store."""
    row = {
        name: held_value(value_of(request[name], view.columns[name]), view.columns[name])
        for name in view.request
    }
    for name in view.entity:
        # Keys are compared as text everywhere: 7 and "7" name the same thing.
        row[name] = str(entity[name]) if view.columns[name] == "string" else int(entity[name])
    return row


def value_of(value: Any, kind: ColumnKind) -> Any:
    """A valid value of JSON as a plain one; ValueError and TypeError for one that is not."""
    if value is None:
        return None
    if kind == "timestamp":
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError(value)
        return moment.astimezone(UTC)
    if kind == "date":
        return date.fromisoformat(value)
    if kind == "number":
        return float(value)
    return int(value) if kind == "integer" else value


def _problem(view: OnlineView, name: str, value: Any) -> str:
    """Why a value is not valid, "" when it is."""
    kind = view.columns[name]
    if value is None:
        return "must not be null" if name == view.event_timestamp else ""
    if kind in ("timestamp", "date"):
        said = _ZONE if kind == "timestamp" else _DATE
        try:
            value_of(value, kind)
        except (TypeError, ValueError, OverflowError):
            return said
        return ""
    if kind == "string":
        if type(value) is not str:
            return f"must be a string, not {kind_of(value)}"
        return "" if is_unicode(value) else "must be valid Unicode"
    if kind == "boolean":
        return "" if type(value) is bool else f"must be true or false, not {kind_of(value)}"
    if type(value) not in (int, float):
        return f"must be a number, not {kind_of(value)}"
    return _number_problem(value, kind)


def _number_problem(value: float, kind: ColumnKind) -> str:
    if not -LARGEST <= value <= LARGEST:
        return "must be a finite number"
    if kind == "integer" and (value != int(value) or abs(value) > EXACT_INTEGER):
        return "must be an integer within -2^53 and 2^53"
    return ""
