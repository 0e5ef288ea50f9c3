"""``DeploymentComponent``: an approved model becomes a Ray Serve application, step by judged step.

Belongs here: the assets approval of a model and deployment of a name and the rollout sensor, wired
from a declaration. Does not belong here: what an approval allows (``rollout/approval.py``), what a
rollout does next (``rollout/plan.py``), carrying it out (``deploying/rolling_out.py``), the watch
(``sensors/rollout.py``), the cluster (``resources/serve_client.py``).
"""

import json
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Literal

import dagster as dg
from pydantic import Field

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.asset_names import AssetName, asset_name
from mlops_assets.assets.automation import FOLLOW_PAST_THE_GATE
from mlops_assets.components.document import DeclaredComponent, Need, named
from mlops_assets.components.model import ModelComponent
from mlops_assets.components.scaffolding import DeploymentScaffolder
from mlops_assets.deploying.rolling_out import Order, RollingOut, labelled_losses, materialisation
from mlops_assets.documents.contradictions import of_deployment, refuse
from mlops_assets.documents.deployment import DeploymentDeclaration
from mlops_assets.errors import ApprovalError, MlopsError
from mlops_assets.event_log.approvals import newest_decision
from mlops_assets.event_log.records import Record, current_versions, latest, require
from mlops_assets.resources.alerts import Alerts
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import ModelRegistry, RegisteredVersion
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout.approval import Approval, rule_on_deployment, rule_on_request
from mlops_assets.rollout.plan import QUALITY, Plan
from mlops_assets.rollout.transitions import RoutingSettings
from mlops_assets.sensors.rollout import rollout_sensor
from serve.schema import GatewayArgs, ModelArgs, ModelManifest, PredictionLogArgs
from serve.scoring import package_bytes


class ApprovalConfig(dg.Config):
    """A person's decision, given when the approval is materialised by hand."""

    decision: Literal["approve", "reject"] = "approve"
    approver: str = ""
    reason: str = ""


class RolloutConfig(dg.Config):
    """What a run of a deployment is to do; left out, it does what is due.

    follow: roll the approved version out, or go on with its rollout. A person gives ``by`` and ``reason``:
    start (again, also after an abort), promote, abort, set_weight (``weight`` in percent), rollback (``to``
    a version like v7). The rollout sensor uses advance, hold, retire and converge as well.
    """

    action: Literal[
        "follow",
        "start",
        "advance",
        "promote",
        "abort",
        "hold",
        "retire",
        "set_weight",
        "rollback",
        "converge",
    ] = "follow"
    revision: int = Field(default=-1, description="Refuse when the routing is not at this revision; -1: any.")
    weight: float | None = Field(default=None, description="Percent, of set_weight.")
    to: str = Field(default="", description="Version, of rollback and set_weight.")
    by: str = ""
    reason: str = ""
    judgement: str = Field(default="", description="The judgement it was decided on, as JSON.")

    def order(self) -> Order:
        return Order(
            action=self.action,
            revision=self.revision if self.revision >= 0 else None,
            weight=self.weight,
            to=self.to,
            by=self.by,
            reason=self.reason,
            judgement=json.loads(self.judgement) if self.judgement else None,
        )


