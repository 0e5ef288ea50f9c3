"""The 95th percentile of a version's latency, and of stable's."""

import math
from collections.abc import Mapping
from typing import ClassVar

from mlops_assets.rollout.judging import sequences
from mlops_assets.rollout.judging.evidence import StepEvidence
from mlops_assets.rollout.judging.metrics._base import (
    MILLISECONDS,
    TIMES,
    AnalysisMetric,
    Quantity,
    Subject,
    judges_shadow,
)
from serve.schema import LATENCY_BOUNDS_S


class LatencyP95(AnalysisMetric):
    """Percentiles are exact up to the buckets."""

    name: ClassVar[str] = "latency_p95"
    quantities: ClassVar[Mapping[str, Quantity]] = {
        "ratio": Quantity("95th percentile over stable's", "ratio <= 2.5", 1e-3, 1e4),
        "value_ms": Quantity(
            "95th percentile in milliseconds",
            "value_ms <= 500",
            # What is quicker or slower is not told apart.
            math.nextafter(LATENCY_BOUNDS_S[0] * 1000, 0.0),
            math.nextafter(LATENCY_BOUNDS_S[-1] * 1000, math.inf),
        ),
    }

    def subject(self, quantity: str, evidence: StepEvidence) -> Subject | str:
        return _latency(quantity, evidence)


def _latency(quantity: str, evidence: StepEvidence) -> Subject | str:
    shadow = judges_shadow(evidence)
    counts, beside = (
        (evidence.canary.latency, evidence.stable.latency)
        if shadow is None
        else (shadow.latency, shadow.live_latency)
    )
    what = "requests" if shadow is None else "mirrored requests"
    for who, one in (("the version", counts), ("stable", beside)):
        if len(one) != len(LATENCY_BOUNDS_S) + 1 or min(one) < 0:
            return f"the latency counts of {who} do not fit the buckets ({list(one)})"
    own, other = sequences.Quantile(counts), sequences.Quantile(beside)
    if own.samples == 0:
        return f"it has had no {what} yet"
    facts = f"95th percentile about {_seconds(own)} over {int(own.samples):,} {what}"
    if quantity == "value_ms":
        return Subject(own, MILLISECONDS, facts, what)
    if other.samples == 0:
        return f"stable had no requests to compare with; {facts}"
    return Subject(
        sequences.QuantileRatio(own, other, dependent=shadow is not None),
        TIMES,
        f"{facts}, stable's about {_seconds(other)} over {int(other.samples):,}",
        what,
    )


def _seconds(quantile: sequences.Quantile) -> str:
    if quantile.value is None:
        return f"more than {MILLISECONDS.in_words(LATENCY_BOUNDS_S[-1])}"
    return MILLISECONDS.in_words(quantile.value)
