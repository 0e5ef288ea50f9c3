"""Losses of a version, and of stable, as labels come back."""

import math
from collections.abc import Mapping
from typing import ClassVar

from mlops_assets.rollout.judging import sequences
from mlops_assets.rollout.judging.evidence import QualityEvidence, StepEvidence
from mlops_assets.rollout.judging.metrics._base import (
    PLAIN,
    AnalysisMetric,
    Quantity,
    Subject,
    refused,
    signed,
)


class Quality(AnalysisMetric):
    """Needs a monitor that joins labels. Means keep their levels asymptotically."""

    name: ClassVar[str] = "quality"
    quantities: ClassVar[Mapping[str, Quantity]] = {
        "increase": Quantity("mean loss less stable's", "increase <= 0.02", -math.inf, math.inf),
    }

    def subject(self, quantity: str, evidence: StepEvidence) -> Subject | str:
        return _quality(evidence.quality)


def _quality(quality: QualityEvidence | None) -> Subject | str:
    if quality is None:
        return "no labels came back yet"
    pairs = quality.differences
    if pairs is not None and pairs.count > 0:
        problem = refused(("labelled pairs", pairs))
        return problem or Subject(
            sequences.Mean(pairs),
            PLAIN,
            f"over {pairs.count:,} labelled pairs {quality.loss} is {signed(pairs.mean)} than stable's",
            "labelled pairs",
            sequences.MEAN_MINIMUM,
        )
    own, other = quality.canary, quality.stable
    problem = refused(("labels", own), ("labels of stable", other))
    return problem or Subject(
        sequences.MeanDifference(own, other),
        PLAIN,
        f"mean {quality.loss} {PLAIN.in_words(own.mean)} over {own.count:,} labels, stable's "
        f"{PLAIN.in_words(other.mean)} over {other.count:,}",
        "labels",
        sequences.MEAN_MINIMUM,
    )
