"""One window of answers against the reference of the version that gave them.

Belongs here: which columns a window has, their scores and thresholds, whether each drifted, and a sentence
for every odd column. Does not belong here: formulas (``scores.py``), thresholds (``calibration.py``),
what follows from drift (``policy.py``).
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlops_assets.monitoring.findings import WindowDrift
from mlops_assets.monitoring.reference import DriftReference

if TYPE_CHECKING:
    import pandas as pd


def assess_window(
    reference: DriftReference,
    *,
    start: str,
    end: str,
    version: str,
    features: "pd.DataFrame",
    scores: NDArray[np.float64] | None,
    target: NDArray[np.float64] | None,
    level: float,
    min_rows: int,
) -> WindowDrift:
    """Every column of the window with its scores and whether it drifted.

    ``features``: one row per answer (n), as logged; ``scores``: (n,) or (n, classes), as the model gave them;
    ``target`` (n,): class codes or numbers, NaN where no label came back yet (those rows do not count).
    ``scores`` or ``target`` None: such columns are not measured. ``level`` is the chance that a window like the
    reference shows drift in any column of a role; it is divided by the number of deciding tests of that role
    (Bonferroni 1936). A window under ``min_rows`` rows is not judged.

    Every input has a defined answer: missing, constant, infinite and absent columns are scored where a score
    is defined and explained in ``note``.
    """
    raise NotImplementedError


def measured_frame(
    reference: DriftReference,
    features: "pd.DataFrame",
    scores: NDArray[np.float64] | None = None,
    target: NDArray[np.float64] | None = None,
) -> "pd.DataFrame":
    """The columns that are measured, as they are compared: numbers as float64, categories as text.

    One column per column of the reference that the inputs hold, ``prediction`` and ``label`` among them. What
    ``plots.distributions_plot`` and ``report.evidently_html`` take.
    """
    raise NotImplementedError
