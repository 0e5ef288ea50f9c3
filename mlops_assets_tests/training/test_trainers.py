"""Every trainer on every task it does: bytes, parity with its library, rows one by one."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_iris

from mlops_assets.errors import DeclarationError, UnknownName
from mlops_assets.evaluation.baseline import baseline_scores
from mlops_assets.evaluation.metrics import SELECTING, metric
from mlops_assets.training.candidates import manifest_for
from mlops_assets.training.dictionary import with_dictionaries
from mlops_assets.training.trainers import TRAINERS, trainer
from serve.schema import FeatureSpec, Task
from serve.scoring import Encoder, scorer_from_bytes

CASES = [(name, task) for name, found in TRAINERS.items() for task in sorted(found.tasks)]


def table(task: Task) -> tuple[pd.DataFrame, np.ndarray, tuple[FeatureSpec, ...], int]:
    """A small real data set with some values missing, and a category with one value outside training."""
    source = load_diabetes(as_frame=True) if task == "regression" else load_iris(as_frame=True)
    frame = source.data.rename(columns=lambda name: name.replace(" (cm)", "").replace(" ", "_"))
    target = source.target.to_numpy(dtype=float)
    if task == "binary":
        target = (target > 0).astype(float)
    random = np.random.default_rng(0)
    frame["colour"] = random.choice(["red", "green", "blue"], len(frame))
    frame.loc[random.random(len(frame)) < 0.1, frame.columns[0]] = np.nan
    frame.loc[random.random(len(frame)) < 0.1, "colour"] = None
    specs = [FeatureSpec(name=name, type="category" if name == "colour" else "number") for name in frame]
    return (
        frame,
        target,
        with_dictionaries(frame, specs),
        {"binary": 2, "multiclass": 3, "regression": 0}[task],
    )


def fitted(name: str, task: Task):  # type: ignore[no-untyped-def]
    frame, target, features, classes = table(task)
    matrix = Encoder(features).columns(frame)
    model = trainer(name).fit(
        matrix, target, features=features, task=task, classes=classes, params={}, seed=1
    )
    return (
        model,
        scorer_from_bytes(manifest_for(task, name, features, classes), model.payload),
        matrix,
        target,
    )


@pytest.mark.parametrize(("name", "task"), CASES)
def test_it_learns_more_than_the_baseline(name: str, task: Task) -> None:
    _, scorer, matrix, target = fitted(name, task)
    judge = metric(SELECTING[task], task)
    classes = len(scorer.manifest.classes or ())
    learned = judge.value(target, scorer.score(matrix))
    ignorant = judge.value(target, baseline_scores(task, target, len(target), classes))
    assert learned is not None and ignorant is not None and learned < 0.85 * ignorant


@pytest.mark.parametrize(("name", "task"), CASES)
def test_same_inputs_and_seed_give_the_same_bytes(name: str, task: Task) -> None:
    assert fitted(name, task)[0].payload == fitted(name, task)[0].payload


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_row_alone_scores_as_among_many_to_the_bit(name: str, task: Task) -> None:
    _, scorer, matrix, _ = fitted(name, task)
    together = scorer.score(matrix)[:25]
    alone = np.concatenate([scorer.score(matrix[i : i + 1]) for i in range(25)])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_an_unseen_category_scores_as_a_missing_one(name: str, task: Task) -> None:
    _, scorer, _, _ = fitted(name, task)
    row = {feature.name: 1.0 for feature in scorer.manifest.features}
    np.testing.assert_array_equal(
        scorer.score_rows([{**row, "colour": "mauve"}]), scorer.score_rows([{**row, "colour": None}])
    )


@pytest.mark.parametrize(("name", "task"), CASES)
def test_importance_is_a_share_per_feature(name: str, task: Task) -> None:
    model, scorer, _, _ = fitted(name, task)
    assert set(model.importance) == set(scorer.manifest.feature_names)
    assert sum(model.importance.values()) == pytest.approx(1.0)


def test_lightgbm_scores_are_the_librarys_own() -> None:
    import lightgbm

    model, scorer, matrix, _ = fitted("lightgbm", "multiclass")
    own = lightgbm.Booster(model_str=model.payload.decode()).predict(matrix)
    np.testing.assert_array_equal(scorer.score(matrix), own)


def test_xgboost_scores_are_the_librarys_own() -> None:
    import xgboost

    model, scorer, matrix, _ = fitted("xgboost", "binary")
    booster = xgboost.Booster()
    booster.load_model(bytearray(model.payload))
    own = booster.predict(
        xgboost.DMatrix(
            matrix,
            feature_names=booster.feature_names,
            feature_types=["float"] * (matrix.shape[1] - 1) + ["c"],
            enable_categorical=True,
        )
    )
    np.testing.assert_array_equal(scorer.score(matrix), own.astype(float))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_logistic_regression_scores_are_scikit_learns(task: Task) -> None:
    from sklearn.linear_model import LogisticRegression

    from mlops_assets.training.trainers.linear import design_columns, sparse_design

    _, scorer, matrix, target = fitted("logistic_regression", task)
    columns = design_columns(matrix, scorer.manifest.features)
    design = sparse_design(matrix, columns)
    own = (
        LogisticRegression(C=1.0, max_iter=60, tol=1e-3, random_state=1)
        .fit(design, target)
        .predict_proba(design)
    )
    np.testing.assert_allclose(scorer.score(matrix), own[:, 1] if task == "binary" else own, rtol=1e-9)


def test_the_linear_document_is_plain_json() -> None:
    document = json.loads(fitted("ridge", "regression")[0].payload)
    assert set(document) == {"columns", "coefficients", "intercepts"}


def test_an_unknown_trainer_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"'lgbm'\. Allowed: lightgbm, logistic_regression"):
        trainer("lgbm")


def test_an_unknown_parameter_is_named_with_the_known_ones() -> None:
    with pytest.raises(DeclarationError, match=r"'leaves'\. Allowed: .*num_leaves"):
        trainer("lightgbm").parameters({"leaves": 3})


def test_a_task_that_a_trainer_does_not_do_is_refused() -> None:
    with pytest.raises(DeclarationError, match="does not do task 'regression'; it does binary, multiclass"):
        trainer("logistic_regression").require_task("regression")
