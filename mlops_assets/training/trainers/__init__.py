"""Trainers, one file each, by the name that YAML uses."""

from mlops_assets.errors import UnknownName
from mlops_assets.training.trainers._base import FittedModel, Trainer
from mlops_assets.training.trainers.lightgbm import LightGbmTrainer
from mlops_assets.training.trainers.linear import LogisticRegressionTrainer, RidgeTrainer
from mlops_assets.training.trainers.random_forest import RandomForestTrainer
from mlops_assets.training.trainers.xgboost import XgboostTrainer

__all__ = ["TRAINERS", "FittedModel", "Trainer", "trainer"]

TRAINERS: dict[str, Trainer] = {
    found.name: found
    for found in (
        LightGbmTrainer(),
        XgboostTrainer(),
        RandomForestTrainer(),
        LogisticRegressionTrainer(),
        RidgeTrainer(),
    )
}


def trainer(name: str) -> Trainer:
    """The trainer of that name; UnknownName lists the others."""
    if name not in TRAINERS:
        raise UnknownName("trainer", name, TRAINERS)
    return TRAINERS[name]
