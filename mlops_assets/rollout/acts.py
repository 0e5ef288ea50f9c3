"""The acts of a rollout: one function each, from what stands and what was asked to the act. Pure.

Belongs here: the mark and the routing of every act, and in which state an act is refused. Does not belong
here: what follows from a mark (``act.py``), weights and shadows (``transitions.py``), which act is due
(``plan.py``), carrying one out (``deploying/executor.py``).

Each raises DeploymentError, or UnknownName, when the act makes no sense in what stands.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from mlops_assets.errors import DeploymentError, UnknownName
from mlops_assets.rollout import transitions
from mlops_assets.rollout.act import Act, Notice, Standing, act_of, refreshed_act
from mlops_assets.rollout.plan import RolloutPhase, previous_version, samples_of, under_way
from mlops_assets.rollout.weights import basis_points
from serve.schema import RolloutMark, Routing

PLATFORM = "rollout"
"""Who did it where no person and no sensor says so."""
LOST = "cluster and saved state were lost; the version that was stable is up again"


@dataclass(frozen=True)
class Order:
    """What a run was asked to do, by whom and why; ``revision`` is what it was decided on (None: any)."""

    action: str = "follow"
    revision: int | None = None
    weight: float | None = None
    to: str = ""
    by: str = ""
    reason: str = ""
    judgement: Mapping[str, Any] | None = None


def start(on: Standing, order: Order, version: str) -> Act:
    """The version's first step; all traffic at once when nothing answers, or when the plan has no steps."""
    if on.routing is None:
        why = "the first version: there is nothing to compare it with"
        new = _first(on, _mark(on, order, "initial", version, why), on.recorded.revisions_before + 1)
        return replace(act_of(new, on), starts=version)
    if version == on.routing.stable:
        raise DeploymentError(
            f"{on.deployment}: {version} is approved and stable already; nothing to roll out"
        )
    if len(on.plan.steps) == 1 and not on.plan.steps[0].manual:
        act = _promoted(on, order, version)
    else:
        reason = order.reason or f"{version} is approved, {on.routing.stable} is stable"
        act = act_of(_at_step(on, _mark(on, order, "step", version, reason), 0), on)
    return replace(act, starts=version, beside=True)


def rebuild(on: Standing) -> Act:
    """What the record says is stable, brought up anew: neither the cluster nor the saved state holds it."""
    assert on.recorded.revision is not None
    mark = _mark(on, Order(), "initial", on.recorded.stable, LOST)
    new = _first(on, mark, on.recorded.revision + 1)
    return replace(act_of(new, on), starts=on.recorded.stable)


def advance(on: Standing, order: Order) -> Act:
    """The next step of the rollout under way; behind the last one, the promotion."""
    mark = _under_way(on)
    if mark.step + 1 >= len(on.plan.steps):
        return promote(on, order)
    _refuse_tripped(on, mark)
    return _asked(
        act_of(_at_step(on, _mark(on, order, "step", mark.target, order.reason), mark.step + 1), on),
        order,
        _samples(on),
    )


def promote(on: Standing, order: Order) -> Act:
    """All traffic to the version that is being rolled out."""
    mark = _under_way(on)
    _refuse_tripped(on, mark)
    return _asked(_promoted(on, order, mark.target), order, _samples(on))


def abort(on: Standing, order: Order, *, phase: RolloutPhase = "failed") -> Act:
    """Stable alone answers; the version is withdrawn."""
    mark = _under_way(on)
    act = _given_up(on, _mark(on, order, "abort", mark.target, order.reason or "aborted"), phase)
    return _asked(act, order, _samples(on))


def hold(on: Standing, order: Order) -> Act:
    """The rollout stands still until a person decides; nothing is declared anew."""
    mark = _under_way(on)
    act = refreshed_act(_some(on), on, order.reason)
    entry = replace(act.entry, phase="inconclusive", by=order.by or mark.by)
    notice = Notice("rollout_inconclusive", mark.target, order.reason)
    held = replace(act, entry=entry, declares=False, awaits=(), alert=notice)
    return _asked(held, order, _samples(on))


def retire(on: Standing, order: Order) -> Act:
    """Only stable is left; the version before is no longer kept warm."""
    routing = _some(on)
    if under_way(routing):
        raise DeploymentError(
            f"{on.deployment}: a rollout is under way; nothing is retired meanwhile. "
            "Promote or abort it first"
        )
    mark = _mark(on, order, "retire", routing.stable, order.reason).model_copy(update={"previous": None})
    return _asked(act_of(transitions.retired(routing, on.settings, mark), on), order)


def set_weight(on: Standing, order: Order) -> Act:
    """A weight that a person chose, for a version beside stable."""
    routing = _some(on)
    mark = under_way(routing)
    target = order.to or (mark.target if mark is not None else "")
    others = [version for version in routing.routes if version != routing.stable]
    if target not in others:
        raise UnknownName(
            "version beside stable",
            target,
            others,
            next_step="A weight can be set for a version that is up: start one with `mlops rollout`.",
        )
    try:
        weight = basis_points(order.weight)
    except ValueError as error:
        raise DeploymentError(f"{on.deployment}: {error}") from error
    if weight and mark is not None and target == mark.target:
        _refuse_tripped(on, mark)
    step = mark.step if mark is not None else 0
    chosen = _mark(on, order, "set_weight", target, order.reason).model_copy(update={"step": step})
    return _asked(act_of(transitions.with_weight(routing, on.settings, target, weight, chosen), on), order)