@dg.scaffold_with(DeploymentScaffolder)
class DeploymentComponent(DeclaredComponent[DeploymentDeclaration]):
    """Deploys what was approved, and verifies it over HTTP before it says so.

    .. code-block:: yaml

        type: mlops_assets.components.DeploymentComponent
        attributes:
          name: flights
          model: flights
          approval: {mode: auto}
          replicas: 2
          steps:
            - {shadow: 100, min_requests: 500}
            - {set_weight: 10, min_requests: 500, pause: 10m}
            - {set_weight: 50, min_requests: 500}
            - {set_weight: 100}
    """

    Declaration = DeploymentDeclaration
    MAKES: ClassVar = {"name": ("deployment",), "model": ("approval",)}
    NEEDS: ClassVar = {"model": "model"}
    clock = staticmethod(time.time)
    """Unix seconds, for the sensor and the acts."""
    _labels_within: timedelta | None = None
    """How long the model's monitor waits for labels; None without one."""

    @classmethod
    def needs(cls, attributes: Mapping[str, Any]) -> list[Need]:
        judged = [name for _, name in named(attributes, "analysis.metric")]
        by_labels = [
            Need(AssetName("drift", model), path, optional=True)
            for path, model in named(attributes, "model")
            if QUALITY in judged
        ]
        return [*super().needs(attributes), *by_labels]

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        group = context.path.name
        # A model that nobody declares is refused by name, where all references are checked.
        for model in context.component_tree.get_all_components(ModelComponent):
            if model.declaration.name == self.declaration.model:
                monitor = model.monitor(context)
                view, others = model.feature_view(context), self._others(context)
                refuse(self, of_deployment(self.declaration, view, monitor, others))
                self._labels_within = monitor.labels.within if monitor else None
        sensor = rollout_sensor(
            name=self.declaration.name,
            model=self.declaration.model,
            plan=self._plan(),
            bound=self._bound_keys(),
            clock=self.clock,
        )
        return dg.Definitions(assets=[self._approval(group), self._deployment(group)], sensors=[sensor])

    def _others(self, context: dg.ComponentLoadContext) -> list[str]:
        """Other deployments of the same model."""
        declared = (one.declaration for one in context.component_tree.get_all_components(DeploymentComponent))
        own = self.declaration
        return [one.name for one in declared if one.model == own.model and one.name != own.name]

    def _plan(self) -> Plan:
        """The declared plan, which waits for labels as long as the model's monitor does."""
        return self.declaration.plan(labels_within=self._labels_within)

    @property
    def _approval_key(self) -> dg.AssetKey:
        return asset_key("approval", self.declaration.model)

    def _bound_keys(self) -> list[dg.AssetKey]:
        """What an approval is bound to; the evaluation comes first."""
        model = self.declaration.model
        return [
            asset_key("evaluation", model),
            asset_key("model", model),
            asset_key("training_set", model),
        ]

    def _approval(self, group: str) -> dg.AssetsDefinition:
        model, mode = self.declaration.model, self.declaration.approval.mode
        bound = self._bound_keys()

        @dg.asset(
            key=self._approval_key,
            deps=bound,
            group_name=group,
            kinds={"approval"},
            tags=name_tags("approval", model),
            description=(
                f"Approval of {model} (mode {mode}), bound to the data versions of the model, its "
                "evaluation and its training set. It is void as soon as one of them changes."
            ),
            code_version="1",
            automation_condition=FOLLOW_PAST_THE_GATE if mode == "auto" else None,
            # A rejection does what was asked and materialises nothing: nothing downstream may see it as news.
            output_required=False,
        )
        def approval(
            context: dg.AssetExecutionContext, config: ApprovalConfig, model_registry: ModelRegistry
        ) -> Iterator[dg.MaterializeResult[Any]]:
            evaluation = require(context.instance, bound[0])
            version = int(evaluation.metadata["model_version"])
            ruling = rule_on_request(
                mode=mode,
                approver=config.approver,
                decision=config.decision,
                outcome=evaluation.metadata["outcome"],
                gate_reason=evaluation.metadata["reason"],
                model=model,
            )
            if not ruling.allowed:
                raise dg.Failure(ruling.reason, allow_retries=False)
            recorded = Approval(
                decision=config.decision,
                approver=config.approver or "the gate",
                reason=config.reason or evaluation.metadata["reason"],
                bound_to=current_versions(context.instance, bound),
            )
            model_registry.set_tags(
                model,
                version,
                {
                    "approval": config.decision,
                    "approver": recorded.approver,
                    "approval_reason": recorded.reason,
                },
            )
            # As an observation a rejection stands against the approval it takes back.
            if config.decision == "reject":
                context.log_event(
                    dg.AssetObservation(
                        asset_key=context.asset_key,
                        description=f"rejected by {recorded.approver}: {recorded.reason}",
                        metadata={
                            "decision": "reject",
                            "approver": recorded.approver,
                            "reason": recorded.reason,
                            "bound_to": dg.MetadataValue.json(dict(recorded.bound_to)),
                        },
                    )
                )
                return
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(recorded.version),
                metadata={
                    "decision": recorded.decision,
                    "approver": recorded.approver,
                    "reason": recorded.reason,
                    "ruling": ruling.reason,
                    "mode": mode,
                    "model_version": version,
                    "bound_to": dg.MetadataValue.json(dict(recorded.bound_to)),
                },
            )

        return approval

    def _deployment(self, group: str) -> dg.AssetsDefinition:
        declared = self.declaration
        key = asset_key("deployment", declared.name)

        @dg.asset(
            key=key,
            deps=[self._approval_key],
            group_name=group,
            kinds={"deployment", "ray"},
            tags=name_tags("deployment", declared.name),
            description=declared.description
            or f"The Ray Serve application that answers /{declared.name}/predict with the approved model. "
            "Every materialisation is one step of a rollout: weights before and after, and why.",
            code_version="1",
            automation_condition=FOLLOW_PAST_THE_GATE,
            # One writer: declaring the state of a cluster is read, modify, write.
            pool="serve",
            check_specs=[
                dg.AssetCheckSpec(
                    "rollout",
                    asset=key,
                    description="The last rollout went through or goes on; fails after an abort or a hold.",
                )
            ],
        )
        def deployment(
            context: dg.AssetExecutionContext,
            config: RolloutConfig,
            serve_client: ServeClient,
            model_registry: ModelRegistry,
            lake: Lake,
            alerts: Alerts,
        ) -> Iterator[dg.MaterializeResult[Any]]:
            started = time.monotonic()
            rolling = self.rolling_out(
                context.instance, serve_client, model_registry, lake, alerts, report=context.log.info
            )
            try:
                outcome = rolling.run(config.order(), latest(context.instance, key))
            except MlopsError as error:
                raise dg.Failure(str(error), allow_retries=False) from error
            yield materialisation(
                outcome, serve_client, declared.name, time.monotonic() - started, use_case=group
            )

        return deployment

    def rolling_out(
        self,
        instance: dg.DagsterInstance,
        client: ServeClient,
        registry: ModelRegistry,
        lake: Lake,
        alerts: Alerts,
        *,
        report: Any,
    ) -> RollingOut:
        """The acts of this deployment against one cluster, registry and lake."""
        declared = self.declaration
        bound = self._bound_keys()

        def approved() -> RegisteredVersion:
            return self._approved_version(instance, latest(instance, self._approval_key), bound, registry)

        def model_args(version: RegisteredVersion) -> tuple[ModelArgs, str]:
            manifest = ModelManifest.model_validate(version.manifest())
            storage_options = lake.public_storage_options()
            placed = client.require_resources(
                application=f"{declared.name}--v{version.version}",
                num_gpus=declared.num_gpus,
                device=declared.device,
                replicas=declared.replicas,
                package_bytes=package_bytes(version.package_uri, manifest, storage_options),
                model_format=manifest.model_format,
            )
            args = ModelArgs(
                version=f"v{version.version}",
                package_uri=version.package_uri,
                storage_options=storage_options,
                num_replicas=declared.replicas,
                num_gpus=placed.num_gpus,
                device=declared.device,
            )
            return args, f"{placed.device}: {placed.reason}"

        log_uri = client.prediction_log_uri if declared.prediction_log else ""
        return RollingOut(
            name=declared.name,
            model=declared.model,
            plan=self._plan(),
            settings=RoutingSettings(
                deployment=declared.name,
                timeout_s=declared.timeout_s,
                guard=declared.guard,
                unit_feature=declared.ab.unit_feature if declared.ab else None,
            ),
            gateway_args=GatewayArgs(
                name=declared.name,
                num_replicas=declared.gateway_replicas,
                api_keys_file=client.keys_file(declared.name, declared.api_keys_file),
                max_body_bytes=declared.max_body_bytes,
                max_batch_rows=declared.max_batch_rows,
                stable_in_gateway=declared.stable_in_gateway,
                prediction_log=PredictionLogArgs(uri=log_uri, storage_options=lake.public_storage_options())
                if log_uri
                else None,
                clock_file=client.clock_file,
            ),
            model_args=model_args,
            approved=approved,
            client=client,
            registry=registry,
            alerts=alerts,
            report=report,
            clock=self.clock,
            losses=lambda: labelled_losses(instance, declared.model),
        )

    def _approved_version(
        self,
        instance: dg.DagsterInstance,
        approval: Record | None,
        bound: list[dg.AssetKey],
        registry: ModelRegistry,
    ) -> RegisteredVersion:
        """The version that the approval names, after reading approval and gate verdict once more.

        A check only guards the run it stands in; a deployment launched by itself would pass it by.
        """
        model = self.declaration.model
        ruling = rule_on_deployment(
            newest_decision(instance, self._approval_key),
            current_versions(instance, bound),
            model=model,
        )
        if approval is None or not ruling.allowed:
            raise ApprovalError(ruling.reason)
        gate = instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(bound[0], "gate"))
        passed = gate is not None and gate.event is not None and gate.event.dagster_event is not None
        if not passed or not gate.event.dagster_event.asset_check_evaluation_data.passed:  # type: ignore[union-attr]
            raise ApprovalError(
                f"check gate of {asset_name('evaluation', model)} did not pass; see the check for the verdict"
            )
        version = registry.version(model, int(approval.metadata["model_version"]))
        digest = require(instance, bound[1]).data_version
        if version.digest != digest:
            raise ApprovalError(
                f"{asset_name('model', model)} holds content {digest[:12]}, but v{version.version}, which is "
                f"approved, holds {version.digest[:12]} in the registry; materialise "
                f"{asset_name('evaluation', model)} again"
            )
        return version
