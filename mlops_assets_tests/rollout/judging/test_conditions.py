import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.errors import DeclarationError
from mlops_assets.rollout.judging.conditions import DEFAULT_ANALYSES, Analysis, Condition
from mlops_assets.rollout.judging.metrics import ANALYSIS_METRICS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "increase",
        "increase 0.02",
        "increase >= 0.02",
        "increase == 0.02",
        "increase <= two",
        "<= 0.02",
        "increase <= nan",
        "increase <= inf",
        "increase <= 0.02 or so",
        "increase <= 0.02\nvalue <= 1",
    ],
)
def test_what_is_no_condition_is_refused_with_the_allowed_ones_and_an_example(text: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        Condition.parse(text, metric="error_rate")
    assert "increase" in str(refused.value) and "value" in str(refused.value)
    assert "`increase <= 0.02`" in str(refused.value)
    assert "latency" not in str(refused.value)


def test_an_unknown_quantity_is_refused_with_those_of_the_metric() -> None:
    with pytest.raises(DeclarationError, match=r"error_rate has no quantity 'ratio'.*increase.*value"):
        Condition.parse("ratio <= 2", metric="error_rate")
    with pytest.raises(DeclarationError, match=r"unknown quantity 'speed'.*latency_p95 has ratio"):
        Condition.parse("speed <= 2")


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("error_rate", "increase <= 2"),
        ("error_rate", "value <= -0.1"),
        ("latency_p95", "ratio <= 0"),
        ("latency_p95", "value_ms <= 0.5"),
        ("latency_p95", "value_ms <= 20000"),
        ("prediction_shift", "mean <= -1"),
        # No number of requests proves that there are no errors, and no share is above one.
        ("error_rate", "value <= 0"),
        ("error_rate", "value <= 1"),
        ("error_rate", "increase <= -1"),
        ("error_rate", "increase < 1"),
    ],
)
def test_a_limit_that_no_value_can_meet_or_miss_is_refused(metric: str, text: str) -> None:
    with pytest.raises(DeclarationError, match="could both keep and break"):
        Condition.parse(text, metric=metric)


@pytest.mark.parametrize(
    ("problem", "changes"),
    [
        ("level", {"level": 0.0}),
        ("level", {"level": 1.0}),
        ("failure_limit", {"failure_limit": -1}),
        ("inconclusive_limit", {"inconclusive_limit": -1}),
        ("no quantity", {"metric": "quality"}),
        ("unknown metric", {"metric": "speed"}),
    ],
)
def test_an_analysis_without_sense_is_refused(problem: str, changes: dict[str, object]) -> None:
    arguments = {"metric": "error_rate", "condition": Condition("value", "<=", 0.01), **changes}
    with pytest.raises(DeclarationError, match=problem):
        Analysis(**arguments)  # type: ignore[arg-type]


def test_an_operator_that_is_none_is_refused() -> None:
    with pytest.raises(DeclarationError, match="operator '>='"):
        Condition("increase", ">=", 0.02)  # type: ignore[arg-type]


def test_every_quantity_has_an_example_that_parses() -> None:
    for metric in ANALYSIS_METRICS:
        for name, quantity in ANALYSIS_METRICS[metric].quantities.items():
            condition = Condition.parse(quantity.example, metric=metric)
            assert condition.quantity == name
            assert str(condition) == quantity.example


@given(
    st.sampled_from(["<=", "<"]),
    st.floats(-1, 1, exclude_min=True, exclude_max=True),
    st.sampled_from(["", " ", "  "]),
)
def test_what_is_said_is_what_is_parsed(operator: str, number: float, space: str) -> None:
    condition = Condition.parse(
        f"{space}increase{space}{operator}{space}{number!r}{space}", metric="error_rate"
    )
    assert (condition.operator, condition.number) == (operator, number)


def test_only_the_paired_distance_needs_pairs() -> None:
    assert Analysis("prediction_shift", Condition("distance", "<=", 0.1)).needs_pairs
    assert not Analysis("prediction_shift", Condition("mean", "<=", 0.1)).needs_pairs


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("prediction_shift", "distance <= 0"),
        ("latency_p95", "value_ms <= 1"),
        ("latency_p95", "value_ms <= 10000"),
        ("quality", "increase <= 0"),
    ],
)
def test_a_limit_at_the_edge_that_can_be_kept_and_broken_is_taken(metric: str, text: str) -> None:
    assert str(Condition.parse(text, metric=metric)) == text


def test_the_defaults_judge_errors_and_latency() -> None:
    assert [str(analysis) for analysis in DEFAULT_ANALYSES] == [
        "error_rate increase <= 0.02",
        "latency_p95 value_ms <= 500",
    ]
