"""nvForest scores as the native libraries do. Runs where the extra ``gpu`` is installed, GPU or not."""

from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost

from mlops_assets.testing.small_models import CLASSES, FEATURES, package
from serve.devices import check_parity, parity_matrix, sight
from serve.formats._nvforest import NvForestScorer
from serve.formats.lightgbm_text import LightGbmScorer
from serve.formats.xgboost_ubj import XgboostScorer
from serve.schema import ModelManifest, Task

pytest.importorskip("nvforest", reason="the extra gpu is not installed: docs/gpu.md")

DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.skipif(sight().gpu is None, reason=sight().missing))]
TASKS: list[Task] = ["binary", "multiclass", "regression"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("task", TASKS)
def test_lightgbm_scores_alike(task: Task, device: Any) -> None:
    manifest, payload = package(task)
    parity = check_parity(
        NvForestScorer(manifest, payload, device=device), LightGbmScorer(manifest, payload), version="v1"
    )
    assert parity.largest_difference < 1e-12


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("task", TASKS)
def test_xgboost_scores_alike(task: Task, device: Any) -> None:
    manifest, payload = xgboost_package(task)
    parity = check_parity(
        NvForestScorer(manifest, payload, device=device), XgboostScorer(manifest, payload), version="v1"
    )
    assert parity.largest_difference < 1e-5


@pytest.mark.parametrize("device", DEVICES)
def test_a_random_forest_scores_alike(device: Any) -> None:
    manifest, _ = package()
    matrix = parity_matrix(manifest)
    target = (np.nan_to_num(matrix[:, 0]) > 3_000).astype(float)
    params = {
        "objective": "binary",
        "boosting": "rf",
        "bagging_fraction": 0.5,
        "bagging_freq": 1,
        "verbose": -1,
    }
    payload = lightgbm.train(params, lightgbm.Dataset(matrix, target), 10).model_to_string().encode()
    check_parity(
        NvForestScorer(manifest, payload, device=device), LightGbmScorer(manifest, payload), version="v1"
    )


@pytest.mark.parametrize("device", DEVICES)
def test_a_row_scores_the_same_alone_and_in_a_batch(device: Any) -> None:
    scorer = NvForestScorer(*package("multiclass"), device=device)
    matrix = parity_matrix(scorer.manifest)[:50]
    alone = np.vstack([scorer.score(matrix[row : row + 1]) for row in range(50)])
    np.testing.assert_allclose(alone, scorer.score(matrix), rtol=0, atol=1e-12)


def xgboost_package(task: Task) -> tuple[ModelManifest, bytes]:
    manifest = package(task)[0].model_copy(update={"model_format": "xgboost-ubj", "model_file": "model.ubj"})
    matrix = parity_matrix(manifest)
    signal = np.nan_to_num(matrix[:, 0]) / 6_000 + np.nan_to_num(matrix[:, 4]) / 3
    targets = {"binary": signal > 0.8, "multiclass": np.digitize(signal, [0.6, 1.0]), "regression": signal}
    objectives = {
        "binary": "binary:logistic", "multiclass": "multi:softprob", "regression": "reg:squarederror",
    }  # fmt: skip
    params: dict[str, Any] = {"objective": objectives[task], "nthread": 1, "tree_method": "hist"}
    if task == "multiclass":
        params["num_class"] = len(CLASSES["multiclass"] or ())
    data = xgboost.DMatrix(
        matrix,
        targets[task].astype(float),
        feature_names=[feature.name for feature in FEATURES],
        feature_types=["c" if feature.type == "category" else "float" for feature in FEATURES],
        enable_categorical=True,
    )
    return manifest, bytes(xgboost.train(params, data, 20).save_raw("ubj"))
