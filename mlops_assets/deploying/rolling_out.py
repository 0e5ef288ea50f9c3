"""What one run of ``<name>_deployment`` does: exactly one act, by order or because it is due.

Belongs here: reading what stands, and which act a run carries out. Does not belong here: when a rollout goes
on (``rollout/plan.py``), what an act is (``rollout/acts.py``), carrying it out (``executor.py``), its record
(``record.py``), the asset (``assets/deployment.py``) and its sensor (``sensors/rollout.py``).

What was declared and never recorded comes first, whatever was ordered. A run is told on which revision its
act was decided, and refuses when the deployment has moved on.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlops_assets.asset_names import asset_name
from mlops_assets.deploying.assessing import Watched, assess
from mlops_assets.deploying.executor import Done, Executor
from mlops_assets.deploying.record import described, recorded
from mlops_assets.errors import ApprovalError, DeploymentError, UnknownName
from mlops_assets.event_log.records import Record
from mlops_assets.resources.model_registry import RegisteredVersion
from mlops_assets.rollout import acts
from mlops_assets.rollout.act import Act, Standing, found
from mlops_assets.rollout.acts import Order, version_label
from mlops_assets.rollout.plan import RolloutPlan, under_way
from mlops_assets.rollout.transitions import RoutingSettings
from serve.schema import ModelManifest, Routing

PERSONS_ACTS = frozenset({"promote", "abort", "set_weight", "rollback"})
"""Acts that nobody does by accident: they name who and why; the sensor gives both as well."""
FOLLOWED: Mapping[str, Callable[[Standing, Order], Act]] = {
    "advance": acts.advance,
    "promote": acts.promote,
    "abort": acts.abort,
    "hold": acts.hold,
    "retire": acts.retire,
    "set_weight": acts.set_weight,
    "rollback": acts.roll_back,
}
"""Acts on a deployment that answers."""
BY_EVIDENCE = frozenset({"advance", "promote", "abort", "hold", "set_weight"})
"""Acts that ask what the rollout under way measured. A rollback is none: it must not wait for any answer."""
HOLDS = "declared state holds"


@dataclass(frozen=True)
class RollingOut:
    """Runs of one deployment. ``approved`` gives the approved version after reading approval and gate once
    more (ApprovalError when there is none).
    """

    plan: RolloutPlan
    settings: RoutingSettings
    executor: Executor
    approved: Callable[[], RegisteredVersion]
    clock: Callable[[], float] = time.time
    losses: Callable[[], Mapping[str, Any] | None] = lambda: None

    @property
    def name(self) -> str:
        return self.settings.deployment

    def run(self, order: Order, record: Record | None) -> Done:
        """Carries the order out. Raises DeploymentError or ApprovalError when nothing changed."""
        if order.action in PERSONS_ACTS and not (order.by and order.reason):
            raise DeploymentError(f"{order.action} is a person's decision: give `by` and `reason`")
        known = recorded(record)
        if known.revision is None:
            # Never deployed: without an approval there is nothing to ask the cluster for.
            self.approved()
        restored = self.executor.restore_whole_cluster()
        on = Standing(self.plan, self.settings, known, self.executor.routing(), self.clock())
        act = self._unfinished(order, on)
        if act is None:
            needed = order.action in ("advance", "promote") or bool(order.weight)
            if order.action in BY_EVIDENCE:
                on = replace(on, evidence=self.executor.evidence(on.routing, needed=needed))
            act = self._act(order, on, restored)
        return self.executor.carry_out(act, on)

    def _unfinished(self, order: Order, on: Standing) -> Act | None:
        """What comes before any order: what was lost, or declared and never recorded. None: nothing."""
        routing, last = on.routing, on.recorded.revision
        if last is not None and (routing is None or routing.revision < last):
            self.executor.report(
                f"the cluster and the saved state lost {self.name}; bringing {on.recorded.stable} up "
                "from the record"
            )
            return acts.rebuild(on)
        if order.revision is not None and (routing is None or routing.revision != order.revision):
            now_at = "nothing" if routing is None else f"revision {routing.revision}"
            raise DeploymentError(
                f"{self.name}: {order.action} was decided on revision {order.revision}, the deployment is at "
                f"{now_at} by now; nothing was changed. See mlops status, and decide anew"
            )
        if routing is None or (last is not None and routing.revision == last):
            return None
        if order.action not in ("follow", "converge"):
            raise DeploymentError(
                f"{self.name}: an earlier act declared revision {routing.revision} and is not recorded yet; "
                f"the rollout sensor finishes it within a minute (at once: dg launch --assets "
                f"'key:\"{asset_name('deployment', self.name)}\"'). Then try again"
            )
        self.executor.report(f"revision {routing.revision} was declared and never recorded; verifying it")
        return found(routing, on)

    def _act(self, order: Order, on: Standing, restored: str) -> Act:
        if order.action == "follow":
            return self._followed(order, on, restored)
        if order.action == "start":
            return self._start(on, order, self.approved())
        if order.action not in FOLLOWED and order.action != "converge":
            raise UnknownName("action", order.action, ["follow", "start", "converge", *FOLLOWED])
        self._deployed(on)
        if order.action == "converge":
            return acts.refresh(on, restored or HOLDS)
        return FOLLOWED[order.action](on, order)

    def _followed(self, order: Order, on: Standing, restored: str) -> Act:
        """What is due: roll the approved version out, go on with a rollout, or state what is in force."""
        version = self.approved()
        label, withdrawn, routing = version_label(version.version), on.recorded.withdrawn, on.routing
        if label in withdrawn and (routing is None or routing.stable != label):
            raise ApprovalError(
                f"{self.name}: {label} was withdrawn ({withdrawn[label]}) and is not rolled out again by "
                f"itself. Roll it out with: mlops rollout {self.name} --by NAME --reason TEXT"
            )
        if routing is None:
            return self._start(on, order, version)
        mark = under_way(routing)
        if label == routing.stable and mark is None:
            return acts.refresh(on, restored or f"{label} is approved and stable")
        if label != routing.stable and (mark is None or mark.target != label):
            return self._start(on, order, version)
        watched = Watched(self.name, self.plan, self.executor.client, self.losses)
        look = assess(watched, routing, on.recorded, now=on.now)
        due = look.due
        asked = Order(
            action=due.action,
            by=order.by or acts.PLATFORM,
            reason=due.reason,
            judgement=described(look.judgement),
        )
        needed = due.action in ("advance", "promote")
        on = replace(on, evidence=self.executor.evidence(routing, needed=needed))
        if due.action == "abort":
            return acts.abort(on, asked, phase=due.phase)
        if due.action in ("advance", "promote", "hold"):
            return FOLLOWED[due.action](on, asked)
        return acts.refresh(on, due.reason)

    def _start(self, on: Standing, order: Order, version: RegisteredVersion) -> Act:
        act = acts.start(on, order, version_label(version.version))
        unit = self.settings.unit_feature
        names = ModelManifest.model_validate(version.manifest()).feature_names
        if unit is not None and unit not in names:
            raise UnknownName("feature for ab.unit", unit, [*names, "unit"])
        return act

    def _deployed(self, on: Standing) -> Routing:
        if on.routing is None:
            raise DeploymentError(
                f"{self.name} is not deployed; deploy it with: "
                f"dg launch --assets 'key:\"{asset_name('deployment', self.name)}\"'"
            )
        return on.routing
