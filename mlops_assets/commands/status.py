"""What is true right now: per model what answers, what is stale and why; documents that are missing; orphans.

Belongs here: reading the instance, the graph and the endpoint into plain values, and showing them. Does not
belong here: deciding anything.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.asset_keys import asset_key, assets_of, read_key
from mlops_assets.asset_names import Kind, asset_name
from mlops_assets.deploying.retiring import Declared, orphaned
from mlops_assets.documents.missing import MissingDocument, missing_in
from mlops_assets.errors import ClusterUnreachable, UnknownName
from mlops_assets.event_log.approvals import newest_decision
from mlops_assets.event_log.episode_records import episode_log
from mlops_assets.event_log.records import current_versions, latest
from mlops_assets.event_log.retrain_requests import newest_ruling, pending_retrain
from mlops_assets.event_log.served_state import MONITORED, MonitorSummary, served_now
from mlops_assets.event_log.successor import lost_approval_now
from mlops_assets.resources.model_registry import ModelRegistry
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout import desired_state

if TYPE_CHECKING:
    from rich.console import Console

CHAIN: tuple[Kind, ...] = (
    "training_set",
    "candidates",
    "model",
    "evaluation",
    "approval",
    "deployment",
    "performance",
    "drift",
)


@dataclass(frozen=True)
class AssetStatus:
    """One asset: MISSING, STALE or FRESH with causes, and the state of its freshness policy."""

    asset: str
    staleness: str
    causes: list[str]
    freshness: str
    materialised_at: float | None


@dataclass(frozen=True)
class ModelStatus:
    """One model and the deployment that serves it; ``answers`` is what ``/ready`` says, or why not."""

    model: str
    deployment: str | None
    endpoint: str | None
    answers: dict[str, Any]
    approval: dict[str, str]
    verdict: dict[str, Any]
    rollout: dict[str, Any] = field(default_factory=dict)
    served: dict[str, Any] = field(default_factory=dict)
    episode: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)
    assets: list[AssetStatus] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return asdict(self)


@dataclass(frozen=True)
class UndeclaredStatus:
    """A deployment that no loaded document declares; ``use_case`` is the folder that did ("": not known)."""

    deployment: str
    use_case: str
    endpoint: str
    answers: dict[str, Any]


@dataclass(frozen=True)
class Status:
    """Everything ``mlops status`` shows.

    ``unwatched`` are deployments that answer while their document is missing. ``orphans_unknown`` says why
    nobody knows of orphans, "" when that is known. ``metrics``: where the exporter is and whether it answers;
    empty: it was not asked.
    """

    models: list[ModelStatus]
    missing: list[MissingDocument]
    unwatched: list[UndeclaredStatus]
    orphans: list[UndeclaredStatus]
    orphans_unknown: str = ""
    metrics: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return asdict(self)


@dataclass(frozen=True)
class StatusSources:
    """What a status is read from."""

    definitions: dg.Definitions
    instance: dg.DagsterInstance
    client: ServeClient
    registry: ModelRegistry


def status_of(sources: StatusSources, now: datetime, *, model: str | None = None) -> Status:
    """The status of the platform; ``now`` is data time. Given a ``model``, of what has its name alone.

    Raises UnknownName for a model that is neither declared nor missing.
    """
    if model is not None:
        return _status_of_one(sources, now, model)
    graph, client = sources.definitions.resolve_asset_graph(), sources.client
    unknown = ""
    try:
        declared = client.target.declared()
    except ClusterUnreachable as error:
        declared, unknown = [], str(error)

    def undeclared(name: str, use_case: str) -> UndeclaredStatus:
        return UndeclaredStatus(name, use_case, client.url(name), _answers(client, name))

    missing = missing_in(graph)
    lost = {key: one for one in missing for key in one.assets}
    running = desired_state.deployments(declared)
    found = orphaned(Declared.of(graph), sources.instance, declared)
    return Status(
        models=model_statuses(sources, now),
        missing=missing,
        unwatched=[
            undeclared(name, lost[asset_name("deployment", name)].use_case)
            for name in running
            if asset_name("deployment", name) in lost
        ],
        orphans=[undeclared(one.name, one.use_case) for one in found],
        orphans_unknown=unknown,
    )


def _status_of_one(sources: StatusSources, now: datetime, model: str) -> Status:
    graph = sources.definitions.resolve_asset_graph()
    missing = [
        one
        for one in missing_in(graph)
        if any(read_key(dg.AssetKey.from_user_string(key)).name == model for key in one.assets)
    ]
    declared = assets_of(graph, "model")
    if model not in declared and not missing:
        raise UnknownName("model", model, declared)
    return Status(models=model_statuses(sources, now, only=model), missing=missing, unwatched=[], orphans=[])


def model_statuses(
    sources: StatusSources,
    now: datetime,
    *,
    clock: Callable[[], float] = time.time,
    only: str | None = None,
) -> list[ModelStatus]:
    """The status of every model in the definitions, or of that ``only``, by name; ``now`` is data time,
    ``clock`` real.
    """
    graph, instance, client = sources.definitions.resolve_asset_graph(), sources.instance, sources.client
    approvals = assets_of(graph, "approval")
    deployments = {
        model: name
        for name, key in reversed(assets_of(graph, "deployment").items())
        for model, approval in approvals.items()
        if approval in graph.get(key).parent_keys
    }
    statuses = []
    for model in assets_of(graph, "model"):
        if only not in (None, model):
            continue
        deployment = deployments.get(model)
        keys = [
            key
            for kind in CHAIN
            if (key := asset_key(kind, (deployment or model) if kind == "deployment" else model))
            in graph.materializable_asset_keys
        ]
        statuses.append(
            ModelStatus(
                model=model,
                deployment=deployment,
                endpoint=client.url(deployment) if deployment else None,
                answers=_answers(client, deployment),
                approval=_approval(graph, instance, model, clock),
                verdict=_verdict(instance, model),
                rollout=_rollout(instance, deployment),
                served=_served(graph, instance, sources.registry, model, now),
                episode=_episode(instance, model),
                request=_request(instance, model),
                assets=asset_statuses(graph, instance, keys),
            )
        )
    return statuses


def asset_statuses(
    graph: Any, instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey]
) -> list[AssetStatus]:
    """Staleness with its causes, and freshness, of unpartitioned assets, in the order given."""
    # Dagster has no public way to ask for staleness without a webserver; the version is pinned.
    from dagster._core.definitions.data_version import CachingStaleStatusResolver
    from dagster._core.loader import LoadingContextForTest

    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    freshness = instance.get_freshness_state_records(list(keys))
    statuses = []
    for key in keys:
        record = latest(instance, key)
        state = freshness.get(key)
        statuses.append(
            AssetStatus(
                asset=key.to_user_string(),
                staleness=resolver.get_status(key).value,
                causes=[
                    f"{cause.reason}: {cause.dependency.asset_key.to_user_string()}"
                    if cause.dependency
                    else cause.reason
                    for cause in resolver.get_stale_causes(key)
                ],
                freshness=state.freshness_state.value if state else "UNKNOWN",
                materialised_at=record.timestamp if record else None,
            )
        )
    return statuses


def _answers(client: ServeClient, deployment: str | None) -> dict[str, Any]:
    if deployment is None:
        return {"status": "no deployment declared"}
    status, body = client.ready(deployment)
    if status == 200:
        return {"status": "answers", **body}
    why = str(body.get("error", {}).get("message", body))
    if status == HTTPStatus.NOT_FOUND:
        # Ray's proxy says so; a gateway knows the path.
        why = f"nothing is deployed at /{deployment}; `make up` builds and deploys what is missing"
    return {"status": "does not answer", "http_status": status, "why": why}


def exporter_state(url: str) -> dict[str, str]:
    """Whether the exporter whose series are at ``url`` answers, and why not."""
    import httpx

    try:
        # Its health: the series are collected when they are asked for.
        answer = httpx.get(url.removesuffix("metrics") + "healthy", timeout=2.0, trust_env=False)
        why = "" if answer.status_code == HTTPStatus.OK else f"HTTP {answer.status_code}"
    except httpx.TransportError as error:
        why = str(error)
    if not why:
        return {"status": "answers", "url": url}
    return {"status": "does not answer", "url": url, "why": f"{why}; `make up` or `mlops exporter` starts it"}


def _approval(
    graph: Any, instance: dg.DagsterInstance, model: str, clock: Callable[[], float]
) -> dict[str, str]:
    """granted, rejected, pending (something upstream changed since), lost (nobody answered), or none."""
    monitor = _monitor(graph, model)
    lost = lost_approval_now(instance, monitor, clock) if monitor else None
    if lost is not None:
        version, ruled = lost
        to_do = f". To do: mlops approve {model} --by NAME --reason TEXT" * (ruled.choice == "give_up")
        reason = f"{version} passed the gate and no approval followed: {ruled.reason}{to_do}"
        return {"state": "lost", "reason": reason}
    decided = newest_decision(instance, asset_key("approval", model))
    if decided is None:
        return {"state": "none", "reason": "never approved"}
    bound = dict(decided.bound_to)
    current = current_versions(instance, [dg.AssetKey.from_user_string(key) for key in bound])
    changed = sorted(key for key in bound if bound[key] != current.get(key))
    by = f"{decided.decision} by {decided.approver}: {decided.reason}"
    if changed:
        return {
            "state": "pending",
            "reason": f"changed since the last approval: {', '.join(changed)}; last: {by}",
        }
    return {"state": "granted" if decided.decision == "approve" else "rejected", "reason": by}


def _verdict(instance: dg.DagsterInstance, model: str) -> dict[str, Any]:
    record = latest(instance, asset_key("evaluation", model))
    if record is None:
        return {"outcome": "none", "reason": "never evaluated"}
    return {"outcome": record.metadata["outcome"], "reason": record.metadata["reason"]}


def _rollout(instance: dg.DagsterInstance, deployment: str | None) -> dict[str, Any]:
    """The last recorded act of the deployment, and versions that are not rolled out again by themselves."""
    record = latest(instance, asset_key("deployment", deployment)) if deployment else None
    if record is None:
        return {"phase": "none", "reason": "never deployed"}
    act = record.metadata
    names = ("phase", "action", "step", "target", "reason", "by", "revision", "placement", "withdrawn")
    return {name: act[name] for name in names if name in act}


def _served(
    graph: Any, instance: dg.DagsterInstance, registry: ModelRegistry, model: str, now: datetime
) -> dict[str, Any]:
    """Whether what answers is stale and why, and how old its data is; by the model's monitor."""
    monitor = _monitor(graph, model)
    if monitor is None:
        return {"stale": None, "reason": "no DriftMonitorComponent is declared for this model"}
    answering, staleness = served_now(instance, registry, monitor, now=now)
    age = staleness.data_age
    return {
        "version": answering.label if answering else None,
        "stale": staleness.stale,
        "causes": {cause.kind: cause.reason for cause in staleness.causes},
        "reason": staleness.reason,
        "data_age_days": round(age.total_seconds() / 86_400, 2) if age is not None else None,
    }


