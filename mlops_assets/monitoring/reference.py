"""What a served version is compared with: its training data, condensed, with calibrated thresholds.

Belongs here: the document that is stored beside a model package as ``drift_reference.json``, and making it.
Does not belong here: the formulas of the scores (``scores.py``), where thresholds come from
(``calibration.py``), judging a window with it (``drift.py``), where it is stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from mlops_assets.monitoring.findings import Role, Statistic
from serve.schema import Document, FeatureSpec, Task

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["number", "category"]


@dataclass(frozen=True)
class Judged:
    """Rows the model did not train on: what it said, what came true, and the days they are of.

    ``scores`` as ``serve.scoring`` gives them: (n,) for binary and regression, (n, classes) for multiclass.
    ``target`` (n,): class codes or numbers, as a training set holds them. ``groups`` (n,): day numbers; None
    when rows are independent.
    """

    scores: NDArray[np.float64]
    target: NDArray[np.float64]
    groups: NDArray[np.int64] | None = None


class DriftReference(Document):
    """Per column: bins with their counts, a sorted sample, thresholds by window size. See ``make_reference``."""

    def dumps(self) -> str:
        """The document as JSON text: the same reference gives the same text."""
        raise NotImplementedError

    @classmethod
    def loads(cls, text: str) -> "DriftReference":
        """The document of that text; DataError when it is none."""
        raise NotImplementedError


def make_reference(
    features: "pd.DataFrame",
    specs: Sequence[FeatureSpec],
    *,
    judged: Judged | None,
    task: Task,
    classes: Sequence[str] | None,
    groups: NDArray[np.int64] | None,
    window_days: float,
    performance: Sequence[object] = (),
    seed: int = 0,
) -> DriftReference:
    """The reference of a model: its training rows' features, and its answers on rows it did not train on.

    ``features``: all rows of the training set (n), one column per spec. ``groups`` (n,): the day number of each
    row, because rows of one day vary together; None when rows are independent. ``judged`` gives the
    columns ``prediction`` (and ``prediction_probability`` for multiclass) and ``label``; without it
    there are none. ``window_days``: how long the windows are that will be judged.
    ``performance``: ``PerformanceReference`` of ``performance.py``, kept as it is.

    The same rows in the same order and the same seed give the same text. Raises DataError without rows,
    when a column is absent, or when lengths do not match.
    """
    raise NotImplementedError
