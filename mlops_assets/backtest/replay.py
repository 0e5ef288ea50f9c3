"""The history of a use case, replayed under several regimes of retraining, to compare their worth. Pure.

Belongs here: the passage of time, which model answers in each regime, the decisions of production's
functions, and the quality of the answers. Does not belong here: training and judging one model
(``trainings.py``), tables and plots (``report.py``), reading the data (``assets/backtest.py``).

A drift-triggered regime is decided by the same code as the loop: ``assess_window``, ``window_performance``,
``drift_verdict``, ``next_action`` and with it the governor, on the labels that had arrived by then. Regime
calendar asks the same ``next_action`` at the moments of the monitor's calendar, and no policy; the other
schedules pass no governor. Every regime starts with the same first model and passes the same gate. Three
things are simpler than in the loop: a version that passes the gate answers at once (a rollout takes hours),
every row of the history is one request, and a run never fails.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlops_assets.backtest.trainings import (
    Array,
    History,
    Recipe,
    ReplayedModel,
    Trainings,
    as_datetime,
    as_numpy,
)
from mlops_assets.errors import DataError, UnknownName
from mlops_assets.evaluation.metrics import metric, metric_values
from mlops_assets.monitoring.drift import Answers, DriftTest, assess_window
from mlops_assets.monitoring.episodes import (
    AttemptFacts,
    EpisodeLog,
    LoopFacts,
    LoopRules,
    asked_by_calendar,
    next_action,
)
from mlops_assets.monitoring.findings import WindowDrift, WindowPerformance
from mlops_assets.monitoring.governor import AttemptOutcome, GovernorPolicy
from mlops_assets.monitoring.labels import HAS_KEYS, LABEL, Watermark, label_state
from mlops_assets.monitoring.lasting_loss import LastingLossTest, with_lasting_loss
from mlops_assets.monitoring.performance import PerformanceTest, window_performance
from mlops_assets.monitoring.policy import DataAge, DriftPolicy, DriftVerdict, drift_verdict
from mlops_assets.monitoring.windows import Window, ended_windows, uncovered, window_of
from serve.schema import Task

if TYPE_CHECKING:
    import pandas as pd

Schedule = Literal["never", "monthly", "four_weekly", "weekly", "calendar", "moments", "drift"]

SHOWN: Mapping[Task, tuple[str, ...]] = {
    "binary": ("roc_auc", "log_loss"),
    "multiclass": ("log_loss", "accuracy"),
    "regression": ("rmse", "mae"),
}
"""Metrics that the regimes of a task are compared by; the first one is drawn."""

_ACTIONS_AT_ONCE = 10
"""More actions than this at one moment would be a loop that feeds itself."""


@dataclass(frozen=True)
class Regime:
    """A rule for when to retrain.

    ``schedule`` monthly: the first of a month, weekly: Mondays, four_weekly: every fourth Monday, all at
    00:00 UTC; calendar: when the monitor's calendar asks and its governor grants; moments: at ``moments``,
    with a zone, those that lie in the time that is replayed.

    ``gated`` False: every retrained model answers, whatever its verdict at the gate.
    ``false_alarms_per_year``: of a drift-triggered regime, in the place of the declared policy's.
    """

    name: str
    schedule: Schedule
    gated: bool = True
    false_alarms_per_year: float | None = None
    moments: tuple[datetime, ...] = ()

    def policy(self, declared: DriftPolicy) -> DriftPolicy:
        """The declared policy, with the regime's rate of false alarms where it has one."""
        if self.false_alarms_per_year is None:
            return declared
        rate = {"false_alarms_per_year": self.false_alarms_per_year}
        return DriftPolicy.model_validate({**declared.model_dump(), **rate})


TRADED: Mapping[str, float] = {f"drift_{rate:g}": rate for rate in (0.2, 0.5, 1.0, 2.0)}
"""Regimes that are drift at another rate of false alarms per year, to show what that setting trades."""

