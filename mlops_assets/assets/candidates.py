"""``<model>_candidates``: every declared way to train, judged on the same folds, each as a run in MLflow.

Belongs here: letting the candidates compete one after the other, what their runs and the record say. Does not
belong here: the competition and who wins (``training/competition.py``), how a run is logged
(``resources/experiment_tracking.py``).
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.asset_keys import name_tags
from mlops_assets.assets.automation import FOLLOW_CHANGED_DATA
from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.declared_model import DeclaredModel
from mlops_assets.assets.metadata import image, link, markdown_table, number
from mlops_assets.assets.training_set import PinnedTrainingSet, read_training_set
from mlops_assets.event_log.records import Record
from mlops_assets.resources.code_provenance import git_sha
from mlops_assets.resources.experiment_tracking import ExperimentTracker, LoggedRun
from mlops_assets.resources.lake import Lake
from mlops_assets.training.window import window_name

if TYPE_CHECKING:
    from mlops_assets.training.candidates import CandidateResult
    from mlops_assets.training.training_data import TrainingData

CANDIDATES_FIELDS = {"task", "candidates", "folds", "metric", "seed"}


def candidates_asset(group: str, model: DeclaredModel) -> dg.AssetsDefinition:
    """The declared candidates of a model, and which one won."""
    declared = model.declaration

    @dg.asset(
        key=model.key("candidates"),
        deps=[model.key("training_set")],
        group_name=group,
        kinds={"candidates", "mlflow"},
        tags=name_tags("candidates", declared.name),
        description=f"Candidates trained and judged side by side on {declared.folds} time-ordered folds.",
        code_version=code_version(declared, model.trainers, fields=CANDIDATES_FIELDS),
        automation_condition=FOLLOW_CHANGED_DATA,
    )
    def candidates(
        context: dg.AssetExecutionContext, lake: Lake, experiment_tracker: ExperimentTracker
    ) -> dg.MaterializeResult[Any]:
        return make_candidates(context, lake, experiment_tracker, model)

    return candidates


def make_candidates(
    context: dg.AssetExecutionContext, lake: Lake, tracker: ExperimentTracker, model: DeclaredModel
) -> dg.MaterializeResult[Any]:
    """The step: each candidate on each fold, logged under one parent run, and the winner."""
    from mlops_assets.training.competition import Competition
    from mlops_assets.training.plots import candidates_plot

    declared, candidates = model.declaration, model.candidates
    training_set = read_training_set(context.instance, lake, model)
    record = training_set.record
    competition = Competition(
        training_set.train,
        candidates,
        folds=declared.folds,
        metric=declared.selecting_metric,
        task=declared.task,
        seed=declared.seed,
        report=context.log.info,
    )
    with tracker.parent_run(context, declared.name) as parent:
        inside, out = competition.taking_part()
        for place, why in out.items():
            context.log.info(f"{candidates[place].name} does not compete: {why}")
        results, runs = [], []
        for number, place in enumerate(inside, 1):
            context.log.info(f"Candidate {number} of {len(inside)}: {candidates[place].name}")
            result = competition.result(place, inside)
            results.append(result)
            runs.append(_logged(tracker, parent, model, training_set, result))
        winner, why = competition.winner(inside, results)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(_version(record, results, inside.index(winner))),
        metadata={
            "winner": candidates[winner].name,
            "winner_position": winner,
            "why": why,
            "leaderboard": dg.MetadataValue.md(
                markdown_table(_leaderboard(results, runs, inside.index(winner)))
            ),
            "out": dg.MetadataValue.json({candidates[place].name: why for place, why in out.items()}),
            "folds_plot": image(
                candidates_plot(
                    results, declared.selecting_metric, [result.candidate.name for result in results]
                )
            ),
            "run_id": runs[inside.index(winner)].run_id,
            "training_set_version": record.data_version,
            **link("mlflow_run", parent.url),
        },
    )


def _logged(
    tracker: ExperimentTracker,
    parent: LoggedRun,
    model: DeclaredModel,
    training_set: PinnedTrainingSet,
    result: "CandidateResult",
) -> LoggedRun:
    """The run of a candidate, with what it was trained on and how it looks."""
    from mlops_assets.evaluation.plots import evaluation_plots
    from mlops_assets.training.plots import importance_plot

    record, data = training_set.record, training_set.train
    name, window = result.candidate.name, result.candidate.window_days
    # A window that no fold holds enough rows of has said nothing that could be drawn.
    plots = (
        evaluation_plots(
            model.declaration.task,
            data.target[result.judged],
            {name: result.scores},
            classes=data.classes,
        )
        if len(result.judged)
        else {}
    )
    return tracker.log_candidate(
        parent,
        name=name,
        params=result.params,
        fold_metrics=[fold.metrics for fold in result.folds],
        means=result.means(),
        tags={**_tags(record), **window_tags(data, window)},
        datasets={str(record.metadata["dagster/uri"]): record.data_version},
        figures={
            "importance.png": importance_plot(result.importance),
            **{f"{plot}.png": png for plot, png in plots.items()},
        },
        documents={"importance.json": result.importance},
    )


def window_tags(data: "TrainingData", window_days: int | None) -> dict[str, str]:
    """How far back a model was trained, as tags of its run and version: the window, first and last day."""
    first, last = data.within(window_days).span
    days = {"first_training_day": first, "last_training_day": last} if first else {}
    return {"training_window": window_name(window_days), **days}


def _tags(record: Record) -> dict[str, str]:
    return {
        "git_sha": git_sha(),
        "training_set_version": record.data_version,
        "pinned_tables": str(record.metadata["pinned_tables"]),
    }


def _leaderboard(
    results: "Sequence[CandidateResult]", runs: Sequence[LoggedRun], winner: int
) -> list[dict[str, Any]]:
    return [
        {
            "candidate": result.candidate.name,
            **{name: number(value) for name, value in result.means().items()},
            "seconds": round(sum(fold.seconds for fold in result.folds), 1),
            "won": "yes" if position == winner else "",
            "run": f"[{run.run_id[:8]}]({run.url})" if run.url else run.run_id[:8],
        }
        for position, (result, run) in enumerate(zip(results, runs, strict=True))
    ]


def _version(record: Record, results: "Sequence[CandidateResult]", winner: int) -> str:
    """Same training set, same scores, same winner: same version, whatever the MLflow run ids are."""
    content = repr((record.data_version, winner, [(r.candidate.name, r.params, r.means()) for r in results]))
    return hashlib.sha256(content.encode()).hexdigest()[:32]
