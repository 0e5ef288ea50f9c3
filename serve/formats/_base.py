"""What a model format is.

Belongs here: the ABC, what every format says about itself, the threads that a scorer uses. Does not belong
here: one format (a file beside this one), which device a replica gets (``serve/devices.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from serve.encoding import Encoder, Matrix
from serve.packages import package_digest
from serve.schema import FeatureValue, ModelManifest


@dataclass(frozen=True)
class GpuSupport:
    """How nvForest scores a format on a GPU.

    ``model_type`` is its name for the format, ``precision`` the one that takes the branches which the native
    library takes, ``tolerance`` how far its scores may be off, relative to max(1, |score|), and
    ``peak_per_package_byte`` the same as that of ``Scorer`` with nvForest, which keeps a
    second copy of the trees; a third one proves that they agree.
    """

    model_type: str
    precision: Literal["double", "single"]
    tolerance: float
    peak_per_package_byte: float


class Scorer(ABC):
    """A loaded model of one format. ``score`` is deterministic and safe to call from several threads.

    A row scores the same to the bit alone, among others, with any number of threads and on another machine:
    the offline score is compared with the served one. A missing value is NaN in the matrix, a category its
    code in the dictionary; a format that knows no missing values cannot be served. What a format says about
    itself stands beside its scorer.
    """

    name: ClassVar[str]
    """What manifests call the format."""
    model_file: ClassVar[str]
    """Name of its file in a package."""
    peak_per_package_byte: ClassVar[float]
    """Peak growth of a replica while it loads, per byte of the model file (docs/gpu.md says how measured)."""
    gpu: ClassVar[GpuSupport | None] = None
    """How a GPU scores it; None: no GPU does."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions that scoring needs beside numpy."""

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


def threads(matrix: Matrix) -> int:
    """One thread per request on a replica; all cores (0) for the large matrices of an evaluation.

    Trees add up in the same order either way: a row's score does not depend on the number of threads.
    """
    return 1 if len(matrix) < MANY_ROWS else 0
