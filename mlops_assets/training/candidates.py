"""Candidates compete on the same folds. Pure.

Belongs here: training each candidate on each fold, and which one wins and why. Does not belong here:
logging them (``resources/experiment_tracking.py``) or judging the winner (``evaluation/gate.py``).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlops_assets.errors import DataError
from mlops_assets.evaluation.metrics import metric, metric_values
from mlops_assets.training.folds import Fold
from mlops_assets.training.trainers import Trainer, trainer
from serve.schema import FeatureSpec, ModelManifest, Task
from serve.scoring import scorer_from_bytes

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """What to train: a trainer's name and overrides of its parameters."""

    trainer: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FoldResult:
    """How one candidate did on one fold."""

    metrics: dict[str, float | None]
    train_rows: int
    judge_rows: int
    seconds: float


@dataclass(frozen=True)
class CandidateResult:
    """One candidate over all folds. ``judged`` and ``scores`` are its out-of-fold rows, in order."""

    candidate: Candidate
    params: dict[str, Any]
    folds: tuple[FoldResult, ...]
    importance: dict[str, float]
    judged: NDArray[np.int64]
    scores: Array

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


def compete(
    candidate: Candidate,
    matrix: Array,
    target: Array,
    folds: Sequence[Fold],
    *,
    features: Sequence[FeatureSpec],
    task: Task,
    classes: int,
    seed: int,
    report: Callable[[str], None] = lambda line: None,
) -> CandidateResult:
    """Trains and judges one candidate on every fold, scoring through ``serve.scoring``.

    DataError when a fold of a classification would train on a single class.
    """
    found = trainer(candidate.trainer)
    manifest = manifest_for(task, found, features, classes)
    results, scores, importance = [], [], {feature.name: 0.0 for feature in features}
    params: dict[str, Any] = {}
    for number, fold in enumerate(folds, 1):
        if task != "regression" and len(np.unique(target[fold.train])) < 2:
            raise DataError(
                f"fold {number} of {len(folds)} trains on {len(fold.train)} rows of one class; declare fewer "
                "folds, or materialise more partitions"
            )
        started = time.perf_counter()
        fitted = found.fit(
            matrix[fold.train],
            target[fold.train],
            features=features,
            task=task,
            classes=classes,
            params=candidate.params,
            seed=seed,
        )
        scored = scorer_from_bytes(manifest, fitted.payload).score(matrix[fold.judge])
        seconds = time.perf_counter() - started
        metrics = metric_values(task, target[fold.judge], scored)
        results.append(FoldResult(metrics, len(fold.train), len(fold.judge), seconds))
        scores.append(scored)
        params = fitted.params
        for name, share in fitted.importance.items():
            importance[name] += share / len(folds)
        shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if value is not None)
        report(f"{candidate.trainer} fold {number}/{len(folds)}: {shown} ({seconds:.1f} s)")
    return CandidateResult(
        candidate=candidate,
        params=params,
        folds=tuple(results),
        importance=importance,
        judged=np.concatenate([fold.judge for fold in folds]),
        scores=np.concatenate(scores),
    )


def best(results: Sequence[CandidateResult], name: str, task: Task) -> tuple[int, str]:
    """Position of the winner by a metric's mean over the folds, and why in words.

    Equal candidates keep their order. One on which the metric is never defined cannot win; DataError
    when none can.
    """
    chosen = metric(name, task)
    means = [
        (position, value)
        for position, result in enumerate(results)
        if (value := result.mean(name)) is not None
    ]
    if not means:
        raise DataError(f"metric {name} is defined on no fold of any candidate; declare longer folds")
    ranked = sorted(means, key=lambda pair: -pair[1] if chosen.greater_is_better else pair[1])
    first = ranked[0]
    words = f"{results[first[0]].candidate.trainer} has the best mean {name}, {first[1]:.4f}"
    if len(ranked) > 1:
        words += f", before {results[ranked[1][0]].candidate.trainer} with {ranked[1][1]:.4f}"
    return first[0], words
