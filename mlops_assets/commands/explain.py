"""From one answer back to everything that made it: ``mlops explain ID``.

Belongs here: following the recorded links from a logged answer to the declared routing, the registered
model, its training run, its data and its approval, and printing them. Does not belong here: reading the log
(``resources/inference_log.py``), writing any of the records (``components/``), deciding anything.

A link that cannot be followed is part of the answer, with the reason. A materialisation counts only when
it names what the answer names (revision, digest, version, Delta version); the latest is no guess for it.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.asset_keys import assets_of
from mlops_assets.asset_names import asset_name, asset_of_table
from mlops_assets.errors import MlopsError, RegistryError, UnknownName
from mlops_assets.event_log.records import DATA_VERSION_TAG
from mlops_assets.resources.inference_log import InferenceLog
from mlops_assets.resources.model_registry import ModelRegistry, RegisteredVersion

if TYPE_CHECKING:
    from rich.console import Console

INPUT_VERSION_TAG = "dagster/input_data_version/"
PAGE = 500
SHADOW = "shadow"


class UnknownRequest(MlopsError, LookupError):
    """No answer with that answer id or request id is in the folders and hours that were searched."""

    def __init__(self, asked: str, searched: Sequence[str], *, flush_interval_s: float) -> None:
        self.asked, self.searched, self.flush_interval_s = asked, list(searched), flush_interval_s
        super().__init__(
            f"No answer with answer id or request id {asked!r} is logged. Searched: "
            f"{'; '.join(self.searched)}. Rows appear at most {flush_interval_s:g} s after the answer, if "
            "the log can be written (/ready of the deployment says so). A refused request has no answer. Both"
            " ids are in the answer, and in its headers x-answer-id and x-request-id."
        )


@dataclass(frozen=True)
class Link:
    """One step back. ``said`` is what was found, or why nothing was; ``facts`` are its recorded values."""

    what: str
    found: bool
    said: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    url: str | None = None


@dataclass(frozen=True)
class LoggedAnswer:
    """One version's answer; ``weight`` is its share in percent at that moment, ``rows`` the scored rows."""

    at: str
    variant: str
    version: str
    revision: int
    weight: float
    unit: str | None
    endpoint: str
    latency_ms: float
    fell_back_from: str | None
    rows: list[dict[str, Any]]
    declared_by: Link


@dataclass(frozen=True)
class OtherAnswer:
    """Another answer with the same request id. ``answer_id`` None: logged before answers had one."""

    answer_id: str | None
    at: str
    deployment: str
    variant: str
    version: str


@dataclass(frozen=True)
class VersionLineage:
    """What one model version goes back to, nearest first."""

    version: str
    links: list[Link]


@dataclass(frozen=True)
class Explanation:
    """An answered request: the caller's answer first, then shadows', then where each version is from.

    ``others`` are the answers to other requests with the same request id, newest first.
    """

    answer_id: str | None
    request_id: str
    deployment: str
    model: str | None
    log_folder: str
    answers: list[LoggedAnswer]
    versions: list[VersionLineage]
    others: list[OtherAnswer]

    @property
    def missing(self) -> list[Link]:
        """Every link that could not be followed."""
        links = [answer.declared_by for answer in self.answers]
        links += [link for lineage in self.versions for link in lineage.links]
        return [link for link in links if not link.found]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return asdict(self)


