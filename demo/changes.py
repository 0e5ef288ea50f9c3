"""What has happened between two looks, as transitions in plain words. Pure.

Belongs here: comparing readings. Does not belong here: taking them (``readings.py``), which transitions the
story waits for (``story.py``), how they are printed (``telling.py``).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from demo.readings import Event, Reading, Run
from mlops_assets.asset_names import Kind as AssetKind
from mlops_assets.asset_names import read_asset_name
from mlops_assets.monitoring.findings import WindowDrift, WindowPerformance

Kind = Literal[
    "window measured",
    "window judged",
    "drift seen",
    "episode opened",
    "episode noted",
    "episode closed",
    "retrain granted",
    "model stale",
    "model fresh",
    "run launched",
    "run failed",
    "training set made",
    "candidates compared",
    "model made",
    "verdict",
    "approved",
    "rollout",
    "promoted",
    "aborted",
    "traffic",
    "tripped",
    "served stale",
    "served fresh",
]
CHAIN: tuple[AssetKind, ...] = (
    "training_set", "candidates", "model", "evaluation", "approval", "deployment",
)  # fmt: skip
SHORT_RUN = 8
FAILED = ("FAILURE", "CANCELED")


@dataclass(frozen=True)
class Change:
    """One transition: what it is about (a version, a window, an asset, a run), and the platform's words."""

    kind: Kind
    subject: str
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)


def changes(before: Reading, after: Reading) -> list[Change]:
    """Every transition from one look to the next, in the order of their events."""
    known = {event.identity for event in before.events}
    found: list[Change] = []
    earlier = {event.asset: event for event in before.events if event.kind == "materialised"}
    for event in after.events:
        if event.identity in known:
            continue
        found += _of_event(event, earlier.get(event.asset))
        if event.kind == "materialised":
            earlier[event.asset] = event
    found += _of_runs(before, after)
    found += _of_staleness(before, after)
    found += _of_endpoint(before, after)
    return found


def _of_event(event: Event, earlier: Event | None) -> Iterator[Change]:
    kind = read_asset_name(event.asset).kind
    made = event.kind == "materialised"
    if kind == "drift_signal" and not made:
        yield from _episode_noted(event)
        return
    teller = _MADE.get(kind)
    if made and teller is not None:
        yield from teller(event, earlier)


def _performance(event: Event, earlier: Event | None) -> Iterator[Change]:
    """Windows that were not judged at the measurement before."""
    judged = {_window_key(one) for one in _performances(earlier) if one.status == "judged"}
    for one in _performances(event):
        if one.status == "judged" and _window_key(one) not in judged:
            yield Change(
                "window judged",
                f"{one.version} {window_name(one.start, one.end)}",
                _performance_text(one),
                {"window": one.to_dict()},
            )


def _drift(event: Event, earlier: Event | None) -> Iterator[Change]:
    """Windows that were not judged for drift at the measurement before."""
    judged = {(one.start, one.version) for one in _drifts(earlier) if one.judged}
    for one in _drifts(event):
        if not one.judged or (one.start, one.version) in judged:
            continue
        subject = f"{one.version} {window_name(one.start, one.end)}"
        yield Change("window measured", subject, _drift_text(one), {"window": one.to_dict()})
        if one.drifted("prediction"):
            yield Change("drift seen", subject, _scores_text(one), {"window": one.to_dict()})


def _episode_opened(event: Event, _: Event | None) -> Iterator[Change]:
    yield Change("episode opened", event.data_version, str(event.facts.get("reason", "")), event.facts)


def _episode_noted(event: Event) -> Iterator[Change]:
    """An outcome or the end of an episode: observed, because it makes nothing stale."""
    reason = str(event.facts.get("reason", ""))
    newest = _newest_episode(event.facts)
    closed = newest is not None and newest.get("closed_at") is not None
    subject = f"episode-{newest['number']}" if newest else ""
    yield Change("episode closed" if closed else "episode noted", subject, reason, event.facts)


