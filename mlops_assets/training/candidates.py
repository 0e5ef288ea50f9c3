"""Candidates compete on the same folds. Pure.

Belongs here: training each candidate on each fold, as far back as its window goes. Does not belong here:
which one wins and why (``choice.py``), logging them (``resources/experiment_tracking.py``), judging the
winner (``evaluation/gate.py``).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlops_assets.errors import DataError
from mlops_assets.evaluation.metrics import metric_values, metrics_of
from mlops_assets.training.folds import Fold
from mlops_assets.training.trainers import FitInputs, FittedModel, Trainer, trainer
from mlops_assets.training.window import too_little, window_name, within
from serve.schema import FeatureSpec, ModelManifest, Task
from serve.scoring import scorer_from_bytes

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """What to train: a trainer's name, overrides of its parameters, and how many days back the rows go.

    ``window_days`` None: all rows of the training part.
    """

    trainer: str
    params: Mapping[str, Any] = field(default_factory=dict)
    window_days: int | None = None

    @property
    def name(self) -> str:
        """The trainer, and its window where that is not all: ``lightgbm 28d``."""
        window = "" if self.window_days is None else f" {window_name(self.window_days)}"
        return f"{self.trainer}{window}"

    def beside(self, others: Sequence["Candidate"]) -> list[int | None]:
        """The windows of ``others`` that are the same but for the window."""
        same = [one for one in others if (one.trainer, one.params) == (self.trainer, self.params)]
        return [one.window_days for one in same if one.window_days != self.window_days]


@dataclass(frozen=True)
class FoldResult:
    """How one candidate did on one fold. A window too short there is not judged: no metric, no rows."""

    metrics: dict[str, float | None]
    train_rows: int
    judge_rows: int
    seconds: float


@dataclass(frozen=True)
class OutOfFold:
    """What a model said of rows that it was not trained on: their positions and its scores."""

    rows: NDArray[np.int64]
    scores: Array


@dataclass(frozen=True)
class CandidateResult:
    """One candidate over all folds. ``judged`` and ``scores`` are its out-of-fold rows, in order.

    ``newest``: what it said of the newest days, trained on all before, where windows are compared there.
    """

    candidate: Candidate
    params: dict[str, Any]
    folds: tuple[FoldResult, ...]
    importance: dict[str, float]
    judged: NDArray[np.int64]
    scores: Array
    newest: OutOfFold | None = None

    @property
    def last_fold(self) -> OutOfFold | None:
        """What it said on the fold nearest to now; None where it was not judged there."""
        rows = self.folds[-1].judge_rows
        return OutOfFold(self.judged[-rows:], self.scores[-rows:]) if rows else None

    def mean(self, name: str) -> float | None:
        """Mean of a metric over the folds where it is defined; None when it is on none."""
        values = [fold.metrics[name] for fold in self.folds]
        defined = [value for value in values if value is not None and np.isfinite(value)]
        return float(np.mean(defined)) if defined else None

    def means(self) -> dict[str, float | None]:
        return {name: self.mean(name) for name in self.folds[0].metrics}


def manifest_for(task: Task, found: Trainer, features: Sequence[FeatureSpec], classes: int) -> ModelManifest:
    """The least manifest with which ``serve.scoring`` scores a trainer's bytes."""
    return ModelManifest(
        name="candidate",
        task=task,
        trainer=found.name,
        model_format=found.model_format,
        model_file=found.model_file,
        target="label",
        features=tuple(features),
        classes=tuple(str(code) for code in range(classes)) if classes else None,
    )


@dataclass(frozen=True)
class _Training:
    """One candidate and the rows that it may learn from, of which each fold takes some."""

    candidate: Candidate
    given: FitInputs
    days: NDArray[np.int64] | None

    def __post_init__(self) -> None:
        if self.candidate.window_days is not None and self.days is None:
            raise DataError(
                f"{self.candidate.name} counts days, and these rows have no event time; declare one, or "
                "training_window: all"
            )

    def rows(self, fold: Fold) -> NDArray[np.int64]:
        """Positions of the rows that the candidate trains on, as far back as its window goes."""
        if self.days is None:
            return fold.train
        return fold.train[within(self.days[fold.train], self.candidate.window_days)]

    def scored(self, fold: Fold) -> tuple[FittedModel, Array]:
        """The model of a fold, and its scores of the rows that it is judged on."""
        given, found, rows = self.given, trainer(self.candidate.trainer), self.rows(fold)
        inputs = replace(given, matrix=given.matrix[rows], target=given.target[rows])
        fitted = found.fit(inputs)
        manifest = manifest_for(given.task, found, given.features, given.classes)
        return fitted, scorer_from_bytes(manifest, fitted.payload).score(given.matrix[fold.judge])


def compete(
    candidate: Candidate,
    given: FitInputs,
    folds: Sequence[Fold],
    *,
    days: NDArray[np.int64] | None = None,
    newest: Fold | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> CandidateResult:
    """Trains and judges one candidate on every fold, scoring through ``serve.scoring``.

    ``given``: the rows of all folds; the parameters are the candidate's. ``days`` (n,): day numbers, which a
    window needs. ``newest``: one fold more, whose scores alone are kept: windows are compared on it.
    DataError when a fold of a classification would train on a single class. A window that holds too few rows
    of a fold sits that fold out instead.
    """
    training, task = _Training(candidate, replace(given, params=candidate.params), days), given.task
    importance = {feature.name: 0.0 for feature in given.features}
    results, judged, scores = [], [], []
    params: dict[str, Any] = {}
    for number, fold in enumerate(folds, 1):
        target, what = given.target[training.rows(fold)], f"{candidate.name} fold {number}/{len(folds)}"
        if candidate.window_days is not None and (little := too_little(target, task)):
            results.append(FoldResult({one.name: None for one in metrics_of(task)}, len(target), 0, 0.0))
            report(f"{what}: not judged, {little}")
            continue
        if task != "regression" and len(np.unique(target)) < 2:
            raise DataError(
                f"fold {number} of {len(folds)} trains on {len(target)} rows of one class; declare fewer "
                "folds, or materialise more partitions"
            )
        started = time.perf_counter()
        fitted, scored = training.scored(fold)
        seconds = time.perf_counter() - started
        metrics = metric_values(task, given.target[fold.judge], scored)
        results.append(FoldResult(metrics, len(target), len(fold.judge), seconds))
        judged.append(fold.judge)
        scores.append(scored)
        params = fitted.params
        for name, share in fitted.importance.items():
            importance[name] += share
        shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if value is not None)
        report(f"{what}: {shown} ({seconds:.1f} s)")
    look = None
    if newest is not None:
        fitted, scored = training.scored(newest)
        look, params = OutOfFold(newest.judge, scored), fitted.params
    return CandidateResult(
        candidate=candidate,
        params=params,
        folds=tuple(results),
        importance={name: share / max(len(scores), 1) for name, share in importance.items()},
        judged=np.concatenate(judged) if judged else np.empty(0, dtype=np.int64),
        scores=np.concatenate(scores) if scores else np.empty(0),
        newest=look,
    )
