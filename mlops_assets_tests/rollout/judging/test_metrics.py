"""Every metric of an analysis keeps the contract."""

import pytest

from mlops_assets.rollout.judging.metrics import ANALYSIS_METRICS
from mlops_assets.testing.conformance.analysis_metrics import AnalysisMetricConformance, cases


@pytest.mark.parametrize(("metric", "quantity"), cases(ANALYSIS_METRICS.members()))
class TestAnalysisMetric(AnalysisMetricConformance):
    pass
