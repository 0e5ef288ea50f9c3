"""``<name>_deployment``: one act of a rollout per run, by order or because it is due.

Belongs here: what a run may be asked to do, putting an act together from what is declared and what is
outside. Does not belong here: which act a run carries out (``deploying/rolling_out.py``), when a rollout goes
on (``rollout/plan.py``), what an approval lets past (``approval.py``).
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.assets.approval import approved_version
from mlops_assets.assets.automation import FOLLOW_PAST_THE_GATE
from mlops_assets.deploying.assessing import labelled_losses
from mlops_assets.deploying.executor import Executor
from mlops_assets.deploying.record import materialisation
from mlops_assets.deploying.rolling_out import RollingOut
from mlops_assets.documents.deployment import DeploymentDeclaration
from mlops_assets.errors import MlopsError
from mlops_assets.event_log.records import latest
from mlops_assets.resources.alerts import Alerts
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import ModelRegistry, RegisteredVersion
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout.acts import Order
from mlops_assets.rollout.plan import RolloutPlan
from mlops_assets.rollout.transitions import RoutingSettings
from serve.schema import GatewayArgs, ModelArgs, ModelManifest, PredictionLogArgs
from serve.scoring import package_bytes


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


@dataclass(frozen=True)
class DeclaredDeployment:
    """What its documents say of a deployment: the plan waits for labels as long as the model's monitor does.

    ``clock``: real time, Unix seconds.
    """

    declaration: DeploymentDeclaration
    plan: RolloutPlan
    clock: Callable[[], float] = time.time


def deployment_asset(group: str, deployed: DeclaredDeployment) -> dg.AssetsDefinition:
    """The application that answers, with the check ``rollout``."""
    declared = deployed.declaration
    key = asset_key("deployment", declared.name)

    @dg.asset(
        key=key,
        deps=[asset_key("approval", declared.model)],
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
        outside = Outside(context.instance, serve_client, model_registry, lake, alerts)
        rolling = rolling_out(deployed, outside, report=context.log.info)
        try:
            done = rolling.run(config.order(), latest(context.instance, key))
        except MlopsError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        yield materialisation(done, serve_client, declared.name, time.monotonic() - started, use_case=group)

    return deployment


@dataclass(frozen=True)
class Outside:
    """What an act reads and changes: the event log, the cluster, the registry, the lake, people."""

    instance: dg.DagsterInstance
    client: ServeClient
    registry: ModelRegistry
    lake: Lake
    alerts: Alerts


def rolling_out(
    deployed: DeclaredDeployment, outside: Outside, *, report: Callable[[str], None]
) -> RollingOut:
    """Runs of a deployment against one cluster, registry and lake."""
    declared = deployed.declaration
    return RollingOut(
        plan=deployed.plan,
        settings=RoutingSettings(
            deployment=declared.name,
            timeout_s=declared.timeout_s,
            guard=declared.guard,
            unit_feature=declared.ab.unit_feature if declared.ab else None,
        ),
        executor=Executor(
            name=declared.name,
            model=declared.model,
            gateway_args=_gateway_args(declared, outside),
            model_args=lambda version: _model_args(declared, outside, version),
            client=outside.client,
            registry=outside.registry,
            alerts=outside.alerts,
            report=report,
        ),
        approved=lambda: approved_version(outside.instance, outside.registry, declared.model),
        clock=deployed.clock,
        losses=lambda: labelled_losses(outside.instance, declared.model),
    )


def _gateway_args(declared: DeploymentDeclaration, outside: Outside) -> GatewayArgs:
    client = outside.client
    log_uri = client.prediction_log_uri if declared.prediction_log else ""
    log = (
        PredictionLogArgs(uri=log_uri, storage_options=outside.lake.public_storage_options())
        if log_uri
        else None
    )
    return GatewayArgs(
        name=declared.name,
        num_replicas=declared.gateway_replicas,
        api_keys_file=client.keys_file(declared.name, declared.api_keys_file),
        max_body_bytes=declared.max_body_bytes,
        max_batch_rows=declared.max_batch_rows,
        stable_in_gateway=declared.stable_in_gateway,
        prediction_log=log,
        online_uri=client.online_uri,
        clock_file=client.clock_file,
    )


def _model_args(
    declared: DeploymentDeclaration, outside: Outside, version: RegisteredVersion
) -> tuple[ModelArgs, str]:
    """The arguments of a version's application, and where it is placed and why."""
    manifest = ModelManifest.model_validate(version.manifest())
    storage_options = outside.lake.public_storage_options()
    placed = outside.client.target.require_resources(
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
