"""What was measured of a step of a rollout. Plain values.

Belongs here: the evidence that metrics of analyses are asked about. Does not belong here: where it comes from
(``deploying/``, ``monitoring/losses.py``), what it proves (``judge.py``).
"""

from dataclasses import dataclass

from serve.schema import Moments, ShadowEvidence, VersionEvidence

_NONE = Moments()


@dataclass(frozen=True)
class QualityEvidence:
    """Losses of requests whose labels came back; of every loss, smaller is better.

    ``differences``: per request that both versions scored, canary's loss less stable's; None when no
    request was scored by both. Then ``canary`` and ``stable`` hold the losses of each one's own requests.
    """

    canary: Moments = _NONE
    stable: Moments = _NONE
    differences: Moments | None = None
    loss: str = "loss"


@dataclass(frozen=True)
class StepEvidence:
    """What was measured since a step's routing took effect. ``shadow``: of a shadow step, else None."""

    canary: VersionEvidence
    stable: VersionEvidence
    shadow: ShadowEvidence | None = None
    quality: QualityEvidence | None = None
