"""One LightGBM booster for every server: 20 numeric features, 200 trees of 63 leaves, and one row.

Belongs here: the model and what it gives for the row. Does not belong here: how servers load it.
"""

from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np

from serve.schema import FeatureSpec, GoldenRow, ModelManifest
from serve.scoring import write_package

FEATURES, TREES, LEAVES = 20, 200, 63
NAMES = tuple(f"f{number:02d}" for number in range(FEATURES))


@dataclass(frozen=True)
class BenchModel:
    """``row`` is one row of numbers, ``score`` its probability offline; ``text`` LightGBM's text format."""

    text: str
    row: dict[str, float]
    score: float

    def package(self, folder: Path) -> Path:
        """Writes it as a model package, for our gateway."""
        manifest = ModelManifest(
            name="bench",
            task="binary",
            trainer="lightgbm",
            model_format="lightgbm-text",
            model_file="model.txt",
            target="positive",
            features=tuple(FeatureSpec(name=name, type="number") for name in NAMES),
            classes=("no", "yes"),
            golden=(GoldenRow(features=dict(self.row), scores=(self.score,)),),
        )
        write_package(str(folder), manifest, self.text.encode())
        return folder


def bench_model() -> BenchModel:
    """The same booster each time: fixed seed, one thread."""
    random = np.random.default_rng(20)
    matrix = random.normal(size=(20_000, FEATURES))
    target = (matrix @ random.normal(size=FEATURES) + random.normal(size=len(matrix)) > 0).astype(float)
    params = {
        "objective": "binary",
        "num_leaves": LEAVES,
        "num_threads": 1,
        "deterministic": True,
        "seed": 20,
        "verbose": -1,
    }
    booster = lightgbm.train(params, lightgbm.Dataset(matrix, target), num_boost_round=TREES)
    row = matrix[0].round(6)
    score = float(booster.predict(row[None, :], num_threads=1)[0])
    return BenchModel(booster.model_to_string(), dict(zip(NAMES, row.tolist(), strict=True)), score)
