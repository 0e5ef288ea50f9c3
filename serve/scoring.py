"""Score rows with a packaged model: the one code path that evaluates offline and answers online.

Belongs here: reading a package, encoding named values into the model's matrix, one ``Scorer`` per
native format. Does not belong here: training (``mlops_assets/training``), HTTP (``serve/gateway.py``).
Shared by both sides so that an offline score and a served score cannot differ.
"""

import hashlib
import json
import math
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from serve.schema import FeatureSpec, FeatureValue, ModelFormat, ModelManifest

UsedDevice = Literal["cpu", "gpu"]
MANIFEST_FILE = "model.json"
Matrix = NDArray[np.float64]


class Encoder:
    """Turns named values into the float64 matrix of a model: one column per feature, in order.

    Missing values are NaN. A category becomes its integer code in the feature's dictionary; one
    that is not in the dictionary becomes NaN. Values are taken as already validated. ``rows`` and
    ``columns`` give the same matrix to the bit.
    """

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        self._features = tuple(features)
        self._codes: list[dict[str, float] | None] = [
            {value: float(code) for code, value in enumerate(feature.categories or ())}
            if feature.type == "category"
            else None
            for feature in self._features
        ]

    def rows(self, rows: Sequence[Mapping[str, FeatureValue]]) -> Matrix:
        """Matrix of shape (len(rows), features); a name that a row lacks is missing."""
        matrix = np.empty((len(rows), len(self._features)))
        for position, row in enumerate(rows):
            for column, (feature, codes) in enumerate(zip(self._features, self._codes, strict=True)):
                value = row.get(feature.name)
                if value is None:
                    matrix[position, column] = math.nan
                elif codes is None:
                    matrix[position, column] = float(value)
                else:
                    matrix[position, column] = codes.get(str(value), math.nan)
        return matrix

    def columns(self, columns: Mapping[str, Any]) -> Matrix:
        """The same matrix from whole columns (arrays or pandas Series), for training and evaluation."""
        import pandas as pd  # 0.4 s; a replica that answers single rows never needs it

        encoded = []
        for feature, codes in zip(self._features, self._codes, strict=True):
            series = pd.Series(columns[feature.name])
            if codes is not None:
                # Each distinct value is looked up once: a column has few of them and many rows.
                positions, distinct = pd.factorize(series)
                known = np.array([*(codes.get(str(value), math.nan) for value in distinct), math.nan])
                encoded.append(known[positions])
            else:
                if series.dtype == object:
                    series = series.astype("Float64")
                encoded.append(series.to_numpy(dtype=np.float64, na_value=math.nan))
        return np.column_stack(encoded)


class Scorer(ABC):
    """A loaded model. ``score`` is deterministic and safe to call from several threads."""

    tolerance: float = 0.0
    """How far a score may be from the offline one, relative to max(1, |score|); 0: equal to the bit."""

    def __init__(self, manifest: ModelManifest, payload: bytes) -> None:
        self.manifest = manifest
        self.digest = package_digest(manifest, payload)
        self.encoder = Encoder(manifest.features)
        self._load(payload)

    @abstractmethod
    def _load(self, payload: bytes) -> None:
        """Reads the native model file."""

    @abstractmethod
    def score(self, matrix: Matrix) -> Matrix:
        """Scores of shape (n,): probability of the positive class for binary, value for regression;
        shape (n, classes) for multiclass.
        """

    def score_rows(self, rows: Sequence[Mapping[str, FeatureValue]]) -> Matrix:
        return self.score(self.encoder.rows(rows))


MANY_ROWS = 4_096


def _threads(matrix: Matrix) -> int:
    """One thread per request on a replica; all cores (0) for the large matrices of an evaluation.

    Trees add up in the same order either way: a row's score does not depend on the number of threads.
    """
    return 1 if len(matrix) < MANY_ROWS else 0


class LightGbmScorer(Scorer):
    """LightGBM's text format; also what the random forest trainer writes."""

    def _load(self, payload: bytes) -> None:
        import lightgbm

        self._booster = lightgbm.Booster(model_str=payload.decode())

    def score(self, matrix: Matrix) -> Matrix:
        return cast(Matrix, self._booster.predict(matrix, num_threads=_threads(matrix)))


