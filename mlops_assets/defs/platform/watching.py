"""What is news about the platform's health: plain values in, alerts and what was told out.

Belongs here: when a state of freshness, a sensor, a prediction log, a failed run or a document that cannot be
loaded is worth an alert, and its words. Does not belong here: asking Dagster and the gateways (``alerts.py``
beside this file), delivering (``mlops_assets/resources/alerts/``), drift and episodes
(``mlops_assets/monitoring/``).

Every function takes what was told before and gives what is told now. That memory only spares people a
message: losing it tells a standing trouble once more, and forgets no new one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mlops_assets.asset_names import asset_name
from mlops_assets.documents.missing import MissingDocument
from mlops_assets.resources.alerts import Alert

FAILED_TICKS = 3
"""One failed tick is an accident (a restarted code server); so many in a row are a state."""
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
    """What the gateways of one deployment say about their prediction log.

    ``dropped`` is the sum over replicas since they started, None when not all of them were heard; ``problem``
    is why an answering replica cannot write, None when it can. ``unreadable`` says why nothing is known.
    """

    dropped: int | None
    problem: str | None
    unreadable: str | None = None


@dataclass(frozen=True)
class LogTold:
    """What was seen of one log at the last look."""

    dropped: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class FailedRun:
    """A run that was to make ``<model>_model`` anew by itself, or to measure it, and failed.

    ``judged``: its gate gave a verdict other than promote, which is an answer and told as one. ``attempt``:
    episode and number of the granted retrain that waited for this run ("1.2"), with the ``version`` that the
    episode is on; empty when none did.
    """

    run_id: str
    model: str
    launched_by: str
    step: str
    error: str
    judged: bool
    url: str
    measuring: bool = False
    version: str = ""
    attempt: str = ""


def freshness_news(
    told: Mapping[str, float], states: Mapping[str, Freshness]
) -> tuple[list[Alert], dict[str, float]]:
    """Alerts of the transitions to and from FAIL, and the failing assets with since when, as told next time.

    An asset whose state is no longer known or that is gone is forgotten without a word: that is no recovery.
    """
    alerts, failing = [], {}
    for asset, now in sorted(states.items()):
        if now.state == "FAIL":
            failing[asset] = now.since
            if told.get(asset) != now.since:
                alerts.append(_late(asset, now))
        elif now.state in ("PASS", "WARN") and asset in told:
            alerts.append(_fresh_again(asset, told[asset], now))
    return alerts, failing


def _late(asset: str, now: Freshness) -> Alert:
    last = f"last made {moment(now.materialised_at)}" if now.materialised_at else "never made"
    return Alert(
        kind="freshness_failed",
        subject=asset,
        summary=f"not fresh since {moment(now.since)}: {last}, and {now.policy}",
        command=now.command,
        evidence={"state": now.state, "since": now.since, "materialised_at": now.materialised_at},
        dedupe=f"{now.since:.3f}",
    )


def _fresh_again(asset: str, late_since: float, now: Freshness) -> Alert:
    return Alert(
        kind="freshness_recovered",
        subject=asset,
        summary=f"fresh again since {moment(now.since)}, after {duration(now.since - late_since)}",
        command="nothing; mlops status shows it",
        evidence={"state": now.state, "since": now.since, "failed_since": late_since},
        dedupe=f"{late_since:.3f}",
    )


def sensor_news(
    told: Collection[str], sensors: Sequence[SensorTicks], *, ticks: int = FAILED_TICKS
) -> tuple[list[Alert], list[str]]:
    """An alert when the newest ``ticks`` ticks of a sensor all failed, and the sensors that are failing.

    One success ends it; a sensor with fewer ticks than that is not judged.
    """
    alerts, failing = [], []
    for one in sensors:
        if len(one.failed) < ticks or not all(one.failed[:ticks]):
            continue
        failing.append(one.sensor)
        if one.sensor not in told:
            alerts.append(
                Alert(
                    kind="sensor_failing",
                    subject=f"sensors/{one.sensor}",
                    summary=f"its last {ticks} ticks failed, the newest at {moment(one.newest_at)}: "
                    f"{_short(one.error)}",
                    command=f"dagster sensor preview {one.sensor} shows the error; nothing it watches is "
                    "acted on until it is gone",
                    evidence={"failed_ticks": ticks, "newest_at": one.newest_at, "error": one.error},
                )
            )
    return alerts, sorted(failing)


def log_news(
    told: Mapping[str, LogTold], logs: Mapping[str, LogState]
) -> tuple[list[Alert], dict[str, LogTold]]:
    """Alerts about rows that were dropped since the last look, and about logs that cannot be written.

    A count below the last one comes from new replicas, and all of it is new. A problem is told when two looks
    in a row find one, for a write that fails once is tried again. What was not heard leaves the memory alone.
    """
    alerts, seen = [], dict(told)
    for deployment, now in sorted(logs.items()):
        before = told.get(deployment, LogTold())
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
        seen[deployment] = LogTold(dropped, now.problem)
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

    The failure of an attempt is the very news that the drift sensor has when it notes the outcome: alike in
    kind, subject, version and dedupe, so the port tells it once, whichever sensor is first. Measuring is
    tried again and again, so its failures are one piece of news for each step that fails.
    """
    return [
        _measuring_failed(one) if one.measuring else _retrain_failed(one) for one in runs if not one.judged
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


def document_news(told: Collection[str], missing: Sequence[MissingDocument]) -> tuple[list[Alert], list[str]]:
    """An alert for each document that cannot be loaded, and the problems as told next time.

    What is missing only because of it stands in the same alert. Another problem of the same document is news.
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
        if _problem(one) not in told
    ]
    return alerts, [_problem(one) for one in own]


def _problem(one: MissingDocument) -> str:
    return f"{one.what}: {_short(one.problem)}"


def _with_it(one: MissingDocument, missing: Sequence[MissingDocument]) -> str:
    fallen = [other.what for other in missing if other.because == one.where]
    return f"; with it {', '.join(fallen)}" if fallen else ""


def moment(at: float) -> str:
    """A time for people."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def duration(seconds: float) -> str:
    """A length of time for people, in its largest sensible unit."""
    if seconds < 3_600:
        return f"{max(seconds, 0) / 60:.0f} min"
    return f"{seconds / 3_600:.0f} h" if seconds < 2 * 86_400 else f"{seconds / 86_400:.0f} days"


def _short(error: str) -> str:
    told = " ".join(error.split()) or "no error was recorded"
    return told if len(told) <= ERROR_LENGTH else f"{told[:ERROR_LENGTH]}..."
