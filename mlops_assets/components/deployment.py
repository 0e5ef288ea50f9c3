"""``DeploymentComponent``: an approved model becomes a Ray Serve application.

Belongs here: the assets ``approvals/<model>`` and ``deployments/<name>``, wired from a declaration.
Does not belong here: what an approval allows (``rollout/approval.py``), the cluster's desired state
(``rollout/desired_state.py``), the cluster itself (``resources/serve_client.py``).
"""

import time
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from mlops_assets.components.automation import FOLLOW_PAST_THE_GATE
from mlops_assets.components.document import Declaration, DeclaredComponent
from mlops_assets.components.records import Record, current_versions, latest, require
from mlops_assets.errors import ApprovalError, DeploymentError, MlopsError
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import ModelRegistry, RegisteredVersion
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout import desired_state
from mlops_assets.rollout.approval import Approval, Mode, rule_on_deployment, rule_on_request
from mlops_assets.rollout.golden import difference, expected_answer
from serve.schema import GatewayArgs, ModelArgs, ModelManifest

CHAMPION = "champion"


class ApprovalDeclaration(Declaration):
    """Who approves."""

    mode: Mode = Field(
        default="auto",
        description="auto: what the gate promotes is approved; manual: a person approves each model.",
    )


class DeploymentDeclaration(Declaration):
    """Attributes of a ``DeploymentComponent`` document."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$", description="Name of the application and of its route /<name>."
    )
    model: str = Field(description="The ModelComponent whose approved version is deployed.")
    description: str = ""
    approval: ApprovalDeclaration = ApprovalDeclaration()
    replicas: int = Field(default=1, ge=1, description="Replicas of each model version.")
    gateway_replicas: int = Field(default=1, ge=1, description="Replicas of the gateway that callers reach.")
    num_gpus: float = Field(default=0, ge=0, description="GPUs (fractions allowed) of each model replica.")
    timeout_s: float = Field(default=5.0, gt=0, description="How long one model call may take.")
    max_batch_rows: int = Field(default=1_000, ge=1, description="Largest accepted batch.")
    max_body_bytes: int = Field(default=1_048_576, ge=1_024, description="Largest accepted request body.")
    api_keys_file: str | None = Field(
        default=None, description="File of hashed API keys; MLOPS_API_KEYS_FILE when not given here."
    )


class ApprovalConfig(dg.Config):
    """A person's decision, given when the approval is materialised by hand."""

    decision: Literal["approve", "reject"] = "approve"
    approver: str = ""
    reason: str = ""


class DeploymentComponent(DeclaredComponent[DeploymentDeclaration]):
    """Deploys what was approved, and verifies it over HTTP before it says so.

    .. code-block:: yaml

        type: mlops_assets.components.DeploymentComponent
        attributes:
          name: flights
          model: flights
          approval: {mode: auto}
          replicas: 2
    """

    Declaration = DeploymentDeclaration

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        group = context.path.name
        return dg.Definitions(assets=[self._approval(group), self._deployment(group)])

    @property
    def _approval_key(self) -> dg.AssetKey:
        return dg.AssetKey(["approvals", self.declaration.model])

    def _bound_keys(self) -> list[dg.AssetKey]:
        """What an approval is bound to; the evaluation comes first."""
        model = self.declaration.model
        return [
            self.refer("evaluations", model, "model"),
            self.refer("models", model, "model"),
            self.refer("training_sets", model, "model"),
        ]

    def _approval(self, group: str) -> dg.AssetsDefinition:
        model, mode = self.declaration.model, self.declaration.approval.mode
        bound = self._bound_keys()

        @dg.asset(
            key=self._approval_key,
            deps=bound,
            group_name=group,
            kinds={"approval"},
            description=(
                f"Approval of models/{model} (mode {mode}), bound to the data versions of the model, its "
                "evaluation and its training set. It is void as soon as one of them changes."
            ),
            metadata=self.reference_metadata(),
            code_version="1",
            automation_condition=FOLLOW_PAST_THE_GATE if mode == "auto" else None,
        )
        def approval(
            context: dg.AssetExecutionContext, config: ApprovalConfig, model_registry: ModelRegistry
        ) -> dg.MaterializeResult[Any]:
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
            recorded = Approval(
                decision=config.decision,
                approver=config.approver or "the gate",
                reason=config.reason or evaluation.metadata["reason"],
                bound_to=current_versions(context.instance, bound),
            )
            if ruling.allowed or config.decision == "reject":
                model_registry.set_tags(
                    model,
                    version,
                    {
                        "approval": config.decision,
                        "approver": recorded.approver,
                        "approval_reason": recorded.reason,
                    },
                )
            # A rejection is a failed materialisation: nothing downstream may see it as news.
            if not ruling.allowed:
                raise dg.Failure(ruling.reason, allow_retries=False)
            return dg.MaterializeResult(
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
        bound = self._bound_keys()

        @dg.asset(
            key=dg.AssetKey(["deployments", declared.name]),
            deps=[self._approval_key],
            group_name=group,
            kinds={"deployment", "ray"},
            description=declared.description
            or f"The Ray Serve application that answers /{declared.name}/predict with the approved model.",
            code_version="1",
            automation_condition=FOLLOW_PAST_THE_GATE,
            # One writer: declaring the state of a cluster is read, modify, write.
            pool="serve",
        )
        def deployment(
            context: dg.AssetExecutionContext,
            serve_client: ServeClient,
            model_registry: ModelRegistry,
            lake: Lake,
        ) -> dg.MaterializeResult[Any]:
            approval = latest(context.instance, self._approval_key)
            try:
                version = self._approved_version(context.instance, approval, bound, model_registry)
                return _roll_out(context, declared, version, serve_client, model_registry, lake)
            except MlopsError as error:
                raise dg.Failure(str(error), allow_retries=False) from error

        return deployment

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
        ruling = rule_on_deployment(_approval_of(approval), current_versions(instance, bound), model=model)
        if approval is None or not ruling.allowed:
            raise ApprovalError(ruling.reason)
        gate = instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(bound[0], "gate"))
        passed = gate is not None and gate.event is not None and gate.event.dagster_event is not None
        if not passed or not gate.event.dagster_event.asset_check_evaluation_data.passed:  # type: ignore[union-attr]
            raise ApprovalError(
                f"check gate of evaluations/{model} did not pass; see the check for the verdict"
            )
        version = registry.version(model, int(approval.metadata["model_version"]))
        digest = require(instance, bound[1]).data_version
        if version.digest != digest:
            raise ApprovalError(
                f"models/{model} holds content {digest[:12]}, but the approved v{version.version} in the "
                f"registry holds {version.digest[:12]}; materialise evaluations/{model} again"
            )
        return version