def explain(
    asked: str,
    *,
    deployment: str | None = None,
    instance: dg.DagsterInstance,
    registry: ModelRegistry,
    log: InferenceLog,
    definitions: dg.Definitions,
    since: datetime | None = None,
    until: datetime | None = None,
    dagster_url: str = "",
) -> Explanation:
    """Everything recorded about one answered request; ``asked`` is its answer id or its request id.

    Of several answers with that request id the newest is explained and the others are named, as many as
    ``InferenceLog.find`` gives. Without ``deployment`` all of the log's are searched. ``since`` and ``until``
    (with a zone) narrow the search, which goes through the whole log for an id that is not there, newest
    hours first. ``dagster_url`` is the base of links to runs and assets; empty: no links.

    Raises UnknownName for a deployment that neither the log nor the definitions know, UnknownRequest when
    the id is in none of the searched folders, DataError when the log cannot be read.
    """
    models = _models(definitions)
    logged = log.deployments()
    if deployment is not None and deployment not in {*logged, *models}:
        raise UnknownName("deployment", deployment, {*logged, *models})
    searched = [deployment] if deployment is not None else logged
    found = [(name, rows) for name in searched for rows in log.find(name, asked, since=since, until=until)]
    if not found:
        raise UnknownRequest(
            asked, _said_searched(log, searched, since, until), flush_interval_s=log.flush_interval_s
        )
    # An answer id is of one answer; whoever else used it as a request id is not meant.
    (name, rows), *others = sorted(
        found, key=lambda one: (one[1][0]["answer_id"] == asked, one[1][0]["at"]), reverse=True
    )
    trace = _Trace(instance, registry, dagster_url.rstrip("/"))
    answers = [trace.answer(name, each) for each in _by_answer(rows)]
    model = models.get(name)
    first_at = min(row["at"] for row in rows)
    versions = list(dict.fromkeys(answer.version for answer in answers))
    return Explanation(
        answer_id=rows[0]["answer_id"],
        request_id=rows[0]["request_id"],
        deployment=name,
        model=model,
        log_folder=log.folder(name),
        answers=answers,
        versions=[
            VersionLineage(version, trace.version(name, model, version, first_at)) for version in versions
        ],
        others=[
            OtherAnswer(first["answer_id"], _time(first["at"]), where, first["variant"], first["version"])
            for where, (first, *_) in others
            if rows[0]["answer_id"] != asked
        ],
    )


def _models(definitions: dg.Definitions) -> dict[str, str]:
    """{deployment: model} as declared."""
    graph = definitions.resolve_asset_graph()
    approvals = assets_of(graph, "approval")
    return {
        name: model
        for name, key in assets_of(graph, "deployment").items()
        for model, approval in approvals.items()
        if approval in graph.get(key).parent_keys
    }


def _said_searched(
    log: InferenceLog, deployments: Sequence[str], since: datetime | None, until: datetime | None
) -> list[str]:
    said = [str(log.stats(name)) for name in deployments]
    if not said:
        said = [f"{log.folder()} (no deployment has logged yet)"]
    if since is not None:
        said.append(f"only since {_time(since)}")
    if until is not None:
        said.append(f"only until {_time(until)}")
    return said


