"""Score rows with a packaged model: the one code path that evaluates offline and answers online.

Belongs here: from a package to its scorer, and the names that ``mlops_assets`` takes for scoring. Does not
belong here: one format (``formats/``), the matrix (``encoding.py``), training (``mlops_assets/training``),
HTTP (``serve/gateway.py``). Shared by both sides so that an offline score and a served score cannot differ.
"""

from collections.abc import Mapping
from typing import Literal

from serve.encoding import Encoder, Matrix
from serve.formats import FORMATS, Scorer, gpu_formats
from serve.packages import (
    MANIFEST_FILE,
    manifest_bytes,
    package_bytes,
    package_digest,
    read_package,
    write_package,
)
from serve.schema import ModelManifest

__all__ = [
    "FORMATS",
    "MANIFEST_FILE",
    "Encoder",
    "Matrix",
    "Scorer",
    "UsedDevice",
    "gpu_formats",
    "load_package",
    "manifest_bytes",
    "package_bytes",
    "package_digest",
    "read_package",
    "scorer_from_bytes",
    "write_package",
]

UsedDevice = Literal["cpu", "gpu"]


def scorer_from_bytes(manifest: ModelManifest, payload: bytes, *, device: UsedDevice = "cpu") -> Scorer:
    """The model behind ``manifest`` and the content of its model file.

    UnknownMember lists the formats there are. With device gpu through nvForest: ImportError without the
    extra ``gpu``, RuntimeError without a GPU, ValueError for a format that no GPU scores.
    """
    if device == "cpu":
        return FORMATS[manifest.model_format](manifest, payload)
    from serve.formats._nvforest import NvForestScorer

    return NvForestScorer(manifest, payload)


def load_package(
    uri: str, storage_options: Mapping[str, str] | None = None, *, device: UsedDevice = "cpu"
) -> Scorer:
    """The model in the package folder ``uri``: a local path, ``file://`` or ``s3://``.

    Raises FileNotFoundError naming the file when the folder is not a package.
    """
    return scorer_from_bytes(*read_package(uri, storage_options), device=device)
