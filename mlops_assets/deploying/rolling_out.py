"""What one run of ``<name>_deployment`` does: exactly one act, declared, verified over HTTP, recorded.

Belongs here: carrying an act out against the cluster and the registry, and what the record says. Does not
belong here: which act is due (``rollout/plan.py``), the routing it declares (``rollout/transitions.py``),
the asset (``assets/deployment.py``) and its sensor (``sensors/rollout.py``).

Order of every act: declare, verify, move the alias, record. A run that is cut off leaves a declared
routing with its mark; the next run finds a revision that nobody recorded, verifies that one and records
it. So no act is skipped and none is done twice. A run is told on which revision its act was decided, and
refuses when the deployment has moved on.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import asset_name
from mlops_assets.deploying.retiring import USE_CASE, in_service
from mlops_assets.errors import ApprovalError, ClusterUnreachable, DeploymentError, UnknownName
from mlops_assets.event_log.records import Record, latest
from mlops_assets.resources.alerts import Alert, Alerts
from mlops_assets.resources.model_registry import CHAMPION, ModelRegistry, RegisteredVersion
from mlops_assets.resources.serve_client import FAILED_STATUSES, ServeClient
from mlops_assets.rollout import desired_state, transitions
from mlops_assets.rollout.golden import difference, expected_answer
from mlops_assets.rollout.judging.evidence import QualityEvidence, StepEvidence
from mlops_assets.rollout.judging.judge import Judgement, judge
from mlops_assets.rollout.plan import (
    Decision,
    Failures,
    Phase,
    Plan,
    decide,
    next_failures,
    previous_version,
    samples_of,
    under_way,
)
from mlops_assets.rollout.transitions import RoutingSettings
from mlops_assets.rollout.weights import basis_points
from serve.schema import (
    Evidence,
    GatewayArgs,
    ModelArgs,
    ModelManifest,
    RolloutMark,
    Routing,
    VersionEvidence,
)

PERSONS_ACTS = frozenset({"promote", "abort", "set_weight", "rollback"})
"""Acts that nobody does by accident: they name who and why; the sensor gives both as well."""
ENDED = {"abort": "aborted", "rollback": "rolled back", "promote": "displaced"}
GOLDEN_PATIENCE_S = 30.0


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


@dataclass(frozen=True)
class Assessment:
    """One look at a rollout: what the gateway measured, how it was judged, what is due."""

    decision: Decision
    routing: Routing
    evidence: Evidence | None
    judgement: Judgement | None
    failures: Failures


@dataclass(frozen=True)
class Outcome:
    """What a run did: the routing in force afterwards, and what its record says."""

    routing: Routing
    phase: Phase
    action: str
    reason: str
    target: str
    before: Mapping[str, int] = field(default_factory=dict)
    step: str = ""
    by: str = ""
    samples: int | None = None
    """Requests that the step before had to judge by; None where there was none, or nobody could tell."""
    judgement: Mapping[str, Any] | None = None
    verified: str = ""
    alert: str = ""
    placement: str = ""
    withdrawn: Mapping[str, str] = field(default_factory=dict)


def assess(
    plan: Plan,
    client: ServeClient,
    name: str,
    routing: Routing,
    record: Record | None,
    *,
    now: float,
    failures: Failures | None = None,
    losses: Callable[[], Mapping[str, Any] | None] = lambda: None,
) -> Assessment:
    """Reads the evidence of the routing in force and decides what is due. Raises ClusterUnreachable when
    the endpoint does not answer.

    ``losses`` gives what is known of labelled answers, by revision, as ``labelled_losses`` reads it; it is
    asked only for a plan that judges quality.
    """
    failures = failures or Failures()
    mark = under_way(routing)
    if mark is None:
        return Assessment(decide(plan, routing, None, None, now=now), routing, None, None, failures)
    evidence: Evidence | None = client.evidence(name)
    assert evidence is not None
    if evidence.revision != routing.revision:
        # A gateway that has not taken the routing yet; its counts are of the one before.
        evidence = None
    quality = _quality(losses(), routing, mark) if plan.needs_labels else None
    judgement = judge_step(plan, evidence, mark, routing.stable, quality)
    step = plan.steps[mark.step] if mark.step < len(plan.steps) else plan.steps[-1]
    samples = samples_of(step, evidence, mark.target)
    failures = next_failures(failures, judgement, routing.revision, samples)
    held = record is not None and (
        record.metadata.get("phase") == "inconclusive" and record.metadata.get("revision") == routing.revision
    )
    decision = decide(
        plan,
        routing,
        evidence,
        judgement,
        now=now,
        failures=failures,
        held=held,
        problem=_ray_gave_up(client, routing.routes[mark.target].application),
    )
    return Assessment(decision, routing, evidence, judgement, failures)


def labelled_losses(instance: dg.DagsterInstance, model: str) -> Mapping[str, Any] | None:
    """What ``<model>_performance`` last recorded of the losses of every version, by revision.

    None before the first record, e.g. of a model that has no monitor.
    """
    record = latest(instance, asset_key("performance", model))
    found = record.metadata.get("losses") if record else None
    return found if isinstance(found, Mapping) else None


def _quality(losses: Mapping[str, Any] | None, routing: Routing, mark: RolloutMark) -> QualityEvidence | None:
    """Of the routing in force alone: each step starts from zero."""
    from mlops_assets.monitoring.losses import quality_evidence

    return quality_evidence(losses, routing.revision, mark.target, routing.stable) if losses else None


def judge_step(
    plan: Plan,
    evidence: Evidence | None,
    mark: RolloutMark,
    stable: str,
    quality: QualityEvidence | None = None,
) -> Judgement | None:
    """The declared analyses on the newest evidence of a step; None when there is nothing to judge."""
    if evidence is None or not plan.analyses or mark.action != "step" or mark.step >= len(plan.steps):
        return None
    step = plan.steps[mark.step]
    analyses = [analysis for analysis in plan.analyses if step.is_shadow or not analysis.needs_pairs]
    return judge(
        analyses,
        StepEvidence(
            # In a shadow step it has no traffic of its own to be judged by.
            canary=VersionEvidence()
            if step.is_shadow
            else evidence.versions.get(mark.target, VersionEvidence()),
            stable=evidence.versions.get(stable, VersionEvidence()),
            shadow=evidence.shadows.get(mark.target) if step.is_shadow else None,
            quality=quality,
        ),
    )


def _ray_gave_up(client: ServeClient, application: str) -> str | None:
    known = client.applications().get(application)
    if known is None:
        return f"application {application} does not exist"
    if known["status"] in FAILED_STATUSES:
        return f"{application} is {known['status']}: {str(known.get('message', ''))[-500:]}"
    return None


@dataclass
class RollingOut:
    """The acts of one deployment, against one cluster and one registry.

    ``model_args`` makes the arguments of a version's application, preflight included (DeploymentError
    with the numbers when it does not fit); ``approved`` gives the approved version after reading approval
    and gate once more (ApprovalError when there is none).
    """

    name: str
    model: str
    plan: Plan
    settings: RoutingSettings
    gateway_args: GatewayArgs
    model_args: Callable[[RegisteredVersion], tuple[ModelArgs, str]]
    approved: Callable[[], RegisteredVersion]
    client: ServeClient
    registry: ModelRegistry
    alerts: Alerts
    report: Callable[[str], None]
    clock: Callable[[], float] = time.time
    losses: Callable[[], Mapping[str, Any] | None] = lambda: None
    revisions_before: int = field(default=0, init=False)

    def run(self, order: Order, record: Record | None) -> Outcome:
        """Carries the order out. Raises DeploymentError or ApprovalError when nothing changed."""
        if order.action in PERSONS_ACTS:
            self._require_person(order)
        # A deployment that was retired begins anew; its old answers keep their revisions to themselves.
        self.revisions_before = int(record.metadata["revision"]) if record and not in_service(record) else 0
        record = in_service(record)
        if record is None:
            # Never deployed: without an approval there is nothing to ask the cluster for.
            self.approved()
        restored = self._restore_whole_cluster()
        routing = self._routing()
        if record is not None and (routing is None or routing.revision < int(record.metadata["revision"])):
            return self._rebuild(record)
        if order.revision is not None and (routing is None or routing.revision != order.revision):
            now_at = "nothing" if routing is None else f"revision {routing.revision}"
            raise DeploymentError(
                f"{self.name}: {order.action} was decided on revision {order.revision}, the deployment is at "
                f"{now_at} by now; nothing was changed"
            )
        withdrawn = _withdrawn(record)
        unrecorded = routing is not None and (
            record is None or routing.revision > int(record.metadata["revision"])
        )
        if routing is not None and unrecorded:
            if order.action in ("follow", "converge"):
                return self._converge(routing, withdrawn)
            raise DeploymentError(
                f"{self.name}: an earlier act declared revision {routing.revision} and is not recorded yet; "
                f"the rollout sensor finishes it within a minute (at once: dg launch --assets "
                f"'key:\"{asset_name('deployment', self.name)}\"'). Then try again"
            )
        acts: dict[str, Callable[[], Outcome]] = {
            "follow": lambda: self._follow(order, routing, record, withdrawn, restored),
            "converge": lambda: self._again(
                self._some(routing), record, withdrawn, restored or "declared state holds"
            ),
            "start": lambda: self._start(order, routing, self.approved(), withdrawn),
            "advance": lambda: self._advance(order, self._some(routing), withdrawn),
            "promote": lambda: self._promote(order, self._some(routing), withdrawn),
            "abort": lambda: self._abort(order, self._some(routing), withdrawn),
            "hold": lambda: self._hold(order, self._some(routing), withdrawn),
            "retire": lambda: self._retire(order, self._some(routing), withdrawn),
            "set_weight": lambda: self._set_weight(order, self._some(routing), withdrawn),
            "rollback": lambda: self._roll_back(order, self._some(routing), record, withdrawn),
        }
        if order.action not in acts:
            raise UnknownName("action", order.action, acts)
        return acts[order.action]()

    # -- acts ----------------------------------------------------------------------------------------

    def _follow(
        self,
        order: Order,
        routing: Routing | None,
        record: Record | None,
        withdrawn: dict[str, str],
        restored: str,
    ) -> Outcome:
        """What is due: roll the approved version out, go on with a rollout, or state what is in force."""
        version = self.approved()
        label = _label(version)
        if label in withdrawn and (routing is None or routing.stable != label):
            raise ApprovalError(
                f"{self.name}: {label} was withdrawn ({withdrawn[label]}) and is not rolled out again by "
                f"itself. Roll it out with: mlops rollout {self.name} --by NAME --reason TEXT"
            )
        if routing is None:
            return self._start(order, routing, version, withdrawn)
        mark = under_way(routing)
        if label == routing.stable and mark is None:
            return self._again(routing, record, withdrawn, restored or f"{label} is approved and stable")
        if label != routing.stable and (mark is None or mark.target != label):
            return self._start(order, routing, version, withdrawn)
        look = assess(
            self.plan, self.client, self.name, routing, record, now=self.clock(), losses=self.losses
        )
        decided = look.decision
        followed = Order(
            action=decided.action,
            by=order.by or "rollout",
            reason=decided.reason,
            judgement=described(look.judgement),
        )
        if decided.action == "advance":
            return self._advance(followed, routing, withdrawn)
        if decided.action == "promote":
            return self._promote(followed, routing, withdrawn)
        if decided.action == "abort":
            return self._abort(followed, routing, withdrawn, phase=decided.phase)
        if decided.action == "hold":
            return self._hold(followed, routing, withdrawn)
        return self._again(routing, record, withdrawn, decided.reason)

    def _start(
        self,
        order: Order,
        routing: Routing | None,
        version: RegisteredVersion,
        withdrawn: dict[str, str],
    ) -> Outcome:
        label = _label(version)
        if routing is not None and label == routing.stable:
            raise DeploymentError(f"{self.name}: {label} is approved and stable already; nothing to roll out")
        withdrawn.pop(label, None)
        applications = self.client.declared()
        args, placement = self.model_args(version)
        target = desired_state.DeployedVersion(self.name, label, args)
        self._require_unit(version)
        if routing is None:
            mark = self._mark(
                order, "initial", label, "the first version: there is nothing to compare it with"
            )
            new = transitions.initial(self.settings, label, mark).model_copy(
                update={"revision": self.revisions_before + 1}
            )
            self.report(f"starting {target.application}")
            self._declare(desired_state.with_versions_added(applications, [target]), new, None)
            self.client.wait_until_running([self.name, target.application], report=self.report)
            verified = self._verify(new, version)
            self.registry.set_alias(self.model, CHAMPION, version.version)
            return self._outcome(None, new, "successful", withdrawn, verified=verified, placement=placement)
        at_once = len(self.plan.steps) == 1 and not self.plan.steps[0].manual
        try:
            # Callers are being answered: the new version must be up before it gets any of them.
            self.report(f"starting {target.application} beside {routing.stable}")
            self._declare(desired_state.with_versions_added(applications, [target]), routing, routing)
            self.client.wait_until_running([target.application], report=self.report)
        except ClusterUnreachable:
            raise
        except DeploymentError as error:
            return self._could_not_start(order, routing, label, str(error), withdrawn)
        if at_once:
            return self._promote(order, routing, withdrawn, target=label, placement=placement)
        reason = order.reason or f"{label} is approved, {routing.stable} is stable"
        mark = self._mark(order, "step", label, reason, step=0, previous=routing.stable)
        new = transitions.at_step(routing, self.settings, label, self.plan.steps[0], mark)
        self._declare(self.client.declared(), new, routing)
        try:
            verified = self._verify(new)
        except ClusterUnreachable:
            raise
        except DeploymentError as error:
            return self._could_not_start(order, new, label, str(error), withdrawn)
        self._tag(label, "rolling out", reason)
        return self._outcome(routing, new, "progressing", withdrawn, verified=verified, placement=placement)

    def _could_not_start(
        self, order: Order, routing: Routing, label: str, why: str, withdrawn: dict[str, str]
    ) -> Outcome:
        """Stable goes on alone; the version is withdrawn, so that nothing tries it again for ever."""
        self.report(f"{label} failed; declaring the state before again")
        mark = self._mark(order, "abort", label, why, previous=routing.stable, left=(label,), phase="error")
        return self._give_up(
            Order(action="abort", by=order.by, reason=why),
            routing,
            mark,
            "error",
            withdrawn,
            "rollout_failed",
        )

    def _advance(self, order: Order, routing: Routing, withdrawn: dict[str, str]) -> Outcome:
        mark = self._under_way(routing)
        if mark.step + 1 >= len(self.plan.steps):
            return self._promote(order, routing, withdrawn)
        self._refuse_tripped(mark)
        step = self.plan.steps[mark.step + 1]
        new_mark = self._mark(
            order, "step", mark.target, order.reason, step=mark.step + 1, previous=routing.stable
        )
        new = transitions.at_step(routing, self.settings, mark.target, step, new_mark)
        samples = self._samples(mark)
        self._declare(self.client.declared(), new, routing)
        return self._outcome(
            routing, new, "progressing", withdrawn, order=order, verified=self._verify(new), samples=samples
        )

    def _promote(
        self,
        order: Order,
        routing: Routing,
        withdrawn: dict[str, str],
        *,
        target: str = "",
        placement: str = "",
    ) -> Outcome:
        label = target or self._under_way(routing).target
        if not target:
            self._refuse_tripped(self._under_way(routing))
        version = self.registry.version(self.model, _number(label))
        samples = None if target else self._samples(self._under_way(routing))
        reason = order.reason or f"{label} is approved; the plan has no steps"
        # An older version promoted over a newer one by a person is a way back, and must stay.
        left = (routing.stable,) if _number(label) < _number(routing.stable) else ()
        mark = self._mark(order, "promote", label, reason, previous=routing.stable, left=left)
        new = transitions.promoted(routing, self.settings, label, mark)
        self._declare(self.client.declared(), new, routing)
        try:
            verified = self._verify(new, version)
        except ClusterUnreachable:
            raise
        except DeploymentError as error:
            return self._could_not_promote(order, routing, new, label, str(error), withdrawn)
        self.registry.set_alias(self.model, CHAMPION, version.version)
        self._tag(label, "promoted", reason)
        for displaced in left:
            withdrawn[displaced] = f"{label} was promoted over it by {order.by}: {reason}"
        return self._outcome(
            routing,
            new,
            "successful",
            withdrawn,
            order=order,
            verified=verified,
            samples=samples,
            placement=placement,
        )

    def _could_not_promote(
        self,
        order: Order,
        routing: Routing,
        new: Routing,
        label: str,
        why: str,
        withdrawn: dict[str, str],
    ) -> Outcome:
        """Back to what was stable before ``new`` was declared; ``routing`` is what callers had then."""
        back_to = routing.stable if routing.stable != label else (previous_version(new) or routing.stable)
        mark = self._mark(order, "rollback", back_to, why, previous=label, left=(label,), phase="error")
        back = transitions.rolled_back(new, self.settings, back_to, mark)
        self._declare(self.client.declared(), back, new)
        verified = self._verify(back)
        withdrawn[label] = f"promotion failed: {why}"
        told = self._alert("rollout_failed", label, why)
        self._tag(label, "promotion failed", why)
        self.registry.set_alias(self.model, CHAMPION, _number(back_to))
        return self._outcome(
            routing,
            back,
            "error",
            withdrawn,
            order=Order(by=order.by, reason=f"promotion failed: {why}"),
            verified=verified,
            alert=told,
        )

    def _abort(
        self, order: Order, routing: Routing, withdrawn: dict[str, str], *, phase: Phase = "failed"
    ) -> Outcome:
        mark = self._under_way(routing)
        reason = order.reason or "aborted"
        new_mark = self._mark(
            order, "abort", mark.target, reason, previous=routing.stable, left=(mark.target,), phase=phase
        )
        return self._give_up(order, routing, new_mark, phase, withdrawn, "rollout_aborted")

    def _give_up(
        self,
        order: Order,
        routing: Routing,
        mark: RolloutMark,
        phase: Phase,
        withdrawn: dict[str, str],
        kind: Any,
    ) -> Outcome:
        """Stable alone answers; the version is withdrawn, the registry says why, an alert goes out."""
        samples = None
        given_up = under_way(routing)
        if given_up is not None:
            samples = self._samples(given_up)
        new = transitions.aborted(routing, self.settings, mark)
        self._declare(self.client.declared(), new, routing)
        verified = self._verify(new)
        self._drop_unrouted(new)
        withdrawn[mark.target] = mark.reason
        self._tag(mark.target, phase if phase != "failed" else "aborted", mark.reason)
        told = self._alert(kind, mark.target, mark.reason)
        return self._outcome(
            routing, new, phase, withdrawn, order=order, verified=verified, alert=told, samples=samples
        )

    def _hold(self, order: Order, routing: Routing, withdrawn: dict[str, str]) -> Outcome:
        """The rollout stands still until a person decides; nothing is declared anew."""
        mark = self._under_way(routing)
        verified = self._verify(routing)
        told = self._alert("rollout_inconclusive", mark.target, order.reason)
        return self._outcome(
            routing,
            routing,
            "inconclusive",
            withdrawn,
            order=order,
            verified=verified,
            alert=told,
            samples=self._samples(mark),
        )

    def _set_weight(self, order: Order, routing: Routing, withdrawn: dict[str, str]) -> Outcome:
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
            raise DeploymentError(f"{self.name}: {error}") from error
        if weight and mark is not None and target == mark.target:
            self._refuse_tripped(mark)
        step = mark.step if mark is not None else 0
        new_mark = self._mark(order, "set_weight", target, order.reason, step=step, previous=routing.stable)
        new = transitions.with_weight(routing, self.settings, target, weight, new_mark)
        self._declare(self.client.declared(), new, routing)
        return self._outcome(routing, new, "progressing", withdrawn, order=order, verified=self._verify(new))

    def _roll_back(
        self, order: Order, routing: Routing, record: Record | None, withdrawn: dict[str, str]
    ) -> Outcome:
        to = order.to or previous_version(routing, withdrawn)
        if not to:
            raise DeploymentError(
                f"{self.name}: no earlier version that was not withdrawn is known; say which with "
                f"`mlops rollback {self.name} --to VERSION --by NAME --reason TEXT`"
            )
        if to == routing.stable and not under_way(routing):
            raise DeploymentError(f"{self.name}: {to} is what answers already; nothing to roll back")
        version = self.registry.version(self.model, _number(to))
        args, placement = self.model_args(version)
        target = desired_state.DeployedVersion(self.name, to, args)
        applications = desired_state.with_versions_added(self.client.declared(), [target])
        if to not in routing.routes:
            self.report(f"{to} is not warm any more; starting it beside {routing.stable}")
            self._declare(applications, routing, routing)
            self.client.wait_until_running([target.application], report=self.report)
        given_up = under_way(routing)
        leaves = (routing.stable, given_up.target) if given_up else (routing.stable,)
        left = tuple(version for version in leaves if version != to)
        mark = self._mark(order, "rollback", to, order.reason, previous=routing.stable, left=left)
        new = transitions.rolled_back(routing, self.settings, to, mark)
        self._declare(applications, new, routing)
        verified = self._verify(new, version)
        self._drop_unrouted(new)
        self.registry.set_alias(self.model, CHAMPION, version.version)
        for label in left:
            withdrawn[label] = f"rolled back by {order.by}: {order.reason}"
            self._tag(label, "rolled back", f"by {order.by}: {order.reason}")
        withdrawn.pop(to, None)
        self._tag(to, "rolled back to", f"by {order.by}: {order.reason}")
        told = self._alert("rolled_back", to, f"by {order.by}: {order.reason}")
        return self._outcome(
            routing,
            new,
            "successful",
            withdrawn,
            order=order,
            verified=verified,
            alert=told,
            placement=placement,
        )

    def _retire(self, order: Order, routing: Routing, withdrawn: dict[str, str]) -> Outcome:
        if under_way(routing):
            raise DeploymentError(f"{self.name}: a rollout is under way; nothing is retired meanwhile")
        mark = self._mark(order, "retire", routing.stable, order.reason)
        new = transitions.retired(routing, self.settings, mark)
        self._declare(self.client.declared(), new, routing)
        verified = self._verify(new)
        self._drop_unrouted(new)
        return self._outcome(routing, new, "successful", withdrawn, order=order, verified=verified)

    def _again(self, routing: Routing, record: Record | None, withdrawn: dict[str, str], why: str) -> Outcome:
        """The state in force, declared with the current settings and verified once more."""
        new = transitions.refreshed(routing, self.settings)
        self._declare(self.client.declared(), new, routing)
        self.client.wait_until_running([self.name], report=self.report)
        phase: Phase = "progressing" if under_way(new) else "successful"
        if phase == "progressing" and record is not None and record.metadata["phase"] == "inconclusive":
            # It was stopped for a person, and no run of the asset stands for one.
            phase = "inconclusive"
        return self._outcome(
            routing, new, phase, withdrawn, verified=self._verify(new), order=Order(reason=why)
        )

    def _converge(self, routing: Routing, withdrawn: dict[str, str]) -> Outcome:
        """Finishes what an earlier run declared and could not record: everything but declaring it."""
        mark = routing.rollout
        self.report(f"revision {routing.revision} was declared and never recorded; verifying it")
        stable = self.registry.version(self.model, _number(routing.stable))
        settled = not under_way(routing)
        try:
            names = [self.name, *(route.application for route in routing.routes.values() if route.weight)]
            self.client.wait_until_running(names, report=self.report)
            verified = self._verify(routing, stable if settled else None)
        except ClusterUnreachable:
            raise
        except DeploymentError as error:
            order = Order(by=mark.by if mark else "")
            if mark is not None and not settled:
                return self._could_not_start(order, routing, mark.target, str(error), withdrawn)
            if mark is not None and mark.action == "promote" and mark.previous in routing.routes:
                return self._could_not_promote(order, routing, routing, mark.target, str(error), withdrawn)
            raise
        self._drop_unrouted(routing)
        phase: Phase = "progressing"
        told = ""
        if settled:
            self.registry.set_alias(self.model, CHAMPION, stable.version)
            phase = "successful"
        if mark is not None:
            for label in mark.left:
                withdrawn[label] = mark.reason if mark.action == "abort" else f"by {mark.by}: {mark.reason}"
                self._tag(label, ENDED.get(mark.action, mark.action), mark.reason)
            withdrawn.pop(mark.target if mark.action not in ("abort",) else "", None)
            if mark.phase in ("failed", "error"):
                phase = "failed" if mark.phase == "failed" else "error"
            if mark.action == "promote":
                self._tag(mark.target, "promoted", mark.reason)
            if mark.action == "abort":
                told = self._alert("rollout_aborted", mark.target, mark.reason)
            if mark.action == "rollback":
                told = self._alert("rolled_back", mark.target, f"by {mark.by}: {mark.reason}")
        return self._outcome(None, routing, phase, withdrawn, verified=verified, alert=told)

    def _restore_whole_cluster(self) -> str:
        """An empty cluster gets everything back that was saved, before anything is declared on it: a
        deployment's first run must not overwrite what the others saved.
        """
        if self.client.declared() or not self.client.saved():
            return ""
        self.report("the cluster is empty; declaring the saved state again")
        names = self.client.declare_saved()
        # What becomes of the others is their own affair.
        own = [name for name in names if name == self.name or name.startswith(f"{self.name}--")]
        self.client.wait_until_running(own, report=self.report)
        return f"the cluster had lost its state; {', '.join(names)} were declared again"

    def _rebuild(self, record: Record) -> Outcome:
        """What the record says is stable, brought up anew: the saved state does not hold it."""
        label = str(record.metadata["stable"])
        version = self.registry.version(self.model, _number(label))
        self.report(f"the cluster and the saved state lost {self.name}; bringing {label} up from the record")
        args, placement = self.model_args(version)
        target = desired_state.DeployedVersion(self.name, label, args)
        why = "cluster and saved state were lost; the version that was stable is up again"
        mark = self._mark(Order(by="rollout"), "initial", label, why)
        routing = self._routing()
        new = transitions.initial(self.settings, label, mark).model_copy(
            update={"revision": int(record.metadata["revision"]) + 1}
        )
        self._declare(desired_state.with_versions_added(self.client.declared(), [target]), new, routing)
        self.client.wait_until_running([self.name, target.application], report=self.report)
        verified = self._verify(new, version)
        self.registry.set_alias(self.model, CHAMPION, version.version)
        return self._outcome(
            None, new, "successful", _withdrawn(record), verified=verified, placement=placement
        )

    # -- parts of acts -------------------------------------------------------------------------------

    def _routing(self) -> Routing | None:
        return desired_state.routing_of(self.client.declared(), self.name)

    def _some(self, routing: Routing | None) -> Routing:
        if routing is None:
            raise DeploymentError(
                f"{self.name} is not deployed; deploy it with: "
                f"dg launch --assets 'key:\"{asset_name('deployment', self.name)}\"'"
            )
        return routing

    def _declare(
        self, applications: list[desired_state.Document], routing: Routing, expected: Routing | None
    ) -> None:
        """Declares the routing over the applications, if the cluster is still where it was decided on."""
        found = self._routing()
        if (found.revision if found else None) != (expected.revision if expected else None):
            raise DeploymentError(
                f"{self.name} moved from revision {expected.revision if expected else 'none'} to "
                f"{found.revision if found else 'none'} meanwhile; nothing was declared"
            )
        gateway = desired_state.gateway_application(self.gateway_args, routing)
        host, port = self.client.http_options()
        self.client.apply(
            desired_state.document(desired_state.with_gateway(applications, gateway), host=host, port=port)
        )

    def _drop_unrouted(self, routing: Routing) -> None:
        """Stops versions that the routing no longer names, once every replica has taken it."""
        running = self.client.declared()
        kept = desired_state.without_unrouted_versions(running, deployment=self.name, routing=routing)
        if len(kept) != len(running):
            self._declare(kept, routing, routing)

    def _verify(self, routing: Routing, version: RegisteredVersion | None = None) -> str:
        """Every gateway replica runs the routing; a ``version`` that has all traffic answers as offline."""
        answer = self.client.wait_for_revision(
            self.name,
            routing.revision,
            weights=routing.weights(),
            replicas=self.gateway_args.num_replicas,
        )
        mark = under_way(routing)
        self._wait_for_answers({routing.stable, mark.target} if mark else {routing.stable})
        told = f"all gateway replicas report revision {routing.revision} with these weights"
        if version is not None:
            manifest = ModelManifest.model_validate(version.manifest())
            tolerance = _tolerance(answer["routes"].get(_label(version), {}).get("device"))
            verify_golden(self.client, self.name, _label(version), manifest, tolerance)
            how = f"within {tolerance:g} of" if tolerance else "exactly as"
            told += f"; {len(manifest.golden)} golden requests answered over HTTP {how} offline"
        return told

    def _wait_for_answers(self, needed: set[str]) -> None:
        deadline = time.monotonic() + 30.0
        while True:
            _, answer = self.client.ready(self.name)
            silent = {
                label: answer.get("routes", {}).get(label, {}).get("problem", "unknown")
                for label in sorted(needed)
                if not answer.get("routes", {}).get(label, {}).get("answers")
            }
            if not silent:
                return
            if time.monotonic() > deadline:
                raise DeploymentError(f"{self.name}: no answer from {silent}")
            time.sleep(0.2)

    def _under_way(self, routing: Routing) -> RolloutMark:
        mark = under_way(routing)
        if mark is None:
            raise DeploymentError(
                f"{self.name}: no rollout is under way, {routing.stable} answers everything; start one with "
                f"`mlops rollout {self.name} --by NAME --reason TEXT`"
            )
        return mark

    def _refuse_tripped(self, mark: RolloutMark) -> None:
        trip = self.client.evidence(self.name).trips.get(mark.target)
        if trip is not None:
            raise DeploymentError(
                f"{self.name}: {mark.target} tripped ({trip.reason}) and gets no traffic; abort with "
                f"`mlops abort {self.name} --by NAME --reason TEXT`, or wait until the sensor does"
            )

    def _samples(self, mark: RolloutMark) -> int | None:
        """For the record only, so that an endpoint that is away holds no act up."""
        if mark.step >= len(self.plan.steps):
            return None
        try:
            evidence = self.client.evidence(self.name)
        except ClusterUnreachable:
            return None
        return samples_of(self.plan.steps[mark.step], evidence, mark.target)

    def _require_person(self, order: Order) -> None:
        if not order.by or not order.reason:
            raise DeploymentError(f"{order.action} is a person's decision: give `by` and `reason`")

    def _require_unit(self, version: RegisteredVersion) -> None:
        unit = self.settings.unit_feature
        names = ModelManifest.model_validate(version.manifest()).feature_names
        if unit is not None and unit not in names:
            raise UnknownName("feature for ab.unit", unit, [*names, "unit"])

    def _mark(
        self,
        order: Order,
        action: Any,
        target: str,
        reason: str,
        *,
        step: int = 0,
        previous: str | None = None,
        left: tuple[str, ...] = (),
        phase: str = "",
    ) -> RolloutMark:
        return RolloutMark(
            target=target,
            action=action,
            step=step,
            previous=previous,
            left=left,
            phase=phase,
            reason=reason,
            by=order.by or "rollout",
            declared_at=self.clock(),
        )

    def _tag(self, label: str, state: str, reason: str) -> None:
        self.registry.set_tags(
            self.model, _number(label), {"rollout": state, "rollout_reason": reason[:4_000]}
        )

    def _alert(self, kind: Any, label: str, reason: str) -> str:
        return self.alerts.send(
            Alert(
                kind=kind,
                subject=asset_name("deployment", self.name),
                version=label,
                summary=reason,
                dedupe=reason,
                command=f"mlops status; then retrain, or roll it out again with: mlops rollout {self.name} "
                "--by NAME --reason TEXT",
            )
        )

    def _outcome(
        self,
        before: Routing | None,
        after: Routing,
        phase: Phase,
        withdrawn: Mapping[str, str],
        *,
        order: Order | None = None,
        verified: str = "",
        alert: str = "",
        samples: int | None = None,
        placement: str = "",
    ) -> Outcome:
        mark = after.rollout
        step = ""
        if mark is not None and mark.action == "step" and mark.step < len(self.plan.steps):
            step = f"{mark.step + 1} of {len(self.plan.steps)}: {self.plan.steps[mark.step].told()}"
        order = order or Order()
        return Outcome(
            routing=after,
            phase=phase,
            action=mark.action if mark else "",
            reason=order.reason or (mark.reason if mark else ""),
            target=mark.target if mark else after.stable,
            before=before.weights() if before else {},
            step=step,
            by=order.by or (mark.by if mark else ""),
            samples=samples,
            judgement=order.judgement,
            verified=verified,
            alert=alert,
            placement=placement,
            withdrawn=dict(withdrawn),
        )


def described(judgement: Judgement | None) -> dict[str, Any] | None:
    """A judgement as plain values, for run configuration and metadata."""
    if judgement is None:
        return None
    return {
        "phase": judgement.phase,
        "reason": judgement.reason,
        "measurements": [
            {
                "metric": measurement.metric,
                "condition": str(measurement.condition),
                "phase": measurement.phase,
                "value": measurement.value,
                "low": measurement.low,
                "high": measurement.high,
                "samples": measurement.samples,
                "reason": measurement.reason,
            }
            for measurement in judgement.measurements
        ],
    }


def materialisation(
    outcome: Outcome, client: ServeClient, name: str, seconds: float, *, use_case: str = ""
) -> dg.MaterializeResult[Any]:
    """The record of an act; ``use_case`` is the folder that declares the deployment."""
    routing = outcome.routing
    metadata: dict[str, Any] = {
        "phase": outcome.phase,
        "action": outcome.action,
        **({"step": outcome.step} if outcome.step else {}),
        "traffic": f"{_shares(outcome.before)} → {_shares(routing.weights())}",
        "reason": outcome.reason,
        "by": outcome.by,
        "endpoint": dg.MetadataValue.url(f"{client.url(name)}/predict"),
        "api_docs": dg.MetadataValue.url(f"{client.url(name)}/docs"),
        "model_version": _number(routing.stable),
        "stable": routing.stable,
        "target": outcome.target,
        "revision": routing.revision,
        "weights_before": dg.MetadataValue.json(_percent(outcome.before)),
        "weights": dg.MetadataValue.json(_percent(routing.weights())),
        "shadows": dg.MetadataValue.json({v: r.shadow / 100 for v, r in routing.routes.items() if r.shadow}),
        **({} if outcome.samples is None else {"samples": outcome.samples}),
        "verified": outcome.verified,
        "withdrawn": dg.MetadataValue.json(dict(outcome.withdrawn)),
        "seconds": round(seconds, 1),
        USE_CASE: use_case,
        "desired_state": dg.MetadataValue.json(json.loads(routing.model_dump_json(exclude={"segments"}))),
    }
    for key, text in (("alert", outcome.alert), ("placement", outcome.placement)):
        if text:
            metadata[key] = text
    if outcome.judgement:
        metadata["measurements"] = _measurement_table(outcome.judgement)
        metadata["judgement"] = dg.MetadataValue.json(dict(outcome.judgement))
    passed = outcome.phase in ("progressing", "successful")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(f"{routing.stable}@{routing.revision}"),
        metadata=metadata,
        check_results=[
            dg.AssetCheckResult(
                check_name="rollout",
                passed=passed,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"{outcome.phase}: {outcome.reason}",
                metadata={"target": outcome.target, "stable": routing.stable},
            )
        ],
    )


def _measurement_table(judgement: Mapping[str, Any]) -> dg.MetadataValue[Any]:
    columns = ("metric", "condition", "phase", "value", "low", "high", "samples", "reason")
    return dg.MetadataValue.table(
        records=[
            dg.TableRecord({column: _cell(measured.get(column)) for column in columns})
            for measured in judgement["measurements"]
        ],
        schema=dg.TableSchema(columns=[dg.TableColumn(column, "string") for column in columns]),
    )


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _tolerance(device: Mapping[str, Any] | None) -> float:
    """What a version's device allows between offline and served scores; 0 on CPU."""
    if not device or device["used"] == "cpu":
        return 0.0
    return float((device.get("parity") or {}).get("tolerance", 0.0))