def _approval_of(record: Record | None) -> Approval | None:
    if record is None:
        return None
    return Approval(
        decision=record.metadata["decision"],
        approver=record.metadata["approver"],
        reason=record.metadata["reason"],
        bound_to=record.metadata["bound_to"],
    )


def _roll_out(
    context: dg.AssetExecutionContext,
    declared: DeploymentDeclaration,
    version: RegisteredVersion,
    client: ServeClient,
    registry: ModelRegistry,
    lake: Lake,
) -> dg.MaterializeResult[Any]:
    """Brings the version up beside what runs, gives it all traffic, verifies, retires the oldest.

    Any failure declares the previous state again before it is raised: desired equals actual.
    """
    started = time.monotonic()
    name, label = declared.name, f"v{version.version}"
    before = client.declared()
    host, port = client.http_options()

    def declare(applications: list[desired_state.Document]) -> desired_state.Document:
        whole = desired_state.document(applications, host=host, port=port)
        client.apply(whole)
        return whole

    report = context.log.info
    args = ModelArgs(
        version=label,
        package_uri=version.package_uri,
        storage_options=lake.public_storage_options(),
        num_replicas=declared.replicas,
        num_gpus=declared.num_gpus,
    )
    target = desired_state.DeployedVersion(name, label, args)
    client.require_resources(application=target.application, num_gpus=declared.num_gpus)
    current = desired_state.routing_of(before, name)
    routing = desired_state.all_traffic_to(
        current, deployment=name, version=label, timeout_s=declared.timeout_s
    )
    gateway = desired_state.gateway_application(
        GatewayArgs(
            name=name,
            num_replicas=declared.gateway_replicas,
            api_keys_file=declared.api_keys_file or client.api_keys_file or None,
            max_body_bytes=declared.max_body_bytes,
            max_batch_rows=declared.max_batch_rows,
        ),
        routing,
    )
    try:
        report(f"starting {target.application} beside {len(before)} running applications")
        applications = desired_state.with_versions_added(before, [target])
        if current is not None:
            # Callers are being answered: the new version must be up before it gets any of them.
            declare(applications)
            client.wait_until_running([target.application], report=report)
        applications = desired_state.with_gateway(applications, gateway)
        report(f"giving {label} all traffic: routing revision {routing.revision}")
        declare(applications)
        client.wait_until_running([name, target.application], report=report)
        weights = {route: entry.weight for route, entry in routing.routes.items()}
        client.wait_for_revision(name, routing.revision, weights=weights, replicas=declared.gateway_replicas)
        manifest = ModelManifest.model_validate(version.manifest())
        _verify_golden(client, name, label, manifest)
    except DeploymentError:
        report(f"{target.application} failed; declaring the previous state again")
        declare(before)
        raise
    whole = declare(desired_state.without_unrouted_versions(applications, deployment=name, routing=routing))
    registry.set_alias(version.name, CHAMPION, version.version)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(f"{label}@{routing.revision}"),
        metadata={
            "phase": "successful",
            "endpoint": dg.MetadataValue.url(f"{client.url(name)}/predict"),
            "api_docs": dg.MetadataValue.url(f"{client.url(name)}/docs"),
            "model_version": version.version,
            "digest": version.digest,
            "revision": routing.revision,
            "weights": dg.MetadataValue.json({v: weight / 100 for v, weight in weights.items()}),
            "verified": f"{len(manifest.golden)} golden requests answered over HTTP exactly as offline; "
            f"/ready reports revision {routing.revision} with these weights",
            "seconds_to_traffic": round(time.monotonic() - started, 1),
            "desired_state": dg.MetadataValue.json(whole),
        },
    )


def _verify_golden(client: ServeClient, name: str, label: str, manifest: ModelManifest) -> None:
    """Every golden request must be answered by this version with exactly the offline scores."""
    if not manifest.golden:
        raise DeploymentError(
            f"{name} {label} carries no golden rows; nothing proves that it answers as offline"
        )
    for row in manifest.golden:
        told = difference(client.predict(name, row.features), expected_answer(manifest, row), version=label)
        if told:
            raise DeploymentError(
                f"{name} {label} does not answer as it did offline: {told}; request: {row.features}"
            )
