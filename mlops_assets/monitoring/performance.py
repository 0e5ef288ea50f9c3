"""How good a version's answers were, once labels came, and how much worse than the reference. Pure.

Belongs here: metrics of a window with intervals, the loss against the reference, slices. Does not belong
here: when a window may be judged (``labels.py``), losses for a rollout's ``quality`` (``losses.py``), what a
loss leads to (``policy.py``), the formulas of the metrics (``evaluation/metrics/``).

Which metrics are compared with the reference, and why. A log loss or Brier score moves with the base rate
whatever the model does (13 % to 33 % of flights are late, by month: .36 to .62 for the *same* knowledge), so
it cannot be compared between windows. AUC can, but sees ranking only: a model that says 10 % where 20 %
happen has the same AUC. Skill, one minus log loss over the entropy of the window's own base rate, can be
compared and sees both: a planted loss of 3 points of AUC is found as often as by AUC itself. But a wrong
level costs skill only with its square, so a shift of 5 points, which the mean of every window shows, hides
in the noise of skill. So by default two metrics are compared, each at half the level: ``skill``, and ``bias``
(the level of answers). For numbers ``rmse`` and ``bias``; for several classes ``skill``.

Skill is not free of the base rate: for equal knowledge it is .008 lower at 13 % than at 22 %, which a large
window can take for a loss. A week that is hard for every model is a loss to all of these metrics. So windows
show them, and what evidence of a lasting loss is made of is free of both (``day_measures.py``).

Intervals leave out whole days (``evaluation/jackknife.py``), because rows of one day share what happened that
day. A window of fewer than 5 days has too few for that: its rows are dealt into groups, which takes them as
independent, and the interval is too narrow where they are not.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from mlops_assets.errors import DataError
from mlops_assets.evaluation.baseline import constant_scores
from mlops_assets.evaluation.jackknife import (
    MIN_GROUPS,
    dealt,
    error_of,
    pseudo_values,
    standard_error,
    without_each_group,
)
from mlops_assets.evaluation.metrics import Metric, metric_values, metrics_of
from mlops_assets.evaluation.metrics import metric as metric_of
from mlops_assets.monitoring.day_measures import DayMeasure, OfMetric, day_measures
from mlops_assets.monitoring.findings import SliceLoss, Variant, WindowPerformance
from mlops_assets.monitoring.labels import AMBIGUOUS, HAS_KEYS, LABEL, Watermark, label_codes, label_state
from mlops_assets.monitoring.windows import Window
from serve.schema import Task

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Days = NDArray[np.int64]

MONITORED: Mapping[Task, tuple[str, ...]] = {
    "binary": ("skill", "bias"),
    "multiclass": ("skill",),
    "regression": ("rmse", "bias"),
}
"""Metrics that are compared with the reference unless one is declared; without a loss the first is shown."""

BASELINE_LOSS: Mapping[Task, str] = {"binary": "log_loss", "multiclass": "log_loss", "regression": "rmse"}
"""The loss in which answers and baseline are compared on the same rows."""

CONFIDENCE = 0.95
MAX_SLICE_VALUES = 20
MIN_SLICE_ROWS = 50


class PerformanceReference(BaseModel):
    """One metric on rows that the model was not trained on, which later windows are compared with.

    ``standard_error`` is the jackknife's over ``groups`` groups; None when there are too few of them.
    ``days``: what each day says of the metric, in order of time; () where rows have no days.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str
    value: float
    standard_error: float | None
    groups: int
    rows: int
    days: tuple[float, ...] = ()


def performance_references(
    task: Task, target: Array, scores: Array, groups: Days | None, baseline: Sequence[float] = ()
) -> tuple[PerformanceReference, ...]:
    """One reference per metric of the task, and per measure of a day; () for no rows.

    Each is there when it is defined on these rows. ``groups``: day numbers of the rows, which vary together;
    None: rows are independent. ``baseline``: what the baseline answers; () where it is not known.
    """
    found = []
    measures: dict[str, DayMeasure] = {one.name: OfMetric(one) for one in metrics_of(task)}
    measures |= {one.name: one for one in day_measures(task, None, baseline)}
    for name, measure in measures.items():
        estimate = _estimate(measure, target, scores, groups)
        if estimate is not None:
            found.append(
                PerformanceReference(
                    metric=name,
                    value=estimate.value,
                    standard_error=estimate.error,
                    groups=estimate.groups,
                    rows=len(target),
                    days=estimate.days,
                )
            )
    return tuple(found)


