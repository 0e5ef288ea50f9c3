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
