"""A view's function on one row: loaded from its source, held to examples, its result as features."""

from typing import Any

import pytest

from serve.online.transform import ExampleMismatch, Transformed, TransformFailed, verify_examples
from serve.schema import FeatureSpec, OnlineExample, OnlineTransform, OnlineView

SOURCE = """
from datetime import timedelta

def features(row):
    tomorrow = row["day"] + timedelta(days=1)
    return {**row, "hour": row["at"].hour, "double": row["amount"] * 2, "next": tomorrow}
"""
FEATURES = (FeatureSpec(name="hour", type="integer"), FeatureSpec(name="double", type="number"))


def view(source: str = SOURCE, *examples: OnlineExample) -> OnlineView:
    return OnlineView(
        name="sales",
        store="sqlite",
        base="sales",
        event_timestamp="at",
        columns={"id": "integer", "at": "timestamp", "amount": "number", "day": "date"},
        entity=("id",),
        request=("at", "amount", "day"),
        transform=OnlineTransform(source=source, function="features"),
        stale_after_s=60,
        examples=examples,
    )


def example(**features: Any) -> OnlineExample:
    row = {"id": 1, "at": "2013-03-10T12:30:00+01:00", "amount": 0.1, "day": "2013-03-10"}
    return OnlineExample(row=row, features={"hour": 11, "double": 0.2, **features})


def test_examples_that_it_gives_again_are_counted() -> None:
    assert verify_examples(view(SOURCE, example(), example()), FEATURES) == 2


def test_an_example_that_differs_in_the_last_bit_is_told_with_both_values() -> None:
    wrong = example(double=0.20000000000000004)
    with pytest.raises(ExampleMismatch, match=r"example 1 .* 'double' is 0\.2 here, .* was 0\.2000"):
        verify_examples(view(SOURCE, example(), wrong), FEATURES)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def features(row):", "cannot be loaded: .*Error"),
        ("import no_such_module", "cannot be loaded: ModuleNotFoundError"),
        ("x = 1", "cannot be loaded: AttributeError"),
    ],
)
def test_a_source_without_the_function_is_refused(source: str, reason: str) -> None:
    with pytest.raises(TransformFailed, match=reason):
        Transformed(view(source), FEATURES)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ("1 / 0", "failed: ZeroDivisionError"),
        ("{'hour': 1}", "gives nothing for feature 'double', declared as number"),
        ("{'hour': 1.5, 'double': 1}", "gives 1.5 for feature 'hour', declared as integer"),
        ("{'hour': True, 'double': 1}", "gives True for feature 'hour', declared as integer"),
        ("{'hour': 1, 'double': '1'}", "gives '1' for feature 'double', declared as number"),
    ],
)
def test_what_is_no_feature_is_told_by_name(result: str, reason: str) -> None:
    made = Transformed(view(f"def features(row): return {result}"), FEATURES)
    with pytest.raises(TransformFailed, match=reason):
        made.row({})


def test_results_are_features_of_their_declared_types() -> None:
    source = "def features(row): return {'n': 2, 'i': 3.0, 'b': 1, 'c': 7, 'nan': float('nan'), 'none': None}"
    specs = [
        FeatureSpec(name="n", type="number"),
        FeatureSpec(name="i", type="integer"),
        FeatureSpec(name="b", type="boolean"),
        FeatureSpec(name="c", type="category"),
        FeatureSpec(name="nan", type="number"),
        FeatureSpec(name="none", type="category"),
    ]
    found = Transformed(view(source), specs).row({})
    assert found == {"n": 2.0, "i": 3, "b": True, "c": "7", "nan": None, "none": None}
    assert [type(value) for value in found.values()][:4] == [float, int, bool, str]
