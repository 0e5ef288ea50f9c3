"""LightGBM's text format."""

from typing import ClassVar, cast

from serve.encoding import Matrix
from serve.formats._base import GpuSupport, Scorer, threads


class LightGbmScorer(Scorer):
    """LightGBM's text format; also what the random forest trainer writes."""

    name: ClassVar[str] = "lightgbm-text"
    model_file: ClassVar[str] = "model.txt"
    peak_per_package_byte: ClassVar[float] = 3.5
    gpu: ClassVar[GpuSupport | None] = GpuSupport("lightgbm", "double", 1e-9, peak_per_package_byte=12.0)
    packages: ClassVar[tuple[str, ...]] = ("lightgbm",)

    def _load(self, payload: bytes) -> None:
        import lightgbm

        self._booster = lightgbm.Booster(model_str=payload.decode())

    def score(self, matrix: Matrix) -> Matrix:
        return cast(Matrix, self._booster.predict(matrix, num_threads=threads(matrix)))