@dataclass(frozen=True)
class PerformanceTest:
    """How the performance of a version is compared with its reference.

    ``level``: the probability that ``loss_low`` lies above zero although nothing was lost; several metrics
    share it. ``metric`` None: ``MONITORED`` of the task, and the finding names the one whose loss is proven
    the most. ``references`` are those of the version; without one there is no loss. ``slices``: columns by
    whose values the metric is shown too. ``baseline``: what the baseline of the version says of every row
    (one number, or one per class); () where it is not known, and then nothing is compared with it.
    """

    task: Task
    classes: Sequence[str] | None
    watermark: Watermark
    level: float
    references: Sequence[PerformanceReference] = ()
    metric: str | None = None
    slices: Sequence[str] = ()
    baseline: Sequence[float] = ()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The compared metrics; UnknownName for a metric that the task does not have."""
        names = MONITORED[self.task] if self.metric is None else (self.metric,)
        return tuple(metric_of(name, self.task) for name in names)

    def below_baseline(self, target: Array, scores: Array, days: Days) -> "_BelowBaseline | None":
        """How the answers compare with the baseline on these rows; None where that is not known."""
        if not self.baseline:
            return None
        return _below_baseline(self.task, target, scores, days, self.baseline, self.level)

    def days(self, target: Array, scores: Array, days: Days) -> dict[str, tuple[float, ...]]:
        """What each day of these rows says, by measure, in order of time."""
        measures = day_measures(self.task, self.metric, self.baseline)
        found = {one.name: _estimate(one, target, scores, days) for one in measures}
        return {name: estimate.days for name, estimate in found.items() if estimate is not None}

    def losses(self, target: Array, scores: Array, days: Days) -> "list[_Loss]":
        """The loss of each compared metric on these rows."""
        by_name, metrics = {one.metric: one for one in self.references}, self.metrics
        level = self.level / len(metrics)
        return [_loss(one, target, scores, days, by_name.get(one.name), level) for one in metrics]


def window_performance(
    joined: "pd.DataFrame",
    window: Window,
    *,
    version: str,
    variant: Variant,
    now: datetime,
    test: PerformanceTest,
) -> WindowPerformance:
    """The performance of one version in one window.

    ``joined`` comes from ``join_labels``: rows of this window, version and variant, with ``at`` (times with
    a zone), ``score`` (for several classes ``scores``, a list or its JSON text per row), ``label``,
    ``has_keys``, and for slices a column each or ``features`` (JSON text); a row that lacks a slice's value
    is in the slice "(missing)". A label that the task cannot use, or that is ambiguous, counts as missing,
    and the reason says how many there were. ``variant``: the log's "stable" is the champion.

    Raises UnknownName for a metric that the task does not have, DataError for a slice in a frame without
    that column and without ``features``.
    """
    first, task, classes = test.metrics[0], test.task, test.classes
    every_score, scored = scores_of_answers(joined, task, len(classes) if classes else None)
    codes = label_codes(joined[LABEL], task=task, classes=classes)
    labelled = ~np.isnan(codes) & scored
    unusable = _unusable(joined, codes)
    state = label_state(
        end=window.end,
        now=now,
        answers=len(joined),
        with_keys=int(joined[HAS_KEYS].sum()),
        labelled=int(labelled.sum()),
        watermark=test.watermark,
    )

    def finding(reason: str, **measured: Any) -> WindowPerformance:
        return WindowPerformance(
            start=window.start.isoformat(),
            end=window.end.isoformat(),
            version=version,
            variant=variant,
            answers=len(joined),
            labelled=int(labelled.sum()),
            share=state.share,
            status=state.status,
            reason=reason + unusable,
            **measured,
        )

    if state.status != "judged":
        return finding(state.reason, metric=first.name)
    rows = joined.loc[labelled]
    target, scores, days = codes[labelled], every_score[labelled], _days(rows)
    losses = test.losses(target, scores, days)
    proven = [one for one in losses if one.low is not None and one.low > 0]
    shown = max(proven, key=lambda one: one.low or 0.0) if proven else losses[0]
    own, below = shown.estimate, test.below_baseline(target, scores, days)
    reach = None if own is None or own.error is None else own.error * _quantile(own.groups - 1)
    return finding(
        "; ".join(
            part for part in (shown.in_words(), below.in_words() if below else "", state.reason) if part
        ),
        metrics=metric_values(task, target, scores),
        metric=shown.metric.name,
        value=None if own is None else own.value,
        low=None if own is None or reach is None else own.value - reach,
        high=None if own is None or reach is None else own.value + reach,
        reference=None if shown.reference is None else shown.reference.value,
        loss=shown.loss,
        loss_low=shown.low,
        slices=_slices(rows, test.slices, first, target, scores, days),
        days=test.days(target, scores, days),
        below_baseline=below.low if below else None,
        baseline=below.comparison if below else "",
    )


# -- against the baseline ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _BelowBaseline:
    """How much worse than the baseline the answers were, in a loss of both; ``low`` bounds it from below."""

    metric: str
    ours: float
    baseline: float
    low: float

    @property
    def comparison(self) -> str:
        return f"{self.metric} {self.ours:.4f} against {self.baseline:.4f} of the baseline"

    def in_words(self) -> str:
        return f"{self.comparison}: worse by at least {self.low:.4f}" if self.low > 0 else ""


def _below_baseline(
    task: Task, target: Array, scores: Array, days: Days, baseline: Sequence[float], level: float
) -> _BelowBaseline | None:
    """Student's t on the differences of whole days; None where a loss is not defined or days are too few."""
    metric = metric_of(BASELINE_LOSS[task], task)
    constant = constant_scores(task, baseline, len(target))
    ours, theirs = metric.value(target, scores), metric.value(target, constant)
    if ours is None or theirs is None:
        return None
    groups = days if len(np.unique(days)) >= MIN_GROUPS else dealt(len(target))

    def worse_by(kept: NDArray[np.bool_]) -> float | None:
        parts = metric.value(target[kept], scores[kept]), metric.value(target[kept], constant[kept])
        return None if parts[0] is None or parts[1] is None else parts[0] - parts[1]

    error, count = standard_error(worse_by, groups)
    if error is None:
        return None
    from scipy.stats import t

    low = ours - theirs - float(t.ppf(1 - level, count - 1)) * error
    return _BelowBaseline(metric.name, ours, theirs, low)


