"""Detectors, one file each: how far a column of a window is from its reference, and how far by chance.

A new detector is one more file here (``_base.py`` says what it holds): from then on references are calibrated
for it and windows are scored by it. References that are older show its score without a threshold.
"""

from mlops_assets.errors import UnknownName
from mlops_assets.monitoring.detectors._base import Chance, Compared, Detector, Ordered, Resampled
from serve.families import Family

__all__ = ["DETECTORS", "Chance", "Compared", "Detector", "Ordered", "Resampled", "decides", "detectors"]

DETECTORS: Family[Detector] = Family("detector", __name__, Detector, unknown=UnknownName)


def detectors(*, ordered: bool) -> list[Detector]:
    """Those that score a column whose values have an order, or have none."""
    return [found() for found in DETECTORS.members() if ordered or not found.needs_order]


def decides(name: str) -> bool:
    """Whether that detector decides about a column; one that is gone does not, though references name it."""
    return name in DETECTORS and DETECTORS[name].decides
