"""Metrics of analyses, one file each, by the name that YAML uses.

A new metric is one more file here; ``_base.py`` says what it holds.
"""

from mlops_assets.errors import UnknownName
from mlops_assets.rollout.judging.metrics._base import AnalysisMetric, Quantity, Subject
from serve.families import Family

__all__ = ["ANALYSIS_METRICS", "AnalysisMetric", "Quantity", "Subject"]

ANALYSIS_METRICS: Family[AnalysisMetric] = Family(
    "metric of an analysis", __name__, AnalysisMetric, unknown=UnknownName
)
