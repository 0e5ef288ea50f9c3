"""The columns of a request: every problem named, values as a store has them."""

from typing import Any

import pytest

from serve.online.held import EPOCH, plain_value
from serve.online.request import held_event, request_problems
from serve.schema import ColumnKind, OnlineView

COLUMNS: dict[str, ColumnKind] = {
    "id": "string",
    "at": "timestamp",
    "day": "date",
    "name": "string",
    "count": "integer",
    "amount": "number",
    "open": "boolean",
}
VIEW = OnlineView(
    name="sales",
    store="sqlite",
    base="sales",
    event_timestamp="at",
    columns=COLUMNS,
    entity=("id",),
    request=tuple(name for name in COLUMNS if name != "id"),
    stale_after_s=60,
)
VALID: dict[str, Any] = {
    "at": "2013-12-31T22:15:00.000001+01:00",
    "day": "2013-12-31",
    "name": "ü",
    "count": 3.0,
    "amount": 2,
    "open": True,
}


def test_a_valid_request_is_a_row_as_a_store_has_it() -> None:
    assert request_problems(VIEW, VALID, "request") == []
    row = held_event(VIEW, {"id": "a"}, VALID)
    assert row == {
        "id": "a",
        "at": 1388524500000001,
        "day": "2013-12-31",
        "name": "ü",
        "count": 3,
        "amount": 2.0,
        "open": True,
    }
    assert type(row["count"]) is int and type(row["amount"]) is float
    assert (plain_value(row["at"], "timestamp") - EPOCH).total_seconds() == 1388524500.000001


def test_all_but_the_time_of_the_event_may_be_null() -> None:
    nothing = dict.fromkeys(VALID)
    assert request_problems(VIEW, nothing, "request") == [
        {"field": "request.at", "reason": "must not be null"}
    ]


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("at", "2013-12-31T22:15:00", "must be a time with its zone, like 2013-12-31T22:15:00Z"),
        ("at", 1388524500, "must be a time with its zone"),
        ("at", "0001-01-01T00:00:00+14:00", "must be a time with its zone"),
        ("day", "31.12.2013", "must be a day, like 2013-12-31"),
        ("name", 7, "must be a string, not a number"),
        ("name", "\ud800", "must be valid Unicode"),
        ("count", 3.5, "must be an integer within -2^53 and 2^53"),
        ("count", True, "must be a number, not a boolean"),
        ("count", 2**60, "must be an integer within"),
        ("amount", float("inf"), "must be a finite number"),
        ("amount", 10**400, "must be a finite number"),
        ("amount", "1", "must be a number, not a string"),
        ("open", 1, "must be true or false, not a number"),
        ("id", "a", "is not a column of this request; allowed: at, day"),
    ],
)
def test_a_wrong_value_is_told_by_column(column: str, value: Any, reason: str) -> None:
    [problem] = request_problems(VIEW, {**VALID, column: value}, "requests[1]")
    assert problem["field"] == f"requests[1].{column}" and problem["reason"].startswith(reason)


def test_a_missing_column_and_no_object_are_told() -> None:
    left = {name: value for name, value in VALID.items() if name != "day"}
    assert request_problems(VIEW, left, "request") == [{"field": "request.day", "reason": "is missing"}]
    assert request_problems(VIEW, [], "request")[0]["reason"] == "must be an object of columns, not an array"