REGIMES: Mapping[str, Regime] = {
    one.name: one
    for one in (
        Regime("never", "never"),
        Regime("monthly", "monthly"),
        Regime("four_weekly", "four_weekly"),
        Regime("weekly", "weekly"),
        Regime("weekly_ungated", "weekly", gated=False),
        Regime("calendar", "calendar"),
        Regime("drift", "drift"),
        *(Regime(name, "drift", false_alarms_per_year=rate) for name, rate in TRADED.items()),
    )
}
DEFAULT_REGIMES = ("never", "monthly", "weekly", "drift")
"""Those that need no declaration."""


def regimes(names: Sequence[str]) -> tuple[Regime, ...]:
    """The regimes of these names; UnknownName lists them."""
    for name in names:
        if name not in REGIMES:
            raise UnknownName("regime", name, REGIMES)
    return tuple(REGIMES[name] for name in dict.fromkeys(names))


@dataclass(frozen=True)
class Calendar:
    """A schedule (cron) and its moments.

    ``between``: those from a start to an end (exclusive), all with a zone, oldest first.
    """

    schedule: str
    between: Callable[[datetime, datetime], Iterable[datetime]]


@dataclass(frozen=True)
class Monitoring:
    """What a drift monitor declares: windows, labels, policy, governor and calendar, how old data may be."""

    window: timedelta = timedelta(days=7)
    min_rows: int = 200
    watermark: Watermark = field(default_factory=lambda: Watermark(within=timedelta(days=3)))
    policy: DriftPolicy = field(default_factory=DriftPolicy)
    governor: GovernorPolicy = field(default_factory=GovernorPolicy)
    max_data_age: timedelta = timedelta(days=45)
    calendar: Calendar | None = None

    @property
    def default_regimes(self) -> tuple[str, ...]:
        """What is compared when nobody names regimes: with calendar where one is declared."""
        return (*DEFAULT_REGIMES, "calendar") if self.calendar is not None else DEFAULT_REGIMES


@dataclass(frozen=True)
class Period:
    """The quality of the answers in a stretch of time: every metric of the task on its labelled rows."""

    start: str
    end: str
    answers: int
    labelled: int
    metrics: Mapping[str, float | None]


@dataclass(frozen=True)
class Retrain:
    """One retrain: its time, the version it made, the gate's verdict, and the newest row that was known.

    ``looks``: how often the version was judged; ``judged_at``: when last; ``digest``: of its model.
    """

    at: str
    version: str
    outcome: AttemptOutcome
    reason: str
    data_until: str
    episode: int | None = None
    looks: int = 1
    judged_at: str = ""
    digest: str = ""


@dataclass(frozen=True)
class ReplayedEpisode:
    """An episode and its delay.

    ``delay_days``: from the start of the first window that it was opened on (or of the version's answers,
    when that was later) to the opening. ``asked_by``: as in ``Episode``; "" for drift.
    """

    number: int
    version: str
    opened_at: str
    closed_at: str | None
    reason: str
    attempts: int
    delay_days: float | None
    asked_by: str = ""


