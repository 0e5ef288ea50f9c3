"""How far a version's outputs are from stable's."""

import math
from collections.abc import Mapping
from typing import ClassVar

from mlops_assets.rollout.judging import sequences
from mlops_assets.rollout.judging.evidence import StepEvidence
from mlops_assets.rollout.judging.metrics._base import (
    JUST_UNDER_0,
    PLAIN,
    AnalysisMetric,
    Quantity,
    Subject,
    refused,
    signed,
)


class PredictionShift(AnalysisMetric):
    """Means keep their levels asymptotically."""

    name: ClassVar[str] = "prediction_shift"
    quantities: ClassVar[Mapping[str, Quantity]] = {
        "mean": Quantity("absolute difference of the mean outputs", "mean <= 0.05", JUST_UNDER_0, math.inf),
        "distance": Quantity(
            "mean absolute difference per request, shadow steps only",
            "distance <= 0.05",
            JUST_UNDER_0,
            math.inf,
            needs_pairs=True,
        ),
    }

    def subject(self, quantity: str, evidence: StepEvidence) -> Subject | str:
        return _shift(quantity, evidence)


def _shift(quantity: str, evidence: StepEvidence) -> Subject | str:
    shadow = evidence.shadow
    if quantity == "distance":
        if shadow is None:
            return "only a shadow step pairs answers; declare it for a plan with one, or use mean"
        series = shadow.distances
        problem = refused(("pairs", series))
        return problem or Subject(
            sequences.Mean(series),
            PLAIN,
            f"outputs of {series.count:,} pairs differ by {PLAIN.in_words(series.mean)} in the mean",
            "pairs",
            sequences.MEAN_MINIMUM,
        )
    if shadow is not None and (shadow.differences.count > 0 or evidence.canary.outputs.count == 0):
        series = shadow.differences
        problem = refused(("pairs", series))
        return problem or Subject(
            sequences.Magnitude(sequences.Mean(series)),
            PLAIN,
            f"over {series.count:,} pairs its mean output is {signed(series.mean)} than the live one",
            "pairs",
            sequences.MEAN_MINIMUM,
        )
    own, other = evidence.canary.outputs, evidence.stable.outputs
    problem = refused(("answers", own), ("answers of stable", other))
    return problem or Subject(
        sequences.Magnitude(sequences.MeanDifference(own, other)),
        PLAIN,
        f"mean output {PLAIN.in_words(own.mean)} over {own.count:,} answers, stable's "
        f"{PLAIN.in_words(other.mean)} over {other.count:,}",
        "answers",
        sequences.MEAN_MINIMUM,
    )