# -- one metric --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Estimate:
    value: float
    error: float | None
    groups: int
    days: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Loss:
    """One metric of a window against its reference; ``low`` bounds ``loss`` from below."""

    metric: Metric
    estimate: _Estimate | None
    reference: PerformanceReference | None
    loss: float | None
    low: float | None
    level: float

    def in_words(self) -> str:
        name = self.metric.name
        if self.estimate is None:
            return f"{name} is not defined on these labels"
        value = f"{name} {self.estimate.value:.4f}"
        if self.reference is None or self.loss is None:
            return f"{value}, without a reference to compare it with"
        versus = f"{value} against {self.reference.value:.4f} of the reference"
        worse = f"{'worse' if self.loss > 0 else 'better'} by {abs(self.loss):.4f}"
        if self.low is None:
            return f"{versus}, {worse}, too few groups for an interval"
        bound = f"a loss of at least {self.low:.4f}" if self.low > 0 else "no loss"
        return f"{versus}, {worse}: {bound} is proven at level {self.level:g}"


def _estimate(measure: DayMeasure, target: Array, scores: Array, groups: Days | None) -> _Estimate | None:
    """The measure with its standard error and its days; None where it is not defined.

    Days too few to be told apart are one day.
    """
    signed = measure.value(target, scores)
    if signed is None:
        return None
    value = abs(signed) if measure.two_sided else signed
    by_day = groups is not None and len(np.unique(groups)) >= MIN_GROUPS
    left_out, count = without_each_group(
        lambda kept: measure.value(target[kept], scores[kept]),
        groups if groups is not None and by_day else dealt(len(target)),
    )
    days: tuple[float, ...] = () if groups is None else (signed,)
    if left_out is None:
        return _Estimate(value, None, count, () if by_day else days)
    if by_day:
        days = tuple(float(one) for one in pseudo_values(signed, left_out))
    return _Estimate(value, error_of(np.abs(left_out) if measure.two_sided else left_out), count, days)


def _loss(
    metric: Metric,
    target: Array,
    scores: Array,
    days: Days,
    reference: PerformanceReference | None,
    level: float,
) -> _Loss:
    """Welch's t (1947) on the two jackknife errors, degrees of freedom by Satterthwaite (1946)."""
    own = _estimate(OfMetric(metric), target, scores, days)
    if own is None or reference is None:
        return _Loss(metric, own, reference, None, None, level)
    loss = reference.value - own.value if metric.greater_is_better else own.value - reference.value
    if own.error is None or reference.standard_error is None:
        return _Loss(metric, own, reference, loss, None, level)
    variances = own.error**2, reference.standard_error**2
    total = sum(variances)
    if total == 0:
        return _Loss(metric, own, reference, loss, loss, level)
    freedom = total**2 / (variances[0] ** 2 / (own.groups - 1) + variances[1] ** 2 / (reference.groups - 1))
    one_sided = level / 2 if metric.two_sided else level
    from scipy.stats import t

    return _Loss(
        metric,
        own,
        reference,
        loss,
        loss - float(t.ppf(1 - one_sided, freedom)) * float(np.sqrt(total)),
        level,
    )