@dataclass(frozen=True)
class RegimeReplay:
    """The outcome of one regime. ``windows`` and ``months`` cover the whole time, oldest first.

    ``decisions``, as (time, action, reason): for regime drift, each new verdict of the policy; for regime
    calendar, each refusal (action refuse) of the governor.
    ``data_age_days``: mean age of the answering model's newest training row, over all answers.
    """

    regime: str
    windows: tuple[Period, ...]
    months: tuple[Period, ...]
    retrains: tuple[Retrain, ...]
    episodes: tuple[ReplayedEpisode, ...]
    decisions: tuple[tuple[str, str, str], ...]
    data_age_days: float

    def mean(self, name: str) -> float | None:
        """Plain mean of a metric over the months that have it; None when no month has it."""
        values = [value for one in self.months if (value := one.metrics.get(name)) is not None]
        return float(np.mean(values)) if values else None

    def count(self, outcome: AttemptOutcome) -> int:
        """Retrains with that outcome."""
        return sum(one.outcome == outcome for one in self.retrains)

    @property
    def of_drift(self) -> tuple[ReplayedEpisode, ...]:
        """The episodes that drift opened; the others are retrains that were asked for."""
        return tuple(one for one in self.episodes if not one.asked_by)

    @property
    def delay_days(self) -> float | None:
        """Median of the episodes' delays; None without any."""
        delays = [one.delay_days for one in self.episodes if one.delay_days is not None]
        return float(np.median(delays)) if delays else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Backtest:
    """All regimes over the same time. ``first``: the gate's verdict on the model that they start with."""

    model: str
    task: Task
    start: str
    end: str
    first: str
    replays: tuple[RegimeReplay, ...]
    monitoring: Mapping[str, Any] = field(default_factory=dict)

    def replay_of(self, name: str) -> RegimeReplay | None:
        """The replay of that regime, or None."""
        return next((one for one in self.replays if one.regime == name), None)

    def share_of_gain(self, name: str, metric_name: str, *, best: str = "weekly") -> float | None:
        """How much of the gain of ``best`` over never retraining a regime reaches: 1.0 is all of it.

        In the mean of the metric over months. None when a regime is not there, the metric is not defined,
        or ``best`` is no better than never.
        """
        values = []
        for regime in (name, "never", best):
            found = self.replay_of(regime)
            value = found.mean(metric_name) if found else None
            if value is None:
                return None
            values.append(value)
        ours, never, most = values
        gain = most - never if metric(metric_name, self.task).greater_is_better else never - most
        if gain <= 0:
            return None
        reached = ours - never if metric(metric_name, self.task).greater_is_better else never - ours
        return reached / gain

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Backtest":
        """The inverse of ``to_dict``; DataError for anything else."""
        try:
            replays = tuple(
                RegimeReplay(
                    **{
                        **one,
                        "windows": tuple(Period(**period) for period in one["windows"]),
                        "months": tuple(Period(**period) for period in one["months"]),
                        "retrains": tuple(Retrain(**retrain) for retrain in one["retrains"]),
                        "episodes": tuple(ReplayedEpisode(**episode) for episode in one["episodes"]),
                        "decisions": tuple(tuple(decision) for decision in one["decisions"]),
                    }
                )
                for one in values["replays"]
            )
            return cls(**{**values, "replays": replays})
        except (TypeError, KeyError) as error:
            raise DataError(f"the values are not a backtest: {error}. Run mlops backtest again") from error


@dataclass(frozen=True)
class ReplayedUseCase:
    """A use case as a replay needs it: its rows, how its model is made, and how its drift is monitored."""

    history: History
    recipe: Recipe
    monitoring: Monitoring


