"""Which signals only warn, which open an episode, and how many windows have to agree. Pure.

Belongs here: the declared policy and its verdict on windows that were measured. Does not belong here:
measuring them (``drift.py``, ``performance.py``), whether a retrain may start (``governor.py``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mlops_assets.errors import DataError, UnknownName
from mlops_assets.evaluation.metrics import METRICS

if TYPE_CHECKING:
    from mlops_assets.monitoring.findings import Role, WindowDrift, WindowPerformance

RuleAction = Literal["warn", "open", "ignore"]
SignalAction = Literal["quiet", "warn", "open", "inconclusive"]
SignalName = Literal["features", "labels", "prediction", "performance", "age"]

SCORES_KEPT = 20
LARGEST_SCORE = 1e9
"""A threshold of zero makes a score infinite, and JSON has no infinity."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SignalRule(_Document):
    """What a signal leads to, and how many of the newest judged windows have to show it."""

    action: RuleAction = Field(
        default="warn", description="warn: said and shown; open: opens an episode; ignore: nothing."
    )
    windows: int = Field(default=2, ge=1, description="So many windows have to show it ...")
    of: int = Field(default=3, ge=1, le=52, description="... among so many of the newest judged ones.")

    @model_validator(mode="after")
    def _can_agree(self) -> "SignalRule":
        if self.windows > self.of:
            raise ValueError(f"windows {self.windows} of {self.of} can never agree: windows must be <= of")
        return self


class PerformanceRule(SignalRule):
    """The rule on labelled performance."""

    action: RuleAction = Field(
        default="open", description="warn: said and shown; open: opens an episode; ignore: nothing."
    )
    metric: str | None = Field(
        default=None,
        description="Metric that is held to the reference; default: skill for classes and rmse for numbers, "
        "together with bias.",
    )
    min_loss: float = Field(
        default=0.0, ge=0, description="Proven loss that is tolerated, in the metric's units."
    )

    @field_validator("metric")
    @classmethod
    def _metric_exists(cls, value: str | None) -> str | None:
        if value is not None and value not in METRICS:
            raise ValueError(str(UnknownName("metric", value, METRICS)))
        return value


class AgeRule(_Document):
    """The rule on the age of the data that the served version was trained on."""

    action: RuleAction = Field(
        default="warn",
        description="Past the monitor's max_data_age. warn: said and shown; open: opens an episode, so that "
        "the model is retrained at least that often; ignore: nothing.",
    )


class DriftPolicy(_Document):
    """``policy:`` of a monitor in YAML."""

    false_alarm_rate: float = Field(
        default=0.01,
        gt=0,
        le=0.2,
        description="Probability per window that a signal shows although nothing changed, over all columns "
        "of its kind together.",
    )
    features: SignalRule = SignalRule(action="warn")
    labels: SignalRule = SignalRule(action="warn")
    prediction: SignalRule = SignalRule(action="open")
    performance: PerformanceRule = PerformanceRule()
    age: AgeRule = AgeRule()


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


def drift_verdict(
    policy: DriftPolicy,
    drift: "Sequence[WindowDrift]",
    performance: "Sequence[WindowPerformance]",
    *,
    data_age: DataAge | None = None,
) -> DriftVerdict:
    """The verdict on windows of one version, oldest first, and on the age of its data where it is known.

    A window that is not judged counts neither way. Of ``performance`` the champion's windows count. The
    action is the strongest of the signals'; inconclusive only while every signal that could open an episode
    is inconclusive. Raises DataError for windows of several versions, or not in order of time.
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
    signals = (
        _drift_signal("features", policy.features, "feature", drift),
        _drift_signal("labels", policy.labels, "label", drift),
        _drift_signal("prediction", policy.prediction, "prediction", drift),
        _performance_signal(policy.performance, champion),
        *([_age_signal(policy.age, data_age)] if data_age is not None else []),
    )
    action, reason = _together(policy, signals)
    return DriftVerdict(action, reason, next(iter(versions), None), signals)


def _together(policy: DriftPolicy, signals: tuple[SignalState, ...]) -> tuple[SignalAction, str]:
    for action in ("open", "warn"):
        found = [one.reason for one in signals if one.action == action]
        if found:
            return action, "; ".join(found)
    rules: dict[str, SignalRule | AgeRule] = {one.name: getattr(policy, one.name) for one in signals}
    asked = [one for one in signals if rules[one.name].action != "ignore"]
    # Young data is no evidence against drift.
    windowed = [one for one in asked if one.name != "age"]
    deciding = [one for one in windowed if rules[one.name].action == "open"] or windowed
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
    name: SignalName, rule: SignalRule, role: "Role", drift: "Sequence[WindowDrift]"
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


def _performance_signal(rule: PerformanceRule, performance: "Sequence[WindowPerformance]") -> SignalState:
    windows, scores, unknown = [], {}, "there are no windows"
    for window in performance:
        unknown = window.reason
        if window.status != "judged" or window.loss_low is None:
            continue
        shows = window.loss_low > rule.min_loss
        evidence = f"{window.metric} worse by {window.loss:.4f}, at least {window.loss_low:.4f}"
        windows.append(_Window(window.end, shows, evidence))
        scores = {} if window.value is None else {window.metric: _bounded(window.value)}
    return _signal("performance", rule, "performance was lost", windows, scores, unknown)


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
    rule: SignalRule,
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
        action, since = rule.action, showing[-rule.windows].end
        reason = f"{counted} ({showing[-1].evidence})"
    elif len(showing) + rule.of - len(newest) >= rule.windows:
        action = "inconclusive"
        reason = f"{counted}, {rule.windows} of {rule.of} decide" + ("" if newest else f": {unknown}")
    else:
        reason = f"{counted}, {rule.windows} of {rule.of} decide"
    return SignalState(name, action, len(showing), len(newest), rule.windows, rule.of, reason, scores, since)
