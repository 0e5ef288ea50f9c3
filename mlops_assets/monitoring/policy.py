"""Which signals only warn, which open an episode, and how many windows have to agree. Pure.

Belongs here: the declared policy and its verdict on windows that were measured. Does not belong here:
measuring them (``drift.py``, ``performance.py``), whether a retrain may start (``governor.py``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from math import comb
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mlops_assets.errors import DataError, UnknownName
from mlops_assets.evaluation.metrics import METRICS
from mlops_assets.monitoring.windows import YEAR

if TYPE_CHECKING:
    from mlops_assets.monitoring.findings import Role, WindowDrift, WindowPerformance

RuleAction = Literal["warn", "open", "ignore"]
ProxyAction = Literal["warn", "open", "open_unlabelled", "ignore"]
AgeAction = Literal["refresh", "warn", "open", "ignore"]
SignalAction = Literal["quiet", "warn", "refresh", "open", "inconclusive"]
SignalName = Literal["features", "labels", "prediction", "performance", "unlearned", "age"]

SCORES_KEPT = 20
LARGEST_SCORE = 1e9
"""A threshold of zero makes a score infinite, and JSON has no infinity."""


LARGEST_LEVEL = 0.2
"""However many false alarms are declared: what shows in every fifth window by chance tells nothing."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WindowsRule(_Document):
    """How many of the newest judged windows have to show a signal."""

    windows: int = Field(default=2, ge=1, description="So many windows have to show it ...")
    of: int = Field(default=3, ge=1, le=52, description="... among so many of the newest judged ones.")

    @model_validator(mode="after")
    def _can_agree(self) -> Self:
        if self.windows > self.of:
            raise ValueError(f"windows {self.windows} of {self.of} can never agree: windows must be <= of")
        return self

    def level(self, false_alarms_per_year: float, window: timedelta) -> float:
        """The chance at which one window may show the signal, so that the rule has that rate.

        The newest window shows it by chance, and so do ``windows - 1`` of the ``of - 1`` before it: in a year
        of W windows that happens at most W · C(of - 1, windows - 1) · level^windows times.
        """
        ways = YEAR / window * comb(self.of - 1, self.windows - 1)
        return min(float((false_alarms_per_year / ways) ** (1 / self.windows)), LARGEST_LEVEL)


class SignalRule(WindowsRule):
    """What a signal of so many windows leads to."""

    action: RuleAction = Field(
        default="warn", description="warn: said and shown; open: opens an episode; ignore: nothing."
    )


class PredictionRule(WindowsRule):
    """What drifted predictions lead to."""

    action: ProxyAction = Field(
        default="open_unlabelled",
        description="warn: said and shown; open: opens an episode; open_unlabelled: opens one unless "
        "labels of the same window show that nothing was lost, and warns then; ignore: nothing.",
    )


