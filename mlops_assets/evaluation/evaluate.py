"""A challenger scored beside the champion on the same rows, and everything that its verdict needs. Pure.

Belongs here: the order of steps from two scorers to a verdict with metrics, slices and plots. Does
not belong here: each step (``metrics``, ``compare``, ``slices``, ``gate``, ``plots``).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlops_assets.evaluation.baseline import baseline_scores, describe_baseline
from mlops_assets.evaluation.compare import Comparison, compare
from mlops_assets.evaluation.gate import GateEvidence, GatePolicy, Verdict, verdict_on
from mlops_assets.evaluation.metrics import Metric, metric, metric_values
from mlops_assets.evaluation.metrics.calibration_error import calibration_noise, expected_calibration_error
from mlops_assets.evaluation.plots import evaluation_plots
from mlops_assets.evaluation.slices import Slice, compare_slices
from serve.schema import Task
from serve.scoring import Scorer

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """The verdict and what a person looks at beside it. ``rows``: on which rows it was reached, by name."""

    verdict: Verdict
    rows: Mapping[str, int | str]
    metrics: Mapping[str, float | None]
    slices: tuple[Slice, ...]
    plots: Mapping[str, bytes]

    def version(self, training_set: str, model: str) -> str:
        """Hash of what was judged and what came out."""
        said = repr((training_set, model, self.verdict.outcome, self.verdict.reason, dict(self.metrics)))
        return hashlib.sha256(said.encode()).hexdigest()[:32]

    def slice_rows(self) -> list[dict[str, str]]:
        """The slices as table rows, largest loss first."""
        ordered = sorted(self.slices, key=lambda part: part.comparison.improvement or 0.0)
        return [
            {
                "slice": f"{part.column} = {part.value}",
                "rows": f"{part.comparison.rows:,}",
                **_numbers(part.comparison),
            }
            for part in ordered
        ]


@dataclass(frozen=True)
class EvaluationRows:
    """Labelled rows kept from training, and the training part's labels, which say what the baseline says.

    ``event_timestamp``: the column of the rows' times, when they have any. ``changed_by``: a time (ISO 8601)
    by which what the champion learned was no longer true; "" when nothing is known of a change.
    """

    frame: "pd.DataFrame"
    target: Array
    train_target: Array
    task: Task
    classes: tuple[str, ...] | None
    event_timestamp: str | None
    changed_by: str = ""

    @property
    def days(self) -> "NDArray[np.int64] | None":
        """Day (UTC) of every row: whole days vary together. None where rows have no time."""
        if not self.event_timestamp:
            return None
        return self.frame[self.event_timestamp].dt.floor("D").astype("int64").to_numpy()

    @property
    def span(self) -> tuple[str, str]:
        """First and last day, like 2024-03-01; empty texts where rows have no time."""
        if not self.event_timestamp or self.frame.empty:
            return "", ""
        times = self.frame[self.event_timestamp]
        return times.min().date().isoformat(), times.max().date().isoformat()

    @property
    def after_change(self) -> int | None:
        """How many rows are later than the change; None when nothing is known of one."""
        if not self.changed_by or not self.event_timestamp:
            return None
        return int(self.after(self.changed_by).sum())

    def sentence(self) -> str:
        """Which rows these are, in words."""
        first, last = self.span
        judged = f"judged on {len(self.target):,} rows" + (f" from {first} to {last}" if first else "")
        if self.after_change is None:
            return judged
        shown = f"{self.changed_by[:10]}, the end of the first window that showed a change"
        return f"{judged}, {self.after_change:,} of them after {shown}"

    def facts(self) -> dict[str, int | str]:
        """The same by name, as metadata."""
        first, last = self.span
        found: dict[str, int | str] = {"evaluation_rows": len(self.target)}
        if first:
            found |= {"evaluation_from": first, "evaluation_until": last}
        if self.after_change is not None:
            found |= {"changed_by": self.changed_by, "rows_after_change": self.after_change}
        return found

    def constant(self, target: Array) -> Array:
        """What a baseline says of every row that knows only these outcomes."""
        return baseline_scores(self.task, target, len(self.target), len(self.classes or ()))

    def after(self, moment: str) -> NDArray[np.bool_]:
        """Which rows are later than a moment (ISO 8601); all where rows have no time, or it is ""."""
        import pandas as pd

        if self.event_timestamp is None or not moment:
            return np.ones(len(self.frame), dtype=bool)
        return (self.frame[self.event_timestamp] > pd.Timestamp(moment)).to_numpy(dtype=bool)


@dataclass(frozen=True)
class Champion:
    """The model to beat, what it is called, whether the challenger is the same bytes, and the time of its
    newest training row (ISO 8601; "" when unknown).
    """

    scorer: Scorer
    name: str
    same: bool = False
    trained_until: str = ""


@dataclass(frozen=True)
class _Comparing:
    """Both models' scores of the same rows, compared by one metric."""

    policy: GatePolicy
    judging: Metric
    rows: EvaluationRows
    scores: Array

    def against(self, other: Array, kept: NDArray[np.bool_] | None = None) -> Comparison:
        chosen = np.ones(len(self.scores), dtype=bool) if kept is None else kept
        days = self.rows.days
        return compare(
            self.judging,
            self.rows.target[chosen],
            self.scores[chosen],
            other[chosen],
            groups=None if days is None else days[chosen],
            confidence=self.policy.confidence,
        )

    def slices(self, other: Array, kept: NDArray[np.bool_]) -> list[Slice]:
        days = self.rows.days
        return compare_slices(
            {name: self.rows.frame.loc[kept, name] for name in self.policy.slices},
            self.judging,
            self.rows.target[kept],
            self.scores[kept],
            other[kept],
            groups=None if days is None else days[kept],
            confidence=self.policy.confidence,
            min_rows=self.policy.min_slice_rows,
        )