def roll_back(on: Standing, order: Order) -> Act:
    """All traffic to an earlier version; what answered until then is withdrawn."""
    routing = _some(on)
    to = order.to or previous_version(routing, on.recorded.withdrawn)
    if not to:
        raise DeploymentError(
            f"{on.deployment}: no earlier version that was not withdrawn is known; say which with "
            f"`mlops rollback {on.deployment} --to VERSION --by NAME --reason TEXT`"
        )
    given_up = under_way(routing)
    if to == routing.stable and not given_up:
        raise DeploymentError(f"{on.deployment}: {to} is what answers already; nothing to roll back")
    leaves = (routing.stable, given_up.target) if given_up else (routing.stable,)
    left = tuple(version for version in leaves if version != to)
    mark = _mark(on, order, "rollback", to, order.reason).model_copy(update={"left": left})
    act = act_of(transitions.rolled_back(routing, on.settings, to, mark), on)
    return _asked(replace(act, starts=to, beside=to not in routing.routes), order)


def refresh(on: Standing, why: str) -> Act:
    """The state in force, declared with the settings of today and verified once more."""
    return refreshed_act(transitions.refreshed(_some(on), on.settings), on, why)


def not_started(on: Standing, act: Act, why: str) -> Act:
    """In place of an act whose version did not come up: stable goes on alone, and the version is withdrawn,
    so that nothing tries it again for ever.
    """
    mark = act.after.rollout
    assert mark is not None
    given_up = _mark(on, Order(by=mark.by), "abort", mark.target, why)
    return _asked(_given_up(on, given_up, "error"), Order(), _samples(on))


def instead(on: Standing, act: Act, why: str) -> Act | None:
    """In place of an act that was declared and cannot be verified; None where there is no way back.

    A step is given up. A promotion goes back to what was stable before it. ``on`` is as it stands now: with
    the act's own routing declared.
    """
    mark = act.after.rollout
    if under_way(act.after):
        return not_started(on, act, why)
    if mark is None or mark.action != "promote" or mark.previous not in act.after.routes:
        return None
    back = _mark(on, Order(by=mark.by), "rollback", mark.previous, why)
    back = back.model_copy(update={"left": (mark.target,), "phase": "error"})
    return act_of(transitions.rolled_back(act.after, on.settings, mark.previous, back), on)


# -- parts of acts -------------------------------------------------------------------------------------


def _first(on: Standing, mark: RolloutMark, revision: int) -> Routing:
    new = transitions.initial(on.settings, mark.target, mark)
    return new.model_copy(update={"revision": revision})


def _at_step(on: Standing, mark: RolloutMark, number: int) -> Routing:
    mark = mark.model_copy(update={"step": number})
    return transitions.at_step(_some(on), on.settings, mark.target, on.plan.steps[number], mark)


def _promoted(on: Standing, order: Order, version: str) -> Act:
    routing = _some(on)
    reason = order.reason or f"{version} is approved; the plan has no steps"
    # An older version promoted over a newer one by a person is a way back, and must stay.
    left = (routing.stable,) if version_number(version) < version_number(routing.stable) else ()
    mark = _mark(on, order, "promote", version, reason).model_copy(update={"left": left})
    return act_of(transitions.promoted(routing, on.settings, version, mark), on)


def _given_up(on: Standing, mark: RolloutMark, phase: RolloutPhase) -> Act:
    mark = mark.model_copy(update={"left": (mark.target,), "phase": phase})
    return act_of(transitions.aborted(_some(on), on.settings, mark), on)


def _asked(act: Act, order: Order, samples: int | None = None) -> Act:
    """The act with what it was decided on."""
    return replace(act, entry=replace(act.entry, samples=samples, judgement=order.judgement))


def _mark(
    on: Standing,
    order: Order,
    action: Literal["initial", "step", "set_weight", "promote", "abort", "rollback", "retire"],
    target: str,
    reason: str,
) -> RolloutMark:
    return RolloutMark(
        target=target,
        action=action,
        previous=on.routing.stable if on.routing and action != "initial" else None,
        reason=reason,
        by=order.by or PLATFORM,
        declared_at=on.now,
    )


def _some(on: Standing) -> Routing:
    assert on.routing is not None, f"{on.deployment} is not deployed"
    return on.routing


def _under_way(on: Standing) -> RolloutMark:
    mark = under_way(on.routing)
    if mark is None:
        raise DeploymentError(
            f"{on.deployment}: no rollout is under way, {_some(on).stable} answers everything; start one "
            f"with `mlops rollout {on.deployment} --by NAME --reason TEXT`"
        )
    return mark


def _refuse_tripped(on: Standing, mark: RolloutMark) -> None:
    trip = on.evidence.trips.get(mark.target) if on.evidence else None
    if trip is not None:
        raise DeploymentError(
            f"{on.deployment}: {mark.target} tripped ({trip.reason}) and gets no traffic; abort with "
            f"`mlops abort {on.deployment} --by NAME --reason TEXT`, or wait until the sensor does"
        )


def _samples(on: Standing) -> int | None:
    """Requests that the step under way had to judge by; for the record only."""
    mark = under_way(on.routing)
    if mark is None or on.evidence is None or mark.step >= len(on.plan.steps):
        return None
    return samples_of(on.plan.steps[mark.step], on.evidence, mark.target)


def version_label(number: int) -> str:
    """``v7``: how a registered version is called in a routing."""
    return f"v{number}"


def version_number(label: str) -> int:
    """The registry's number of a label like ``v7``; DeploymentError for what is none."""
    text = label.removeprefix("v")
    if not text.isdecimal():
        raise DeploymentError(f"{label!r} is not a version; write it like v7")
    return int(text)
