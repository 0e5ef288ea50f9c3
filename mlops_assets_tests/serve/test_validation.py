"""Validation against whatever JSON can hold: it names problems, never raises anything else, never guesses."""

import json
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_assets.testing.small_models import FEATURES, ROW, package
from serve.bodies import parse_object
from serve.errors import ApiError, InvalidFields, MalformedBody
from serve.inference_protocol import read, rows_of
from serve.openapi import feature_schema
from serve.schema import FeatureSpec
from serve.scoring import Encoder
from serve.validation import (
    RowValidator,
    batch_rows,
    example_row,
    request_entities,
    single_row,
)

VALIDATOR = RowValidator(FEATURES)
KEYED = RowValidator(FEATURES, ("flight_id", "day"))
MANIFEST, _ = package()

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(),
    st.sampled_from([10**308, -(10**309), 2**53 + 1, 10**400]),
    st.sampled_from(["1.5", "NaN", "", "\ud800", "JFK", "true", "null"]),
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
nearly_valid = st.dictionaries(st.sampled_from([*ROW, "gate"]), scalars, max_size=2).map(
    lambda changes: {**ROW, **changes}
)
rows = st.just(ROW) | nearly_valid | st.dictionaries(st.sampled_from([*ROW, "gate"]), anything)


def refusal_or(call: Callable[[], Any]) -> Any:
    """What the call gives, or the refusal it raises; anything else that it raises fails the test."""
    try:
        return call()
    except ApiError as error:
        json.loads(error.body())
        json.loads(error.v2_body())
        return error


def as_sent(value: Any) -> bytes:
    return json.dumps(value).encode()


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200) | anything.map(as_sent))
def test_any_bytes_are_an_object_or_a_refusal(body: bytes) -> None:
    outcome = refusal_or(lambda: parse_object(body))
    assert type(outcome) in (dict, MalformedBody, InvalidFields)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["features", "unit", "instances", "x"]), rows | anything))
def test_whatever_is_valid_can_be_encoded_and_whatever_is_not_is_named(document: dict[str, Any]) -> None:
    outcome = refusal_or(lambda: single_row(document, VALIDATOR))
    if isinstance(outcome, ApiError):
        assert outcome.status == 400
        assert outcome.details and all(entry["field"] and entry["reason"] for entry in outcome.details)
        return
    matrix = Encoder(FEATURES).rows([outcome])
    assert matrix.shape == (1, len(FEATURES))
    assert not np.isinf(matrix).any()
    assert 0 <= matrix[0, 0] <= 6000
    assert matrix[0, 5] in (0.0, 1.0)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(list(ROW)), scalars, max_size=6))
def test_a_row_is_valid_exactly_when_no_rule_is_broken(changes: dict[str, Any]) -> None:
    row = {**ROW, **changes}
    named = {problem["field"].removeprefix("f.") for problem in VALIDATOR.problems(row, "f")}
    assert named == {name for name, value in row.items() if not plainly_valid(name, value)}


