"""A random forest by LightGBM's ``rf`` boosting; the model is LightGBM's text format.

Bagged trees over random rows and random columns (Breiman 2001), averaged. LightGBM and not
scikit-learn, because its model is a native text file (scikit-learn offers pickle, or skops with
bytes that differ from run to run), and it takes missing values and categories as they are.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from mlops_assets.training.trainers._base import FitInputs, Trainer
from mlops_assets.training.trainers._boosting import boost
from serve.schema import Task


class RandomForestTrainer(Trainer):
    """``num_rounds`` trees, each on ``bagging_fraction`` of the rows."""

    name: ClassVar[str] = "random_forest"
    tasks: ClassVar[frozenset[Task]] = frozenset({"binary", "multiclass", "regression"})
    model_format: ClassVar[str] = "lightgbm-text"
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_rounds": 60,
        "num_leaves": 127,
        "min_data_in_leaf": 50,
        "feature_fraction_bynode": 0.3,
        "bagging_fraction": 0.632,
        "max_bin": 255,
        "cat_smooth": 20.0,
    }

    def _fit(self, given: FitInputs) -> tuple[bytes, dict[str, float]]:
        return boost(given, extra={"boosting": "rf", "bagging_freq": 1})
