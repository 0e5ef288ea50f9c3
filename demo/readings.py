"""What a person could see right now: the graph through GraphQL, the endpoint through HTTP. Plain values.

Belongs here: asking, and the answers as dataclasses. Does not belong here: what has changed since the last
look (``changes.py``). Nothing is read from the platform's insides: what the story tells, the UI shows too.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlops_assets.asset_names import read_asset_name
from mlops_assets.errors import StackError

EVENTS = 6
"""Newest events that are read of each asset; more of one asset between two looks would be missed."""
RUNS = 15
TIMEOUT_S, ATTEMPTS = 20.0, 3
STALE_KINDS = ("model",)
"""Kinds whose staleness is read: following every cause of every asset takes seconds."""

_HEAD = "runId timestamp partition"
_DETAILS = """
  runId timestamp partition description tags { key value }
  metadataEntries { label __typename
    ... on TextMetadataEntry { text } ... on MarkdownMetadataEntry { mdStr } ... on UrlMetadataEntry { url }
    ... on IntMetadataEntry { intRepr } ... on FloatMetadataEntry { floatValue }
    ... on BoolMetadataEntry { boolValue } ... on JsonMetadataEntry { jsonString }
    ... on TimestampMetadataEntry { timestampValue: timestamp } }
"""
_EVENTS = """
query Events($keys: [AssetKeyInput!]!, $events: Int!) {
  assetNodes(assetKeys: $keys) {
    assetKey { path }
    assetMaterializations(limit: $events) { FIELDS }
    assetObservations(limit: $events) { FIELDS }
  }
}
"""
_STALENESS = """
query Staleness($keys: [AssetKeyInput!]!) {
  assetNodes(assetKeys: $keys) {
    assetKey { path } staleStatus
    staleCauses { category reason key { path } dependency { path } }
  }
}
"""
_RUNS = """
query Runs($limit: Int!) {
  runsOrError(limit: $limit) {
    ... on Runs { results { runId status creationTime startTime endTime
                            assetSelection { path } tags { key value } } }
    ... on PythonError { message }
  }
}
"""


_SENSORS = """
query Sensors {
  repositoriesOrError {
    ... on RepositoryConnection { nodes { sensors { name sensorState {
      ticks(limit: 1) { status timestamp skipReason runIds error { message } } } } } }
    ... on PythonError { message }
  }
}
"""

Identity = tuple[str, str, str, float, str | None]
"""Asset, kind, run, time, partition: what makes an event that event."""


@dataclass(frozen=True)
class Event:
    """A materialisation or an observation. ``at``: Unix seconds; ``facts``: its plain metadata."""

    asset: str
    kind: str
    run_id: str
    at: float
    partition: str | None
    data_version: str
    description: str
    facts: Mapping[str, Any] = field(hash=False)

    @property
    def identity(self) -> Identity:
        return self.asset, self.kind, self.run_id, self.at, self.partition


@dataclass(frozen=True)
class Run:
    """One run: what it makes, who launched it, and how it stands."""

    run_id: str
    status: str
    assets: tuple[str, ...]
    launched_by: str
    created: float
    started: float | None
    ended: float | None


@dataclass(frozen=True)
class Staleness:
    """MISSING, STALE or FRESH, and the causes in Dagster's words."""

    status: str
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Endpoint:
    """What ``/ready`` says: weights and shadows in percent, why versions were taken out of the traffic."""

    stable: str
    weights: Mapping[str, float] = field(hash=False)
    shadows: Mapping[str, float] = field(hash=False)
    tripped: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True)
class Reading:
    """One look. ``events`` newest last; ``served_stale``: causes that the endpoint's metrics show as true."""

    events: tuple[Event, ...] = ()
    staleness: Mapping[str, Staleness] = field(default_factory=dict)
    runs: Mapping[str, Run] = field(default_factory=dict)
    endpoint: Endpoint | None = None
    served_stale: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Tick:
    """The last evaluation of a sensor. ``at``: Unix seconds; ``told``: why it did nothing, or its error."""

    sensor: str
    status: str
    at: float
    told: str


