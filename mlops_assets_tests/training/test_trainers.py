"""Every trainer keeps the contract; what single ones do beyond it."""

import json

import numpy as np
import pytest

from mlops_assets.errors import UnknownName
from mlops_assets.testing.conformance.small_tables import SmallModel, small_model
from mlops_assets.testing.conformance.trainers import TrainerConformance, cases
from mlops_assets.training.trainers import TRAINERS, trainer
from serve.schema import Task


@pytest.mark.parametrize(("trainer", "task"), cases(TRAINERS.members()))
class TestTrainer(TrainerConformance):
    pass


def model_of(name: str, task: Task) -> SmallModel:
    return small_model(TRAINERS[name], task)


def test_lightgbm_scores_are_the_librarys_own() -> None:
    import lightgbm

    model = model_of("lightgbm", "multiclass")
    own = lightgbm.Booster(model_str=model.fitted.payload.decode()).predict(model.table.matrix)
    np.testing.assert_array_equal(model.scorer().score(model.table.matrix), own)


def test_xgboost_scores_are_the_librarys_own() -> None:
    import xgboost

    model = model_of("xgboost", "binary")
    matrix = model.table.matrix
    booster = xgboost.Booster()
    booster.load_model(bytearray(model.fitted.payload))
    own = booster.predict(
        xgboost.DMatrix(
            matrix,
            feature_names=booster.feature_names,
            feature_types=["float"] * (matrix.shape[1] - 1) + ["c"],
            enable_categorical=True,
        )
    )
    np.testing.assert_array_equal(model.scorer().score(matrix), own.astype(float))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_logistic_regression_scores_are_scikit_learns(task: Task) -> None:
    from sklearn.linear_model import LogisticRegression

    from mlops_assets.training.trainers._linear import design_columns, sparse_design

    model = model_of("logistic_regression", task)
    matrix, target = model.table.matrix, model.table.target
    columns = design_columns(matrix, model.table.features)
    design = sparse_design(matrix, columns)
    own = (
        LogisticRegression(C=1.0, max_iter=60, tol=1e-3, random_state=1)
        .fit(design, target)
        .predict_proba(design)
    )
    np.testing.assert_allclose(
        model.scorer().score(matrix), own[:, 1] if task == "binary" else own, rtol=1e-9
    )


def test_the_linear_document_is_plain_json() -> None:
    document = json.loads(model_of("ridge", "regression").fitted.payload)
    assert set(document) == {"columns", "coefficients", "intercepts"}


def test_an_unknown_trainer_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"'lgbm'\. Allowed: lightgbm, logistic_regression"):
        trainer("lgbm")
