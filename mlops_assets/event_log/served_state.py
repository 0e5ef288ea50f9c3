"""What is true of the version that really answers: is it stale, why, how old is its data.

Belongs here: collecting the facts from the event log and the registry, the check ``served``. Does not belong
here: the judgement on them (``monitoring/served.py``), acting on it (``sensors/drift.py``).
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
"""Metadata key of ``<model>_drift``: what ``Monitored.told`` gives."""


@dataclass(frozen=True)
class Served:
    """The version that answers, since when (Unix seconds), and its manifest."""

    version: RegisteredVersion
    manifest: ModelManifest
    since: float

    @property
    def label(self) -> str:
        return f"v{self.version.version}"


def served(
    instance: dg.DagsterInstance, registry: ModelRegistry, *, model: str, deployment: str
) -> Served | None:
    """The version that answers as stable by the last recorded act of the deployment, or None."""
    record = latest(instance, asset_key("deployment", deployment))
    if record is None or not record.metadata.get("stable"):
        return None
    version = registry.version(model, int(str(record.metadata["stable"]).removeprefix("v")))
    return Served(version, ModelManifest.model_validate(version.manifest()), record.timestamp)


@dataclass(frozen=True)
class Monitored:
    """What of a monitor's declaration says whether the served version is stale; plain values.

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

    def told(self) -> dict[str, Any]:
        """Plain values; ``Monitored(**told)`` is this again."""
        return asdict(self)


def served_now(
    instance: dg.DagsterInstance, registry: ModelRegistry, monitored: Monitored, *, now: datetime
) -> tuple[Served | None, Staleness]:
    """The version that answers by the last recorded act, and the judgement on it at ``now`` (data time)."""
    found = served(instance, registry, model=monitored.model, deployment=monitored.deployment)
    episodes = episode_log(instance, monitored.model)
    return found, staleness_of(instance, monitored, found, now=now, episodes=episodes)


def staleness_of(
    instance: dg.DagsterInstance,
    monitored: Monitored,
    found: Served | None,
    *,
    now: datetime,
    episodes: EpisodeLog,
) -> Staleness:
    """The judgement at ``now`` (data time) on what ``served`` found."""
    record = latest(instance, monitored.deployment_key)
    told = record.metadata if record else {}
    withdrawn = dict(told.get("withdrawn") or {})
    went_back = str(told.get("action")) in ("rollback", "abort") or bool(withdrawn)
    tags = found.version.tags if found else {}
    facts = ServedFacts(
        version=found.label if found else None,
        episodes=episodes,
        data_until=_instant(tags.get(TRAINED_UNTIL)),
        newest_data=_instant(newest_data(instance, monitored.label_key)),
        max_data_age=timedelta(seconds=monitored.max_data_age_s),
        trained_code=tags.get(TRAINING_CODE),
        declared_code=monitored.training_code,
        newest_stable=_newest_stable(instance, monitored.deployment_key, found),
        rollback_reason=str(told.get("reason", "")) if went_back else "",
    )
    return served_staleness(facts, now)


def served_check(monitored: Monitored) -> dg.AssetChecksDefinition:
    """The check ``served`` on ``<name>_deployment``: what answers is not stale."""

    @dg.asset_check(
        asset=monitored.deployment_key,
        name=CHECK,
        description="What answers is not stale: no drift, no data or code it lacks, not rolled back.",
    )
    def check(
        context: dg.AssetCheckExecutionContext, model_registry: ModelRegistry, clock: Clock
    ) -> dg.AssetCheckResult:
        found, staleness = served_now(context.instance, model_registry, monitored, now=clock.now())
        return dg.AssetCheckResult(**served_result(found, staleness))

    return check


def served_result(found: Served | None, staleness: Staleness) -> dict[str, Any]:
    """Passed, severity, description and metadata of the check."""
    age = staleness.data_age
    return {
        "passed": staleness.stale is False,
        "severity": dg.AssetCheckSeverity.WARN,
        "description": staleness.reason,
        "metadata": {
            "version": found.label if found else "none",
            "causes": dg.MetadataValue.json({cause.kind: cause.reason for cause in staleness.causes}),
            "data_age_days": round(age.total_seconds() / 86_400, 2) if age is not None else "not known",
        },
    }


def served_evaluation(
    monitored: Monitored, found: Served | None, staleness: Staleness
) -> dg.AssetCheckEvaluation:
    """The same as an event that needs no run."""
    key, result = monitored.check_key, served_result(found, staleness)
    return dg.AssetCheckEvaluation(asset_key=key.asset_key, check_name=key.name, **result)


def _newest_stable(instance: dg.DagsterInstance, key: dg.AssetKey, found: Served | None) -> str | None:
    """The highest version that ever answered as stable."""
    if found is None:
        return None
    known = {found.version.version}
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
