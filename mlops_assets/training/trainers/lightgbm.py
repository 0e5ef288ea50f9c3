"""Gradient boosting by LightGBM; the model is its text format."""

from collections.abc import Mapping
from typing import Any, ClassVar

from mlops_assets.training.trainers._base import FitInputs, Trainer
from mlops_assets.training.trainers._boosting import OBJECTIVES, boost
from serve.schema import Task


class LightGbmTrainer(Trainer):
    """``num_rounds`` trees of at most ``num_leaves`` leaves."""

    name: ClassVar[str] = "lightgbm"
    tasks: ClassVar[frozenset[Task]] = frozenset(OBJECTIVES)
    model_format: ClassVar[str] = "lightgbm-text"
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_rounds": 200,
        "learning_rate": 0.06,
        "num_leaves": 63,
        "min_data_in_leaf": 100,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 1.0,
        "cat_smooth": 20.0,
        "max_cat_threshold": 32,
        "max_bin": 255,
    }

    def _fit(self, given: FitInputs) -> tuple[bytes, dict[str, float]]:
        return boost(given, extra={})