def _monitor(graph: Any, model: str) -> MonitorSummary | None:
    """What the model's monitor declares; None without one."""
    key = asset_key("drift", model)
    known = key in graph.materializable_asset_keys
    return MonitorSummary(**graph.get(key).metadata[MONITORED]) if known else None


def _episode(instance: dg.DagsterInstance, model: str) -> dict[str, Any]:
    """The newest drift episode, open or closed; empty when there never was one."""
    newest = episode_log(instance, model).newest
    return asdict(newest) if newest else {}


def _request(instance: dg.DagsterInstance, model: str) -> dict[str, Any]:
    """The newest retrain that was asked for: waiting, granted or refused; empty without one."""
    pending = pending_retrain(instance, model)
    if pending is not None:
        request = pending.request
        reason = f"{request.who} asked for a retrain ({request.reason}); the sensor drift_{model} answers"
        return {"state": "waiting", "reason": reason, "at": None}
    ruling = newest_ruling(instance, model)
    return {"state": ruling.state, "reason": ruling.reason, "at": ruling.at} if ruling else {}


def print_status(status: Status) -> None:
    """A table per model for people, then what is missing and what nothing declares."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    _print_models(status.models, console)
    for one in (one for one in status.missing if not one.because):
        fallen = [other.what for other in status.missing if other.because == one.where]
        console.print(Text(f"\n{one.use_case}  ", style="bold").append(f"MISSING: {one.what}", style="red"))
        for line in one.problem.splitlines():
            _say(console, f"  {line}")
        if fallen:
            _say(console, f"  with it: {', '.join(fallen)}")
        _say(console, f"  assets:  {', '.join(_assets_with(one, status.missing))}")
        _say(console, f"  to do:   {one.command}")
    for left in status.unwatched:
        _say(console, f"\n{left.deployment}: {_answering(left)} until its document is mended")
    for orphan in status.orphans:
        said = Text(f"\n{orphan.deployment}  ", style="bold").append("ORPHAN: ", style="yellow")
        console.print(said.append("no document declares this deployment any more"))
        where = f"it was declared in {orphan.use_case}; " if orphan.use_case else ""
        _say(console, f"  {where}{_answering(orphan)}")
        _say(console, f"  to do:   mlops retire {orphan.deployment} --by NAME --reason TEXT")
    if status.metrics:
        url, why = status.metrics["url"], status.metrics.get("why")
        _say(console, f"\nmetrics do not answer at {url}: {why}" if why else f"\nmetrics at {url}")
    if status.orphans_unknown:
        _say(console, f"\nNobody knows of orphaned deployments: {status.orphans_unknown}")


def _answering(one: UndeclaredStatus) -> str:
    known = one.answers["status"] == "answers"
    state = f"{one.answers['stable']} answers" if known else one.answers["status"]
    return f"{state} at {one.endpoint}; nothing trains it or watches it"


def _assets_with(one: MissingDocument, missing: Sequence[MissingDocument]) -> list[str]:
    return [key for other in missing if other is one or other.because == one.where for key in other.assets]


def _say(console: "Console", line: str) -> None:
    console.print(line, highlight=False, markup=False)


def _print_models(statuses: Sequence[ModelStatus], console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    colours = {"FRESH": "green", "STALE": "yellow", "MISSING": "red"}
    states = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}
    for status in statuses:
        answers = status.answers
        if answers["status"] == "answers":
            weights = ", ".join(
                f"{version} {route['weight'] / 100:g} %"
                for version, route in sorted(answers["routes"].items())
            )
            said = Text(
                f"{answers['stable']} answers at {status.endpoint} (weights: {weights})", style="green"
            )
        else:
            said = Text(f"{answers['status']}: {answers.get('why', '')}", style="red")
        console.print(Text(f"\n{status.model}  ", style="bold").append(said))
        console.print(f"  rollout:  {_rollout_line(status.rollout)}", highlight=False, markup=False)
        console.print(f"  served:   {_served_line(status.served)}", highlight=False, markup=False)
        if status.episode:
            console.print(f"  episode:  {_episode_line(status.episode)}", highlight=False, markup=False)
        if status.request:
            console.print(f"  request:  {_request_line(status.request)}", highlight=False, markup=False)
        for line in _serving_lines(answers):
            console.print(f"  {line}", highlight=False, markup=False)
        console.print(f"  verdict:  {status.verdict['outcome']}: {status.verdict['reason']}", highlight=False)
        console.print(f"  approval: {status.approval['state']}: {status.approval['reason']}", highlight=False)
        table = Table(box=None, padding=(0, 2), header_style="dim")
        for column in ("asset", "state", "why", "freshness", "materialised"):
            table.add_column(column, no_wrap=column != "why")
        for asset in status.assets:
            made = asset.materialised_at
            table.add_row(
                asset.asset,
                Text(asset.staleness, style=colours.get(asset.staleness, "")),
                "; ".join(asset.causes),
                Text(asset.freshness, style=states.get(asset.freshness, "dim")),
                datetime.fromtimestamp(made).strftime("%Y-%m-%d %H:%M") if made else "never",
            )
        console.print(table)


def _rollout_line(rollout: dict[str, Any]) -> str:
    step = f", step {rollout['step']}" if rollout.get("step") else ""
    state = f"{rollout['phase']}{step}: {rollout['reason']}"
    withdrawn = "; ".join(f"{version} ({why})" for version, why in (rollout.get("withdrawn") or {}).items())
    return f"{state}; withdrawn: {withdrawn}" if withdrawn else state


def _served_line(served: dict[str, Any]) -> str:
    age = served.get("data_age_days")
    state = {None: "not known", False: "fresh", True: "STALE"}[served["stale"]]
    return f"{state}: {served['reason']}" + (f"; its data is {age:g} days old" if age is not None else "")


def _episode_line(episode: dict[str, Any]) -> str:
    attempts = [f"{one['number']} {one['outcome']}" for one in episode["attempts"]]
    retrains = f"; retrains: {', '.join(attempts)}" if attempts else "; no retrain yet"
    state = f"closed by {episode['closed_by']}: {episode['close_reason']}" if episode["closed_at"] else "open"
    return f"{episode['number']} on {episode['version']} ({episode['reason']}), {state}{retrains}"


def _request_line(request: dict[str, Any]) -> str:
    at = f" ({datetime.fromtimestamp(request['at']):%Y-%m-%d %H:%M})" if request["at"] else ""
    return f"{request['state']}{at}: {request['reason']}"


def _serving_lines(answers: dict[str, Any]) -> list[str]:
    """What a person should know of the versions that are up: shadows, trips, devices, problems."""
    lines = []
    for version, route in sorted(answers.get("routes", {}).items()):
        notes = []
        if route.get("shadow"):
            notes.append(f"shadow of {route['shadow'] / 100:g} % of the requests")
        if route.get("tripped"):
            notes.append(f"TRIPPED: {route['tripped']}")
        if not route["answers"]:
            notes.append(f"does not answer: {route['problem']}")
        device = route.get("device")
        if device:
            notes.append(f"on {device['used']} ({device['reason']})")
        notes.append("scored in the gateway" if route.get("in_gateway") else "scored in its own replicas")
        lines.append(f"{version}: {'; '.join(notes)}")
    if answers.get("status") == "answers" and not answers.get("api_keys", {}).get("enabled"):
        lines.append("API keys are off: anybody who reaches the port may ask (MLOPS_API_KEYS_FILE)")
    return lines