def _by_answer(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """The rows of each answer: one version's, given at one time."""
    for _, group in groupby(rows, key=lambda row: (row["variant"], row["version"], row["at"])):
        yield list(group)


@dataclass(frozen=True)
class _Event:
    """One materialisation with all that is recorded on it; ``run_id`` "" when no run made it."""

    asset: str
    data_version: str
    run_id: str
    timestamp: float
    partition: str | None
    metadata: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def by(self) -> str:
        return f"run {self.run_id}" if self.run_id else "a report without a run"

    @property
    def made(self) -> str:
        return f"{_time(self.timestamp)} by {self.by}"


class _Trace:
    """Follows links in one instance and one registry."""

    def __init__(self, instance: dg.DagsterInstance, registry: ModelRegistry, dagster_url: str) -> None:
        self._instance, self._registry, self._dagster_url = instance, registry, dagster_url

    def answer(self, deployment: str, rows: Sequence[Mapping[str, Any]]) -> LoggedAnswer:
        first = rows[0]
        return LoggedAnswer(
            at=_time(first["at"]),
            variant=first["variant"],
            version=first["version"],
            revision=first["revision"],
            weight=first["weight"] / 100,
            unit=first["unit"],
            endpoint=first["endpoint"],
            latency_ms=first["latency_ms"],
            fell_back_from=first["fell_back_from"],
            rows=[
                {name: row[name] for name in ("row", "entity", "features", "score", "scores")} for row in rows
            ],
            declared_by=self._declared(deployment, first["revision"]),
        )

    def version(self, deployment: str, model: str | None, version: str, at: datetime) -> list[Link]:
        """The links of one version that answered at ``at``."""
        what = "registered model"
        if model is None:
            return [
                Link(
                    what,
                    False,
                    f"the definitions declare no deployment {deployment!r} of a model, so nothing says which "
                    "model's versions these are",
                )
            ]
        number = version.removeprefix("v")
        if not number.isdigit():
            why = f"version {version!r} is not v and a number, as registered versions are"
            return [Link(what, False, why)]
        try:
            registered = self._registry.version(model, int(number))
        except RegistryError as error:
            return [Link(what, False, str(error)), self._approval(model, int(number), "", at)]
        trained = self._trained(model, registered)
        return [
            self._registered(registered),
            self._mlflow_run(registered),
            *self._training(model, registered, trained),
            *self._data(model, registered, trained),
            self._approval(model, int(number), registered.digest, at),
        ]

    # -- links ---------------------------------------------------------------------------------------

    def _declared(self, deployment: str, revision: int) -> Link:
        """The earliest materialisation that records the revision; later ones of it say how it went on."""
        asset, what = asset_name("deployment", deployment), "declared by"
        events = list(self._events(asset))
        matching = [event for event in events if event.metadata.get("revision") == revision]
        if not matching:
            known = sorted({event.metadata["revision"] for event in events if "revision" in event.metadata})
            held = f"recorded are {_ranges(known)}" if known else "none is recorded"
            return Link(
                what,
                False,
                f"none of {len(events)} materialisations of {asset} records revision {revision}; {held}. "
                "A step is recorded once it is verified",
            )
        event = matching[-1]
        shown = {name: event.metadata.get(name) for name in ("phase", "reason", "weights")}
        later = [
            {
                "at": _time(one.timestamp),
                "run_id": one.run_id,
                "phase": one.metadata.get("phase"),
                "reason": one.metadata.get("reason"),
            }
            for one in reversed(matching[:-1])
        ]
        facts = ", ".join(f"{name} {value}" for name, value in shown.items() if value is not None)
        return Link(
            what,
            True,
            f"{asset} revision {revision}, {event.made}" + (f": {facts}" if facts else ""),
            {
                "revision": revision,
                **shown,
                "run_id": event.run_id,
                "at": _time(event.timestamp),
                "later": later,
            },
            self._run_url(event.run_id) or self._asset_url(asset),
        )

    def _registered(self, version: RegisteredVersion) -> Link:
        tags = {name: value for name, value in version.tags.items() if name != "manifest"}
        return Link(
            "registered model",
            True,
            f"{version.name} version {version.version}, content {version.digest[:12] or 'without a digest'}",
            {
                "name": version.name,
                "version": version.version,
                "digest": version.digest,
                "package": version.package_uri,
                "run_id": version.run_id,
                "tags": tags,
            },
            self._registry.version_url(version.name, version.version),
        )

    def _mlflow_run(self, version: RegisteredVersion) -> Link:
        from mlflow.exceptions import MlflowException

        what = "MLflow run"
        if not version.run_id:
            return Link(what, False, f"{version.name} version {version.version} was registered without a run")
        try:
            run = self._registry.client().get_run(version.run_id)
        except MlflowException as error:
            return Link(
                what,
                False,
                f"run {version.run_id} cannot be read: {error.message}",
                {"run_id": version.run_id},
            )
        metrics = {name: value for name, value in run.data.metrics.items() if name.startswith("mean_")}
        name = run.info.run_name or version.run_id
        base = self._registry.ui_url.rstrip("/")
        return Link(
            what,
            True,
            f"{name} ({version.run_id}), {run.info.status}",
            {
                "run_id": version.run_id,
                "status": run.info.status,
                "params": dict(run.data.params),
                "metrics": metrics,
                "parent_run_id": run.data.tags.get("mlflow.parentRunId"),
            },
            f"{base}/#/experiments/{run.info.experiment_id}/runs/{version.run_id}" if base else None,
        )

    def _trained(self, model: str, version: RegisteredVersion) -> _Event | None:
        """The materialisation that made this content first: the registered run's, else the oldest."""
        if not version.digest:
            return None
        same = [
            event
            for event in self._events(asset_name("model", model))
            if event.data_version == version.digest
        ]
        run_id = version.tags.get("dagster_run_id")
        made = [event for event in same if run_id and event.run_id == run_id] or same
        return made[-1] if made else None

    def _training(self, model: str, version: RegisteredVersion, trained: _Event | None) -> list[Link]:
        asset = asset_name("model", model)
        if trained is not None:
            shown = {
                name: trained.metadata.get(name) for name in ("model_version", "trainer", "why", "train_rows")
            }
            made = Link(
                "model",
                True,
                f"{asset} content {trained.data_version[:12]}, {trained.made}",
                {**shown, "digest": trained.data_version, "run_id": trained.run_id, "inputs": trained.inputs},
                self._asset_url(asset),
            )
        elif version.digest:
            count = sum(1 for _ in self._events(asset))
            why = f"none of {count} materialisations of {asset} has data version {version.digest[:12]}"
            made = Link("model", False, why)
        else:
            why = "the registered version carries no digest, so no materialisation can be told to be its own"
            made = Link("model", False, why)
        run_id = version.tags.get("dagster_run_id") or (trained.run_id if trained else "")
        return [made, self._dagster_run(run_id, asset)]

    def _dagster_run(self, run_id: str, asset: str) -> Link:
        what = "Dagster run that trained it"
        if not run_id:
            return Link(what, False, f"neither the registered version nor {asset} names a run")
        run = self._instance.get_run_by_id(run_id)
        if run is None:
            why = f"run {run_id} is recorded, but this Dagster instance does not hold it"
            return Link(what, False, why, {"run_id": run_id})
        tags = {name: value for name, value in run.tags.items() if not name.startswith(".dagster")}
        return Link(
            what,
            True,
            f"{run_id}, {run.status.value}",
            {"run_id": run_id, "status": run.status.value, "tags": tags},
            self._run_url(run_id),
        )

    def _data(self, model: str, version: RegisteredVersion, trained: _Event | None) -> list[Link]:
        """The training set, and the tables it was made from."""
        asset, what = asset_name("training_set", model), "training set"
        wanted = version.tags.get("training_set_version") or str(
            trained.metadata.get("training_set_version", "") if trained else ""
        )
        made = [event for event in self._events(asset) if event.data_version == wanted] if wanted else []
        if trained is not None:
            # The same content can be made again later; what the model read was there before it.
            made = [event for event in made if event.timestamp <= trained.timestamp] or made
        pinned = _pinned(made[0].metadata.get("pinned_tables") if made else version.tags.get("pinned_tables"))
        if made:
            used = made[0]
            shown = ("train_rows", "evaluation_rows", "train_from", "train_until", "delta_version")
            link = Link(
                what,
                True,
                f"{asset} version {wanted[:12]}, {used.made}",
                {
                    "version": wanted,
                    **{name: used.metadata.get(name) for name in shown},
                    "pinned_tables": pinned,
                    "run_id": used.run_id,
                },
                self._asset_url(asset),
            )
        elif wanted:
            count = sum(1 for _ in self._events(asset))
            why = f"none of {count} materialisations of {asset} has data version {wanted[:12]}"
            link = Link(what, False, why, {"version": wanted})
        else:
            link = Link(
                what, False, f"neither the registered version nor {asset_name('model', model)} names one"
            )
        if not pinned:
            return [link, Link("data", False, f"no tables are recorded as pinned by {asset}")]
        until = made[0].timestamp if made else None
        request = made[0].inputs.get(asset_name("retrain_request", model), "") if made else ""
        tables = [self._table(asset_of_table(table), delta, until) for table, delta in sorted(pinned.items())]
        return [*self._drift_episode(model, request), link, *tables]

    def _drift_episode(self, model: str, request: str) -> list[Link]:
        """Why it was retrained: the granted request that its training set read; [] when it read none."""
        if not request.startswith("episode-"):
            return []
        asset, what = asset_name("retrain_request", model), "drift episode"
        granted = next((one for one in self._events(asset) if one.data_version == request), None)
        if granted is None:
            return [Link(what, False, f"{request} was read, and {asset} records no such request")]
        return [
            Link(
                what,
                True,
                f"{request}, {_time(granted.timestamp)}: {granted.metadata.get('reason')}",
                {"request": request, "reason": granted.metadata.get("reason")},
                self._asset_url(asset_name("drift_signal", model)),
            )
        ]

    def _table(self, asset: str, delta_version: int, until: float | None) -> Link:
        """The write that made the table of an asset what it was at a Delta version."""
        matching: list[_Event] = []
        seen = 0
        for event in self._events(asset, until=until):
            seen += 1
            recorded = event.metadata.get("delta_version")
            if recorded == delta_version:
                matching.append(event)
            elif recorded is not None and recorded < delta_version:
                break
        if not matching:
            return Link(
                f"data {asset}",
                False,
                f"Delta version {delta_version} was read; none of the last {seen} materialisations of "
                f"{asset} records that version",
                {"asset": asset, "delta_version": delta_version},
            )
        event = matching[0]
        partitions = sorted({one.partition for one in matching if one.partition is not None})
        written = f", which wrote {_span(partitions)}" if partitions else ""
        content = f" version {event.data_version[:12]}" if len(partitions) <= 1 else ""
        return Link(
            f"data {asset}",
            True,
            f"{asset}{content}, Delta version {delta_version}{written}, {event.made}",
            {
                "asset": asset,
                "delta_version": delta_version,
                "data_versions": {one.partition or "": one.data_version for one in reversed(matching)},
                "inputs": event.inputs,
                "run_id": event.run_id,
            },
            self._asset_url(asset),
        )

    def _approval(self, model: str, version: int, digest: str, at: datetime) -> Link:
        """The newest approval of this version that was there when it answered."""
        asset, what = asset_name("approval", model), "approval"
        events = [event for event in self._events(asset) if event.metadata.get("model_version") == version]
        before = [event for event in events if event.timestamp <= at.timestamp()]
        if not before:
            later = f"; one was given later, at {_time(events[-1].timestamp)}" if events else ""
            why = f"no materialisation of {asset} before the answer approves version {version}{later}"
            return Link(what, False, why)
        event = before[0]
        bound = dict(event.metadata.get("bound_to") or {}).get(asset_name("model", model))
        if digest and bound is not None and bound != digest:
            why = (
                f"{asset} for version {version}, {event.made}, is bound to content {bound[:12]}; the "
                f"registered version holds {digest[:12]}"
            )
            return Link(what, False, why)
        shown = ("decision", "approver", "reason", "mode", "bound_to")
        return Link(
            what,
            True,
            f"{event.metadata.get('decision')} by {event.metadata.get('approver')}, {event.made}: "
            f"{event.metadata.get('reason')}",
            {**{name: event.metadata.get(name) for name in shown}, "run_id": event.run_id},
            self._run_url(event.run_id) or self._asset_url(asset),
        )

    # -- Dagster -------------------------------------------------------------------------------------

    def _events(self, asset: str, *, until: float | None = None) -> Iterator[_Event]:
        """Materialisations of an asset, newest first, read in pages as far as the caller goes on."""
        key = dg.AssetKey.from_user_string(asset)
        cursor: str | None = None
        while True:
            page = self._instance.fetch_materializations(key, limit=PAGE, cursor=cursor)
            for record in page.records:
                made = record.asset_materialization
                if made is None or (until is not None and record.timestamp > until):
                    continue
                tags = made.tags or {}
                yield _Event(
                    asset=asset,
                    data_version=tags.get(DATA_VERSION_TAG, ""),
                    run_id=record.run_id,
                    timestamp=record.timestamp,
                    partition=made.partition,
                    metadata={name: value.value for name, value in made.metadata.items()},
                    inputs={
                        name.removeprefix(INPUT_VERSION_TAG): value
                        for name, value in tags.items()
                        if name.startswith(INPUT_VERSION_TAG)
                    },
                )
            if not page.has_more:
                return
            cursor = page.cursor

    def _run_url(self, run_id: str) -> str | None:
        return f"{self._dagster_url}/runs/{run_id}" if self._dagster_url and run_id else None

    def _asset_url(self, asset: str) -> str | None:
        return f"{self._dagster_url}/assets/{asset}" if self._dagster_url else None


def _pinned(recorded: object) -> dict[str, int]:
    """{table: Delta version} from the metadata, or from the registry's tag, which is its text."""
    if isinstance(recorded, str):
        try:
            recorded = ast.literal_eval(recorded)
        except (ValueError, SyntaxError):
            return {}
    return {str(table): int(delta) for table, delta in recorded.items()} if isinstance(recorded, dict) else {}


def _time(when: datetime | float) -> str:
    moment = when if isinstance(when, datetime) else datetime.fromtimestamp(when, UTC)
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _span(partitions: Sequence[str]) -> str:
    if len(partitions) == 1:
        return f"partition {partitions[0]}"
    return f"{len(partitions)} partitions, {partitions[0]} to {partitions[-1]}"


def _ranges(numbers: Sequence[int]) -> str:
    """1-3, 5 for 1, 2, 3, 5."""
    said: list[list[int]] = []
    for number in numbers:
        if said and number == said[-1][1] + 1:
            said[-1][1] = number
        else:
            said.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in said)


