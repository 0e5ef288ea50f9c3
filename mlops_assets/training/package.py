"""A trained model as a package: manifest and model file. Pure.

Belongs here: assembling what ``serve.scoring`` loads. Does not belong here: where a package is stored
(``resources/lake.py``) or registered (``resources/model_registry.py``).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlops_assets.training.dictionary import golden_positions, row_values
from mlops_assets.training.trainers import FittedModel
from serve.schema import GoldenRow, ModelManifest
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
    fitted: FittedModel, rows: "pd.DataFrame", manifest: ModelManifest, *, golden: int = 8
) -> ModelPackage:
    """The package of a fitted model, with so many golden rows taken from ``rows`` and scored one at a time.

    ``manifest``: all of it but the golden rows. Golden scores come from the packaged bytes through
    ``serve.scoring``: what an endpoint must repeat.
    """
    scorer = scorer_from_bytes(manifest, fitted.payload)
    examples = []
    for position in golden_positions(rows, manifest.features, count=golden):
        values = row_values(rows, position, manifest.features)
        scores = np.atleast_1d(scorer.score_rows([values])[0])
        examples.append(GoldenRow(features=values, scores=tuple(float(score) for score in scores)))
    return ModelPackage(manifest.model_copy(update={"golden": tuple(examples)}), fitted.payload)
