"""A trained model as a package: manifest and model file. Pure.

Belongs here: assembling what ``serve.scoring`` loads. Does not belong here: where a package is stored
(``resources/lake.py``) or registered (``resources/model_registry.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlops_assets.training.dictionary import golden_positions, row_values
from mlops_assets.training.trainers import FittedModel, trainer
from serve.schema import FeatureSpec, GoldenRow, ModelManifest, Task, TrainingWindow
from serve.scoring import package_digest, scorer_from_bytes

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ModelPackage:
    """Manifest and bytes; ``digest`` names the content."""

    manifest: ModelManifest
    payload: bytes

    @property
    def digest(self) -> str:
        return package_digest(self.manifest, self.payload)


def package(
    fitted: FittedModel,
    rows: "pd.DataFrame",
    *,
    name: str,
    task: Task,
    trainer_name: str,
    target: str,
    features: Sequence[FeatureSpec],
    classes: tuple[str, ...] | None,
    threshold: float,
    training_set_version: str,
    entity: Sequence[str] = (),
    training_window: TrainingWindow | None = None,
    golden: int = 8,
) -> ModelPackage:
    """The package of a fitted model, with golden rows taken from ``rows`` and scored one at a time.

    ``entity`` is the feature view's join keys: what a request may name its row by. Golden scores come from
    the packaged bytes through ``serve.scoring``: what an endpoint must repeat.
    """
    bare = ModelManifest(
        name=name,
        task=task,
        trainer=trainer_name,
        model_format=trainer(trainer_name).model_format,
        model_file=fitted.model_file,
        target=target,
        features=tuple(features),
        classes=classes,
        threshold=threshold,
        training_set_version=training_set_version,
        entity=tuple(entity),
        training_window=training_window,
    )
    scorer = scorer_from_bytes(bare, fitted.payload)
    examples = []
    for position in golden_positions(rows, features, count=golden):
        values = row_values(rows, position, features)
        scores = np.atleast_1d(scorer.score_rows([values])[0])
        examples.append(GoldenRow(features=values, scores=tuple(float(score) for score in scores)))
    return ModelPackage(bare.model_copy(update={"golden": tuple(examples)}), fitted.payload)
