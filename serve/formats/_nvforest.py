"""Scores of trees by nvForest (extra ``gpu``), for every format that says how.

No format of its own: what it reads are the files of the others.
"""

import tempfile
import threading
from pathlib import Path
from typing import Literal

import numpy as np

from serve.encoding import Matrix
from serve.formats import FORMATS, Scorer, gpu_formats
from serve.schema import ModelManifest


class NvForestScorer(Scorer):
    """Trees through nvForest (extra ``gpu``): on a GPU, or on the CPU for a machine that has none.

    The same trees, but sums in another order, so scores agree within ``tolerance`` and not to the bit.
    LightGBM compares and adds in double, XGBoost in single precision, and so does nvForest here: an
    XGBoost model in double takes other branches, because its thresholds are rounded and the features
    would not be (measured: scores off by 0.17).
    """

    def __init__(
        self, manifest: ModelManifest, payload: bytes, *, device: Literal["cpu", "gpu"] = "gpu"
    ) -> None:
        self._device = device
        support = FORMATS[manifest.model_format].gpu
        if support is None:
            raise ValueError(f"{manifest.model_format} has no GPU scorer; {gpu_formats()} have one")
        self._model_type, self._precision, self.tolerance = (
            support.model_type, support.precision, support.tolerance,
        )  # fmt: skip
        # One CUDA stream per model, which is not for several threads.
        self._one_at_a_time = threading.Lock()
        super().__init__(manifest, payload)

    def _load(self, payload: bytes) -> None:
        import nvforest

        # nvForest reads files only.
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model"
            file.write_bytes(payload)
            model = nvforest.load_model(
                str(file), model_type=self._model_type, device=self._device, precision=self._precision
            )
        self._predict = model.predict_proba if model.is_classifier else model.predict

    def score(self, matrix: Matrix) -> Matrix:
        dtype = np.float64 if self._precision == "double" else np.float32
        with self._one_at_a_time:
            scores = self._predict(np.ascontiguousarray(matrix, dtype=dtype))
            if self._device == "gpu":
                scores = scores.get()
        scores = np.asarray(scores, dtype=np.float64)
        return scores if self.manifest.task == "multiclass" else scores.reshape(len(matrix))
