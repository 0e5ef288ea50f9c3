"""Which device a replica really got, and proof that a GPU scores as the CPU does.

Belongs here: what this process can see of a GPU, the choice between GPU and CPU, the parity check.
Does not belong here: scoring itself (``serve/scoring.py``), who gets a GPU (decided before a version is
declared), the replica (``serve/model.py``).

A replica that asked for ``gpu`` and has none fails while it starts, with a sentence: Ray reports that
as DEPLOY_FAILED. One that asked for ``auto`` works on the CPU and says why.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve.encoding import Encoder, Matrix
from serve.formats import FORMATS, Scorer, gpu_formats
from serve.schema import Device, FeatureSpec, ModelManifest
from serve.scoring import UsedDevice, scorer_from_bytes

PARITY_ROWS = 1_000
"""Generated rows of a parity check, beside the golden ones: a tenth of a second on one core."""

logger = logging.getLogger(__name__)


class DeviceUnavailable(RuntimeError):
    """A replica that must run on a GPU cannot; the message says what is missing and what to do."""


class DeviceDisagrees(RuntimeError):
    """A GPU gives other scores than the CPU for the same rows."""


@dataclass(frozen=True)
class Sight:
    """What this process sees of a GPU: its name, or what is missing in words."""

    gpu: str | None
    missing: str = ""


@dataclass(frozen=True)
class Parity:
    """How far GPU and CPU scores were apart, relative to max(1, |score|)."""

    rows: int
    largest_difference: float
    tolerance: float


@dataclass(frozen=True)
class DeviceReport:
    """Where a replica scores, and why there."""

    requested: Device
    used: UsedDevice
    reason: str
    num_gpus: float
    gpu: str | None = None
    visible: str | None = None
    parity: Parity | None = None


def sight() -> Sight:
    """Looks: is nvForest installed, does CUDA find a device, does that device keep what it is given."""
    try:
        import nvforest  # noqa: F401
    except ImportError as error:
        return Sight(None, f"nvForest is not installed on this replica's node ({error}); add the extra [gpu]")
    try:
        import cupy

        # A copy there and back, without a kernel: compiling one takes a second and needs a compiler.
        if cupy.asarray(np.arange(3)).get().tolist() != [0, 1, 2]:
            return Sight(None, "the GPU does not give back what was copied to it")
        return Sight(cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode())
    # What CUDA raises depends on what is broken: a library, the driver, the device or its memory.
    except Exception as error:  # noqa: BLE001
        return Sight(None, f"no usable GPU: {type(error).__name__}: {error}")


def load_on_device(
    manifest: ModelManifest,
    payload: bytes,
    *,
    device: Device,
    num_gpus: float,
    version: str,
    look: Callable[[], Sight] = sight,
    gpu_scorer: Callable[[ModelManifest, bytes], Scorer] | None = None,
) -> tuple[Scorer, DeviceReport]:
    """The scorer of a version on the device it asked for, and the report that ``info`` shows.

    Raises DeviceUnavailable for device gpu without a usable GPU, and DeviceDisagrees for device gpu when
    the GPU's scores are out of tolerance. With device auto both mean CPU, with the reason in the report.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")

    def report(used: UsedDevice, reason: str, **found: Any) -> DeviceReport:
        return DeviceReport(device, used, reason, num_gpus, visible=visible, **found)

    on_cpu = scorer_from_bytes(manifest, payload)
    if device == "cpu":
        return on_cpu, report("cpu", "device: cpu is declared")
    seen = Sight(None, _never(manifest, num_gpus))
    failure: Exception | None = None
    if not seen.missing:
        seen = look()
    if seen.gpu:
        try:
            load = gpu_scorer or (lambda *model: scorer_from_bytes(*model, device="gpu"))
            on_gpu = load(manifest, payload)
            parity = check_parity(on_gpu, on_cpu, version=version)
            return on_gpu, report("gpu", f"scores on {seen.gpu}", gpu=seen.gpu, parity=parity)
        # A model that one GPU library cannot load is a reason to fall back, whatever it raises.
        except Exception as error:  # noqa: BLE001
            failure, seen = error, Sight(None, f"{type(error).__name__}: {error}")
    if device == "gpu":
        raise (failure if isinstance(failure, DeviceDisagrees) else DeviceUnavailable(
            f"version {version} must run on a GPU (device: gpu): {seen.missing}. "
            "Set device: auto to fall back to CPU, or deploy to a node with a GPU."
        )) from failure  # fmt: skip
    reason = f"device: auto fell back to CPU: {seen.missing}"
    logger.warning("version %s: %s", version, reason)
    return on_cpu, report("cpu", reason)


def _never(manifest: ModelManifest, num_gpus: float) -> str:
    """Why looking for a GPU is of no use; empty when it may be."""
    if FORMATS[manifest.model_format].gpu is None:
        return f"{manifest.model_format} has no GPU scorer ({', '.join(gpu_formats())} have one)"
    if not num_gpus:
        return "this replica was given no GPU (num_gpus is 0)"
    return ""


def check_parity(scorer: Scorer, reference: Scorer, *, version: str) -> Parity:
    """Compares both on golden and generated rows; DeviceDisagrees when a score is out of tolerance."""
    matrix = parity_matrix(scorer.manifest)
    here, there = scorer.score(matrix), reference.score(matrix)
    if here.shape != there.shape:
        raise DeviceDisagrees(f"version {version}: scores of shape {here.shape}, on the CPU {there.shape}")
    difference = np.abs(here - there) / np.maximum(1.0, np.abs(there))
    # Not max(): a NaN on one side only must fail.
    wrong = ~((difference <= scorer.tolerance) | (np.isnan(here) & np.isnan(there)))
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        raise DeviceDisagrees(
            f"version {version}: row {row} of the parity check scores {here[row].tolist()} on the GPU and "
            f"{there[row].tolist()} on the CPU ({int(wrong.sum())} of {wrong.size} scores differ by more "
            f"than {scorer.tolerance:g}). Set device: cpu for this version."
        )
    return Parity(len(matrix), float(np.nanmax(difference, initial=0.0)), scorer.tolerance)


def parity_matrix(manifest: ModelManifest, *, rows: int = PARITY_ROWS) -> Matrix:
    """Golden rows, then generated ones: the same for the same manifest. Shape (golden + rows, features).

    Numbers come from the declared range, or from around the golden values; categories from the
    dictionary; a tenth is missing. Numbers are not rounded to float32: a library that rounds them to
    compare, or does not, is told from one that scores alike.
    """
    encoder = Encoder(manifest.features)
    golden = encoder.rows([row.features for row in manifest.golden])
    random = np.random.default_rng(0)
    columns = [
        _column(feature, golden[:, position], rows, random)
        for position, feature in enumerate(manifest.features)
    ]
    return np.vstack([golden, np.column_stack(columns)])


def _column(feature: FeatureSpec, golden: Matrix, rows: int, random: np.random.Generator) -> Matrix:
    if feature.type == "category":
        values = random.integers(0, max(1, len(feature.categories or ())), rows).astype(np.float64)
    elif feature.type == "boolean":
        values = random.integers(0, 2, rows).astype(np.float64)
    else:
        known = golden[np.isfinite(golden)]
        low, high = (known.min(), known.max()) if len(known) else (-1.0, 1.0)
        low = feature.minimum if feature.minimum is not None else low - (high - low) - 1.0
        high = feature.maximum if feature.maximum is not None else high + (high - low) + 1.0
        values = random.uniform(low, max(low, high), rows)
        if feature.type == "integer":
            values = np.round(values)
    values[random.random(rows) < 0.1] = np.nan
    return values