class XgboostScorer(Scorer):
    """XGBoost's universal binary JSON."""

    def _load(self, payload: bytes) -> None:
        import xgboost

        # Two boosters, because setting the threads of one is not safe while another thread predicts.
        self._alone, self._shared = (xgboost.Booster({"nthread": threads}) for threads in (1, 0))
        for booster in (self._alone, self._shared):
            booster.load_model(bytearray(payload))
        self._types = ["c" if f.type == "category" else "float" for f in self.manifest.features]

    def score(self, matrix: Matrix) -> Matrix:
        import xgboost

        threads = _threads(matrix)
        booster = self._alone if threads == 1 else self._shared
        data = xgboost.DMatrix(
            matrix,
            feature_names=booster.feature_names,
            feature_types=self._types,
            enable_categorical=True,
            nthread=threads,
        )
        return np.asarray(booster.predict(data), dtype=np.float64)


class LinearScorer(Scorer):
    """A generalised linear model as JSON: standardised numbers, one-hot categories, softmax.

    The document holds ``columns`` (per feature: ``mean`` and ``scale``, or ``levels``),
    ``coefficients`` (one row per output) and ``intercepts``. A row of ``coefficients`` goes through
    the columns in order: a number has two (of the standardised value, which is 0 when it is missing,
    and of a missing indicator), a category ``levels`` + 1 (one per code, the last for missing or unseen).
    """

    def _load(self, payload: bytes) -> None:
        document = json.loads(payload)
        self._columns: list[dict[str, Any]] = document["columns"]
        self._coefficients = np.asarray(document["coefficients"], dtype=np.float64)
        self._intercepts = np.asarray(document["intercepts"], dtype=np.float64)

    def score(self, matrix: Matrix) -> Matrix:
        margin = self._margin(matrix)
        if self.manifest.task == "regression":
            return margin[:, 0]
        # math.exp and not numpy's: numpy picks an implementation by CPU and array layout, and a row
        # must score the same alone, in a batch, and on another machine.
        if self.manifest.task == "binary":
            return np.array([_logistic(value) for value in margin[:, 0].tolist()], dtype=np.float64)
        return np.array([_softmax(row) for row in margin.tolist()], dtype=np.float64).reshape(margin.shape)

    def _margin(self, matrix: Matrix) -> Matrix:
        """Linear predictor, shape (n, outputs).

        Summed feature by feature and not as a matrix product: BLAS adds in another order for one row
        than for many, and the last bit of an answer must not depend on the batch it came in.
        """
        margin = np.tile(self._intercepts, (len(matrix), 1))
        start = 0
        for position, column in enumerate(self._columns):
            values = matrix[:, position]
            missing = np.isnan(values)
            if "levels" in column:
                codes = np.where(missing, column["levels"], values).astype(np.int64)
                margin += self._coefficients.T[start + codes]
                start += column["levels"] + 1
            else:
                standard = np.where(missing, 0.0, (values - column["mean"]) / column["scale"])
                margin += np.where(
                    missing[:, None],
                    self._coefficients[:, start + 1],
                    standard[:, None] * self._coefficients[:, start],
                )
                start += 2
        return margin


class NvForestScorer(Scorer):
    """Trees through nvForest (extra ``gpu``): on a GPU, or on the CPU for a machine that has none.

    The same trees, but sums in another order, so scores agree within ``tolerance`` and not to the bit.
    LightGBM compares and adds in double, XGBoost in single precision, and so does nvForest here: an
    XGBoost model in double takes other branches, because its thresholds are rounded and the features
    would not be (measured: scores off by 0.17).
    """

    def __init__(self, manifest: ModelManifest, payload: bytes, *, device: UsedDevice = "gpu") -> None:
        self._device = device
        self._model_type, self._precision, self.tolerance = NVFOREST_FORMATS[manifest.model_format]
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


NVFOREST_FORMATS: dict[ModelFormat, tuple[str, str, float]] = {
    "lightgbm-text": ("lightgbm", "double", 1e-9),
    "xgboost-ubj": ("xgboost_ubj", "single", 1e-5),
}
"""{model format: nvForest's name for it, its precision, the tolerance of its scores}."""

GPU_FORMATS = frozenset(NVFOREST_FORMATS)
"""Model formats that a GPU can score."""


