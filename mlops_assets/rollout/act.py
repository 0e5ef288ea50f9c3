"""One act of a rollout as a value: what is declared, verified and moved, who is told, what is recorded. Pure.

Belongs here: the value, and what a routing amounts to by its mark. Does not belong here: making the routing
of an act (``acts.py``, ``transitions.py``), which act is due (``plan.py``), carrying one out
(``deploying/executor.py``).

A routing carries the mark of the act that declared it. ``act_of`` is the one place that says what follows
from a mark: the run that declares the routing asks it, and so does the run that finds it declared and not
recorded. What both record and tell is the same therefore. Only what the first one measured on the way is lost
with it: ``samples`` and ``judgement``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from mlops_assets.rollout.desired_state import application_name
from mlops_assets.rollout.plan import RolloutPhase, RolloutPlan, under_way
from mlops_assets.rollout.transitions import RoutingSettings
from serve.schema import Evidence, RolloutMark, Routing

NOTHING: Mapping[Any, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Recorded:
    """What the last record of a deployment says; of one that is not in service, that nothing answers.

    ``revision`` None: not in service, and ``revisions_before`` is the last one it had when it was.
    ``weights`` in basis points. ``mark``: of the routing that was recorded, as plain values.
    """

    revision: int | None = None
    revisions_before: int = 0
    stable: str = ""
    phase: str = ""
    weights: Mapping[str, int] = field(default_factory=lambda: NOTHING)
    withdrawn: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    mark: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Standing:
    """What an act is decided on: the declared routing and the last record, plan and settings, the time.

    ``routing`` None: nothing is declared. ``now`` in Unix seconds. ``evidence``: of the rollout under way;
    None where none is, or where the endpoint did not answer.
    """

    plan: RolloutPlan
    settings: RoutingSettings
    recorded: Recorded
    routing: Routing | None
    now: float
    evidence: Evidence | None = None

    @property
    def deployment(self) -> str:
        return self.settings.deployment


@dataclass(frozen=True)
class RegistryTag:
    """How a rollout ended for a version, and why: the registry's tags ``rollout`` and ``rollout_reason``."""

    version: str
    state: str
    reason: str


@dataclass(frozen=True)
class Notice:
    """The alert of an act, about one version."""

    kind: Literal["rollout_aborted", "rollout_failed", "rollout_inconclusive", "rolled_back"]
    version: str
    summary: str


@dataclass(frozen=True)
class Entry:
    """What the record of an act says. ``before``: the weights that the record before says, in basis points.

    ``samples``: requests that the step before had to judge by; None where there was none, or nobody could
    tell. ``withdrawn``: versions that nothing rolls out again by itself, and why.
    """

    phase: RolloutPhase
    action: str
    target: str
    reason: str
    by: str
    step: str
    before: Mapping[str, int]
    withdrawn: Mapping[str, str]
    samples: int | None = None
    judgement: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Act:
    """One act, whole. Versions are labels like v7; "" is none.

    ``before``: the routing it was decided on; ``after``: the one it declares, unless ``declares`` is False.
    ``starts``: the version whose application it adds; ``beside``: it must run before ``after`` is declared.
    ``awaits``: applications that must run once it is declared. ``golden``: the version that must answer the
    golden requests as offline. ``stops_unrouted``: versions that ``after`` does not name are stopped once it
    is verified. ``champion``: the version that the alias moves to. ``taken_back``: when it cannot be
    verified, the run itself declares what takes its place; else the run fails, and the next one tries again.
    """

    before: Routing | None
    after: Routing
    entry: Entry
    declares: bool = True
    starts: str = ""
    beside: bool = False
    awaits: tuple[str, ...] = ()
    golden: str = ""
    stops_unrouted: bool = False
    champion: str = ""
    tags: tuple[RegistryTag, ...] = ()
    alert: Notice | None = None
    taken_back: bool = False


def act_of(routing: Routing, on: Standing) -> Act:
    """The act that declares a routing, by the mark of it; every routing that an act declares has one."""
    mark = routing.rollout
    if mark is None:
        return refreshed_act(routing, on, "")
    return _BY_MARK[mark.action](routing, mark, on)


def found(routing: Routing, on: Standing) -> Act:
    """The act of a routing that is declared and not recorded: all that is left of it is to be done."""
    recorded, mark = on.recorded.mark, routing.rollout
    if mark is not None and recorded is not None and recorded == mark.model_dump(mode="json"):
        # A mark that is recorded already: its act was, too, and only the settings changed since.
        act = refreshed_act(routing, on, mark.reason)
    else:
        act = act_of(routing, on)
    weighted = tuple(route.application for route in routing.routes.values() if route.weight)
    return replace(act, before=routing, declares=False, taken_back=True, awaits=(on.deployment, *weighted))