def replay(
    use_case: ReplayedUseCase,
    chosen: Sequence[Regime],
    *,
    start: datetime,
    end: datetime,
    trainings: Trainings | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Backtest:
    """Every chosen regime from ``start`` to ``end`` (exclusive, both with a zone).

    The first model is made of what was known at ``start`` and answers from there on, whatever its verdict at
    the gate. ``trainings``: those of another replay of the same use case, so that no model is made twice.
    ``report`` takes one line per training, retrain and episode. Raises DataError when ``end`` is not after
    ``start``, when no row lies between, when too little is known at ``start``, for regime calendar without a
    calendar, or for trainings of another history.
    """
    history, monitoring = use_case.history, use_case.monitoring
    rows = history.between(start, end)
    if end <= start or rows.start == rows.stop:
        raise DataError(
            f"no rows between {start:%Y-%m-%d} and {end:%Y-%m-%d}; the history goes from "
            f"{np.datetime_as_string(history.times[0], unit='D')} to "
            f"{np.datetime_as_string(history.times[-1], unit='D')}"
        )
    if monitoring.calendar is None and any(regime.schedule == "calendar" for regime in chosen):
        raise DataError(
            "regime calendar needs a schedule: declare retrain: {schedule: CRON} in the drift monitor's "
            'document, or name one: --schedule "0 3 1 * *"'
        )
    window_days = monitoring.window / timedelta(days=1)
    if trainings is None:
        trainings = Trainings(history, use_case.recipe, window_days=window_days, report=report)
    elif trainings.history is not history or trainings.recipe != use_case.recipe:
        raise DataError("the trainings are of another use case: share those of one history and one recipe")
    try:
        first = trainings.at(start)
    except DataError as error:
        raise DataError(f"no first model at {start:%Y-%m-%d}: {error}") from error
    verdict = trainings.verdict(first, None, "")
    report(f"first model at {start:%Y-%m-%d}: {verdict.outcome}")
    shared = _Shared(history, trainings, monitoring, first, start, end, report)
    return Backtest(
        model=use_case.recipe.name,
        task=history.task,
        start=start.isoformat(),
        end=end.isoformat(),
        first=f"{verdict.outcome}: {verdict.reason}",
        replays=tuple(_RegimeRun(regime, shared).run() for regime in chosen),
        monitoring={
            "window_days": window_days,
            "min_rows": monitoring.min_rows,
            "labels_within_days": monitoring.watermark.within / timedelta(days=1),
            "max_data_age_days": monitoring.max_data_age / timedelta(days=1),
            "policy": monitoring.policy.model_dump(mode="json"),
            "governor": monitoring.governor.model_dump(mode="json"),
            "schedule": monitoring.calendar.schedule if monitoring.calendar else None,
        },
    )


@dataclass(frozen=True)
class _Shared:
    """What every regime starts from. ``start`` and ``end`` carry a zone."""

    history: History
    trainings: Trainings
    monitoring: Monitoring
    first: ReplayedModel
    start: datetime
    end: datetime
    report: Callable[[str], None]


@dataclass
class _Served:
    """The version that answers: its label, its first moment, and its windows as far as they are measured."""

    label: str
    model: ReplayedModel
    since: datetime
    drift: dict[str, WindowDrift] = field(default_factory=dict)
    performance: dict[str, WindowPerformance] = field(default_factory=dict)
    measured: set[str] = field(default_factory=set)
    """Windows that will not change any more, because no label of theirs is waited for."""
    evidence: list[WindowPerformance] | None = None
    """``performance`` with what added up; None since a window was measured."""


_NO_POLICY = DriftVerdict("quiet", "the calendar decides alone", None)

_OUTCOMES: dict[str, AttemptOutcome] = {
    "promote": "promoted",
    "reject": "rejected",
    "inconclusive": "inconclusive",
}


class _RegimeRun:
    """One regime from the start to the end."""

    def __init__(self, regime: Regime, shared: _Shared) -> None:
        self.regime, self.history, self.trainings = regime, shared.history, shared.trainings
        declared, self.report = shared.monitoring, shared.report
        self.monitoring = replace(declared, policy=regime.policy(declared.policy))
        self.start, self.end = shared.start, shared.end
        self.served = _Served("v1", shared.first, shared.start)
        self.versions, self.challenger = 1, shared.first
        self.answered: list[tuple[slice, ReplayedModel]] = []
        self.retrains: list[Retrain] = []
        self.log = EpisodeLog()
        self.delays: dict[int, float | None] = {}
        self.decisions: list[tuple[str, str, str]] = []
        self.newest_signals: tuple[object, ...] = ()
        self._rules = LoopRules(declared.governor, refresh_after=declared.max_data_age)
        self.facts = LoopFacts(served="v1", served_data=shared.first.data_until.isoformat())

    def run(self) -> RegimeReplay:
        if self.regime.schedule == "calendar":
            self._run_calendar()
        elif self.regime.schedule == "moments":
            for now in sorted(self.regime.moments):
                if self.start < now < self.end:
                    self._retrain(now, None)
        else:
            self._run_days()
        self._answered_until(self.end)
        return self._result()

    def _run_days(self) -> None:
        step = min(timedelta(days=1), self.monitoring.window)
        now = self.start
        while now < self.end:
            if self.regime.schedule == "drift":
                self._run_loop(now)
            elif now > self.start and _due(self.regime.schedule, now, step):
                self._retrain(now, None)
            now += step

    def _run_calendar(self) -> None:
        calendar = self.monitoring.calendar
        assert calendar is not None
        for now in calendar.between(self.start, self.end):
            self.facts = replace(self.facts, asked=asked_by_calendar(calendar.schedule, now))
            self._take_actions(now, _NO_POLICY)

    # One retrain.

    def _retrain(self, now: datetime, episode: int | None) -> AttemptOutcome:
        open_ = self.log.open
        challenger = self.trainings.at(now, (open_.changed_by or "") if open_ is not None else "")
        self.challenger = challenger
        verdict = self.trainings.verdict(challenger, self.served.model, f"champion {self.served.label}")
        outcome = _OUTCOMES[verdict.outcome]
        reason = verdict.reason
        if challenger.digest == self.served.model.digest:
            label = self.served.label
        else:
            self.versions += 1
            label = f"v{self.versions}"
            if outcome != "promoted" and not self.regime.gated:
                outcome, reason = "promoted", f"not gated, the gate would say {verdict.outcome}: {reason}"
            if outcome == "promoted":
                self._answered_until(now)
                self.served = _Served(label, challenger, now)
        at = now.isoformat()
        self.retrains.append(
            Retrain(
                at,
                label,
                outcome,
                reason,
                challenger.data_until.isoformat(),
                episode,
                judged_at=at,
                digest=challenger.digest,
            )
        )
        self.report(f"{self.regime.name} {now:%Y-%m-%d}: {label} {outcome}")
        return outcome

    def _judge_again(self, now: datetime) -> AttemptOutcome:
        """The newest challenger once more, on the rows that have become known since too."""
        newest, served = self.retrains[-1], self.served
        look = newest.looks + 1
        verdict = self.trainings.verdict(
            self.challenger, served.model, f"champion {served.label}", look=look, now=now
        )
        outcome = _OUTCOMES[verdict.outcome]
        self.retrains[-1] = replace(
            newest, outcome=outcome, reason=verdict.reason, looks=look, judged_at=now.isoformat()
        )
        if outcome == "promoted":
            self._answered_until(now)
            self.served = _Served(newest.version, self.challenger, now)
        self.report(f"{self.regime.name} {now:%Y-%m-%d}: {newest.version} {outcome} at look {look}")
        return outcome

    def _answered_until(self, now: datetime) -> None:
        rows = self.history.between(self.served.since, now)
        if rows.stop > rows.start:
            self.answered.append((rows, self.served.model))

    # The loop at one moment.

    def _run_loop(self, now: datetime) -> None:
        self._measure(now)
        verdict = self._drift_verdict(now)
        # The reason changes with every day that data ages, so signals tell whether a verdict is new.
        signals = (verdict.version, *((one.name, one.action, one.agreeing) for one in verdict.signals))
        if signals != self.newest_signals:
            self.newest_signals = signals
            self.decisions.append((now.isoformat(), verdict.action, verdict.reason))
        self._take_actions(now, verdict)

    def _take_actions(self, now: datetime, verdict: DriftVerdict) -> None:
        for _ in range(_ACTIONS_AT_ONCE):
            facts = replace(
                self.facts,
                served=self.served.label,
                data=self._newest_data(now),
                served_data=self.served.model.data_until.isoformat(),
            )
            action = next_action(self.log, verdict, facts, self._rules, now)
            self.log = action.log
            if action.kind in ("wait", "reconcile"):
                return
            if action.answers_person:
                self.facts = replace(self.facts, asked=None)
            if action.kind == "refuse":
                self.decisions.append((now.isoformat(), "refuse", action.reason))
                self.report(f"{self.regime.name} {now:%Y-%m-%d}: {action.reason}")
            if action.kind == "open" and action.episode is not None:
                self.delays[action.episode] = self._delay(verdict, now)
                self.report(f"{self.regime.name} {now:%Y-%m-%d}: episode {action.episode}: {verdict.reason}")
            if action.kind in ("grant", "judge"):
                before = self.served.label
                granted = action.kind == "grant"
                outcome = self._retrain(now, action.episode) if granted else self._judge_again(now)
                self.facts = replace(
                    self.facts,
                    attempt=AttemptFacts(
                        outcome=outcome,
                        reason=self.retrains[-1].reason,
                        version=self.retrains[-1].version,
                        ended_at=now,
                    ),
                )
                if self.served.label != before and self.regime.schedule == "drift":
                    # The windows of the old version say nothing about the new one, which has none yet.
                    verdict = self._drift_verdict(now)
        raise RuntimeError(f"the loop at {now.isoformat()} did not end: {action.kind}, {action.reason}")

    def _newest_data(self, now: datetime) -> str | None:
        # Written as a model's own newest data is: a retrain on the same rows would make the same model.
        history = self.history
        known = history.times[history.known(now) & ~np.isnan(history.target)]
        return as_datetime(known[-1]).isoformat() if len(known) else None

    def _drift_verdict(self, now: datetime) -> DriftVerdict:
        served, limit = self.served, self.monitoring.max_data_age
        return drift_verdict(
            self.monitoring.policy,
            [served.drift[key] for key in sorted(served.drift)],
            self._performance(),
            held_out=timedelta(days=self.trainings.recipe.evaluation_window_days),
            data_age=DataAge(served.label, now - served.model.trained_until, limit, now),
        )

    def _performance(self) -> list[WindowPerformance]:
        """The windows of the version that answers, with the evidence that added up in them."""
        served = self.served
        if served.evidence is not None:
            return served.evidence
        test = LastingLossTest.declared(
            self.monitoring.policy,
            self.history.task,
            self.trainings.reference(served.model).performance,
            self.monitoring.window,
        )
        windows = [served.performance[key] for key in sorted(served.performance)]
        served.evidence = with_lasting_loss(windows, test)
        return served.evidence

    def _delay(self, verdict: DriftVerdict, now: datetime) -> float | None:
        shown = [
            datetime.fromisoformat(one.evidence_since)
            - (timedelta(0) if one.name == "age" else self.monitoring.window)
            for one in verdict.signals
            if one.action == "open" and one.evidence_since
        ]
        return (now - max(min(shown), self.served.since)) / timedelta(days=1) if shown else None

    # Measurements.

    def _measure(self, now: datetime) -> None:
        for window in ended_windows(self.served.since, now, self.monitoring.window):
            if window.key not in self.served.measured:
                self._measure_window(window, now)

    def _measure_window(self, window: Window, now: datetime) -> None:
        served, history, policy = self.served, self.history, self.monitoring.policy
        rows = history.between(max(window.start, served.since), window.end)
        known = np.asarray(history.known(now)[rows])
        target = np.where(known, history.target[rows], np.nan)
        answers, labelled = rows.stop - rows.start, int((~np.isnan(target)).sum())
        state = label_state(
            end=window.end,
            now=now,
            answers=answers,
            with_keys=answers,
            labelled=labelled,
            watermark=self.monitoring.watermark,
        )
        waiting = state.status == "waiting"
        if waiting and window.key in served.drift:
            return
        start, end = window.start.isoformat(), window.end.isoformat()
        gap = uncovered(window, *self._ends(rows)) if answers else None
        if gap is not None:
            served.drift[window.key] = WindowDrift(start, end, served.label, answers, False, gap)
            served.measured.add(window.key)
            return
        scores = self.trainings.scores(served.model, rows) if answers else self._no_scores()
        part = history.frame.iloc[rows].reset_index(drop=True)
        reference = self.trainings.reference(served.model)
        served.drift[window.key] = assess_window(
            reference,
            window,
            Answers(
                part[[spec.name for spec in served.model.package.manifest.features]],
                scores,
                None if waiting else target,
            ),
            version=served.label,
            test=DriftTest(policy.levels(self.monitoring.window), self.monitoring.min_rows),
        )
        served.evidence = None
        served.performance[window.key] = window_performance(
            self._joined(part, scores, known),
            window,
            version=served.label,
            variant="champion",
            now=now,
            test=PerformanceTest(
                history.task,
                history.classes,
                self.monitoring.watermark,
                policy.level(self.monitoring.window),
                reference.performance,
                policy.performance.metric,
                baseline=reference.baseline,
            ),
        )
        if not waiting:
            served.measured.add(window.key)

    def _ends(self, rows: slice) -> tuple[datetime, datetime]:
        """Times of the first and the last of these rows."""
        times = self.history.times
        return as_datetime(times[rows.start]), as_datetime(times[rows.stop - 1])

    def _joined(self, part: "pd.DataFrame", scores: Array, known: NDArray[np.bool_]) -> "pd.DataFrame":
        """The rows as ``labels.join_labels`` would give them at that moment."""
        import pandas as pd

        answered: dict[str, Any] = {
            "at": part[self.history.event_timestamp],
            LABEL: part[LABEL].where(known),
            HAS_KEYS: True,
        }
        answered["score" if scores.ndim == 1 else "scores"] = scores if scores.ndim == 1 else list(scores)
        return pd.DataFrame(answered, index=part.index)

    def _no_scores(self) -> Array:
        classes = len(self.history.classes or ())
        return np.empty((0, classes)) if self.history.task == "multiclass" else np.empty(0)

    # The result.

    def _result(self) -> RegimeReplay:
        history = self.history
        rows = slice(self.answered[0][0].start, self.answered[-1][0].stop)
        scores = np.concatenate([self.trainings.scores(model, part) for part, model in self.answered])
        ages = np.concatenate(
            [
                (history.times[part] - as_numpy(model.trained_until)) / np.timedelta64(1, "D")
                for part, model in self.answered
            ]
        )

        def period(start: datetime, end: datetime) -> Period:
            part = history.between(max(start, self.start), min(end, self.end))
            target = history.target[part]
            labelled = ~np.isnan(target)
            answers = scores[part.start - rows.start : part.stop - rows.start]
            return Period(
                start=max(start, self.start).isoformat(),
                end=min(end, self.end).isoformat(),
                answers=len(target),
                labelled=int(labelled.sum()),
                metrics=metric_values(history.task, target[labelled], answers[labelled]),
            )

        windows = ended_windows(self.start, self.end + self.monitoring.window, self.monitoring.window)
        return RegimeReplay(
            regime=self.regime.name,
            windows=tuple(period(one.start, one.end) for one in windows if one.start < self.end),
            months=tuple(period(*month) for month in _months(self.start, self.end)),
            retrains=tuple(self.retrains),
            episodes=tuple(
                ReplayedEpisode(
                    number=one.number,
                    version=one.version,
                    opened_at=one.opened_at,
                    closed_at=one.closed_at,
                    reason=one.reason,
                    attempts=len(one.attempts),
                    delay_days=self.delays.get(one.number),
                    asked_by=one.asked_by,
                )
                for one in self.log.episodes
            ),
            decisions=tuple(self.decisions),
            data_age_days=float(ages.mean()),
        )


def _due(schedule: Schedule, now: datetime, step: timedelta) -> bool:
    """Whether a calendar asks for a retrain between the moment before and now."""
    now, before = now.astimezone(UTC), (now - step).astimezone(UTC)
    if schedule == "monthly":
        return (now.year, now.month) != (before.year, before.month)
    if schedule in ("weekly", "four_weekly"):
        length = timedelta(weeks=1 if schedule == "weekly" else 4)
        return window_of(now, length) != window_of(before, length)
    return False


def _months(start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Calendar months (UTC) that overlap the time from ``start`` to ``end``."""
    first = start.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    months = []
    while first < end:
        following = (first + timedelta(days=32)).replace(day=1)
        months.append((first, following))
        first = following
    return months