def evaluate(
    policy: GatePolicy,
    selecting_metric: str,
    rows: EvaluationRows,
    challenger: Scorer,
    champion: Champion | None,
    *,
    plots: bool = True,
) -> Evaluation:
    """The evaluation of a challenger; without ``plots``, for the verdict alone, none are drawn.

    Rows that the champion was trained on are left out of its duel: it would be judged on answers it
    has seen. Whole days (UTC) vary together where rows have a time. The verdict's reason ends with the rows.
    """
    judging = metric(policy.metric or selecting_metric, rows.task)
    comparing = _Comparing(policy, judging, rows, _scores(challenger, rows.frame))
    baseline = rows.constant(rows.train_target)
    theirs = _scores(champion.scorer, rows.frame) if champion else None
    unseen = rows.after(champion.trained_until if champion else "")
    slices = comparing.slices(baseline if theirs is None else theirs, unseen)
    # A hundred draws: only where a limit asks for them.
    calibrated = rows.task == "binary" and policy.max_calibration_error is not None
    verdict = verdict_on(
        policy,
        GateEvidence(
            baseline=comparing.against(baseline),
            baseline_is=describe_baseline(rows.task, rows.train_target),
            hindsight=comparing.against(rows.constant(rows.target)) if champion is None else None,
            champion=None if theirs is None else comparing.against(theirs, unseen),
            champion_is=champion.name if champion else "",
            same_as_champion=champion is not None and champion.same,
            calibration_error=expected_calibration_error(rows.target, comparing.scores)
            if calibrated
            else None,
            calibration_noise=calibration_noise(comparing.scores) if calibrated else 0.0,
            slices=slices,
        ),
    )
    shown = {"challenger": comparing.scores}
    if champion is not None and theirs is not None:
        shown[champion.name] = theirs
    return Evaluation(
        verdict=replace(verdict, reason=f"{verdict.reason}; {rows.sentence()}"),
        rows=rows.facts(),
        metrics=metric_values(rows.task, rows.target, comparing.scores),
        slices=tuple(slices),
        plots=evaluation_plots(rows.task, rows.target, shown, classes=rows.classes) if plots else {},
    )


def _scores(scorer: Scorer, frame: "pd.DataFrame") -> Array:
    names = scorer.manifest.feature_names
    return scorer.score(scorer.encoder.columns({name: frame[name] for name in names}))


def _numbers(found: Comparison) -> dict[str, str]:
    def text(value: float | None) -> str:
        return "not defined" if value is None else f"{value:.4f}"

    return {
        "challenger": text(found.challenger),
        "other": text(found.other),
        "improvement": text(found.improvement),
        "interval": f"[{text(found.low)}, {text(found.high)}]" if found.low is not None else "too few groups",
    }