def _granted(event: Event, _: Event | None) -> Iterator[Change]:
    yield Change("retrain granted", event.data_version, str(event.facts.get("reason", "")), event.facts)


def _training_set(event: Event, _: Event | None) -> Iterator[Change]:
    facts = event.facts
    told = [
        f"{facts[name]:,} rows to {what}"
        for name, what in (("train_rows", "train on"), ("evaluation_rows", "evaluate on"))
        if isinstance(facts.get(name), int)
    ]
    if facts.get("evaluation_until"):
        told.append(f"the newest of {str(facts['evaluation_until'])[:10]}")
    yield Change("training set made", "", ", ".join(told), facts)


def _candidates(event: Event, _: Event | None) -> Iterator[Change]:
    yield Change(
        "candidates compared",
        str(event.facts.get("winner", "")),
        str(event.facts.get("why", "")),
        event.facts,
    )


def _model(event: Event, _: Event | None) -> Iterator[Change]:
    version = f"v{event.facts.get('model_version')}"
    told = f"{event.facts.get('trainer')}, {event.facts.get('why')}"
    yield Change("model made", version, told, event.facts)


def _verdict(event: Event, _: Event | None) -> Iterator[Change]:
    facts = event.facts
    told = f"{facts.get('outcome')}: {facts.get('reason')}"
    yield Change("verdict", f"v{facts.get('model_version')}", told, facts)


def _approval(event: Event, _: Event | None) -> Iterator[Change]:
    facts = event.facts
    yield Change("approved", f"v{facts.get('model_version')}", f"by {facts.get('approver')}", facts)


def _deployment(event: Event, _: Event | None) -> Iterator[Change]:
    facts = event.facts
    phase, target = str(facts.get("phase", "")), str(facts.get("target", ""))
    told = f"{facts.get('traffic')}; {facts.get('reason')}"
    shadows = facts.get("shadows") or {}
    if shadows:
        mirrored = ", ".join(f"{version} scores {share:g} % unseen" for version, share in shadows.items())
        told = f"{mirrored}; {facts.get('reason')}"
    kind: Kind = "rollout"
    if phase == "successful" and facts.get("stable") == target and facts.get("action") != "retire":
        kind = "promoted"
    elif phase in ("failed", "error"):
        kind = "aborted"
    yield Change(kind, target, told, facts)


_MADE: Mapping[AssetKind, Callable[[Event, Event | None], Iterator[Change]]] = {
    "performance": _performance,
    "drift": _drift,
    "drift_signal": _episode_opened,
    "retrain_request": _granted,
    "training_set": _training_set,
    "candidates": _candidates,
    "model": _model,
    "evaluation": _verdict,
    "approval": _approval,
    "deployment": _deployment,
}


def _of_runs(before: Reading, after: Reading) -> Iterator[Change]:
    """Runs of the chain that appeared, and any run that failed."""
    for run_id, run in sorted(after.runs.items(), key=lambda entry: entry[1].created):
        earlier = before.runs.get(run_id)
        retrains = any(read_asset_name(asset).kind in CHAIN[:-1] for asset in run.assets)
        if earlier is None and retrains:
            by = run.launched_by or "a person"
            yield Change("run launched", _short(run), f"{_assets(run)}, launched by {by}", _facts(run))
        if run.status in FAILED and (earlier is None or earlier.status not in FAILED):
            yield Change("run failed", _short(run), f"{run.status.lower()}: {_assets(run)}", _facts(run))


def _of_staleness(before: Reading, after: Reading) -> Iterator[Change]:
    for asset, now in after.staleness.items():
        was = before.staleness.get(asset)
        if was is not None and was.status == now.status:
            continue
        if now.status == "STALE":
            causes = "; ".join(now.causes) or "Dagster names no cause"
            yield Change("model stale", asset, causes, {"causes": list(now.causes)})
        elif now.status == "FRESH" and was is not None:
            yield Change("model fresh", asset, "", {})


