"""Gradient boosting by XGBoost; the model is its universal binary JSON."""

from collections.abc import Mapping
from typing import Any, ClassVar

from mlops_assets.training.trainers._base import FitInputs, Trainer, threads
from serve.schema import Task

OBJECTIVES: dict[Task, str] = {
    "binary": "binary:logistic",
    "multiclass": "multi:softprob",
    "regression": "reg:squarederror",
}


class XgboostTrainer(Trainer):
    """``num_rounds`` histogram trees of at most ``max_depth`` levels."""

    name: ClassVar[str] = "xgboost"
    tasks: ClassVar[frozenset[Task]] = frozenset(OBJECTIVES)
    model_format: ClassVar[str] = "xgboost-ubj"
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_rounds": 150,
        "eta": 0.1,
        "max_depth": 7,
        "min_child_weight": 20.0,
        "subsample": 0.8,
        "colsample_bytree": 0.7,
        "reg_lambda": 1.0,
        "max_bin": 256,
        "max_cat_to_onehot": 4,
    }

    def _fit(self, given: FitInputs) -> tuple[bytes, dict[str, float]]:
        import xgboost

        names = [feature.name for feature in given.features]
        columns = [f"f{position}" for position in range(len(names))]
        data = xgboost.QuantileDMatrix(
            given.matrix,
            given.target,
            feature_names=columns,
            feature_types=["c" if feature.type == "category" else "float" for feature in given.features],
            enable_categorical=True,
            max_bin=int(given.params["max_bin"]),
            nthread=threads(len(given.target)),
        )
        settings = {
            "objective": OBJECTIVES[given.task],
            "tree_method": "hist",
            "seed": given.seed,
            "verbosity": 0,
            "nthread": threads(len(given.target)),
            **{name: value for name, value in given.params.items() if name != "num_rounds"},
            # A child heavier than a small table would leave no split at all.
            "min_child_weight": min(float(given.params["min_child_weight"]), len(given.target) / 50),
            **({"num_class": given.classes} if given.task == "multiclass" else {}),
        }
        booster = xgboost.train(settings, data, num_boost_round=int(given.params["num_rounds"]))
        gain = booster.get_score(importance_type="total_gain")
        importance = {name: float(gain.get(column, 0.0)) for name, column in zip(names, columns, strict=True)}
        return bytes(booster.save_raw("ubj")), importance