def verify_golden(
    client: ServeClient, name: str, label: str, manifest: ModelManifest, tolerance: float = 0.0
) -> None:
    """Every golden request must be answered by this version with the offline scores."""
    if not manifest.golden:
        raise DeploymentError(
            f"{name} {label} carries no golden rows; nothing proves that it answers as offline"
        )
    deadline = time.monotonic() + GOLDEN_PATIENCE_S
    for row in manifest.golden:
        while True:
            status, answer = client.predict(name, row.features)
            told = f"HTTP {status}: {answer}" if status != 200 else None
            if told is None:
                told = difference(answer, expected_answer(manifest, row), version=label, tolerance=tolerance)
            # A replica that has not reached the new version yet lets the one before answer, or nobody.
            passing = status in (429, 503) or (status == 200 and answer.get("model_version") != label)
            if told is None or not passing or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        if told:
            raise DeploymentError(
                f"{name} {label} does not answer as it did offline: {told}; request: {row.features}"
            )


def _withdrawn(record: Record | None) -> dict[str, str]:
    return dict(record.metadata.get("withdrawn") or {}) if record else {}


def _label(version: RegisteredVersion) -> str:
    return f"v{version.version}"


def _number(label: str) -> int:
    text = label.removeprefix("v")
    if not text.isdecimal():
        raise DeploymentError(f"{label!r} is not a version; write it like v7")
    return int(text)


def _shares(weights: Mapping[str, int]) -> str:
    return ", ".join(f"{version} {weight / 100:g} %" for version, weight in weights.items()) or "nothing"


def _percent(weights: Mapping[str, int]) -> dict[str, float]:
    return {version: weight / 100 for version, weight in weights.items()}
