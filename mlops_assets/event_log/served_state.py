"""The version that answers: whether it is stale, why, and how old its data is.

Belongs here: reading the facts from the event log and the registry, the check ``served``. Does not belong
here: the judgement on them (``monitoring/served.py``), what follows from it (``sensors/drift.py``).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.event_log.episode_records import episode_log
from mlops_assets.event_log.records import latest, newest_data
from mlops_assets.monitoring.episodes import EpisodeLog
from mlops_assets.monitoring.relaunch import RelaunchPolicy
from mlops_assets.monitoring.served import ServedFacts, Staleness, served_staleness
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.model_registry import ModelRegistry, RegisteredVersion
from mlops_assets.rollout.approval import Mode
from serve.schema import ModelManifest

CHECK = "served"
TRAINED_UNTIL, TRAINING_CODE = "trained_until", "training_code"
"""Tags of a registered version."""
MONITORED = "mlops/monitored"
"""Metadata key of ``<model>_drift``: its ``MonitorSummary`` as plain values."""


@dataclass(frozen=True)
class ServedVersion:
    """The version that answers, and its manifest."""

    version: RegisteredVersion
    manifest: ModelManifest

    @property
    def label(self) -> str:
        return f"v{self.version.version}"


def served_version(
    instance: dg.DagsterInstance, registry: ModelRegistry, *, model: str, deployment: str
) -> ServedVersion | None:
    """The version that answers as stable by the last recorded act of the deployment, or None."""
    record = latest(instance, asset_key("deployment", deployment))
    if record is None or not record.metadata.get("stable"):
        return None
    version = registry.version(model, int(str(record.metadata["stable"]).removeprefix("v")))
    return ServedVersion(version, ModelManifest.model_validate(version.manifest()))


@dataclass(frozen=True)
class MonitorSummary:
    """What others read of a monitor's declaration without its document: sensors, checks, ``mlops status``.

    ``training_code``: version of the code and declaration that would train the model now. ``approval``: who
    approves. ``relaunch``: how what was lost is launched again, as JSON values. ``held_out_days``: how many
    of the newest days a training leaves to the evaluation.
    """

    model: str
    deployment: str
    label_dataset: str
    max_data_age_s: float
    training_code: str
    approval: Mode = "auto"
    relaunch: Mapping[str, Any] = field(default_factory=dict)
    held_out_days: int = 0

    @property
    def relaunch_policy(self) -> RelaunchPolicy:
        return RelaunchPolicy.model_validate(dict(self.relaunch))

    @property
    def label_key(self) -> dg.AssetKey:
        return asset_key("dataset", self.label_dataset)

    @property
    def deployment_key(self) -> dg.AssetKey:
        return asset_key("deployment", self.deployment)

    @property
    def check_key(self) -> dg.AssetCheckKey:
        """The check ``served`` on the deployment."""
        return dg.AssetCheckKey(self.deployment_key, CHECK)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; ``MonitorSummary(**values)`` is this again."""
        return asdict(self)


def served_now(
    instance: dg.DagsterInstance, registry: ModelRegistry, monitor: MonitorSummary, *, now: datetime
) -> tuple[ServedVersion | None, Staleness]:
    """The version that answers by the last recorded act, and the judgement on it at ``now`` (data time)."""
    answering = served_version(instance, registry, model=monitor.model, deployment=monitor.deployment)
    episodes = episode_log(instance, monitor.model)
    return answering, staleness_of(instance, monitor, answering, now=now, episodes=episodes)


def staleness_of(
    instance: dg.DagsterInstance,
    monitor: MonitorSummary,
    answering: ServedVersion | None,
    *,
    now: datetime,
    episodes: EpisodeLog,
) -> Staleness:
    """The judgement at ``now`` (data time) on the version that answers."""
    record = latest(instance, monitor.deployment_key)
    act = record.metadata if record else {}
    withdrawn = dict(act.get("withdrawn") or {})
    newest_stable = _newest_stable(instance, monitor.deployment_key, answering)
    tags = answering.version.tags if answering else {}
    facts = ServedFacts(
        version=answering.label if answering else None,
        episodes=episodes,
        data_until=_instant(tags.get(TRAINED_UNTIL)),
        newest_data=_instant(newest_data(instance, monitor.label_key)),
        max_data_age=timedelta(seconds=monitor.max_data_age_s),
        trained_code=tags.get(TRAINING_CODE),
        declared_code=monitor.training_code,
        newest_stable=newest_stable,
        # The newest act may be about a version that came after it.
        rollback_reason=str(withdrawn.get(newest_stable, "")),
    )
    return served_staleness(facts, now)


def served_check(monitor: MonitorSummary) -> dg.AssetChecksDefinition:
    """The check ``served`` on ``<name>_deployment``: what answers is not stale."""

    @dg.asset_check(
        asset=monitor.deployment_key,
        name=CHECK,
        description="What answers is not stale: no drift, no data or code it lacks, not rolled back.",
    )
    def check(
        context: dg.AssetCheckExecutionContext, model_registry: ModelRegistry, clock: Clock
    ) -> dg.AssetCheckResult:
        answering, staleness = served_now(context.instance, model_registry, monitor, now=clock.now())
        return dg.AssetCheckResult(**served_result(answering, staleness))

    return check


def served_result(answering: ServedVersion | None, staleness: Staleness) -> dict[str, Any]:
    """Passed, severity, description and metadata of the check."""
    age = staleness.data_age
    return {
        "passed": staleness.stale is False,
        "severity": dg.AssetCheckSeverity.WARN,
        "description": staleness.reason,
        "metadata": {
            "version": answering.label if answering else "none",
            "causes": dg.MetadataValue.json({cause.kind: cause.reason for cause in staleness.causes}),
            "data_age_days": round(age.total_seconds() / 86_400, 2) if age is not None else "not known",
        },
    }


def served_evaluation(
    monitor: MonitorSummary, answering: ServedVersion | None, staleness: Staleness
) -> dg.AssetCheckEvaluation:
    """The check ``served`` as an event that needs no run."""
    key, result = monitor.check_key, served_result(answering, staleness)
    return dg.AssetCheckEvaluation(asset_key=key.asset_key, check_name=key.name, **result)


def _newest_stable(
    instance: dg.DagsterInstance, key: dg.AssetKey, answering: ServedVersion | None
) -> str | None:
    """The highest version that ever answered as stable."""
    if answering is None:
        return None
    known = {answering.version.version}
    for event in instance.fetch_materializations(key, limit=200).records:
        made = event.asset_materialization
        stable = made.metadata.get("stable") if made else None
        if stable is not None and str(stable.value).startswith("v"):
            known.add(int(str(stable.value)[1:]))
    return f"v{max(known)}"


def _instant(text: str | None) -> datetime | None:
    """A time from ISO text, a day counting from its start; None for what is none (a content version)."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
