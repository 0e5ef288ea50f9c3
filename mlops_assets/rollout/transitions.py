"""The routing that each act of a rollout declares. Pure: one routing in, the next one out.

Belongs here: weights, shadows, stable and the mark of every act. Does not belong here: when to act
(``rollout/plan.py``), the applications beside the routing (``rollout/desired_state.py``), buckets
(``rollout/weights.py``).

Every function gives revision + 1: whoever sees a revision knows exactly one state by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlops_assets.rollout.desired_state import application_name
from mlops_assets.rollout.plan import CanaryStep
from mlops_assets.rollout.weights import reassigned
from serve.schema import WEIGHT_TOTAL, GuardRules, RolloutMark, Route, Routing


@dataclass(frozen=True)
class RoutingSettings:
    """What a deployment declares for every routing of it."""

    deployment: str
    timeout_s: float = 5.0
    guard: GuardRules = field(default_factory=GuardRules)
    unit_feature: str | None = None


def initial(settings: RoutingSettings, version: str, mark: RolloutMark) -> Routing:
    """All traffic to the first version: there is nothing to compare it with."""
    return _next(None, settings, version, {version: WEIGHT_TOTAL}, {}, mark)


def at_step(
    current: Routing, settings: RoutingSettings, target: str, step: CanaryStep, mark: RolloutMark
) -> Routing:
    """The target mirrored or weighted as the step says; whatever else was warm leaves the routing."""
    weights = {current.stable: WEIGHT_TOTAL - step.weight, target: step.weight}
    return _next(current, settings, current.stable, weights, {target: step.shadow}, mark)


def with_weight(
    current: Routing, settings: RoutingSettings, target: str, weight: int, mark: RolloutMark
) -> Routing:
    """A weight that a person chose; mirroring ends."""
    return at_step(current, settings, target, CanaryStep(weight=weight), mark)


def promoted(current: Routing, settings: RoutingSettings, target: str, mark: RolloutMark) -> Routing:
    """The target is stable and answers everything; the one before stays warm at weight 0."""
    return _next(current, settings, target, {target: WEIGHT_TOTAL, current.stable: 0}, {}, mark)


def aborted(current: Routing, settings: RoutingSettings, mark: RolloutMark) -> Routing:
    """Stable answers everything again; the target leaves the routing."""
    return _next(current, settings, current.stable, {current.stable: WEIGHT_TOTAL}, {}, mark)


def rolled_back(current: Routing, settings: RoutingSettings, to: str, mark: RolloutMark) -> Routing:
    """``to`` is stable and answers everything; what was stable stays warm for a change of mind."""
    weights = {to: WEIGHT_TOTAL} if to == current.stable else {to: WEIGHT_TOTAL, current.stable: 0}
    return _next(current, settings, to, weights, {}, mark)


def retired(current: Routing, settings: RoutingSettings, mark: RolloutMark) -> Routing:
    """Only stable is left."""
    return aborted(current, settings, mark)


def refreshed(current: Routing, settings: RoutingSettings) -> Routing:
    """The same traffic under changed settings; the routing itself when they did not change."""
    changed = current.model_copy(
        update={
            "timeout_s": settings.timeout_s,
            "guard": settings.guard,
            "unit_feature": settings.unit_feature,
        }
    )
    return current if changed == current else changed.model_copy(update={"revision": current.revision + 1})


def _next(
    current: Routing | None,
    settings: RoutingSettings,
    stable: str,
    weights: Mapping[str, int],
    shadows: Mapping[str, int],
    mark: RolloutMark,
) -> Routing:
    def application(version: str) -> str:
        known = current.routes.get(version) if current else None
        return known.application if known else application_name(settings.deployment, version)

    return Routing(
        revision=current.revision + 1 if current else 1,
        stable=stable,
        routes={
            version: Route(application=application(version), weight=weight, shadow=shadows.get(version, 0))
            for version, weight in weights.items()
        },
        segments=reassigned(current, weights),
        # The salt never changes: a unit keeps its bucket through every rollout.
        salt=current.salt if current else settings.deployment,
        unit_feature=settings.unit_feature,
        timeout_s=settings.timeout_s,
        guard=settings.guard,
        rollout=mark,
    )