def print_explanation(explanation: Explanation, console: "Console | None" = None) -> None:
    """For people: what was answered, then each version's links, with what is missing in red."""
    import json

    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    asked = explanation.request_id
    title = Text(f"\n{explanation.answer_id or asked}  ", style="bold")
    console.print(title.append(f"answered by {explanation.deployment}", style="green"))
    if explanation.answer_id not in (None, asked):
        console.print(Text(f"  the caller's request id: {asked}"))
    if explanation.others:
        said = Text(f"  {len(explanation.others)} more with this request id, newest first; for one of them: ")
        console.print(said.append("mlops explain ANSWER_ID", style="bold"))
        for other in explanation.others:
            own = other.answer_id or "(no answer id)"
            console.print(Text(f"    {own}  {other.at}  {other.deployment}  {other.variant} {other.version}"))
    for answer in explanation.answers:
        seen = "unseen by the caller, " if answer.variant == SHADOW else ""
        unit = f"unit {answer.unit}" if answer.unit is not None else "no unit"
        console.print(
            Text(f"\n  {answer.variant} {answer.version}", style="bold").append(
                f"  {seen}{answer.at}, {answer.latency_ms:.1f} ms, {answer.endpoint}, {unit}; weight then "
                f"{answer.weight:g} %, revision {answer.revision}",
                style="not bold",
            )
        )
        if answer.fell_back_from:
            console.print(Text(f"    instead of {answer.fell_back_from}, which failed", style="yellow"))
        for row in answer.rows[:3]:
            output = row["score"] if row["scores"] is None else row["scores"]
            about = f" ({json.dumps(row['entity'], ensure_ascii=False)})" if row["entity"] else ""
            given = json.dumps(row["features"], ensure_ascii=False)
            console.print(Text(f"    row {row['row']}{about}: {output} for {given}"))
        if len(answer.rows) > 3:
            console.print(f"    and {len(answer.rows) - 3} rows more (--json shows all)", highlight=False)
        console.print(_shown([answer.declared_by]))
    for lineage in explanation.versions:
        console.print(Text(f"\n  {lineage.version} goes back to", style="bold"))
        console.print(_shown(lineage.links))
    missing = len(explanation.missing)
    if missing:
        console.print(Text(f"\n  {missing} of these links could not be followed.", style="yellow"))


def _shown(links: Sequence[Link]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2), show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for link in links:
        said = Text(link.said) if link.found else Text(f"not found: {link.said}", style="red")
        table.add_row(f"  {link.what}", said.append(f"\n{link.url}", style="dim") if link.url else said)
    return table
