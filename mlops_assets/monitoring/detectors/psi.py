"""The population stability index. Evidently's, but for what an empty bin counts as."""

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from mlops_assets.monitoring.detectors._base import BinnedDetector
from mlops_assets.monitoring.detectors._shares import shares
from mlops_assets.monitoring.scores import Counts, Floats


def psi(reference: Counts, current: Counts) -> Floats:
    """Population stability index in nats: sum of (c - r) ln(c / r) over the shares of bins (the last axis).

    Siddiqi 2006; the symmetric divergence of Jeffreys 1946. Empty bins as ``shares`` has them. Leading axes
    broadcast. NaN where either has no rows.
    """
    theirs, ours = shares(reference, current)
    return np.asarray(((ours - theirs) * np.log(ours / theirs)).sum(axis=-1))


class Psi(BinnedDetector):
    """Decides, of numbers and of categories."""

    name: ClassVar[str] = "psi"
    # Of normal values, a shift of an eighth of a standard deviation; conventionally 0.1 is a small change.
    smallest: ClassVar[float] = 0.02
    divergence: ClassVar[Callable[[Counts, Counts], Floats]] = staticmethod(psi)
