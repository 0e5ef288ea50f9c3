import pytest

from mlops_assets.rollout.golden import difference, expected_answer
from serve.schema import FeatureSpec, GoldenRow, ModelManifest, Task


def manifest(task: Task, classes: tuple[str, ...] | None) -> ModelManifest:
    return ModelManifest(
        name="m",
        task=task,
        trainer="lightgbm",
        model_format="lightgbm-text",
        model_file="model.txt",
        target="y",
        features=(FeatureSpec(name="x", type="number"),),
        classes=classes,
    )


@pytest.mark.parametrize(
    ("task", "classes", "scores", "expected"),
    [
        ("binary", ("no", "yes"), (0.5,), {"prediction": "yes", "probability": 0.5}),
        ("binary", ("no", "yes"), (0.49,), {"prediction": "no", "probability": 0.49}),
        (
            "multiclass",
            ("a", "b", "c"),
            (0.2, 0.5, 0.3),
            {"prediction": "b", "probability": {"a": 0.2, "b": 0.5, "c": 0.3}},
        ),
        (
            "multiclass",
            ("a", "b", "c"),
            (0.4, 0.4, 0.2),
            {"prediction": "a", "probability": {"a": 0.4, "b": 0.4, "c": 0.2}},
        ),
        ("regression", None, (7.25,), {"prediction": 7.25, "probability": None}),
    ],
)
def test_offline_scores_become_the_answer_of_the_contract(
    task: Task, classes: tuple[str, ...] | None, scores: tuple[float, ...], expected: dict[str, object]
) -> None:
    assert expected_answer(manifest(task, classes), GoldenRow(features={"x": 1}, scores=scores)) == expected


def test_the_last_bit_counts() -> None:
    expected = {"prediction": "yes", "probability": 0.1 + 0.2}
    told = difference(
        {"prediction": "yes", "probability": 0.3, "model_version": "v1"}, expected, version="v1"
    )
    assert told is not None and "0.30000000000000004" in told


def test_the_right_answer_of_the_wrong_version_differs() -> None:
    expected = {"prediction": 1.0, "probability": None}
    assert difference({**expected, "model_version": "v1"}, expected, version="v2") is not None
    assert difference({**expected, "model_version": "v2"}, expected, version="v2") is None


def test_a_gpu_may_differ_by_its_tolerance_and_by_no_more() -> None:
    expected = {"prediction": "a", "probability": {"a": 0.6, "b": 0.4}}
    near = {"prediction": "a", "probability": {"a": 0.6000001, "b": 0.3999999}, "model_version": "v1"}
    assert difference(near, expected, version="v1") is not None
    assert difference(near, expected, version="v1", tolerance=1e-6) is None
    assert difference(near, expected, version="v1", tolerance=1e-8) is not None
    other = {**near, "prediction": "b"}
    assert difference(other, expected, version="v1", tolerance=1e-6) is not None
    less = {**near, "probability": {"a": 0.6}}
    assert difference(less, expected, version="v1", tolerance=1e-6) is not None