def refreshed_act(routing: Routing, on: Standing, why: str) -> Act:
    """The same traffic, declared and verified once more."""
    phase: RolloutPhase = "progressing" if under_way(routing) else "successful"
    if phase == "progressing" and on.recorded.phase == "inconclusive":
        # It was stopped for a person, and no run of the asset stands for one.
        phase = "inconclusive"
    entry = replace(_entry(routing, on, phase), withdrawn=on.recorded.withdrawn)
    if why:
        entry = replace(entry, reason=why)
    return Act(on.routing, routing, entry, awaits=(on.deployment,))


def _initial(routing: Routing, mark: RolloutMark, on: Standing) -> Act:
    entry = replace(_entry(routing, on, "successful", back=mark.target), before=NOTHING)
    return Act(
        on.routing,
        routing,
        entry,
        awaits=(on.deployment, application_name(on.deployment, mark.target)),
        golden=mark.target,
        champion=mark.target,
    )


def _step(routing: Routing, mark: RolloutMark, on: Standing) -> Act:
    entry = _entry(routing, on, "progressing", back=mark.target)
    begins = mark.step == 0
    tags = (RegistryTag(mark.target, "rolling out", mark.reason),) if begins else ()
    return Act(on.routing, routing, entry, tags=tags, taken_back=begins)


def _set_weight(routing: Routing, mark: RolloutMark, on: Standing) -> Act:
    return Act(on.routing, routing, _entry(routing, on, "progressing"))


def _promote(routing: Routing, mark: RolloutMark, on: Standing) -> Act:
    why = f"{mark.target} was promoted over it by {mark.by}: {mark.reason}"
    return Act(
        on.routing,
        routing,
        _entry(routing, on, "successful", dict.fromkeys(mark.left, why), back=mark.target),
        golden=mark.target,
        champion=mark.target,
        tags=(RegistryTag(mark.target, "promoted", mark.reason),),
        taken_back=True,
    )


def _abort(routing: Routing, mark: RolloutMark, on: Standing) -> Act:
    # A version that could not be brought up failed; one that was up was aborted.
    failed = mark.phase == "error"
    return Act(
        on.routing,
        routing,
        _entry(routing, on, "error" if failed else "failed", dict.fromkeys(mark.left, mark.reason)),
        stops_unrouted=True,
        tags=tuple(RegistryTag(label, "error" if failed else "aborted", mark.reason) for label in mark.left),
        alert=Notice("rollout_failed" if failed else "rollout_aborted", mark.target, mark.reason),
    )


def _rollback(routing: Routing, mark: RolloutMark, on: Standing) -> Act:
    if mark.phase == "error":
        return _promotion_failed(routing, mark, on)
    why = f"by {mark.by}: {mark.reason}"
    return Act(
        on.routing,
        routing,
        _entry(routing, on, "successful", dict.fromkeys(mark.left, f"rolled back {why}"), back=mark.target),
        golden=mark.target,
        stops_unrouted=True,
        champion=mark.target,
        tags=(
            *(RegistryTag(label, "rolled back", why) for label in mark.left),
            RegistryTag(mark.target, "rolled back to", why),
        ),
        alert=Notice("rolled_back", mark.target, why),
    )


def _promotion_failed(routing: Routing, mark: RolloutMark, on: Standing) -> Act:
    """Back to what answered before a promotion that could not be verified."""
    why = f"promotion failed: {mark.reason}"
    entry = replace(_entry(routing, on, "error", dict.fromkeys(mark.left, why)), reason=why)
    (failed,) = mark.left
    return Act(
        on.routing,
        routing,
        entry,
        stops_unrouted=True,
        champion=mark.target,
        tags=(RegistryTag(failed, "promotion failed", mark.reason),),
        alert=Notice("rollout_failed", failed, mark.reason),
    )


def _retire(routing: Routing, mark: RolloutMark, on: Standing) -> Act:
    return Act(on.routing, routing, _entry(routing, on, "successful"), stops_unrouted=True)


_BY_MARK: Mapping[str, Callable[[Routing, RolloutMark, Standing], Act]] = {
    "initial": _initial,
    "step": _step,
    "set_weight": _set_weight,
    "promote": _promote,
    "abort": _abort,
    "rollback": _rollback,
    "retire": _retire,
}


def _entry(
    routing: Routing,
    on: Standing,
    phase: RolloutPhase,
    withdrawn: Mapping[str, str] = NOTHING,
    *,
    back: str = "",
) -> Entry:
    """What a routing's mark says for the record; ``withdrawn`` anew, and ``back`` no longer."""
    mark = routing.rollout
    kept = {label: why for label, why in on.recorded.withdrawn.items() if label != back}
    return Entry(
        phase=phase,
        action=mark.action if mark else "",
        target=mark.target if mark else routing.stable,
        reason=mark.reason if mark else "",
        by=mark.by if mark else "",
        step=_step_in_words(mark, on.plan),
        before=on.recorded.weights,
        withdrawn=MappingProxyType({**kept, **withdrawn}),
    )


def _step_in_words(mark: RolloutMark | None, plan: RolloutPlan) -> str:
    if mark is None or mark.action != "step" or mark.step >= len(plan.steps):
        return ""
    return f"{mark.step + 1} of {len(plan.steps)}: {plan.steps[mark.step].in_words()}"
