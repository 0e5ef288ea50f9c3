"""Errors of a version, and of stable."""

from collections.abc import Mapping
from typing import ClassVar

from mlops_assets.rollout.judging import sequences
from mlops_assets.rollout.judging.evidence import StepEvidence
from mlops_assets.rollout.judging.metrics._base import (
    PERCENT,
    POINTS,
    AnalysisMetric,
    Quantity,
    Subject,
    judges_shadow,
)
from serve.schema import ShadowEvidence, VersionEvidence


class ErrorRate(AnalysisMetric):
    """Shares are exact."""

    name: ClassVar[str] = "error_rate"
    quantities: ClassVar[Mapping[str, Quantity]] = {
        "increase": Quantity("share of errors less stable's", "increase <= 0.02", -1.0, 1.0),
        "value": Quantity("share of errors", "value <= 0.01", 0.0, 1.0),
    }

    def subject(self, quantity: str, evidence: StepEvidence) -> Subject | str:
        return _errors(quantity, evidence)


def _errors(quantity: str, evidence: StepEvidence) -> Subject | str:
    shadow = judges_shadow(evidence)
    judged: VersionEvidence | ShadowEvidence = evidence.canary if shadow is None else shadow
    what = "requests" if shadow is None else "mirrored requests"
    errors, stable_errors = sum(judged.errors.values()), sum(evidence.stable.errors.values())
    for who, failed, requests in (
        ("the version", errors, judged.requests),
        ("stable", stable_errors, evidence.stable.requests),
    ):
        if not 0 <= failed <= requests:
            return f"the counts of {who} contradict each other ({failed} errors of {requests} requests)"
    if judged.requests == 0:
        return f"it has had no {what} yet"
    own = sequences.Share(errors, judged.requests)
    facts = f"{errors:,} of {judged.requests:,} {what} failed ({PERCENT.in_words(errors / judged.requests)})"
    if quantity == "value":
        return Subject(own, PERCENT, facts, what)
    requests = evidence.stable.requests
    beside = (
        f"stable's {stable_errors:,} of {requests:,} ({PERCENT.in_words(stable_errors / requests)})"
        if requests
        else "stable had no requests to compare with"
    )
    return Subject(
        # The shadow saw the requests that stable answered.
        sequences.ShareDifference(
            own, sequences.Share(stable_errors, requests), dependent=shadow is not None
        ),
        POINTS,
        f"{facts}, {beside}",
        what,
    )
