"""``<model>_candidates``: every declared way to train, judged on the same folds, each as a run in MLflow.

Belongs here: letting the candidates compete one after the other, what their runs and the record say. Does not
belong here: the competition and who wins (``training/candidates.py``), how a run is logged
(``resources/experiment_tracking.py``).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.asset_keys import name_tags
from mlops_assets.assets.automation import FOLLOW_CHANGED_DATA
from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.declared_model import DeclaredModel
from mlops_assets.assets.metadata import image, link, markdown_table, number
from mlops_assets.assets.training_set import PinnedTrainingSet, read_training_set
from mlops_assets.documents.model import CandidateDeclaration
from mlops_assets.event_log.records import Record
from mlops_assets.resources.code_provenance import git_sha
from mlops_assets.resources.experiment_tracking import ExperimentTracker, LoggedRun
from mlops_assets.resources.lake import Lake

if TYPE_CHECKING:
    from mlops_assets.training.candidates import CandidateResult

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
    from mlops_assets.training.candidates import best
    from mlops_assets.training.plots import candidates_plot

    declared = model.declaration
    training_set = read_training_set(context.instance, lake, model)
    record = training_set.record
    with tracker.parent_run(context, declared.name) as parent:
        competition = _Competition(context, model, training_set, _tags(record))
        results, runs = [], []
        for place, candidate in enumerate(declared.candidates, 1):
            context.log.info(f"Candidate {place} of {len(declared.candidates)}: {candidate.trainer}")
            result = competition.result(candidate)
            results.append(result)
            runs.append(competition.logged(tracker, parent, result))
        winner, why = best(results, declared.selecting_metric, declared.task)
    labels = [candidate.trainer for candidate in declared.candidates]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(_version(record, results, winner)),
        metadata={
            "winner": declared.candidates[winner].trainer,
            "winner_position": winner,
            "why": why,
            "leaderboard": dg.MetadataValue.md(markdown_table(_leaderboard(results, runs, winner))),
            "folds_plot": image(candidates_plot(results, declared.selecting_metric, labels)),
            "run_id": runs[winner].run_id,
            "training_set_version": record.data_version,
            **link("mlflow_run", parent.url),
        },
    )


@dataclass(frozen=True)
class _Competition:
    """What all candidates of a step have in common."""

    context: dg.AssetExecutionContext
    model: DeclaredModel
    training_set: PinnedTrainingSet
    tags: Mapping[str, str]

    def result(self, candidate: CandidateDeclaration) -> "CandidateResult":
        """One candidate on every fold of the training part."""
        from mlops_assets.training.candidates import Candidate, compete

        declared, data = self.model.declaration, self.training_set.train
        return compete(
            Candidate(candidate.trainer, candidate.params),
            data.matrix,
            data.target,
            data.folds(declared.folds, declared.seed, declared.task),
            features=data.features,
            task=declared.task,
            classes=len(data.classes or ()),
            seed=declared.seed,
            report=self.context.log.info,
        )

    def logged(self, tracker: ExperimentTracker, parent: LoggedRun, result: "CandidateResult") -> LoggedRun:
        """Its run, with what it was trained on and how it looks."""
        from mlops_assets.evaluation.plots import evaluation_plots
        from mlops_assets.training.plots import importance_plot

        record, data = self.training_set.record, self.training_set.train
        name = result.candidate.trainer
        plots = evaluation_plots(
            self.model.declaration.task,
            data.target[result.judged],
            {name: result.scores},
            classes=data.classes,
        )
        return tracker.log_candidate(
            parent,
            name=name,
            params=result.params,
            fold_metrics=[fold.metrics for fold in result.folds],
            means=result.means(),
            tags=self.tags,
            datasets={str(record.metadata["dagster/uri"]): record.data_version},
            figures={
                "importance.png": importance_plot(result.importance),
                **{f"{plot}.png": png for plot, png in plots.items()},
            },
            documents={"importance.json": result.importance},
        )


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
            "candidate": result.candidate.trainer,
            **{name: number(value) for name, value in result.means().items()},
            "seconds": round(sum(fold.seconds for fold in result.folds), 1),
            "won": "yes" if position == winner else "",
            "run": f"[{run.run_id[:8]}]({run.url})" if run.url else run.run_id[:8],
        }
        for position, (result, run) in enumerate(zip(results, runs, strict=True))
    ]


def _version(record: Record, results: "Sequence[CandidateResult]", winner: int) -> str:
    """Same training set, same scores, same winner: same version, whatever the MLflow run ids are."""
    content = repr(
        (record.data_version, winner, [(r.candidate.trainer, r.params, r.means()) for r in results])
    )
    return hashlib.sha256(content.encode()).hexdigest()[:32]
