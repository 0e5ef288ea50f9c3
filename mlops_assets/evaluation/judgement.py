"""Score both models on the same rows and put everything the verdict needs together. Pure.

Belongs here: the order of steps from two scorers to a verdict with metrics, slices and plots. Does
not belong here: each step (``metrics``, ``compare``, ``slices``, ``gate``, ``plots``).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlops_assets.evaluation.baseline import baseline_scores, describe_baseline
from mlops_assets.evaluation.compare import Comparison, compare
from mlops_assets.evaluation.gate import GatePolicy, Verdict, decide
from mlops_assets.evaluation.metrics import measure, metric
from mlops_assets.evaluation.metrics.calibration_error import calibration_noise, expected_calibration_error
from mlops_assets.evaluation.plots import evaluation_plots
from mlops_assets.evaluation.slices import Slice, compare_slices
from serve.schema import Task
from serve.scoring import Scorer

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Judgement:
    """The verdict and what a person looks at beside it."""

    verdict: Verdict
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


def judge(
    policy: GatePolicy,
    selecting_metric: str,
    frame: "pd.DataFrame",
    target: Array,
    train_target: Array,
    *,
    task: Task,
    classes: tuple[str, ...] | None,
    challenger: Scorer,
    champion: Scorer | None,
    champion_is: str,
    same_as_champion: bool,
    champion_trained_until: str,
    event_timestamp: str | None,
    plots: bool = True,
) -> Judgement:
    """The judgement on the rows of ``frame``; without ``plots``, for the verdict alone, none are drawn.

    Rows that the champion was trained on are left out of its duel: it would be judged on answers it
    has seen. Whole days (UTC) vary together where rows have a time.
    """
    judged_by = metric(policy.metric or selecting_metric, task)
    days = None
    if event_timestamp:
        days = frame[event_timestamp].dt.floor("D").astype("int64").to_numpy()
    scores = _scores(challenger, frame)
    baseline = baseline_scores(task, train_target, len(target), len(classes or ()))
    against_baseline = compare(judged_by, target, scores, baseline, groups=days, confidence=policy.confidence)
    hindsight = None
    if champion is None:
        constant = baseline_scores(task, target, len(target), len(classes or ()))
        hindsight = compare(judged_by, target, scores, constant, groups=days, confidence=policy.confidence)
    champion_scores = _scores(champion, frame) if champion is not None else None
    other = baseline
    rows = np.ones(len(target), dtype=bool)
    duel = None
    if champion_scores is not None:
        rows = _unseen(frame, event_timestamp, champion_trained_until)
        other = champion_scores
        duel = compare(
            judged_by,
            target[rows],
            scores[rows],
            champion_scores[rows],
            groups=None if days is None else days[rows],
            confidence=policy.confidence,
        )
    slices = compare_slices(
        {name: frame.loc[rows, name] for name in policy.slices},
        judged_by,
        target[rows],
        scores[rows],
        other[rows],
        groups=None if days is None else days[rows],
        confidence=policy.confidence,
        min_rows=policy.min_slice_rows,
    )
    verdict = decide(
        policy,
        baseline=against_baseline,
        baseline_is=describe_baseline(task, train_target),
        hindsight=hindsight,
        champion=duel,
        champion_is=champion_is,
        same_as_champion=same_as_champion,
        calibration_error=expected_calibration_error(target, scores) if task == "binary" else None,
        calibration_noise=calibration_noise(scores) if task == "binary" else 0.0,
        slices=slices,
    )
    return Judgement(
        verdict=verdict,
        metrics=measure(task, target, scores),
        slices=tuple(slices),
        plots=evaluation_plots(
            task,
            target,
            {"challenger": scores, **({champion_is: champion_scores} if champion_scores is not None else {})},
            classes=classes,
        )
        if plots
        else {},
    )


def _scores(scorer: Scorer, frame: "pd.DataFrame") -> Array:
    names = scorer.manifest.feature_names
    return scorer.score(scorer.encoder.columns({name: frame[name] for name in names}))


def _unseen(frame: "pd.DataFrame", event_timestamp: str | None, trained_until: str) -> NDArray[np.bool_]:
    import pandas as pd

    if event_timestamp is None or not trained_until:
        return np.ones(len(frame), dtype=bool)
    return (frame[event_timestamp] > pd.Timestamp(trained_until)).to_numpy(dtype=bool)


def _numbers(found: Comparison) -> dict[str, str]:
    def text(value: float | None) -> str:
        return "not defined" if value is None else f"{value:.4f}"

    return {
        "challenger": text(found.challenger),
        "other": text(found.other),
        "improvement": text(found.improvement),
        "interval": f"[{text(found.low)}, {text(found.high)}]" if found.low is not None else "too few groups",
    }
