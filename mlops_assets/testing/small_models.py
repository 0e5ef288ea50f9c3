"""Small real models and an in-process version backend for the tests of the endpoint."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import lightgbm
import numpy as np

from serve.schema import FeatureSpec, GoldenRow, ModelManifest, Task
from serve.scoring import scorer_from_bytes
from serve.versions import Scores, Version, VersionGone, Versions

FEATURES = (
    FeatureSpec(
        name="distance", type="number", nullable=False, minimum=0, maximum=6000, description="Miles <x>"
    ),
    FeatureSpec(name="delay", type="number"),
    FeatureSpec(name="hour", type="integer", minimum=0, maximum=23),
    FeatureSpec(name="weekend", type="boolean"),
    FeatureSpec(name="carrier", type="category", categories=("AA", "DL", "UA")),
    FeatureSpec(name="origin", type="category", categories=("EWR", "JFK"), unseen="reject", nullable=False),
)
ROW: dict[str, Any] = {
    "distance": 1400.5,
    "delay": None,
    "hour": 17,
    "weekend": False,
    "carrier": "UA",
    "origin": "JFK",
}
CLASSES: dict[str, tuple[str, ...] | None] = {
    "binary": ("on time", "late"),
    "multiclass": ("early", "on time", "late"),
    "regression": None,
}


def package(task: Task = "binary", *, seed: int = 0, **changes: Any) -> tuple[ModelManifest, bytes]:
    """A LightGBM model on 200 rows, with two golden rows."""
    random = np.random.default_rng(seed)
    matrix = random.random((200, len(FEATURES))) * [6000, 60, 24, 2, 3, 2]
    matrix[:, 2:] = np.floor(matrix[:, 2:])
    signal = matrix[:, 0] / 6000 + matrix[:, 4] / 3 + random.random(200) * 0.2
    targets = {"binary": signal > 0.8, "multiclass": np.digitize(signal, [0.6, 1.0]), "regression": signal}
    params = {"objective": task, "seed": seed, "num_threads": 1, "verbose": -1, "min_data_in_leaf": 5}
    if task == "multiclass":
        params["num_class"] = 3
    data = lightgbm.Dataset(matrix, targets[task].astype(float), categorical_feature=[4, 5])
    payload = lightgbm.train(params, data, num_boost_round=5).model_to_string().encode()
    bare = ModelManifest(
        name="flights",
        task=task,
        trainer="lightgbm",
        model_format="lightgbm-text",
        model_file="model.txt",
        target="late",
        features=FEATURES,
        classes=CLASSES[task],
    )
    scorer = scorer_from_bytes(bare, payload)
    golden = [
        GoldenRow(features=row, scores=tuple(np.atleast_1d(scorer.score_rows([row])[0]).tolist()))
        for row in (ROW, {**ROW, "distance": 10.0, "carrier": None})
    ]
    return bare.model_copy(update={"golden": tuple(golden), **changes}), payload


class LocalVersion(Version):
    """A version in this process that fails or waits as told."""

    def __init__(self, version: str, manifest: ModelManifest, payload: bytes) -> None:
        self.version, self.manifest = version, manifest
        self.scorer = scorer_from_bytes(manifest, payload)
        self.failures: list[Exception] = []
        self.always: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.info_error: Exception | None = None
        self.alter: Callable[[Scores], Scores] = lambda scores: scores
        self.poison: dict[str, Any] | None = None
        self.calls: list[int] = []

    async def info(self, *, timeout_s: float) -> dict[str, Any]:
        if self.info_error is not None:
            raise self.info_error
        manifest = self.manifest.model_dump(mode="json")
        return {"version": self.version, "digest": self.scorer.digest, "manifest": manifest}

    async def score_rows(self, rows: Sequence[Any], *, timeout_s: float) -> Scores:
        self.calls.append(len(rows))
        async with asyncio.timeout(timeout_s):
            await (self.hold.wait() if self.hold is not None else asyncio.sleep(0))
        if self.always is not None:
            raise self.always
        if self.poison in rows:
            raise RuntimeError("poison")
        if self.failures:
            raise self.failures.pop(0)
        return self.alter(self.scorer.score_rows(rows).tolist())


class LocalVersions(Versions):
    """Applications by name, as a cluster would know them."""

    def __init__(self, **versions: LocalVersion) -> None:
        self.applications = {f"flights--{name}": version for name, version in versions.items()}

    async def connect(self, application: str) -> Version:
        if application not in self.applications:
            raise VersionGone("there is no such application")
        return self.applications[application]


def routing(stable: str = "v1", revision: int = 1, **weights: int) -> dict[str, Any]:
    """A routing document; weights in basis points by version."""
    shares = weights or {stable: 10_000}
    return {
        "revision": revision,
        "stable": stable,
        "salt": "flights",
        "timeout_s": 10.0,
        "routes": {
            name: {"application": f"flights--{name}", "weight": share} for name, share in shares.items()
        },
    }