def _of_endpoint(before: Reading, after: Reading) -> Iterator[Change]:
    now, was = after.endpoint, before.endpoint
    if now is not None and was is not None:
        for version, reason in now.tripped.items():
            if version not in was.tripped:
                yield Change("tripped", version, reason, {})
        if (now.weights, now.shadows) != (was.weights, was.shadows):
            yield Change("traffic", now.stable, shares(now.weights, now.shadows), {"stable": now.stable})
    if after.served_stale is not None and after.served_stale != before.served_stale:
        if after.served_stale:
            yield Change("served stale", now.stable if now else "", ", ".join(after.served_stale), {})
        elif before.served_stale:
            yield Change("served fresh", now.stable if now else "", "", {})


def shares(weights: Mapping[str, float], shadows: Mapping[str, float]) -> str:
    """Who answers how much, and who scores unseen, in words."""
    answering = ", ".join(f"{version} {share:g} %" for version, share in sorted(weights.items()))
    unseen = ", ".join(f"{version} {share:g} %" for version, share in sorted(shadows.items()))
    return answering + (f"; unseen: {unseen}" if unseen else "")


def window_name(start: str, end: str) -> str:
    """A window in words: ``24 Jun to 1 Jul``."""
    first, last = datetime.fromisoformat(start), datetime.fromisoformat(end)
    return f"{first.day} {first:%b} to {last.day} {last:%b}"


def _performance_text(one: WindowPerformance) -> str:
    value = "not defined" if one.value is None else f"{one.value:.3f}"
    between = "" if one.low is None or one.high is None else f" [{one.low:.3f}, {one.high:.3f}]"
    against = "" if one.reference is None else f" against {one.reference:.3f} when it was made"
    proven = (
        ""
        if one.loss_low is None
        else f", a proven loss of {one.loss_low:.3f}"
        if one.loss_low > 0
        else ", no proven loss"
    )
    labelled = f"{one.labelled:,} of {one.answers:,} answers labelled"
    return f"{labelled}: {one.metric} {value}{between}{against}{proven}"


def _drift_text(one: WindowDrift) -> str:
    features = one.of("feature")
    drifted = sum(bool(column.drifted) for column in features)
    prediction = {
        True: "the prediction drifted",
        False: "the prediction did not drift",
        None: "no prediction",
    }
    told = prediction[one.drifted("prediction")]
    return f"{one.rows:,} answers; {told}; {drifted} of {len(features)} features did"


def _scores_text(one: WindowDrift) -> str:
    """The scores of the drifted prediction columns beside their thresholds."""
    return "; ".join(
        f"{column.column} {score.statistic} {score.value:.3f}, calibrated threshold {score.threshold:.3f}"
        for column in one.of("prediction")
        for score in column.scores
        if score.exceeded and score.value is not None and score.threshold is not None
    )


def _performances(event: Event | None) -> list[WindowPerformance]:
    return [WindowPerformance.from_dict(one) for one in (event.facts.get("windows") or [])] if event else []


def _drifts(event: Event | None) -> list[WindowDrift]:
    return [WindowDrift.from_dict(one) for one in (event.facts.get("windows") or [])] if event else []


def _window_key(one: WindowPerformance) -> tuple[str, str, str]:
    return one.start, one.version, one.variant


def _newest_episode(facts: Mapping[str, Any]) -> Mapping[str, Any] | None:
    from mlops_assets.monitoring.episodes import EpisodeLog

    newest = EpisodeLog.loads(str(facts.get("episodes", ""))).newest
    return None if newest is None else {"number": newest.number, "closed_at": newest.closed_at}


def _facts(run: Run) -> dict[str, Any]:
    return {"run": run.run_id, "assets": list(run.assets)}


def _short(run: Run) -> str:
    return run.run_id[:SHORT_RUN]


def _assets(run: Run) -> str:
    return " → ".join(sorted(run.assets, key=_order)) or "no assets"


def _order(asset: str) -> tuple[int, str]:
    kind = read_asset_name(asset).kind
    return (CHAIN.index(kind) if kind in CHAIN else len(CHAIN)), asset
