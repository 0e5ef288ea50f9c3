"""Small real tables that a trainer and a model format are tried on."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlops_assets.training.candidates import manifest_for
from mlops_assets.training.dictionary import with_dictionaries
from mlops_assets.training.trainers import FitInputs, FittedModel, Trainer
from serve.schema import FeatureSpec, ModelManifest, Task
from serve.scoring import Encoder, Scorer, scorer_from_bytes

CLASSES: dict[Task, int] = {"binary": 2, "multiclass": 3, "regression": 0}


@dataclass(frozen=True)
class SmallTable:
    """Features as declared and as a matrix, and the label."""

    features: tuple[FeatureSpec, ...]
    matrix: NDArray[np.float64]
    target: NDArray[np.float64]


def small_frame(task: Task) -> tuple["pd.DataFrame", tuple[FeatureSpec, ...], NDArray[np.float64]]:
    """Iris or diabetes with some values missing and a category: rows, features, label."""
    from sklearn.datasets import load_diabetes, load_iris

    source = load_diabetes(as_frame=True) if task == "regression" else load_iris(as_frame=True)
    frame: pd.DataFrame = source.data.rename(columns=lambda name: name.replace(" (cm)", "").replace(" ", "_"))
    target = source.target.to_numpy(dtype=float)
    if task == "binary":
        target = (target > 0).astype(float)
    random = np.random.default_rng(0)
    frame["colour"] = random.choice(["red", "green", "blue"], len(frame))
    frame.loc[random.random(len(frame)) < 0.1, frame.columns[0]] = np.nan
    frame.loc[random.random(len(frame)) < 0.1, "colour"] = None
    specs = [FeatureSpec(name=str(name), type="category" if name == "colour" else "number") for name in frame]
    return frame, with_dictionaries(frame, specs), target


@cache
def small_table(task: Task) -> SmallTable:
    """The rows of ``small_frame`` as a model sees them."""
    frame, features, target = small_frame(task)
    matrix = Encoder(features).columns({str(name): frame[name] for name in frame})
    return SmallTable(features, matrix, target)


@dataclass(frozen=True)
class SmallModel:
    """What a trainer made of the small table of a task."""

    fitted: FittedModel
    manifest: ModelManifest
    table: SmallTable

    def scorer(self) -> Scorer:
        return scorer_from_bytes(self.manifest, self.fitted.payload)


@cache
def small_model(trainer: type[Trainer], task: Task) -> SmallModel:
    """Trained once; ``trained`` trains anew."""
    return trained(trainer, task)


def trained(trainer: type[Trainer], task: Task) -> SmallModel:
    table, made = small_table(task), trainer()
    fitted = made.fit(
        FitInputs(
            table.matrix,
            table.target,
            features=table.features,
            task=task,
            classes=CLASSES[task],
            params={},
            seed=1,
        )
    )
    return SmallModel(fitted, manifest_for(task, made, table.features, CLASSES[task]), table)