def plainly_valid(name: str, value: Any) -> bool:
    """The rules again, written without regard for speed."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and abs(value) > sys.float_info.max:
        return False
    if isinstance(value, float) and math.isnan(value):
        return False
    if value is None:
        return name not in ("distance", "origin")
    if name == "distance":
        return number and 0 <= value <= 6000
    if name == "delay":
        return number
    if name == "hour":
        return number and value == int(value) and 0 <= value <= 23
    if name == "weekend":
        return isinstance(value, bool)
    return isinstance(value, str) and (name == "carrier" or value in ("EWR", "JFK"))


keys = st.dictionaries(st.sampled_from(["flight_id", "day", "gate"]), scalars) | anything


@settings(max_examples=200, deadline=None)
@given(st.lists(keys, min_size=1, max_size=3))
def test_join_keys_are_valid_and_can_be_logged_or_are_refused(entities: list[Any]) -> None:
    document = {"instances": [ROW] * len(entities), "entities": entities}
    outcome = refusal_or(lambda: batch_rows(document, KEYED, max_rows=3))
    if isinstance(outcome, ApiError):
        assert all(entry["field"].startswith("entities[") for entry in outcome.details)
        return
    for given_keys, logged in zip(entities, request_entities(document, KEYED) or [], strict=True):
        if given_keys is None:
            assert logged is None
            continue
        assert list(logged) == ["flight_id", "day"] and logged == given_keys
        assert all(type(value) in (str, int) for value in logged.values())
        json.dumps(logged, ensure_ascii=False).encode("utf-8")


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["instances", "unit"]), st.lists(rows | anything, max_size=3) | anything)
)
def test_any_batch_is_valid_or_refused(document: dict[str, Any]) -> None:
    outcome = refusal_or(lambda: batch_rows(document, VALIDATOR, max_rows=2))
    if isinstance(outcome, ApiError):
        assert outcome.status in (400, 413)
    else:
        assert 1 <= len(outcome) <= 2
        assert all(VALIDATOR.is_valid(row) for row in outcome)


tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from([*ROW, "gate"]) | scalars,
        "shape": st.lists(st.integers(0, 3), max_size=2) | anything,
        "datatype": st.sampled_from(["FP64", "INT64", "BOOL", "BYTES"]) | anything,
        "data": st.lists(scalars | st.lists(scalars, max_size=2), max_size=3) | anything,
    },
)


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries({"inputs": st.lists(tensors | anything, max_size=8) | anything}))
def test_any_tensors_are_rows_or_a_refusal(document: dict[str, Any]) -> None:
    def rows() -> Any:
        sent = read(as_sent(document), None, name="flights", max_rows=2)
        return rows_of(sent, MANIFEST, VALIDATOR)[0]

    outcome = refusal_or(rows)
    if isinstance(outcome, ApiError):
        assert outcome.status in (400, 413)
    else:
        assert outcome and all(VALIDATOR.is_valid(row) for row in outcome)


def test_every_unknown_field_is_named_beside_the_missing_ones() -> None:
    problems = VALIDATOR.problems({"a": 1, "b": 2}, "features")
    assert {problem["field"] for problem in problems} == {f"features.{name}" for name in (*ROW, "a", "b")}


@pytest.mark.parametrize("kind", ["number", "integer", "boolean", "category"])
@pytest.mark.parametrize("nullable", [True, False])
def test_the_example_without_golden_rows_is_valid_too(kind: str, nullable: bool) -> None:
    bounds = {"minimum": 5, "maximum": 6} if kind in ("number", "integer") else {}
    reject = {"categories": ("x", "y"), "unseen": "reject"} if kind == "category" else {}
    feature = FeatureSpec(name="f", type=kind, nullable=nullable, **bounds, **reject)
    manifest = MANIFEST.model_copy(update={"features": (feature,), "golden": ()})
    assert RowValidator((feature,)).is_valid(example_row(manifest))


def test_a_golden_row_outside_the_declared_range_is_no_example() -> None:
    outside = MANIFEST.golden[0].model_copy(update={"features": {**ROW, "hour": 99}})
    manifest = MANIFEST.model_copy(update={"golden": (outside, MANIFEST.golden[1])})
    assert example_row(manifest) == MANIFEST.golden[1].features


# -- categories of whole numbers ---------------------------------------------------------------------

CODED = FeatureSpec(name="gate", type="category", categories=("12", "0", "-3"))
TAKEN = {
    3: "3",
    -3: "-3",
    12.0: "12",
    -0.0: "0",
    "3": "3",
    "A": "A",
    "": "",
    "03": "03",
    2**63 - 1: str(2**63 - 1),
}


@pytest.mark.parametrize("sent", TAKEN, ids=repr)
def test_a_whole_number_is_taken_as_the_text_of_its_category(sent: Any) -> None:
    validator = RowValidator([CODED])
    assert single_row({"features": {"gate": sent}}, validator) == {"gate": TAKEN[sent]}
    assert batch_rows({"instances": [{"gate": sent}, {"gate": None}]}, validator, max_rows=2) == [
        {"gate": TAKEN[sent]},
        {"gate": None},
    ]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (1.5, "must be a string or an integer, not a fraction"),
        (True, "must be a string or an integer, not a boolean"),
        ([3], "must be a string or an integer, not an array"),
        (2.0**53 + 2, "must be an integer without a point"),
        (2**63, "must be within -2^63 and 2^63 - 1"),
        (math.inf, "must be a string or an integer, not a fraction"),
    ],
)
def test_what_is_neither_text_nor_a_whole_number_is_no_category(sent: Any, reason: str) -> None:
    assert RowValidator([CODED]).problems({"gate": sent}, "f") == [{"field": "f.gate", "reason": reason}]


def test_a_whole_number_outside_the_dictionary_is_refused_where_others_are() -> None:
    strict = RowValidator([CODED.model_copy(update={"unseen": "reject"})])
    assert single_row({"features": {"gate": 12}}, strict) == {"gate": "12"}
    for unseen in (7, "7"):
        (problem,) = strict.problems({"gate": unseen}, "f")
        assert problem["reason"] == "must be one of '12', '0', '-3'"


@pytest.mark.parametrize("categories", [("12", "A"), ("01",), ("1.0",), ("-0",), (str(2**63),), None])
def test_a_category_of_texts_takes_no_number(categories: tuple[str, ...] | None) -> None:
    feature = FeatureSpec(name="gate", type="category", categories=categories)
    (problem,) = RowValidator([feature]).problems({"gate": 12}, "f")
    assert problem["reason"] == "must be a string, not a number"


def test_a_category_that_was_never_seen_takes_whole_numbers_too() -> None:
    validator = RowValidator([CODED.model_copy(update={"categories": ()})])
    assert single_row({"features": {"gate": 3}}, validator) == {"gate": "3"}


def test_rows_without_such_categories_are_given_as_they_were_sent() -> None:
    assert single_row({"features": ROW}, VALIDATOR) is ROW


@pytest.mark.parametrize(
    ("datatype", "data"),
    [("BYTES", ["12", "7"]), ("INT64", [12, 7]), ("UINT8", [12, 7]), ("FP32", [12.0, 7.0])],
)
def test_tensors_of_whole_numbers_are_taken_for_such_a_category(datatype: str, data: list[Any]) -> None:
    manifest = MANIFEST.model_copy(update={"features": (CODED,)})
    body = as_sent({"inputs": [{"name": "gate", "shape": [2], "datatype": datatype, "data": data}]})
    rows = rows_of(read(body, None, name="flights", max_rows=2), manifest, RowValidator([CODED]))[0]
    assert rows == [{"gate": "12"}, {"gate": "7"}]


def test_a_tensor_of_truth_is_no_such_category() -> None:
    manifest = MANIFEST.model_copy(update={"features": (CODED,)})
    body = as_sent({"inputs": [{"name": "gate", "shape": [1], "datatype": "BOOL", "data": [True]}]})
    with pytest.raises(InvalidFields) as caught:
        rows_of(read(body, None, name="flights", max_rows=2), manifest, RowValidator([CODED]))
    assert caught.value.details[0]["reason"] == "gate takes BYTES or INT64"


@pytest.mark.parametrize("unseen", ["missing", "reject"])
def test_the_description_takes_what_is_taken(unseen: str) -> None:
    described = feature_schema(CODED.model_copy(update={"unseen": unseen}))
    assert described["type"] == ["string", "integer", "null"]
    if unseen == "reject":
        assert described["enum"] == ["12", "0", "-3", 12, 0, -3, None]
    assert feature_schema(CODED.model_copy(update={"nullable": False}))["type"] == ["string", "integer"]
