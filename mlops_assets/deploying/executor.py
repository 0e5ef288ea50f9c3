"""Carrying an act out, whichever it is: declare, verify, move the alias, tag and alert. The record follows.

Belongs here: that one order, against the cluster, the endpoint and the registry. Does not belong here: what
an act is (``rollout/act.py``), which one a run carries out (``rolling_out.py``), the golden requests
(``golden.py``), the record (``record.py``).

A run that is cut off leaves a declared routing with its mark; the next run finds a revision that nobody
recorded, and carries the rest of that act out. So no act is skipped and none is done twice.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlops_assets.asset_names import asset_name
from mlops_assets.deploying.golden import tolerance_of, verify_golden
from mlops_assets.errors import ClusterUnreachable, DeploymentError
from mlops_assets.resources.alerts import Alert, Alerts
from mlops_assets.resources.model_registry import CHAMPION, ModelRegistry, RegisteredVersion
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.resources.serving import Wait
from mlops_assets.rollout import desired_state
from mlops_assets.rollout.act import Act, Notice, RegistryTag, Standing
from mlops_assets.rollout.acts import instead, not_started, version_number
from mlops_assets.rollout.plan import under_way
from serve.schema import Evidence, GatewayArgs, ModelArgs, ModelManifest, Routing

ANSWERS_WITHIN_S = 30.0
TAG_LIMIT = 4_000
"""Characters of a reason that the registry keeps."""


@dataclass(frozen=True)
class Done:
    """An act that was carried out, and what was seen on the way."""

    act: Act
    verified: str
    alert: str = ""
    placement: str = ""


@dataclass(frozen=True)
class Executor:
    """Carries acts of one deployment out, against one cluster and one registry.

    ``model_args`` makes the arguments of a version's application and says where it is placed, preflight
    included (DeploymentError with the numbers when it does not fit).
    """

    name: str
    model: str
    gateway_args: GatewayArgs
    model_args: Callable[[RegisteredVersion], tuple[ModelArgs, str]]
    client: ServeClient
    registry: ModelRegistry
    alerts: Alerts
    report: Callable[[str], None]

    def carry_out(self, act: Act, on: Standing) -> Done:
        """Does the act, or what takes its place when its version does not come up or cannot be verified.

        Raises DeploymentError when nothing was declared, or when what was declared is for the next run to
        finish; ClusterUnreachable says nothing about the version, and takes nothing back.
        """
        golden = self._registered(act.golden)
        added, placement = self._added(act)
        try:
            if act.beside:
                self._start_beside(act, added)
        except ClusterUnreachable:
            raise
        except DeploymentError as error:
            if not act.taken_back:
                raise
            return self._in_its_place(not_started(self._now(on, on.routing), act, str(error)), on)
        if act.declares:
            self.declare(self._applications_with(added), act.after, act.before)
        try:
            if act.awaits:
                self.client.target.wait_until_running(act.awaits, Wait(self.report))
            verified = self._verify(act.after, golden)
        except ClusterUnreachable:
            raise
        except DeploymentError as error:
            other = instead(self._now(on, act.after), act, str(error)) if act.taken_back else None
            if other is None:
                raise
            return self._in_its_place(other, on)
        if act.stops_unrouted:
            self._stop_unrouted(act.after)
        if act.champion:
            self.registry.set_alias(self.model, CHAMPION, version_number(act.champion))
        for tag in act.tags:
            self._tag(tag)
        alert = self._alert(act.alert) if act.alert else ""
        return Done(act, verified, alert, placement)

    def routing(self) -> Routing | None:
        """The routing that is declared now."""
        return desired_state.routing_of(self.client.target.declared(), self.name)

    def evidence(self, routing: Routing | None, *, needed: bool = False) -> Evidence | None:
        """What the endpoint measured of the rollout under way, None without one.

        An endpoint that is away holds no act up, unless the evidence is ``needed``: then ClusterUnreachable.
        """
        if under_way(routing) is None:
            return None
        try:
            return self.client.evidence(self.name)
        except ClusterUnreachable:
            if needed:
                raise
            return None

    def restore_whole_cluster(self) -> str:
        """An empty cluster gets everything back that was saved, before anything is declared on it: a
        deployment's first run must not overwrite what the others saved. What was done, in words, or "".
        """
        if self.client.target.declared() or not self.client.target.saved():
            return ""
        self.report("the cluster is empty; declaring the saved state again")
        names = self.client.target.declare_saved()
        # What becomes of the others is their own affair.
        own = [name for name in names if name == self.name or name.startswith(f"{self.name}--")]
        self.client.target.wait_until_running(own, Wait(self.report))
        return f"the cluster had lost its state; {', '.join(names)} were declared again"

    def declare(
        self, applications: Iterable[desired_state.Document], routing: Routing, expected: Routing | None
    ) -> None:
        """Declares the routing over the applications, if the cluster is still where it was decided on."""
        found = self.routing()
        if (found.revision if found else None) != (expected.revision if expected else None):
            raise DeploymentError(
                f"{self.name} moved from revision {expected.revision if expected else 'none'} to "
                f"{found.revision if found else 'none'} meanwhile; nothing was declared. "
                "See mlops status, and decide anew"
            )
        gateway = desired_state.gateway_application(self.gateway_args, routing)
        host, port = self.client.target.http_options()
        self.client.target.apply(
            desired_state.document(desired_state.with_gateway(applications, gateway), host=host, port=port)
        )

    # -- parts of an act -----------------------------------------------------------------------------

    def _now(self, on: Standing, routing: Routing | None) -> Standing:
        """What the next act is decided on, once the routing is declared."""
        return replace(on, routing=routing, evidence=self.evidence(routing))

    def _in_its_place(self, act: Act, on: Standing) -> Done:
        self.report(f"{act.entry.reason}; declaring revision {act.after.revision} in its place")
        return self.carry_out(act, on)

    def _registered(self, label: str) -> RegisteredVersion | None:
        return self.registry.version(self.model, version_number(label)) if label else None

    def _added(self, act: Act) -> tuple[desired_state.DeployedVersion | None, str]:
        """The version whose application an act adds, and where that is placed and why."""
        version = self._registered(act.starts)
        if version is None:
            return None, ""
        args, placement = self.model_args(version)
        return desired_state.DeployedVersion(self.name, act.starts, args), placement

    def _applications_with(self, added: desired_state.DeployedVersion | None) -> list[desired_state.Document]:
        """What is declared now and the version, once each: one that runs already stays as it is."""
        return desired_state.with_versions_added(self.client.target.declared(), [added] if added else [])

    def _start_beside(self, act: Act, added: desired_state.DeployedVersion | None) -> None:
        """Callers are being answered: a version must be up before it gets any of them."""
        assert act.before is not None and added is not None
        self.report(f"starting {added.application} beside {act.before.stable}")
        self.declare(self._applications_with(added), act.before, act.before)
        self.client.target.wait_until_running([added.application], Wait(self.report))

    def _verify(self, routing: Routing, golden: RegisteredVersion | None) -> str:
        """Every gateway replica runs the routing; a ``golden`` version answers as it did offline."""
        answer = self.client.wait_for_revision(
            self.name,
            routing.revision,
            weights=routing.weights(),
            replicas=self.gateway_args.num_replicas,
        )
        mark = under_way(routing)
        self._wait_for_answers({routing.stable, mark.target} if mark else {routing.stable})
        verified = f"all gateway replicas report revision {routing.revision} with these weights"
        if golden is None:
            return verified
        label = f"v{golden.version}"
        manifest = ModelManifest.model_validate(golden.manifest())
        tolerance = tolerance_of(answer["routes"].get(label, {}).get("device"))
        verify_golden(self.client, self.name, label, manifest, tolerance)
        how = f"within {tolerance:g} of" if tolerance else "exactly as"
        return f"{verified}; {len(manifest.golden)} golden requests answered over HTTP {how} offline"

    def _wait_for_answers(self, needed: set[str]) -> None:
        deadline = time.monotonic() + ANSWERS_WITHIN_S
        while True:
            _, answer = self.client.ready(self.name)
            routes: Mapping[str, Any] = answer.get("routes", {})
            silent = {
                label: routes.get(label, {}).get("problem", "unknown")
                for label in sorted(needed)
                if not routes.get(label, {}).get("answers")
            }
            if not silent:
                return
            if time.monotonic() > deadline:
                raise DeploymentError(f"{self.name}: no answer from {silent}")
            time.sleep(0.2)

    def _stop_unrouted(self, routing: Routing) -> None:
        """Stops versions that the routing no longer names, once every replica has taken it."""
        running = self.client.target.declared()
        kept = desired_state.without_unrouted_versions(running, deployment=self.name, routing=routing)
        if len(kept) != len(running):
            self.declare(kept, routing, routing)

    def _tag(self, tag: RegistryTag) -> None:
        tags = {"rollout": tag.state, "rollout_reason": tag.reason[:TAG_LIMIT]}
        self.registry.set_tags(self.model, version_number(tag.version), tags)

    def _alert(self, notice: Notice) -> str:
        return self.alerts.send(
            Alert(
                kind=notice.kind,
                subject=asset_name("deployment", self.name),
                version=notice.version,
                summary=notice.summary,
                dedupe=notice.summary,
                command=f"mlops status; then retrain, or roll it out again with: mlops rollout {self.name} "
                "--by NAME --reason TEXT",
            )
        )
