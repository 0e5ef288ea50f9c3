"""Deployments that no document declares any more: one alert each; the policy or a person retires them.

Belongs here: the sensor that finds them and the job that takes one out of service. Does not belong here:
what an orphan is (``rollout/orphans.py``), its record (``deploying/retiring.py``), a person's command
(``commands/decisions.py``).
"""

import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import dagster as dg

from mlops_assets import environment
from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import asset_name
from mlops_assets.deploying.retiring import Declared, orphaned, retirement
from mlops_assets.errors import ClusterUnreachable, MlopsError
from mlops_assets.event_log.records import latest
from mlops_assets.event_log.runs import LAUNCHED_BY_TAG
from mlops_assets.resources.alerts import Alert, Alerts
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout.orphans import Deployed, OrphanPolicy, due

INTERVAL_S = 60
SENSOR = "orphaned_deployments"
JOB, OP = "retire_deployment", "retire"


class Retirement(dg.Config):
    """Which deployment is taken out of service, who decided it and why."""

    deployment: str
    by: str
    reason: str


@dataclass
class OrphanCursor:
    """Since when each orphan is one (Unix seconds); ``told``: those that people were alerted of."""

    since: dict[str, float] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    @staticmethod
    def read(text: str | None) -> "OrphanCursor":
        return OrphanCursor(**json.loads(text)) if text else OrphanCursor()


def orphan_watch(graph: Any) -> dg.Definitions:
    """The job and the sensor, running from the start; what is declared is what is in ``graph``."""
    declared = Declared.of(graph)
    job = _job(declared)
    return dg.Definitions(jobs=[job], sensors=[_sensor(declared, job)])


def _job(declared: Declared) -> dg.JobDefinition:
    # One writer: declaring the state of a cluster is read, modify, write.
    @dg.op(name=OP, pool="serve", description="Takes an orphaned deployment out of service, and records it.")
    def retire(context: dg.OpExecutionContext, config: Retirement, serve_client: ServeClient) -> None:
        name = config.deployment
        if name in declared.deployments:
            raise dg.Failure(
                f"{asset_name('deployment', name)} is declared: it would be deployed again. "
                "Remove its documents first",
                allow_retries=False,
            )
        before = latest(context.instance, asset_key("deployment", name))
        try:
            gone = serve_client.target.retire(name, report=context.log.info)
        except MlopsError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.log_event(retirement(name, before, by=config.by, reason=config.reason, applications=gone))

    @dg.job(name=JOB, description="Takes a deployment that no document declares out of service.")
    def retire_deployment() -> None:
        retire()

    return retire_deployment


def _sensor(declared: Declared, job: dg.JobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name=SENSOR,
        job=job,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells of deployments that no document declares; retires them if MLOPS_ORPHANS says so.",
    )
    def watch(
        context: dg.SensorEvaluationContext, serve_client: ServeClient, alerts: Alerts
    ) -> dg.SensorResult:
        cursor = OrphanCursor.read(context.cursor)
        try:
            applications = serve_client.target.declared()
        except ClusterUnreachable as error:
            return dg.SensorResult(skip_reason=str(error))
        found = orphaned(declared, context.instance, applications)
        policy = environment.orphan_policy()
        news = [_alert(one, policy) for one in found if one.name not in cursor.told]
        said = alerts.send_all(news)
        cursor.told = [one.name for one in found]
        cursor.since, overdue = due(cursor.since, cursor.told, now=time.time())
        lines = [f"{len(found)} orphaned deployments", *said]
        retired = overdue if policy == "retire" else []
        return dg.SensorResult(
            run_requests=[_request(name, cursor.since[name]) for name in retired],
            skip_reason=None if retired else "; ".join(lines),
            cursor=json.dumps(asdict(cursor)),
        )

    return watch


def run_config(deployment: str, by: str, reason: str) -> dict[str, Any]:
    """What the job is launched with."""
    return {"ops": {OP: {"config": {"deployment": deployment, "by": by, "reason": reason}}}}


def _request(name: str, since: float) -> dg.RunRequest:
    reason = f"no document declares it, and {environment.ORPHANS.name} says retire"
    return dg.RunRequest(
        # Once for this time of being an orphan, however often the sensor looks.
        run_key=f"{name}/{since:.3f}",
        run_config=run_config(name, SENSOR, reason),
        tags={LAUNCHED_BY_TAG: SENSOR},
    )


def _alert(orphan: Deployed, policy: OrphanPolicy) -> Alert:
    where = f" (it was declared in {orphan.use_case})" if orphan.use_case else ""
    then = "it is retired by itself soon" if policy == "retire" else "it answers until somebody retires it"
    return Alert(
        kind="orphaned_deployment",
        subject=asset_name("deployment", orphan.name),
        summary=f"no document declares it any more{where}; nothing trains or watches it, and {then}",
        command=f"mlops retire {orphan.name} --by NAME --reason TEXT, or bring its documents back",
        evidence={"use_case": orphan.use_case, "policy": policy},
    )
