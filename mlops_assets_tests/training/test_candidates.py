"""Candidates on the same folds, and the package that comes of one."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from mlops_assets.errors import DataError
from mlops_assets.evaluation.baseline import baseline_scores
from mlops_assets.evaluation.metrics import SELECTING, metric
from mlops_assets.testing.conformance.small_tables import CLASSES, small_frame
from mlops_assets.training.candidates import Candidate, CandidateResult, FoldResult, compete
from mlops_assets.training.folds import Fold, shuffled, time_ordered
from mlops_assets.training.package import ModelPackage, package
from mlops_assets.training.plots import candidates_plot, importance_plot, training_set_plot
from mlops_assets.training.trainers import TRAINERS, FitInputs, trainer
from mlops_assets.training.training_set import SplitRule, assemble
from serve.schema import FeatureSpec, ModelManifest, Task
from serve.scoring import Encoder, scorer_from_bytes

PNG = b"\x89PNG\r\n\x1a\n"

CASES = [(found.name, task) for found in TRAINERS.members() for task in sorted(found.tasks)]


def result(name: str, values: list[float | None], metric: str = "log_loss") -> CandidateResult:
    folds = tuple(FoldResult({metric: value}, 100, 50, 0.1) for value in values)
    return CandidateResult(Candidate(name), {}, folds, {}, np.empty(0, dtype=np.int64), np.empty(0))


def run(name: str, task: Task, lines: list[str] | None = None) -> tuple[CandidateResult, np.ndarray]:
    frame, features, target = small_frame(task)
    classes = CLASSES[task]
    folds = shuffled(target, 3, seed=1, stratified=task != "regression")
    return compete(
        Candidate(name),
        FitInputs(Encoder(features).columns(frame), target, features, task, classes, {}, seed=1),
        folds,
        report=lines.append if lines is not None else lambda line: None,
    ), target


@pytest.mark.parametrize(("name", "task"), CASES)
def test_every_trainer_competes_on_every_task(name: str, task: Task) -> None:
    lines: list[str] = []
    found, target = run(name, task, lines)
    assert [line.split(":")[0] for line in lines] == [f"{name} fold {k}/3" for k in (1, 2, 3)]
    assert sorted(found.judged) == list(range(len(target))) and len(found.scores) == len(target)
    assert sum(found.importance.values()) == pytest.approx(1.0)
    assert all(value is not None for value in found.means().values())


@pytest.mark.parametrize(("name", "task"), CASES)
def test_every_row_gets_its_own_score(name: str, task: Task) -> None:
    found, target = run(name, task)
    judge = metric(SELECTING[task], task)
    ignorant = baseline_scores(task, target, len(target), len(np.unique(target)))
    loss, known = judge.value(target[found.judged], found.scores), judge.value(target, ignorant)
    assert loss is not None and known is not None and loss < 0.95 * known


def test_the_scores_are_out_of_fold() -> None:
    """Labels are noise: a model that saw the row it judges would look better than chance."""
    random = np.random.default_rng(0)
    target = random.integers(0, 2, 600).astype(float)
    features = [FeatureSpec(name="x", type="number")]
    found = compete(
        Candidate("random_forest", {"min_data_in_leaf": 1}),
        FitInputs(random.normal(size=(600, 1)), target, features, "binary", 2, {}, seed=1),
        shuffled(target, 3, seed=1, stratified=True),
    )
    assert found.mean("roc_auc") == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("name", ["lightgbm", "logistic_regression"])
def test_a_fold_that_trains_on_one_class_is_named(name: str) -> None:
    times = np.datetime64("2024-01-01") + np.arange(40) * np.timedelta64(1, "D")
    target = (np.arange(40) > 30).astype(float)
    features = [FeatureSpec(name="x", type="number")]
    with pytest.raises(DataError, match="fold 1 of 3 trains on 10 rows of one class"):
        compete(
            Candidate(name),
            FitInputs(np.arange(40.0)[:, None], target, features, "binary", 2, {}, seed=1),
            time_ordered(times, 3),
        )


def packaged(name: str, task: Task, seed: int = 1) -> tuple[ModelPackage, pd.DataFrame]:
    frame, features, target = small_frame(task)
    classes = CLASSES[task]
    fitted = trainer(name).fit(
        FitInputs(
            Encoder(features).columns(frame),
            target,
            features=features,
            task=task,
            classes=classes,
            params={},
            seed=seed,
        )
    )
    how = trainer(name)
    manifest = ModelManifest(
        name="toy",
        task=task,
        trainer=name,
        model_format=how.model_format,
        model_file=how.model_file,
        target="y",
        features=tuple(features),
        classes=tuple("abc"[:classes]) or None,
        threshold=0.5,
        training_set_version="v",
    )
    return package(fitted, frame, manifest), frame


@pytest.mark.parametrize(("name", "task"), CASES)
def test_golden_scores_are_the_batch_scores_of_those_rows(name: str, task: Task) -> None:
    """Golden rows are scored alone; the whole table at once must give the same numbers to the bit."""
    made, frame = packaged(name, task)
    assert len(made.manifest.golden) == 8
    scorer = scorer_from_bytes(made.manifest, made.payload)
    whole = scorer.score(scorer.encoder.columns({name: frame[name] for name in frame}))
    for row in made.manifest.golden:
        alone = scorer.score_rows([row.features])[0]
        assert row.scores == tuple(np.atleast_1d(alone))
        assert (np.reshape(whole, (len(frame), -1)) == np.atleast_1d(alone)).all(axis=1).any()


@pytest.mark.parametrize(("name", "task"), CASES)
def test_a_package_is_the_same_every_time(name: str, task: Task) -> None:
    assert packaged(name, task)[0].digest == packaged(name, task)[0].digest


def wide(rows: int = 30_000) -> tuple[np.ndarray, np.ndarray, list[FeatureSpec]]:
    """Rows enough that threads share the work of a split."""
    random = np.random.default_rng(0)
    matrix = np.column_stack([random.normal(size=(rows, 6)), random.integers(0, 40, rows)])
    matrix[random.random(matrix.shape) < 0.05] = np.nan
    target = (np.nan_to_num(matrix[:, 0]) + random.normal(size=rows) > 0.5).astype(float)
    features = [FeatureSpec(name=f"x{i}", type="number") for i in range(6)]
    return (
        matrix,
        target,
        [*features, FeatureSpec(name="c", type="category", categories=tuple(map(str, range(40))))],
    )


def digests() -> str:
    """SHA-256 of a model of every trainer that classifies, one a line; the next test runs it in processes."""
    matrix, target, features = wide()
    few = {"lightgbm": 20, "xgboost": 20, "random_forest": 10}
    return "\n".join(
        hashlib.sha256(
            trainer(name)
            .fit(
                FitInputs(
                    matrix,
                    target,
                    features=features,
                    task="binary",
                    classes=2,
                    seed=1,
                    params={"num_rounds": few[name]} if name in few else {},
                )
            )
            .payload
        ).hexdigest()
        for name in sorted(TRAINERS)
        if "binary" in TRAINERS[name].tasks
    )


def test_fresh_processes_with_one_and_two_threads_give_the_same_bytes() -> None:
    code = "from mlops_assets_tests.training.test_candidates import digests; print(digests())"
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(told) == 1
    assert len(told.pop().split()) == 4


@pytest.mark.usefixtures("rendered")
def test_training_is_drawn_with_and_without_time() -> None:
    keys = pd.DataFrame({"id": range(200)})
    labels = keys.assign(label=np.arange(200) % 2 == 0)
    at = pd.date_range("2024-01-01", periods=200, freq="12h", tz="UTC")
    timed = assemble(keys.assign(at=at), labels, join_keys=["id"], task="binary", split=SplitRule("at"))
    classes = assemble(
        keys, keys.assign(label=list("abcd" * 50)), join_keys=["id"], task="multiclass", split=SplitRule(None)
    )
    numbers = assemble(
        keys, keys.assign(label=np.arange(200.0)), join_keys=["id"], task="regression", split=SplitRule(None)
    )
    same = assemble(keys, keys.assign(label=1e17), join_keys=["id"], task="regression", split=SplitRule(None))
    drawn = [
        training_set_plot(same, None, "regression"),
        training_set_plot(timed, "at", "binary"),
        training_set_plot(classes, None, "multiclass"),
        training_set_plot(numbers, None, "regression"),
        importance_plot({f"x{i}": 1 / 40 for i in range(40)}),
        importance_plot({"x": 0.0}),
        candidates_plot([result("lightgbm", [0.4, None]), result("xgboost", [None])], "log_loss", ["a", "b"]),
    ]
    assert all(image.startswith(PNG) and len(image) > 5_000 for image in drawn)
    assert training_set_plot(timed, "at", "binary") == drawn[1]
    assert len(set(drawn)) == len(drawn)


def test_folds_are_given_not_made() -> None:
    frame, features, target = small_frame("binary")
    fold = Fold(np.arange(0, 120), np.arange(120, 150))
    found = compete(
        Candidate("lightgbm"),
        FitInputs(Encoder(features).columns(frame), target, features, "binary", 2, {}, seed=1),
        [fold],
    )
    assert found.folds[0].train_rows == 120 and found.folds[0].judge_rows == 30
    assert found.folds[0].metrics["roc_auc"] is None  # iris ends in one class
