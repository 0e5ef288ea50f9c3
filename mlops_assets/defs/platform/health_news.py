"""What is news about the platform's health: plain values in, alerts and the memory of them out.

Belongs here: when a state of freshness, a sensor, a prediction log, a failed run or a document that cannot be
loaded is worth an alert, and the alert's words. Does not belong here: asking Dagster and the gateways
(``alerts.py`` beside this file), delivering (``mlops_assets/resources/alerts/``), drift and episodes
(``mlops_assets/monitoring/``).

Every function takes what the last tick left as ``known``, and gives what this one leaves. That memory only
spares people a message: without it a standing problem is alerted of once more, and no new one is missed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mlops_assets.asset_names import asset_name
from mlops_assets.documents.missing import MissingDocument
from mlops_assets.resources.alerts import Alert

FAILED_TICKS = 3
"""One failed tick is an accident (a restarted code server); so many in a row are an outage."""
ERROR_LENGTH = 500


@dataclass(frozen=True)
class Freshness:
    """An asset's freshness as Dagster's daemon judged it: PASS, WARN, FAIL, UNKNOWN or NOT_APPLICABLE.

    ``since`` is when that state began, ``materialised_at`` the newest materialisation (None: not asked, or
    never); both Unix seconds. ``policy`` says in words what the asset promises, ``command`` what renews it.
    """

    state: str
    since: float
    materialised_at: float | None = None
    policy: str = ""
    command: str = ""


@dataclass(frozen=True)
class SensorTicks:
    """The newest finished ticks of one sensor, newest first: True where one failed."""

    sensor: str
    failed: tuple[bool, ...]
    error: str
    newest_at: float


@dataclass(frozen=True)
class LogState:
    """The prediction log of one deployment, as its gateways report it.

    ``dropped``: rows that all replicas dropped since they started, None when not all of them were heard.
    ``problem``: why an answering replica cannot write, None when it can. ``unreadable``: why none is known.
    """

    dropped: int | None
    problem: str | None
    unreadable: str | None = None


@dataclass(frozen=True)
class KnownLog:
    """The state of one log at the last tick."""

    dropped: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class FailedRun:
    """A failed run that a sensor or automation launched to make a model anew, or to measure it.

    ``gate_refused``: it failed at the gate, whose verdict other than promote is a result. ``attempt``: the
    episode and number of the granted retrain that waited for this run ("1.2"), with the ``version`` that the
    episode is on; empty when none did.
    """

    run_id: str
    model: str
    launched_by: str
    step: str
    error: str
    gate_refused: bool
    url: str
    measuring: bool = False
    version: str = ""
    attempt: str = ""


def freshness_news(
    known: Mapping[str, float], states: Mapping[str, Freshness]
) -> tuple[list[Alert], dict[str, float]]:
    """Alerts of the transitions to and from FAIL; {failing asset: since when}.

    An asset that is gone, or whose state is no longer known, is forgotten: that is no recovery.
    """
    alerts, failing = [], {}
    for asset, now in sorted(states.items()):
        if now.state == "FAIL":
            failing[asset] = now.since
            if known.get(asset) != now.since:
                alerts.append(_late(asset, now))
        elif now.state in ("PASS", "WARN") and asset in known:
            alerts.append(_fresh_again(asset, known[asset], now))
    return alerts, failing


def _late(asset: str, now: Freshness) -> Alert:
    last = f"last made {utc_minute(now.materialised_at)}" if now.materialised_at else "never made"
    return Alert(
        kind="freshness_failed",
        subject=asset,
        summary=f"not fresh since {utc_minute(now.since)}: {last}, and {now.policy}",
        command=now.command,
        evidence={"state": now.state, "since": now.since, "materialised_at": now.materialised_at},
        dedupe=f"{now.since:.3f}",
    )


def _fresh_again(asset: str, late_since: float, now: Freshness) -> Alert:
    return Alert(
        kind="freshness_recovered",
        subject=asset,
        summary=f"fresh again since {utc_minute(now.since)}, after "
        f"{rounded_duration(now.since - late_since)}",
        command="nothing; mlops status shows it",
        evidence={"state": now.state, "since": now.since, "failed_since": late_since},
        dedupe=f"{late_since:.3f}",
    )


def sensor_news(
    known: Collection[str], sensors: Sequence[SensorTicks], *, ticks: int = FAILED_TICKS
) -> tuple[list[Alert], list[str]]:
    """An alert for each sensor whose newest ``ticks`` ticks all failed; the sensors that are failing.

    One success ends the failing; a sensor with fewer ticks is not judged.
    """
    alerts, failing = [], []
    for one in sensors:
        if len(one.failed) < ticks or not all(one.failed[:ticks]):
            continue
        failing.append(one.sensor)
        if one.sensor not in known:
            alerts.append(
                Alert(
                    kind="sensor_failing",
                    subject=f"sensors/{one.sensor}",
                    summary=f"its last {ticks} ticks failed, the newest at {utc_minute(one.newest_at)}: "
                    f"{_short(one.error)}",
                    command=f"dagster sensor preview {one.sensor} shows the error; nothing it watches is "
                    "acted on until it is gone",
                    evidence={"failed_ticks": ticks, "newest_at": one.newest_at, "error": one.error},
                )
            )
    return alerts, sorted(failing)


def log_news(
    known: Mapping[str, KnownLog], logs: Mapping[str, LogState]
) -> tuple[list[Alert], dict[str, KnownLog]]:
    """Alerts of rows that were dropped since the last tick, and of logs that cannot be written.

    A count below the last one comes from new replicas, and all of it is new. A problem is alerted of when two
    ticks in a row find one, because a failed write is tried again. A log that was not heard keeps its memory.
    """
    alerts, seen = [], dict(known)
    for deployment, now in sorted(logs.items()):
        before = known.get(deployment, KnownLog())
        if now.unreadable is not None:
            alerts.append(_log_alert(deployment, "unreadable", f"nobody can tell: {now.unreadable}", now))
            continue
        dropped = before.dropped if now.dropped is None else now.dropped
        new = dropped - before.dropped if dropped >= before.dropped else dropped
        why = f" ({now.problem})" if now.problem else ""
        if new > 0:
            rows = "1 row was" if new == 1 else f"{new:,} rows were"
            alerts.append(_log_alert(deployment, "dropped", f"{rows} dropped from the log{why}", now))
        elif now.problem and before.problem:
            waiting = f"answers wait in memory and cannot be written{why}"
            alerts.append(_log_alert(deployment, "problem", waiting, now))
        seen[deployment] = KnownLog(dropped, now.problem)
    return alerts, seen


def _log_alert(deployment: str, what: str, summary: str, now: LogState) -> Alert:
    return Alert(
        kind="log_drops",
        subject=asset_name("prediction_log", deployment),
        summary=summary,
        command=f"GET /{deployment}/ready says the problem; see that MLOPS_PREDICTION_LOG_URI can be written "
        "fast enough. Windows with lost rows are judged on the rest",
        evidence={"dropped": now.dropped, "problem": now.problem, "unreadable": now.unreadable},
        dedupe=what,
    )


def failed_run_news(runs: Sequence[FailedRun]) -> list[Alert]:
    """One alert per failed run; a verdict of the gate is no failure.

    The drift sensor alerts of a failed attempt too, with the same kind, subject, version and dedupe: people
    get the alert of whichever sensor is first. Measuring is tried again and again, so its failures are one
    alert for each step that fails.
    """
    return [
        _measuring_failed(one) if one.measuring else _retrain_failed(one)
        for one in runs
        if not one.gate_refused
    ]


def _retrain_failed(one: FailedRun) -> Alert:
    attempt = f", retrain {one.attempt}" if one.attempt else ""
    return Alert(
        kind="retrain_failed",
        subject=asset_name("model", one.model),
        summary=f"run {one.run_id[:8]} (launched by {one.launched_by}{attempt}) {_where_and_why(one)}",
        command=f"read the run at {one.url}; an open episode is tried again after its back-off, by hand: "
        f"dg launch --assets 'key:\"{asset_name('training_set', one.model)}\"'",
        version=one.version,
        evidence={"run_id": one.run_id, "step": one.step, "error": one.error},
        dedupe=one.attempt or one.run_id,
    )


def _measuring_failed(one: FailedRun) -> Alert:
    return Alert(
        kind="measuring_failed",
        subject=asset_name("drift", one.model),
        summary=f"drift is not seen while measuring fails: run {one.run_id[:8]} {_where_and_why(one)}",
        command=f"read the run at {one.url}; measure_{one.model} tries again by itself, later each time",
        evidence={"run_id": one.run_id, "step": one.step, "error": one.error},
        dedupe=one.step,
    )


def _where_and_why(one: FailedRun) -> str:
    return f"failed{f' at {one.step}' if one.step else ''}: {_short(one.error)}"


def document_news(
    known: Collection[str], missing: Sequence[MissingDocument]
) -> tuple[list[Alert], list[str]]:
    """An alert for each document that cannot be loaded; the problems of all that cannot.

    Documents that are missing only because of it stand in the same alert. Another problem of the same
    document is news.
    """
    own = [one for one in missing if not one.because]
    alerts = [
        Alert(
            kind="document_missing",
            subject=asset_name("document", one.use_case),
            summary=f"{one.what} is missing: {_short(one.problem)}{_with_it(one, missing)}",
            command=one.command,
            evidence={"where": one.where, "assets": list(one.assets), "problem": one.problem},
            dedupe=_problem(one),
        )
        for one in own
        if _problem(one) not in known
    ]
    return alerts, [_problem(one) for one in own]


def _problem(one: MissingDocument) -> str:
    return f"{one.what}: {_short(one.problem)}"


def _with_it(one: MissingDocument, missing: Sequence[MissingDocument]) -> str:
    fallen = [other.what for other in missing if other.because == one.where]
    return f"; with it {', '.join(fallen)}" if fallen else ""


def utc_minute(at: float) -> str:
    """A time (Unix seconds) to the minute, in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def rounded_duration(seconds: float) -> str:
    """A length of time in words, rounded to minutes, hours or days."""
    if seconds < 3_600:
        return f"{max(seconds, 0) / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h" if seconds < 2 * 86_400 else f"{seconds / 86_400:.0f} days"


def _short(error: str) -> str:
    text = " ".join(error.split()) or "no error was recorded"
    return text if len(text) <= ERROR_LENGTH else f"{text[:ERROR_LENGTH]}..."
