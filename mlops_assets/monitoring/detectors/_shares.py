"""Shares of bins, without empty ones: what the divergences of bins have in common."""

import numpy as np

from mlops_assets.monitoring.scores import Counts, Floats

EMPTY_SHARE = 1e-4
"""What an empty bin of a large sample counts as, so that logarithms are finite. Evidently takes the same."""


def shares(reference: Counts, current: Counts) -> tuple[Floats, Floats]:
    """Both as shares over the last axis, NaN where one has no rows.

    An empty bin counts as half a row or as 0.01 %, whichever is more, but never as more than the other sample
    has there: in a small window an empty bin is no news, and a bin that is empty in both is none at all.
    """
    rows = [counts.sum(axis=-1, keepdims=True) for counts in (reference, current)]
    with np.errstate(invalid="ignore", divide="ignore"):
        theirs, ours = reference / rows[0], current / rows[1]
        least = [np.maximum(EMPTY_SHARE, 0.5 / one) for one in rows]
    filled = [
        np.where(own == 0.0, np.where(other > 0.0, np.minimum(floor, other), EMPTY_SHARE), own)
        for own, other, floor in ((theirs, ours, least[0]), (ours, theirs, least[1]))
    ]
    return filled[0], filled[1]