class Watch:
    """Looks at one model and its deployment. Use it as a context manager."""

    def __init__(self, dagster_url: str, endpoint_url: str, assets: Sequence[str]) -> None:
        import httpx

        self._assets = tuple(assets)
        self._known: dict[Identity, Event] = {}
        self._last: tuple[tuple[Event, ...], dict[str, Staleness]] | None = None
        # One connection each, and no proxy of the environment: everything here is local.
        self._dagster = httpx.Client(base_url=dagster_url, timeout=TIMEOUT_S, trust_env=False)
        self._endpoint = httpx.Client(base_url=endpoint_url, timeout=TIMEOUT_S, trust_env=False)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self._dagster.close()
        self._endpoint.close()

    def look(self) -> Reading:
        """Everything at once; StackError when Dagster refuses the question."""
        events = self._events()
        # Nothing turns stale or fresh without an event, and the question is the dearest of all.
        if self._last is None or self._last[0] != events:
            self._last = events, self._staleness()
        return Reading(
            events=events,
            staleness=self._last[1],
            runs=self._runs(),
            endpoint=self._ready(),
            served_stale=self._served_stale(),
        )

    def samples(self, version: str) -> int:
        """Requests the version answered, or scored unseen, under the routing in force; 0 if not known."""
        import httpx

        try:
            answer = self._endpoint.get("/evidence")
        except httpx.TransportError:
            return 0
        told = answer.json() if answer.status_code == 200 else {}
        return sum(
            int(told.get(part, {}).get(version, {}).get("requests", 0)) for part in ("versions", "shadows")
        )

    def ticks(self) -> dict[str, Tick]:
        """The last tick of every sensor by name; sensors that never ticked are left out."""
        told = self._ask(_SENSORS)["repositoriesOrError"]
        if "nodes" not in told:
            raise StackError(f"Dagster did not list its sensors: {told.get('message')}")
        return {
            sensor["name"]: tick_of(sensor["name"], tick)
            for repository in told["nodes"]
            for sensor in repository["sensors"]
            for tick in sensor["sensorState"]["ticks"]
        }

    def _events(self) -> tuple[Event, ...]:
        heads = self._ask(_EVENTS.replace("FIELDS", _HEAD), keys=_keys(self._assets), events=EVENTS)
        current = list(_identities(heads))
        fresh = sorted({identity[0] for identity in current if identity not in self._known})
        if fresh:
            # Metadata holds plots and reports: it is fetched only of what is new.
            details = self._ask(_EVENTS.replace("FIELDS", _DETAILS), keys=_keys(fresh), events=EVENTS)
            for node, kind, one in _each(details):
                event = event_of(node, kind, one)
                self._known[event.identity] = event
        found = [self._known[identity] for identity in current if identity in self._known]
        return tuple(sorted(found, key=lambda event: event.at))

    def _staleness(self) -> dict[str, Staleness]:
        keys = [key for key in self._assets if read_asset_name(key).kind in STALE_KINDS]
        told = self._ask(_STALENESS, keys=_keys(keys))
        return {
            "/".join(node["assetKey"]["path"]): Staleness(
                node["staleStatus"] or "UNKNOWN",
                tuple(f"{'/'.join(cause['key']['path'])} {cause['reason']}" for cause in node["staleCauses"]),
            )
            for node in told["assetNodes"]
        }

    def _runs(self) -> dict[str, Run]:
        told = self._ask(_RUNS, limit=RUNS)["runsOrError"]
        if "results" not in told:
            raise StackError(f"Dagster did not list its runs: {told.get('message')}")
        return {run["runId"]: run_of(run) for run in told["results"]}

    def _ready(self) -> Endpoint | None:
        import httpx

        try:
            answer = self._endpoint.get("/ready")
        # Slow while a replica starts: nothing is known then, which is an answer.
        except httpx.TransportError:
            return None
        return endpoint_of(answer.json()) if answer.status_code == 200 else None

    def _served_stale(self) -> tuple[str, ...] | None:
        import httpx

        try:
            answer = self._endpoint.get("/metrics")
        except httpx.TransportError:
            return None
        return served_stale_of(answer.text) if answer.status_code == 200 else None

    def _ask(self, query: str, **variables: Any) -> dict[str, Any]:
        import httpx

        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._dagster.post("/graphql", json={"query": query, "variables": variables})
                break
            # The webserver shares two cores with a training; asking twice harms nobody.
            except httpx.TransportError as error:
                if attempt == ATTEMPTS:
                    raise StackError(
                        f"Dagster's webserver did not answer {ATTEMPTS} times, {TIMEOUT_S:g} s each: {error}"
                    ) from error
        if answer.status_code != 200 or "errors" in answer.json():
            raise StackError(f"Dagster refused a question: HTTP {answer.status_code}, {answer.text[:500]}")
        told = answer.json()
        data: dict[str, Any] = told["data"]
        return data


