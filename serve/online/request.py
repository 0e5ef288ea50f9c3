"""The columns that come with a request: what their values may be. Pure.

Belongs here: one value of JSON as a column's type. Does not belong here: features (``serve/validation.py``),
the shape of a body (``serve/validation.py``, ``serve/inference_protocol.py``).

As everywhere in the contract, JSON types count. A timestamp is ISO 8601 with its zone, a date is like
2013-12-31; an integer may be written 3 or 3.0. Every column must be there; one that is not known is null.
"""

import sys
from datetime import UTC, date, datetime
from typing import Any

from serve.bodies import is_unicode, kind_of
from serve.errors import Problems
from serve.online.held import held_value
from serve.schema import ColumnKind, OnlineView

EXACT_INTEGER = 2**53
LARGEST = sys.float_info.max
_ZONE = "must be a time with its zone, like 2013-12-31T22:15:00Z"
_DATE = "must be a day, like 2013-12-31"


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
    return {
        name: held_value(value_of(value, kind), kind)
        for name, kind in view.columns.items()
        for value in (request[name] if name in request else entity.get(name),)
    }


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
