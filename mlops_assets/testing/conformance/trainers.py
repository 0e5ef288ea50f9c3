"""What every trainer must do (``training/trainers/_base.py`` says it in words).

@pytest.mark.parametrize(("trainer", "task"), cases(TRAINERS.members()))
class TestTrainer(TrainerConformance): ...
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from mlops_assets.errors import DataError, DeclarationError
from mlops_assets.evaluation.baseline import baseline_scores
from mlops_assets.evaluation.metrics import SELECTING, metric
from mlops_assets.testing.conformance.small_tables import CLASSES, small_model, small_table, trained
from mlops_assets.training.trainers import FitInputs, Trainer
from serve.schema import Task
from serve.scoring import FORMATS


def cases(trainers: Iterable[type[Trainer]]) -> list[Any]:
    """Every trainer with every task it does."""
    return [
        pytest.param(trainer, task, id=f"{trainer.name}-{task}")
        for trainer in trainers
        for task in sorted(trainer.tasks)
    ]


class TrainerConformance:
    """One trainer on one task it does."""

    def test_it_learns_more_than_the_baseline(self, trainer: type[Trainer], task: Task) -> None:
        model, judge = small_model(trainer, task), metric(SELECTING[task], task)
        target = model.table.target
        learned = judge.value(target, model.scorer().score(model.table.matrix))
        ignorant = judge.value(target, baseline_scores(task, target, len(target), CLASSES[task]))
        assert learned is not None and ignorant is not None and learned < 0.85 * ignorant

    def test_same_inputs_and_seed_give_the_same_bytes(self, trainer: type[Trainer], task: Task) -> None:
        assert trained(trainer, task).fitted == small_model(trainer, task).fitted

    def test_it_leaves_its_inputs_alone(self, trainer: type[Trainer], task: Task) -> None:
        table = small_table(task)
        matrix, target = table.matrix.copy(), table.target.copy()
        trained(trainer, task)
        np.testing.assert_array_equal(table.matrix, matrix)
        np.testing.assert_array_equal(table.target, target)

    def test_its_bytes_are_a_model_of_its_format(self, trainer: type[Trainer], task: Task) -> None:
        model = small_model(trainer, task)
        assert type(model.scorer()) is FORMATS[trainer.model_format]
        assert model.fitted.model_file == FORMATS[trainer.model_format].model_file
        shape = (len(model.table.target), 3) if task == "multiclass" else (len(model.table.target),)
        scores = model.scorer().score(model.table.matrix)
        assert scores.shape == shape and np.isfinite(scores).all()

    def test_a_class_without_rows_does_not_fail_it(self, trainer: type[Trainer], task: Task) -> None:
        if task != "multiclass":
            return
        table = small_table(task)
        seen = table.target != 1
        fitted = trainer().fit(
            FitInputs(
                table.matrix[seen],
                table.target[seen],
                features=table.features,
                task=task,
                classes=3,
                params={},
                seed=1,
            )
        )
        scores = FORMATS[trainer.model_format](small_model(trainer, task).manifest, fitted.payload).score(
            table.matrix[seen]
        )
        assert scores.shape == (int(seen.sum()), 3)
        assert scores.mean(axis=0).argmin() == 1

    def test_importance_is_a_share_per_feature(self, trainer: type[Trainer], task: Task) -> None:
        model = small_model(trainer, task)
        assert set(model.fitted.importance) == {feature.name for feature in model.table.features}
        assert min(model.fitted.importance.values()) >= 0
        assert sum(model.fitted.importance.values()) == pytest.approx(1.0)

    def test_the_parameters_used_are_told(self, trainer: type[Trainer], task: Task) -> None:
        assert small_model(trainer, task).fitted.params == dict(trainer.defaults)

    def test_an_unknown_parameter_is_refused_with_the_known_ones(
        self, trainer: type[Trainer], task: Task
    ) -> None:
        with pytest.raises(DeclarationError, match=r"'no_such'\. Allowed: ") as refused:
            trainer().parameters({"no_such": 3})
        assert all(name in str(refused.value) for name in trainer.defaults)

    def test_a_task_it_does_not_do_is_refused(self, trainer: type[Trainer], task: Task) -> None:
        for other in sorted(set(CLASSES) - trainer.tasks):
            with pytest.raises(DeclarationError, match=f"does not do task '{other}'; it does"):
                trainer().require_task(other)

    def test_an_infinite_input_is_named_and_counted(self, trainer: type[Trainer], task: Task) -> None:
        table = small_table(task)
        matrix = table.matrix.copy()
        matrix[3:5, 1] = np.inf
        with pytest.raises(DataError, match=f"feature {table.features[1].name!r} holds 2 infinite values"):
            trainer().fit(
                FitInputs(
                    matrix,
                    table.target,
                    features=table.features,
                    task=task,
                    classes=CLASSES[task],
                    params={},
                    seed=1,
                )
            )
