"""The Kullback-Leibler divergence."""

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from mlops_assets.monitoring.detectors._base import BinnedDetector
from mlops_assets.monitoring.detectors._shares import shares
from mlops_assets.monitoring.scores import Counts, Floats


def kl(reference: Counts, current: Counts) -> Floats:
    """Kullback-Leibler divergence of the current bins from the reference's, D(reference || current), in nats.

    Kullback and Leibler 1951, in Evidently's direction; empty bins as in ``psi``. Leading axes broadcast.
    NaN where either has no rows.
    """
    theirs, ours = shares(reference, current)
    ours = ours / ours.sum(axis=-1, keepdims=True)
    theirs = theirs / theirs.sum(axis=-1, keepdims=True)
    return np.asarray((theirs * np.log(theirs / ours)).sum(axis=-1))


class Kl(BinnedDetector):
    """Is shown only: of the same bins, it says what PSI says."""

    name: ClassVar[str] = "kl"
    decides: ClassVar[bool] = False
    divergence: ClassVar[Callable[[Counts, Counts], Floats]] = staticmethod(kl)