def _quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + confidence / 2, freedom))


def _slices(
    rows: "pd.DataFrame", names: Sequence[str], metric: Metric, target: Array, scores: Array, days: Days
) -> tuple[SliceLoss, ...]:
    """The metric on the largest values of every column; the intervals hold together (Bonferroni 1936)."""
    import pandas as pd

    chosen: list[tuple[str, str, NDArray[np.bool_]]] = []
    for name, column in _columns(rows, names).items():
        codes, values = pd.factorize(column, sort=True)
        counts = np.bincount(codes, minlength=len(values))
        for position in np.argsort(-counts, kind="stable")[:MAX_SLICE_VALUES]:
            if counts[position] >= MIN_SLICE_ROWS:
                chosen.append((name, str(values[position]), codes == position))
    found = []
    for name, value, own in chosen:
        estimate = _estimate(OfMetric(metric), target[own], scores[own], days[own])
        reach = None
        if estimate is not None and estimate.error is not None:
            reach = estimate.error * _quantile(estimate.groups - 1, 1 - (1 - CONFIDENCE) / len(chosen))
        found.append(
            SliceLoss(
                column=name,
                value=value,
                rows=int(own.sum()),
                metric_value=None if estimate is None else estimate.value,
                low=None if estimate is None or reach is None else estimate.value - reach,
                high=None if estimate is None or reach is None else estimate.value + reach,
            )
        )
    return tuple(found)


# -- columns of the log ------------------------------------------------------------------------------------


def _columns(rows: "pd.DataFrame", names: Sequence[str]) -> "dict[str, pd.Series[str]]":
    """Slice columns as text, from columns of the frame or from the logged features."""
    import pandas as pd

    from_log = [name for name in names if name not in rows.columns]
    if from_log and "features" not in rows.columns:
        raise DataError(
            f"there is no column {from_log[0]!r} to slice by; columns: {', '.join(map(str, rows.columns))}"
        )
    logged = (
        [json.loads(text) if isinstance(text, str) else {} for text in rows["features"]] if from_log else []
    )
    found = {}
    for name in names:
        if name in from_log:
            column = pd.Series([one.get(name) for one in logged], dtype=object)
        else:
            column = rows[name].astype(object)
        found[name] = column.where(column.notna(), "(missing)").map(str)
    return found


def scores_of_answers(
    frame: "pd.DataFrame", task: Task, width: int | None
) -> tuple[Array, NDArray[np.bool_]]:
    """Scores, (n,) or (n, classes), NaN where an answer has none, and which rows (n,) have them.

    ``width``: how many scores an answer of several classes has; None: the most that any answer has.
    """
    if task != "multiclass":
        scores = frame["score"].to_numpy(dtype=np.float64, na_value=np.nan)
        return scores, ~np.isnan(scores)
    if width is None:
        width = max((len(_listed(one)) for one in frame["scores"]), default=0)
    scores = np.full((len(frame), width), np.nan)
    scored = np.zeros(len(frame), dtype=np.bool_)
    # Row by row: lists of all rows at once would take ten times the memory of their numbers.
    for row, one in enumerate(frame["scores"]):
        listed = _listed(one)
        if len(listed) == width:
            scored[row], scores[row] = True, listed
    return scores, scored & ~np.isnan(scores).any(axis=1)


def _listed(scores: Any) -> list[float]:
    """The scores of one answer: a list, or JSON text as the compacted log has it; [] where there are none."""
    if isinstance(scores, str):
        scores = json.loads(scores)
    return [] if scores is None or np.ndim(scores) == 0 else list(scores)


def _unusable(joined: "pd.DataFrame", codes: Array) -> str:
    """How many answers have labels that cannot be used, as the end of a reason; empty for none."""
    outside = joined.loc[joined[LABEL].notna().to_numpy(dtype=bool) & np.isnan(codes), LABEL]
    ambiguous = int(joined[AMBIGUOUS].sum()) if AMBIGUOUS in joined.columns else 0
    words = ""
    if len(outside):
        example = str(outside.iloc[0])[:40]
        words += f"; {len(outside):,} labels outside the classes or numbers ({example!r}) count as missing"
    if ambiguous:
        words += f"; {ambiguous:,} answers have labels that contradict each other, which count as missing"
    return words


def _days(rows: "pd.DataFrame") -> Days:
    import pandas as pd

    times = pd.to_datetime(rows["at"], utc=True)
    return np.asarray(times.dt.tz_localize(None).to_numpy().astype("datetime64[D]"), dtype=np.int64)
