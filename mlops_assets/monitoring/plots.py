"""What drift and performance look like: over windows, and the worst columns in one window. Pure.

Belongs here: findings in, PNG bytes out. Does not belong here: Evidently's report (``report.py``), the style
(``evaluation/drawing.py``).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlops_assets.monitoring.findings import WindowDrift, WindowPerformance
from mlops_assets.monitoring.reference import DriftReference

if TYPE_CHECKING:
    import pandas as pd


def drift_plot(windows: Sequence[WindowDrift], *, worst: int = 8) -> bytes:
    """Scores relative to their thresholds over windows (oldest first), the worst columns as lines."""
    raise NotImplementedError


def distributions_plot(
    reference: DriftReference, window: WindowDrift, current: "pd.DataFrame", *, worst: int = 6
) -> bytes:
    """The worst columns of a window: reference beside current. ``current`` comes from ``measured_frame``."""
    raise NotImplementedError


def performance_plot(windows: Sequence[WindowPerformance]) -> bytes:
    """The deciding metric over windows with its interval, one line per version and variant, the reference dashed."""
    raise NotImplementedError
