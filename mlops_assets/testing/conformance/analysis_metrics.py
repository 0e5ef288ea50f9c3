"""What every metric of an analysis must do (``rollout/judging/metrics/_base.py`` says it in words).

@pytest.mark.parametrize(("metric", "quantity"), cases(ANALYSIS_METRICS.members()))
class TestAnalysisMetric(AnalysisMetricConformance): ...
"""

from collections.abc import Iterable
from typing import Any

import pytest

from mlops_assets.errors import DeclarationError
from mlops_assets.rollout.judging.conditions import Analysis, Condition
from mlops_assets.rollout.judging.evidence import QualityEvidence, StepEvidence
from mlops_assets.rollout.judging.judge import measurement_of
from mlops_assets.rollout.judging.metrics import ANALYSIS_METRICS, AnalysisMetric
from serve.schema import LATENCY_BOUNDS_S, Moments, ShadowEvidence, VersionEvidence

SLOTS = len(LATENCY_BOUNDS_S) + 1


def cases(metrics: Iterable[type[AnalysisMetric]]) -> list[Any]:
    """Every metric with every quantity it has."""
    return [
        pytest.param(metric, quantity, id=f"{metric.name}-{quantity}")
        for metric in metrics
        for quantity in metric.quantities
    ]


def evidence(requests: int, moments: Moments) -> StepEvidence:
    """A shadow step in which both versions did the same."""
    latency = tuple(requests if slot == 5 else 0 for slot in range(SLOTS))
    stable = VersionEvidence(requests=requests, errors={}, latency=latency, outputs=moments)
    idle = VersionEvidence(requests=0, errors={}, latency=(0,) * SLOTS, outputs=Moments())
    shadow = ShadowEvidence(
        requests=requests,
        errors={},
        latency=latency,
        live_latency=latency,
        differences=moments,
        distances=moments,
    )
    return StepEvidence(
        canary=idle, stable=stable, shadow=shadow, quality=QualityEvidence(differences=moments)
    )


class AnalysisMetricConformance:
    """One quantity of one metric."""

    def analysis(self, metric: type[AnalysisMetric], quantity: str) -> Analysis:
        example = metric.quantities[quantity].example
        return Analysis(metric.name, Condition.parse(example, metric=metric.name))

    def test_yaml_finds_it_by_its_name_and_its_example_is_a_limit(
        self, metric: type[AnalysisMetric], quantity: str
    ) -> None:
        assert ANALYSIS_METRICS[metric.name] is metric
        assert self.analysis(metric, quantity).condition.quantity == quantity

    def test_a_limit_outside_of_its_bounds_is_refused_with_them(
        self, metric: type[AnalysisMetric], quantity: str
    ) -> None:
        for bound in (metric.quantities[quantity].above, metric.quantities[quantity].below):
            with pytest.raises(DeclarationError):
                Condition.parse(f"{quantity} <= {bound!r}", metric=metric.name)

    def test_without_evidence_it_is_open_and_says_why(
        self, metric: type[AnalysisMetric], quantity: str
    ) -> None:
        found = measurement_of(self.analysis(metric, quantity), evidence(0, Moments()))
        assert found.phase == "inconclusive" and found.value is None and found.samples == 0
        assert metric.name in found.reason and len(found.reason) > len(str(self.analysis(metric, quantity)))

    def test_versions_that_do_the_same_keep_the_example_in_the_end(
        self, metric: type[AnalysisMetric], quantity: str
    ) -> None:
        many = evidence(1_000_000, Moments(count=1_000_000, mean=0.0, m2=1.0))
        found = measurement_of(self.analysis(metric, quantity), many)
        assert found.phase == "successful" and found.samples > 0 and found.value is not None

    def test_numbers_that_are_none_are_told_and_not_raised(
        self, metric: type[AnalysisMetric], quantity: str
    ) -> None:
        broken = evidence(10, Moments(count=10, mean=1e300, m2=1e300))
        assert measurement_of(self.analysis(metric, quantity), broken).phase == "inconclusive"