def _logistic(margin: float) -> float:
    if margin >= 0:
        return 1.0 / (1.0 + math.exp(-margin))
    odds = math.exp(margin)
    return odds / (1.0 + odds)


def _softmax(margins: Sequence[float]) -> list[float]:
    highest = max(margins)
    powers = [math.exp(margin - highest) for margin in margins]
    total = sum(powers)
    return [power / total for power in powers]


SCORERS: dict[str, type[Scorer]] = {
    "lightgbm-text": LightGbmScorer,
    "xgboost-ubj": XgboostScorer,
    "linear-json": LinearScorer,
}


def scorer_from_bytes(manifest: ModelManifest, payload: bytes, *, device: UsedDevice = "cpu") -> Scorer:
    """The model behind ``manifest`` and the content of its model file.

    With device gpu through nvForest: ImportError without the extra ``gpu``, RuntimeError without a GPU,
    ValueError for a format that no GPU scores.
    """
    if device == "cpu":
        return SCORERS[manifest.model_format](manifest, payload)
    if manifest.model_format not in GPU_FORMATS:
        raise ValueError(f"{manifest.model_format} has no GPU scorer; {sorted(GPU_FORMATS)} have one")
    return NvForestScorer(manifest, payload)


def manifest_bytes(manifest: ModelManifest) -> bytes:
    """Canonical JSON of a manifest: equal manifests give equal bytes."""
    document = manifest.model_dump(mode="json")
    if not manifest.entity:
        # Packages made before the field existed keep their bytes, and so their digest.
        del document["entity"]
    return json.dumps(document, sort_keys=True, indent=1).encode()


def package_digest(manifest: ModelManifest, payload: bytes) -> str:
    """SHA-256 over manifest and model file, 64 hex characters: the version of a model's content."""
    digest = hashlib.sha256(manifest_bytes(manifest))
    digest.update(payload)
    return digest.hexdigest()


def load_package(
    uri: str, storage_options: Mapping[str, str] | None = None, *, device: UsedDevice = "cpu"
) -> Scorer:
    """The model in the package folder ``uri``: a local path, ``file://`` or ``s3://``.

    Raises FileNotFoundError naming the file when the folder is not a package.
    """
    return scorer_from_bytes(*read_package(uri, storage_options), device=device)


def read_package(uri: str, storage_options: Mapping[str, str] | None = None) -> tuple[ModelManifest, bytes]:
    """Manifest and model file of the package folder ``uri``; FileNotFoundError as ``load_package``."""
    filesystem, root = _filesystem(uri, storage_options or {})

    def read(name: str) -> bytes:
        with filesystem.open_input_file(f"{root}/{name}") as stream:
            return cast(bytes, stream.read())

    manifest = ModelManifest.model_validate_json(read(MANIFEST_FILE))
    return manifest, read(manifest.model_file)


def package_bytes(uri: str, manifest: ModelManifest, storage_options: Mapping[str, str] | None = None) -> int:
    """Size of the model file in the package folder ``uri``; FileNotFoundError when it is not there."""
    filesystem, root = _filesystem(uri, storage_options or {})
    size = filesystem.get_file_info(f"{root}/{manifest.model_file}").size
    if size is None:
        raise FileNotFoundError(f"{root}/{manifest.model_file}")
    return int(size)


def write_package(
    uri: str, manifest: ModelManifest, payload: bytes, storage_options: Mapping[str, str] | None = None
) -> None:
    """Writes the package folder ``uri``. The manifest goes last: a folder with one is complete."""
    filesystem, root = _filesystem(uri, storage_options or {})
    filesystem.create_dir(root, recursive=True)
    for name, content in ((manifest.model_file, payload), (MANIFEST_FILE, manifest_bytes(manifest))):
        with filesystem.open_output_stream(f"{root}/{name}") as stream:
            stream.write(content)


def _filesystem(uri: str, storage_options: Mapping[str, str]) -> tuple[Any, str]:
    from pyarrow import fs

    if uri.startswith("s3://"):
        endpoint = storage_options.get("endpoint_url", "")
        return (
            fs.S3FileSystem(endpoint_override=endpoint or None, region=storage_options.get("region") or None),
            uri.removeprefix("s3://").rstrip("/"),
        )
    return fs.LocalFileSystem(), uri.removeprefix("file://").rstrip("/")