def _each(told: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for node in told["assetNodes"]:
        for field_name, kind in (
            ("assetMaterializations", "materialised"),
            ("assetObservations", "observed"),
        ):
            for one in node[field_name]:
                yield "/".join(node["assetKey"]["path"]), kind, one


def _identities(told: Mapping[str, Any]) -> Iterator[Identity]:
    for asset, kind, one in _each(told):
        yield asset, kind, one["runId"], float(one["timestamp"]) / 1000, one["partition"]


def tick_of(sensor: str, told: Mapping[str, Any]) -> Tick:
    """One tick as GraphQL tells it."""
    error = told.get("error")
    runs = ", ".join(told.get("runIds") or ())
    said = error["message"] if error else told.get("skipReason") or (f"launched {runs}" if runs else "")
    return Tick(sensor, told["status"], float(told["timestamp"]), said)


def event_of(asset: str, kind: str, told: Mapping[str, Any]) -> Event:
    """One event as GraphQL tells it."""
    tags = {tag["key"]: tag["value"] for tag in told["tags"]}
    return Event(
        asset=asset,
        kind=kind,
        run_id=told["runId"],
        at=float(told["timestamp"]) / 1000,
        partition=told["partition"],
        data_version=tags.get("dagster/data_version", ""),
        description=told["description"] or "",
        facts={entry["label"]: _value(entry) for entry in told["metadataEntries"]},
    )


def run_of(told: Mapping[str, Any]) -> Run:
    """One run as GraphQL tells it."""
    tags = {tag["key"]: tag["value"] for tag in told["tags"]}
    return Run(
        run_id=told["runId"],
        status=told["status"],
        assets=tuple("/".join(key["path"]) for key in told["assetSelection"] or ()),
        launched_by=tags.get("mlops/launched_by", tags.get("dagster/sensor_name", "")),
        created=told["creationTime"],
        started=told["startTime"],
        ended=told["endTime"],
    )


def endpoint_of(told: Mapping[str, Any]) -> Endpoint:
    """``/ready`` as plain values; weights and shadows of zero are left out."""
    routes: Mapping[str, Mapping[str, Any]] = told["routes"]
    return Endpoint(
        stable=told["stable"],
        weights={version: route["weight"] / 100 for version, route in routes.items() if route["weight"]},
        shadows={version: route["shadow"] / 100 for version, route in routes.items() if route.get("shadow")},
        tripped={version: route["tripped"] for version, route in routes.items() if route.get("tripped")},
    )


def served_stale_of(metrics: str) -> tuple[str, ...] | None:
    """Causes whose ``mlops_served_stale`` is 1 in Prometheus text; None when nobody reported any."""
    causes, seen = [], False
    for line in metrics.splitlines():
        if line.startswith("mlops_served_stale{"):
            seen = True
            labels, _, value = line.removeprefix("mlops_served_stale{").partition("}")
            if float(value.split()[0]) == 1.0:
                named = dict(part.split("=", 1) for part in labels.split(","))
                causes.append(named["cause"].strip('"'))
    return tuple(sorted(causes)) if seen else None


def _value(entry: Mapping[str, Any]) -> Any:
    match entry["__typename"]:
        case "TextMetadataEntry":
            return entry["text"]
        case "MarkdownMetadataEntry":
            return entry["mdStr"]
        case "UrlMetadataEntry":
            return entry["url"]
        case "IntMetadataEntry":
            return int(entry["intRepr"])
        case "FloatMetadataEntry":
            return entry["floatValue"]
        case "BoolMetadataEntry":
            return entry["boolValue"]
        case "JsonMetadataEntry":
            return json.loads(entry["jsonString"])
        case "TimestampMetadataEntry":
            return entry["timestampValue"]
    return None


def _keys(assets: Sequence[str]) -> list[dict[str, list[str]]]:
    return [{"path": asset.split("/")} for asset in assets]
