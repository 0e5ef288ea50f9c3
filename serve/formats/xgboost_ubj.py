"""XGBoost's universal binary JSON."""

from typing import ClassVar

import numpy as np

from serve.encoding import Matrix
from serve.formats._base import GpuSupport, Scorer, threads


class XgboostScorer(Scorer):
    """XGBoost's universal binary JSON."""

    name: ClassVar[str] = "xgboost-ubj"
    model_file: ClassVar[str] = "model.ubj"
    peak_per_package_byte: ClassVar[float] = 6.0
    gpu: ClassVar[GpuSupport | None] = GpuSupport("xgboost_ubj", "single", 1e-5, peak_per_package_byte=17.0)
    packages: ClassVar[tuple[str, ...]] = ("xgboost",)

    def _load(self, payload: bytes) -> None:
        import xgboost

        # Two boosters, because setting the threads of one is not safe while another thread predicts.
        self._alone, self._shared = (xgboost.Booster({"nthread": number}) for number in (1, 0))
        for booster in (self._alone, self._shared):
            booster.load_model(bytearray(payload))
        self._types = ["c" if f.type == "category" else "float" for f in self.manifest.features]

    def score(self, matrix: Matrix) -> Matrix:
        import xgboost

        wanted = threads(matrix)
        booster = self._alone if wanted == 1 else self._shared
        data = xgboost.DMatrix(
            matrix,
            feature_names=booster.feature_names,
            feature_types=self._types,
            enable_categorical=True,
            nthread=wanted,
        )
        return np.asarray(booster.predict(data), dtype=np.float64)