class PerformanceRule(_Document):
    """The rule on labelled performance. Its evidence adds up over days, so no windows have to agree."""

    action: RuleAction = Field(
        default="open", description="warn: said and shown; open: opens an episode; ignore: nothing."
    )
    metric: str | None = Field(
        default=None,
        description="Metric whose days are held to those before; default: for classes the skill that answers "
        "promise and do not keep, and their level; for numbers rmse and bias.",
    )
    min_loss: float = Field(
        default=0.0, ge=0, description="Loss that is tolerated, in the units of what shows it."
    )

    @model_validator(mode="before")
    @classmethod
    def _adds_up(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for name in ("windows", "of"):
                if name in values:
                    raise ValueError(
                        f"performance has no {name}: evidence adds up over days, and "
                        "policy.false_alarms_per_year says how much is needed. Remove the field"
                    )
        return values

    @field_validator("metric")
    @classmethod
    def _metric_exists(cls, value: str | None) -> str | None:
        if value is not None and value not in METRICS:
            raise ValueError(str(UnknownName("metric", value, METRICS)))
        return value


class UnlearnedRule(_Document):
    """The rule on values that the model cannot have learned from: its training rows held none of them."""

    action: RuleAction = Field(
        default="open",
        description="warn: said and shown; open: opens an episode once there are enough rows to learn from; "
        "ignore: nothing.",
    )
    min_share: float = Field(
        default=0.05, gt=0, le=1, description="So much of a window's answers, in one column, is worth a word."
    )
    min_rows: int = Field(
        default=500, ge=1, description="So many labelled answers with such values a retrain can learn from."
    )


class AgeRule(_Document):
    """The rule on the age of the data that the served version was trained on."""

    action: AgeAction = Field(
        default="refresh",
        description="Past the monitor's max_data_age. refresh: a retrain is granted, unless one was within "
        "that time, and no episode opens; warn: said and shown; open: opens an episode, which retrains as "
        "often until a candidate passes the gate; ignore: nothing.",
    )


class DriftPolicy(_Document):
    """``policy:`` of a monitor in YAML."""

    false_alarms_per_year: float = Field(
        default=0.5,
        gt=0,
        le=20,
        description="So often a year, at most, each signal may show although nothing changed.",
    )
    features: SignalRule = SignalRule(action="warn")
    labels: SignalRule = SignalRule(action="warn")
    prediction: PredictionRule = PredictionRule()
    performance: PerformanceRule = PerformanceRule()
    unlearned: UnlearnedRule = UnlearnedRule()
    age: AgeRule = AgeRule()

    @model_validator(mode="before")
    @classmethod
    def _rate_is_per_year(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "false_alarm_rate" in values:
            raise ValueError(
                "false_alarm_rate was per window; declare false_alarms_per_year, which holds for each signal "
                "whatever its windows (default 0.5)"
            )
        return values

    def levels(self, window: timedelta) -> "dict[Role, float]":
        """By role, the chance at which one window of that length may show drift."""
        rules: dict[Role, WindowsRule] = {
            "feature": self.features,
            "label": self.labels,
            "prediction": self.prediction,
        }
        return {role: rule.level(self.false_alarms_per_year, window) for role, rule in rules.items()}

    def level(self, window: timedelta) -> float:
        """The chance at which one window of that length may prove a loss by itself."""
        return min(self.false_alarms_per_year / (YEAR / window), LARGEST_LEVEL)


@dataclass(frozen=True)
class DataAge:
    """How old the newest training row of ``version`` is at ``now``, and how old it may be."""

    version: str
    age: timedelta
    limit: timedelta
    now: datetime


@dataclass(frozen=True)
class SignalState:
    """One signal over the newest judged windows.

    ``agreeing`` of ``judged`` windows show it, where ``needed`` of ``of`` have to. ``scores``: of the newest
    judged window: by column, the largest score relative to its threshold (above 1 is drift, at most 1e9); by
    metric, its value, likewise bounded. ``evidence_since``: the end of the oldest window that is needed for
    this many to agree; None unless the signal shows.
    """

    name: SignalName
    action: SignalAction
    agreeing: int
    judged: int
    needed: int
    of: int
    reason: str
    scores: Mapping[str, float] = field(default_factory=dict)
    evidence_since: str | None = None


@dataclass(frozen=True)
class DriftVerdict:
    """What the signals of one version's windows lead to. ``version`` None: there are no windows."""

    action: SignalAction
    reason: str
    version: str | None
    signals: tuple[SignalState, ...] = ()

    @property
    def evidence_since(self) -> str | None:
        """Of the signals that open an episode, the newest ``evidence_since``; None when none does."""
        found = [one.evidence_since for one in self.signals if one.action == "open" and one.evidence_since]
        return max(found, key=datetime.fromisoformat, default=None)

    @property
    def data_is_old(self) -> bool:
        """Whether the age of the data asks for a retrain, whatever else the windows say."""
        return any(one.name == "age" and one.action in ("refresh", "open") for one in self.signals)


def drift_verdict(
    policy: DriftPolicy,
    drift: "Sequence[WindowDrift]",
    performance: "Sequence[WindowPerformance]",
    *,
    data_age: DataAge | None = None,
    held_out: timedelta = timedelta(0),
) -> DriftVerdict:
    """The verdict on windows of one version, oldest first, and on the age of its data where it is known.

    A window that is not judged counts neither way. Of ``performance`` the champion's windows count, with what
    ``with_lasting_loss`` added to them. ``held_out``: how long the newest rows are kept out of training, so
    that a retrain learns nothing from them. The action is the strongest of the signals'; inconclusive only
    while every signal that could open an episode is inconclusive. Raises DataError for windows of several
    versions, or not in order of time.
    """
    champion = [one for one in performance if one.variant == "champion"]
    versions = {one.version for one in drift} | {one.version for one in champion}
    if data_age is not None:
        versions.add(data_age.version)
    if len(versions) > 1:
        raise DataError(
            f"windows of several versions ({', '.join(sorted(versions))}) cannot have one verdict: "
            "drift is relative to what one version was trained on"
        )
    for windows in (drift, champion):
        starts = [datetime.fromisoformat(one.start) for one in windows]
        if any(later <= earlier for earlier, later in pairwise(starts)):
            raise DataError("windows must be given once each, oldest first")
    lost = _performance_signal(policy.performance, champion)
    predictions = _drift_signal("prediction", policy.prediction, "prediction", drift)
    signals = (
        _drift_signal("features", policy.features, "feature", drift),
        _drift_signal("labels", policy.labels, "label", drift),
        _beside_labels(predictions, policy, drift, champion),
        lost,
        _unlearned_signal(policy.unlearned, drift, champion, held_out),
        *([_age_signal(policy.age, data_age)] if data_age is not None else []),
    )
    action, reason = _together(policy, signals)
    return DriftVerdict(action, reason, next(iter(versions), None), signals)


def _together(policy: DriftPolicy, signals: tuple[SignalState, ...]) -> tuple[SignalAction, str]:
    for action in ("open", "refresh", "warn"):
        found = [one.reason for one in signals if one.action == action]
        if found:
            return action, "; ".join(found)
    rules: dict[str, Any] = {one.name: getattr(policy, one.name) for one in signals}
    asked = [one for one in signals if rules[one.name].action != "ignore"]
    # Young data, and values that were all learned from, are no evidence against drift.
    windowed = [one for one in asked if one.name not in ("age", "unlearned")]
    deciding = [one for one in windowed if rules[one.name].action.startswith("open")] or windowed
    if not deciding:
        return "quiet", "every signal is ignored"
    if all(one.action == "inconclusive" for one in deciding):
        return "inconclusive", "; ".join(one.reason for one in deciding)
    ordered = sorted(deciding, key=lambda one: one.action == "inconclusive")
    return "quiet", "; ".join(one.reason for one in ordered)


@dataclass(frozen=True)
class _Window:
    """Whether a judged window shows one signal, and its evidence in words."""

    end: str
    shows: bool
    evidence: str


def _drift_signal(
    name: SignalName, rule: SignalRule | PredictionRule, role: "Role", drift: "Sequence[WindowDrift]"
) -> SignalState:
    windows, scores = [], {}
    for window in drift:
        shows = window.drifted(role)
        if shows is None:
            continue
        columns = sorted(
            (one for one in window.of(role) if one.severity is not None),
            key=lambda one: (-(one.severity or 0.0), one.column),
        )
        scores = {
            one.column: _bounded(one.severity) for one in columns[:SCORES_KEPT] if one.severity is not None
        }
        drifted = [
            f"{one.column} at {one.severity:.1f} times its threshold" for one in columns if one.drifted
        ]
        more = f" and {len(drifted) - 3} more" if len(drifted) > 3 else ""
        windows.append(_Window(window.end, shows, ", ".join(drifted[:3]) + more))
    what = {"feature": "features drifted", "label": "labels drifted", "prediction": "predictions drifted"}
    unknown = drift[-1].reason if drift else "there are no windows"
    return _signal(name, rule, what[role], windows, scores, unknown)


def _beside_labels(
    predictions: SignalState,
    policy: DriftPolicy,
    drift: "Sequence[WindowDrift]",
    performance: "Sequence[WindowPerformance]",
) -> SignalState:
    """Drifted predictions in the light of labels: where those show no loss, the world moved and the model
    with it. Labels that may still come are awaited.
    """
    showing = [one for one in drift if one.drifted("prediction")]
    if predictions.action != "open" or policy.prediction.action != "open_unlabelled" or not showing:
        return predictions
    if policy.performance.action == "ignore" or not performance:
        return predictions
    labelled = {one.start: one for one in performance}.get(showing[-1].start)
    if labelled is None or labelled.status == "waiting":
        return replace(
            predictions, action="inconclusive", reason=f"{predictions.reason}; labels are awaited to tell why"
        )
    if labelled.status == "judged" and labelled.loss is not None:
        return replace(
            predictions, action="warn", reason=f"{predictions.reason}; labels of these windows decide"
        )
    return replace(predictions, reason=f"{predictions.reason}; labels cannot tell: {labelled.reason}")


def _performance_signal(rule: PerformanceRule, performance: "Sequence[WindowPerformance]") -> SignalState:
    judged = [one for one in performance if one.status == "judged"]
    if not judged:
        unknown = performance[-1].reason if performance else "there are no windows"
        reason = "performance is ignored" if rule.action == "ignore" else f"no window is judged: {unknown}"
        quiet: SignalAction = "quiet" if rule.action == "ignore" else "inconclusive"
        return SignalState("performance", quiet, 0, 0, 1, 1, reason)
    newest = judged[-1]
    found = _losses(rule, newest)
    scores = {} if newest.value is None else {newest.metric: _bounded(newest.value)}
    action: SignalAction = "quiet"
    if rule.action == "ignore":
        reason = "performance is ignored"
    elif found:
        action, reason = rule.action, "; ".join(text for text, _ in found)
    elif newest.accumulated is None and newest.below_baseline is None:
        action, reason = "inconclusive", f"performance has nothing to be compared with: {newest.reason}"
    elif newest.loss_low is not None and newest.loss_low > rule.min_loss:
        # A season of harder rows looks the same, so it takes more than one window to open an episode.
        action = "warn"
        reason = f"performance fell in the newest window alone: {newest.reason}; {newest.accumulated_reason}"
    else:
        reason = f"performance holds: {newest.accumulated_reason or newest.reason}"
    since = max((end for _, end in found), key=datetime.fromisoformat, default=None)
    return SignalState(
        "performance", action, int(bool(found)), len(judged), 1, 1, reason, scores, since if found else None
    )


def _losses(rule: PerformanceRule, newest: "WindowPerformance") -> list[tuple[str, str]]:
    """What the newest judged window proves, each in words and with the end of the oldest window needed."""
    found = []
    if newest.below_baseline is not None and newest.below_baseline > 0:
        proven = f"at least {newest.below_baseline:.4f} worse"
        found.append((f"answers are worse than the baseline: {newest.baseline}, {proven}", newest.end))
    lasting = newest.accumulated_loss is not None and newest.accumulated_loss > rule.min_loss
    if lasting and newest.accumulated_since is not None:
        found.append((f"performance fell: {newest.accumulated_reason}", newest.accumulated_since))
    return found


def _unlearned_signal(
    rule: UnlearnedRule,
    drift: "Sequence[WindowDrift]",
    performance: "Sequence[WindowPerformance]",
    held_out: timedelta,
) -> SignalState:
    """Columns of the newest judged window with values that the model was not trained on."""
    judged = [one for one in drift if one.judged]
    if rule.action == "ignore" or not judged:
        reason = "unlearned is ignored" if rule.action == "ignore" else "no window is judged"
        return SignalState("unlearned", "quiet", 0, len(judged), 1, 1, reason)
    newest = judged[-1]
    shares = {
        one.column: one.unlearned for one in newest.of("feature") if (one.unlearned or 0.0) >= rule.min_share
    }
    if not shares:
        return SignalState("unlearned", "quiet", 0, len(judged), 1, 1, "the model was trained on such values")
    worst = max(shares, key=lambda name: shares[name] or 0.0)
    until = datetime.fromisoformat(newest.end) - held_out
    labelled = {one.start: one.share for one in performance if one.status == "judged"}
    rows, since = 0.0, newest.end
    for window in judged:
        share = max(
            (one.unlearned or 0.0 for one in window.of("feature") if one.column in shares), default=0.0
        )
        if share >= rule.min_share and datetime.fromisoformat(window.end) <= until:
            rows += window.rows * share * labelled.get(window.start, 0.0)
            if rows >= rule.min_rows:
                since = window.end
                break
    columns = ", ".join(sorted(shares, key=lambda name: (-(shares[name] or 0.0), name))[:3])
    more = f" and {len(shares) - 3} more" if len(shares) > 3 else ""
    reason = (
        f"the model cannot have learned from {columns}{more}: {shares[worst]:.0%} of the answers have "
        f"values of {worst} that its training rows did not have"
    )
    enough = rows >= rule.min_rows
    action: SignalAction = rule.action if enough else "warn"
    if not enough:
        reason += f"; {rows:,.0f} labelled answers to learn from, {rule.min_rows:,} are needed"
    scores = {name: share for name, share in shares.items() if share is not None}
    return SignalState("unlearned", action, 1, len(judged), 1, 1, reason, scores, since if enough else None)


def _bounded(score: float) -> float:
    return min(max(score, -LARGEST_SCORE), LARGEST_SCORE)


def _age_signal(rule: AgeRule, found: DataAge) -> SignalState:
    days, limit = found.age / timedelta(days=1), found.limit / timedelta(days=1)
    old = found.age > found.limit
    action: SignalAction = rule.action if old and rule.action != "ignore" else "quiet"
    reason = f"the newest training row of {found.version} is {days:.1f} days old, {limit:g} are allowed"
    return SignalState(
        name="age",
        action=action,
        agreeing=int(old),
        judged=1,
        needed=1,
        of=1,
        reason="age is ignored" if rule.action == "ignore" else reason,
        scores={"days": days},
        evidence_since=(found.now - (found.age - found.limit)).isoformat() if old else None,
    )


def _signal(
    name: SignalName,
    rule: SignalRule | PredictionRule,
    what: str,
    judged: list[_Window],
    scores: Mapping[str, float],
    unknown: str,
) -> SignalState:
    newest = judged[-rule.of :]
    showing = [window for window in newest if window.shows]
    action: SignalAction = "quiet"
    since = None
    counted = f"{what} in {len(showing)} of {len(newest)} judged windows"
    if rule.action == "ignore":
        reason = f"{name} is ignored"
    elif len(showing) >= rule.windows:
        # Whether labels are there to tell is decided after this.
        action = "open" if rule.action == "open_unlabelled" else rule.action
        since = showing[-rule.windows].end
        reason = f"{counted} ({showing[-1].evidence})"
    elif len(showing) + rule.of - len(newest) >= rule.windows:
        action = "inconclusive"
        reason = f"{counted}, {rule.windows} of {rule.of} decide" + ("" if newest else f": {unknown}")
    else:
        reason = f"{counted}, {rule.windows} of {rule.of} decide"
    return SignalState(name, action, len(showing), len(newest), rule.windows, rule.of, reason, scores, since)
