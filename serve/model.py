"""One model version on a replica: loads a package, proves it, scores rows.

Belongs here: the deployment ``Model`` of a version application. Does not belong here: scoring itself
(``serve/scoring.py``), HTTP and validation (the gateway), resources and limits (``serve/builder.py``).

A replica turns healthy only after its package gave the golden rows' offline scores again: to the bit
on the CPU, within a stated tolerance on a GPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from serve.devices import load_on_device
from serve.replica_port import keep_to_node
from serve.schema import ModelArgs
from serve.scoring import Scorer, read_package
from serve.validation import Row
from serve.versions import Scores


class GoldenMismatch(RuntimeError):
    """The loaded model does not give the scores that were recorded offline."""

    def __init__(self, *, version: str, row: int, offline: Sequence[float], here: Sequence[float]) -> None:
        self.version, self.row, self.offline, self.here = version, row, tuple(offline), tuple(here)
        super().__init__(
            f"version {version}: golden row {row} scores {self.here} here, offline it was {self.offline}. "
            "The package was written by another version of the model library, or was changed."
        )


def verify_golden_rows(scorer: Scorer, *, version: str) -> int:
    """Number of golden rows that score as offline; GoldenMismatch at the first that does not.

    Exactly as offline, unless the scorer states a tolerance.
    """
    for position, golden in enumerate(scorer.manifest.golden):
        here = _score_list(scorer.score_rows([golden.features])[0].tolist())
        if here != list(golden.scores) and not _within(scorer.tolerance, here, golden.scores):
            raise GoldenMismatch(version=version, row=position, offline=golden.scores, here=here)
    return len(scorer.manifest.golden)


class Model:
    """Replica of one model version."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        keep_to_node()
        declared = ModelArgs.model_validate(args)
        self._version, self._args = declared.version, declared
        self._scorer, self._device = load_on_device(
            *read_package(declared.package_uri, declared.storage_options),
            device=declared.device,
            num_gpus=declared.num_gpus,
            version=declared.version,
        )
        self._golden_rows = verify_golden_rows(self._scorer, version=declared.version)

    async def info(self) -> dict[str, Any]:
        """Version, content digest, manifest, where the package is, how many golden rows were verified, and
        ``device``: the one in use, the one asked for and why (``serve.devices.DeviceReport``).
        """
        return {
            "version": self._version,
            "digest": self._scorer.digest,
            "manifest": self._scorer.manifest.model_dump(mode="json"),
            "golden_rows": self._golden_rows,
            "package_uri": self._args.package_uri,
            "storage_options": self._args.storage_options,
            "device": asdict(self._device),
        }

    async def score_rows(self, rows: Sequence[Row]) -> Scores:
        """One score per valid row (a list of class probabilities for multiclass). Single-threaded."""
        return self._scorer.score_rows(rows).tolist()


def _within(tolerance: float, here: Sequence[float], offline: Sequence[float]) -> bool:
    """Whether a scorer with a tolerance is that close; without one only equality counts."""
    if not tolerance or len(here) != len(offline):
        return False
    allowed = tolerance * np.maximum(1.0, np.abs(offline))
    return bool(np.all(np.abs(np.subtract(here, offline)) <= allowed))


def _score_list(score: float | list[float]) -> list[float]:
    return score if isinstance(score, list) else [score]
