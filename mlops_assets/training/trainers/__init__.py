"""Trainers, one file each, by the name that YAML uses.

A new trainer is one more file here; ``_base.py`` says what it holds. Its bytes have a format of
``serve/formats/``; bytes of another format need one more file there.
"""

from mlops_assets.errors import UnknownName
from mlops_assets.training.trainers._base import FitInputs, FittedModel, Trainer
from serve.families import Family

__all__ = ["TRAINERS", "FitInputs", "FittedModel", "Trainer", "trainer"]

TRAINERS: Family[Trainer] = Family("trainer", __name__, Trainer, unknown=UnknownName)


def trainer(name: str) -> Trainer:
    """The trainer of that name; UnknownName lists the others."""
    return TRAINERS[name]()
