"""``ModelComponent``: features and labels become a judged model.

Belongs here: the assets training set, candidates, model and evaluation of a name
with the gate's blocking check, wired from a declaration. Does not belong here: joining and splitting
(``training/training_set.py``), training (``training/``), judging (``evaluation/``), MLflow
(``resources/``).
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.asset_names import AssetName, Kind, asset_name, table_name
from mlops_assets.assets.automation import FOLLOW_CHANGED_DATA, follow_all_but
from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.measuring import NEWEST_DATA, REFERENCE_FILE
from mlops_assets.assets.metadata import _link, image, markdown_table
from mlops_assets.components.dataset import datasets_of, require_same_type
from mlops_assets.components.document import DeclaredComponent
from mlops_assets.components.feature_view import FeatureViewComponent
from mlops_assets.components.scaffolding import ModelScaffolder
from mlops_assets.data.schema import ColumnType, frame_of, typed_table
from mlops_assets.documents.contradictions import of_model, refuse
from mlops_assets.documents.declared_table import DeclaredTable
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.documents.model import ModelDeclaration
from mlops_assets.errors import DataError, DeclarationError, MlopsError, UnknownName
from mlops_assets.evaluation.gate import Verdict, decide
from mlops_assets.event_log.records import Record, newest_data, require
from mlops_assets.resources.alerts import Alert, Alerts
from mlops_assets.resources.code_provenance import git_sha
from mlops_assets.resources.experiment_tracking import ExperimentTracker
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import CHALLENGER, CHAMPION, ModelRegistry, RegisteredVersion
from mlops_assets.training.trainers import trainer
from mlops_assets.training.training_set import LABEL, assemble, training_set_schema
from serve.schema import Task

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
    from mlops_assets.training.candidates import CandidateResult
    from mlops_assets.training.package import ModelPackage
    from mlops_assets.training.training_data import TrainingData
    from serve.scoring import Scorer

# What each asset depends on: a change elsewhere in the document does not make it stale.
TRAINING_SET_FIELDS = {
    "task",
    "feature_view",
    "label",
    "classes",
    "evaluation_window_days",
    "evaluation_fraction",
    "training_window_days",
    "seed",
}
CANDIDATES_FIELDS = {"task", "candidates", "folds", "metric", "seed"}
MODEL_FIELDS = {"name", "task", "candidates", "label", "threshold", "seed"}
EVALUATION_FIELDS = {"task", "gate", "metric"}

LABEL_TYPES: dict[Task, tuple[ColumnType, ...]] = {
    "binary": ("boolean", "string", "integer", "number"),
    "multiclass": ("string", "integer", "number"),
    "regression": ("number", "integer"),
}
"""Types of a column that can be the label."""


@dg.scaffold_with(ModelScaffolder)
class ModelComponent(DeclaredComponent[ModelDeclaration]):
    """Trains candidates side by side, registers the best, and judges it against the champion.

    .. code-block:: yaml

        type: mlops_assets.components.ModelComponent
        attributes:
          name: flights
          task: binary
          feature_view: flights
          label: {dataset: flights, function: mlops_assets.defs.flights.features.arrived_late}
          candidates:
            - {trainer: lightgbm}
            - {trainer: logistic_regression}
    """

    Declaration = ModelDeclaration
    MAKES: ClassVar = {"name": ("model", "training_set", "candidates", "evaluation")}
    NEEDS: ClassVar = {"feature_view": "features", "label.dataset": "dataset"}

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        group = context.path.name
        view = self.feature_view(context)
        refuse(self, of_model(self.declaration, view))
        self._check_label(context, view)
        monitor = self.monitor(context)
        return dg.Definitions(
            assets=[
                self._training_set(group, view, monitor, *self.tables(context, view)),
                self._candidates(group, view),
                self._model(group, view, monitor),
                self._evaluation(group, view),
            ]
        )

    def _key(self, kind: Kind) -> dg.AssetKey:
        return asset_key(kind, self.declaration.name)

    def _trainers(self) -> list[Callable[..., Any]]:
        """The training functions, whose source is part of what a trained model is."""
        return [trainer(candidate.trainer)._fit for candidate in self.declaration.candidates]

    def training_code(self) -> str:
        """Version of everything declared and coded that makes the model what it is, from join to trainer."""
        function = self._label_function()
        made_by = [*([function] if function else []), assemble, *self._trainers()]
        return code_version(
            self.declaration, made_by, fields=TRAINING_SET_FIELDS | CANDIDATES_FIELDS | MODEL_FIELDS
        )

    def _label_function(self) -> Callable[..., Any] | None:
        dotted = self.declaration.label.function
        return self.function(dotted, "label", "function") if dotted else None

    def labels(self, outcomes: "pd.DataFrame") -> "pd.Series[Any]":
        """The label of each row of the label's dataset; missing where there is none (yet).

        Raises DataError when the function raises, or does not give one label per row.
        """
        import pandas as pd

        function = self._label_function()
        if function is None:
            return outcomes[str(self.declaration.label.column)]
        name = str(self.declaration.label.function)
        try:
            made = function(outcomes.copy())
        except Exception as error:  # the declaration's own code: whatever it raises is about these rows
            raise DataError(f"{name} failed with {type(error).__name__}: {error}") from error
        if not isinstance(made, pd.Series):
            raise DataError(f"{name} returned a {type(made).__name__}, not a Series")
        if not made.index.equals(outcomes.index):
            raise DataError(
                f"{name} returned {len(made)} labels for {len(outcomes)} rows; it must keep rows, order "
                "and index"
            )
        return made

    def monitor(self, context: dg.ComponentLoadContext) -> "DriftMonitorDeclaration | None":
        """The monitor of this model, when one is declared."""
        # The monitor's module needs this one to measure by the model's own declaration.
        from mlops_assets.components.drift_monitor import DriftMonitorComponent

        monitors = context.component_tree.get_all_components(DriftMonitorComponent)
        declared = [one.declaration for one in monitors if one.declaration.model == self.declaration.name]
        if len(declared) > 1:
            raise DeclarationError(
                f"model {self.declaration.name!r} has {len(declared)} DriftMonitorComponents; declare one",
                where=self.where("name"),
            )
        return declared[0] if declared else None

    def feature_view(self, context: dg.ComponentLoadContext) -> FeatureViewDeclaration:
        """The declaration of the feature view this model names."""
        views = {
            component.declaration.name: component.declaration
            for component in context.component_tree.get_all_components(FeatureViewComponent)
        }
        name = self.declaration.feature_view
        if name not in views:
            raise DeclarationError(
                str(UnknownName("feature view", name, views)), where=self.where("feature_view")
            )
        return views[name]

    def tables(
        self, context: dg.ComponentLoadContext, view: FeatureViewDeclaration
    ) -> tuple[DeclaredTable, DeclaredTable]:
        """The tables of the features and of the labels, as declared."""
        datasets = datasets_of(context)
        label = self.declaration.label.dataset
        features = DeclaredTable(AssetName("features", view.name))
        if view.base in datasets:
            features = view.table(datasets[view.base].declaration)
        if label not in datasets:
            return features, DeclaredTable(AssetName("dataset", label))
        return features, datasets[label].declaration.table()

    def _check_label(self, context: dg.ComponentLoadContext, view: FeatureViewDeclaration) -> None:
        """DeclarationError when the labels cannot be joined, or their column is no label of the task."""
        datasets = datasets_of(context)
        label, task = self.declaration.label, self.declaration.task
        if label.dataset not in datasets:
            # Plain definitions may make it: then nothing is known of its columns.
            return
        outcomes = datasets[label.dataset].declaration
        for key in view.entity.join_keys:
            where = self.where("label", "dataset")
            if key not in outcomes.columns:
                problem = UnknownName(
                    f"column of dataset {label.dataset!r}",
                    key,
                    outcomes.columns,
                    next_step=f"Labels are joined by the join keys of feature view {view.name!r}.",
                )
                raise DeclarationError(str(problem), where=where)
            if view.base in datasets:
                require_same_type(key, datasets[view.base], datasets[label.dataset], where)
        if label.column is None:
            return
        where = self.where("label", "column")
        if label.column not in outcomes.columns:
            problem = UnknownName(f"column of dataset {label.dataset!r}", label.column, outcomes.columns)
            raise DeclarationError(str(problem), where=where)
        kind = outcomes.columns[label.column]
        if kind not in LABEL_TYPES[task]:
            raise DeclarationError(
                f"column {label.column!r} of dataset {label.dataset!r} is a {kind}, which is no label of a "
                f"{task} task; it takes: {', '.join(LABEL_TYPES[task])}. Or make the label by a function.",
                where=where,
            )

    def _training_set(
        self,
        group: str,
        view: FeatureViewDeclaration,
        monitor: "DriftMonitorDeclaration | None",
        features_table: DeclaredTable,
        label_table: DeclaredTable,
    ) -> dg.AssetsDefinition:
        declared = self.declaration
        label = declared.label
        features_key = asset_key("features", view.name)
        label_key = asset_key("dataset", label.dataset)
        function = self._label_function()
        requests = self._key("retrain_request")

        @dg.asset(
            key=self._key("training_set"),
            deps=[features_key, label_key, *([requests] if monitor else [])],
            # No data and no event retrains by itself: the drift sensor does, for a grant, or a person.
            group_name=group,
            kinds={"training_set", "deltalake"},
            tags=name_tags("training_set", declared.name),
            description=f"Labelled rows of {view.name}, split by time into train and evaluate.",
            code_version=code_version(
                declared,
                [*([function] if function else []), assemble],
                fields=TRAINING_SET_FIELDS,
            ),
        )
        def training_set(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult[Any]:
            from mlops_assets.data.content import content_version
            from mlops_assets.training.plots import training_set_plot

            newest = newest_data(context.instance, label_key) or ""
            pinned = {table: lake.version(table) for table in (features_table.name, label_table.name)}
            keys = list(view.entity.join_keys)
            try:
                features = features_table.read(
                    lake, columns=features_table.columns, version=pinned[features_table.name]
                )
                outcomes = label_table.read(lake, version=pinned[label_table.name])
                made = assemble(
                    features,
                    outcomes[keys].assign(**{LABEL: self.labels(outcomes)}),
                    join_keys=view.entity.join_keys,
                    event_timestamp=view.event_timestamp,
                    task=declared.task,
                    classes=declared.classes,
                    evaluation_window_days=declared.evaluation_window_days,
                    evaluation_fraction=declared.evaluation_fraction,
                    training_window_days=declared.training_window_days,
                    seed=declared.seed,
                )
            except MlopsError as error:
                raise dg.Failure(
                    f"{asset_name('training_set', declared.name)}: {error}", allow_retries=False
                ) from error
            held = lake.columns(features_table.name, version=pinned[features_table.name])
            rows = typed_table(made.frame, training_set_schema(held, list(features.columns)))
            version = content_version(frame_of(rows))
            wrote = lake.write(
                table_name("training_set", self.declaration.name),
                rows,
                partition_column=None,
                partitions=None,
                commit={"run_id": context.run.run_id, "data_version": version},
            )
            train, evaluate = made.part("train"), made.part("evaluate")
            return dg.MaterializeResult(
                data_version=dg.DataVersion(version),
                metadata={
                    "dagster/row_count": len(made.frame),
                    "train_rows": len(train),
                    "evaluation_rows": len(evaluate),
                    "unlabelled_rows": made.unlabelled,
                    "too_old_rows": made.too_old,
                    "classes": dg.MetadataValue.json(list(made.classes or ())),
                    "pinned_tables": dg.MetadataValue.json(pinned),
                    NEWEST_DATA: newest,
                    "delta_version": wrote.version,
                    "dagster/uri": wrote.uri,
                    **_time_range("train", train, view.event_timestamp),
                    **_time_range("evaluation", evaluate, view.event_timestamp),
                    "label_over_time": image(training_set_plot(made, view.event_timestamp, declared.task)),
                },
            )

        return training_set

    def _candidates(self, group: str, view: FeatureViewDeclaration) -> dg.AssetsDefinition:
        declared = self.declaration

        @dg.asset(
            key=self._key("candidates"),
            deps=[self._key("training_set")],
            group_name=group,
            kinds={"candidates", "mlflow"},
            tags=name_tags("candidates", declared.name),
            description=f"Candidates trained and judged side by side on {declared.folds} time-ordered folds.",
            code_version=code_version(declared, self._trainers(), fields=CANDIDATES_FIELDS),
            automation_condition=FOLLOW_CHANGED_DATA,
        )
        def candidates(
            context: dg.AssetExecutionContext, lake: Lake, experiment_tracker: ExperimentTracker
        ) -> dg.MaterializeResult[Any]:
            from mlops_assets.evaluation.plots import evaluation_plots
            from mlops_assets.training.candidates import Candidate, best, compete
            from mlops_assets.training.plots import candidates_plot, importance_plot

            record, data = self._training_data(context, lake, view)
            tags = {
                "git_sha": git_sha(),
                "training_set_version": record.data_version,
                "pinned_tables": str(record.metadata["pinned_tables"]),
            }
            results, runs = [], []
            with experiment_tracker.parent_run(context, declared.name) as parent:
                for number, candidate in enumerate(declared.candidates, 1):
                    context.log.info(f"Candidate {number} of {len(declared.candidates)}: {candidate.trainer}")
                    result = compete(
                        Candidate(candidate.trainer, candidate.params),
                        data.matrix,
                        data.target,
                        data.folds(declared.folds, declared.seed, declared.task),
                        features=data.features,
                        task=declared.task,
                        classes=len(data.classes or ()),
                        seed=declared.seed,
                        report=context.log.info,
                    )
                    results.append(result)
                    runs.append(
                        experiment_tracker.log_candidate(
                            parent,
                            name=candidate.trainer,
                            params=result.params,
                            fold_metrics=[fold.metrics for fold in result.folds],
                            means=result.means(),
                            tags=tags,
                            datasets={str(record.metadata["dagster/uri"]): record.data_version},
                            figures={
                                "importance.png": importance_plot(result.importance),
                                **{
                                    f"{plot}.png": png
                                    for plot, png in evaluation_plots(
                                        declared.task,
                                        data.target[result.judged],
                                        {candidate.trainer: result.scores},
                                        classes=data.classes,
                                    ).items()
                                },
                            },
                            documents={"importance.json": result.importance},
                        )
                    )
                winner, why = best(results, declared.selecting_metric, declared.task)
            labels = [candidate.trainer for candidate in declared.candidates]
            rows = [
                {
                    "candidate": result.candidate.trainer,
                    **{name: _shown(value) for name, value in result.means().items()},
                    "seconds": round(sum(fold.seconds for fold in result.folds), 1),
                    "won": "yes" if position == winner else "",
                    "run": f"[{run.run_id[:8]}]({run.url})" if run.url else run.run_id[:8],
                }
                for position, (result, run) in enumerate(zip(results, runs, strict=True))
            ]
            return dg.MaterializeResult(
                data_version=dg.DataVersion(_candidates_version(record, results, winner)),
                metadata={
                    "winner": declared.candidates[winner].trainer,
                    "winner_position": winner,
                    "why": why,
                    "leaderboard": dg.MetadataValue.md(markdown_table(rows)),
                    "folds_plot": image(candidates_plot(results, declared.selecting_metric, labels)),
                    "run_id": runs[winner].run_id,
                    "training_set_version": record.data_version,
                    **_link("mlflow_run", parent.url),
                },
            )

        return candidates

    def _model(
        self, group: str, view: FeatureViewDeclaration, monitor: "DriftMonitorDeclaration | None"
    ) -> dg.AssetsDefinition:
        declared = self.declaration
        signal = self._key("drift_signal")

        @dg.asset(
            key=self._key("model"),
            # Staleness is not transitive: what makes the model stale must stand among its own inputs.
            deps=[self._key("candidates"), self._key("training_set"), *([signal] if monitor else [])],
            group_name=group,
            kinds={"model", "mlflow"},
            tags=name_tags("model", declared.name),
            description=declared.description
            or f"The winning candidate, trained on the whole training part: model {declared.name}.",
            code_version=code_version(declared, self._trainers(), fields=MODEL_FIELDS),
            automation_condition=follow_all_but(signal) if monitor else FOLLOW_CHANGED_DATA,
        )
        def model(
            context: dg.AssetExecutionContext, lake: Lake, model_registry: ModelRegistry
        ) -> dg.MaterializeResult[Any]:
            from mlops_assets.training.package import package
            from mlops_assets.training.plots import importance_plot
            from serve.scoring import write_package

            chosen = require(context.instance, self._key("candidates"))
            record, data = self._training_data(context, lake, view)
            candidate = declared.candidates[int(chosen.metadata["winner_position"])]
            context.log.info(f"Training {candidate.trainer} on {len(data.target):,} rows")
            fitted = trainer(candidate.trainer).fit(
                data.matrix,
                data.target,
                features=data.features,
                task=declared.task,
                classes=len(data.classes or ()),
                params=candidate.params,
                seed=declared.seed,
            )
            made = package(
                fitted,
                data.frame,
                name=declared.name,
                task=declared.task,
                trainer_name=candidate.trainer,
                target=declared.label.column or str(declared.label.function).rsplit(".", 1)[-1],
                features=data.features,
                classes=data.classes,
                threshold=declared.threshold,
                training_set_version=record.data_version,
                entity=view.entity.join_keys,
            )
            uri = lake.package_uri(declared.name, made.digest)
            write_package(uri, made.manifest, made.payload, lake.public_storage_options())
            if monitor:
                self._write_reference(context, lake, view, monitor, made, uri)
            version = model_registry.register(
                declared.name,
                digest=made.digest,
                package_uri=uri,
                run_id=str(chosen.metadata["run_id"]),
                manifest=made.manifest,
                payload=made.payload,
                tags={
                    "training_set_version": record.data_version,
                    "pinned_tables": str(record.metadata["pinned_tables"]),
                    "trained_until": str(record.metadata.get("train_until", "")),
                    "git_sha": git_sha(),
                    "training_code": self.training_code(),
                    NEWEST_DATA: str(record.metadata.get(NEWEST_DATA, "")),
                    "training_set_delta": str(record.metadata["delta_version"]),
                    "dagster_run_id": context.run.run_id,
                },
                example=data.frame[list(made.manifest.feature_names)].head(20),
            )
            return dg.MaterializeResult(
                data_version=dg.DataVersion(made.digest),
                metadata={
                    "model_version": version.version,
                    "alias": CHALLENGER,
                    "trainer": candidate.trainer,
                    "why": chosen.metadata["why"],
                    "train_rows": len(data.target),
                    "package": uri,
                    "bytes": len(made.payload),
                    "params": dg.MetadataValue.json(fitted.params),
                    "importance": image(importance_plot(fitted.importance)),
                    "training_set_version": record.data_version,
                    **_link("mlflow_model", model_registry.version_url(declared.name, version.version)),
                },
            )

        return model

    def _evaluation(self, group: str, view: FeatureViewDeclaration) -> dg.AssetsDefinition:
        declared = self.declaration
        key = self._key("evaluation")

        @dg.asset(
            key=key,
            deps=[self._key("model"), self._key("training_set")],
            group_name=group,
            kinds={"evaluation"},
            tags=name_tags("evaluation", declared.name),
            description="Challenger against champion and baseline on the newest labelled rows; the verdict.",
            code_version=code_version(declared, [decide], fields=EVALUATION_FIELDS),
            automation_condition=FOLLOW_CHANGED_DATA,
            check_specs=[
                dg.AssetCheckSpec(
                    "gate",
                    asset=key,
                    blocking=True,
                    description="The gate's verdict on the challenger is promote.",
                )
            ],
        )
        def evaluation(
            context: dg.AssetExecutionContext, lake: Lake, model_registry: ModelRegistry, alerts: Alerts
        ) -> Iterator[dg.MaterializeResult[Any]]:
            from mlops_assets.evaluation.judgement import judge
            from mlops_assets.training.training_set import EVALUATE

            record, data = self._training_data(context, lake, view, split=EVALUATE)
            _, train = self._training_data(context, lake, view)
            trained = require(context.instance, self._key("model"))
            challenger = model_registry.version(declared.name, int(trained.metadata["model_version"]))
            champion = model_registry.by_alias(declared.name, CHAMPION)
            judged = judge(
                declared.gate,
                declared.selecting_metric,
                data.frame,
                data.target,
                train.target,
                task=declared.task,
                classes=data.classes,
                challenger=_scorer(challenger, lake),
                champion=_scorer(champion, lake) if champion else None,
                champion_is=f"champion v{champion.version}" if champion else "",
                same_as_champion=champion is not None and champion.digest == challenger.digest,
                champion_trained_until=champion.tags.get("trained_until", "") if champion else "",
                event_timestamp=view.event_timestamp,
            )
            verdict = judged.verdict
            model_registry.set_tags(
                declared.name,
                challenger.version,
                {"gate": verdict.outcome, "gate_reason": verdict.reason[:4_000]},
            )
            # Of a first model nobody is waiting for a repair, and who builds it is looking.
            rejected = champion if verdict.outcome != "promote" else None
            told = (
                {"alert": alerts.send(_rejection(verdict, challenger, rejected, context.run.run_id))}
                if rejected
                else {}
            )
            table = [
                {
                    "measured": one.name,
                    "value": _shown(one.value),
                    "limit": _shown(one.limit),
                    "passed": {True: "yes", False: "no", None: "undecided"}[one.passed],
                    "in words": one.said,
                }
                for one in verdict.measurements
            ]
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(judged.version(record.data_version, trained.data_version)),
                metadata={
                    "outcome": verdict.outcome,
                    "reason": verdict.reason,
                    "model_version": challenger.version,
                    "champion_version": champion.version if champion else "none",
                    "evaluation_rows": len(data.target),
                    **{name: value for name, value in judged.metrics.items() if value is not None},
                    "measurements": dg.MetadataValue.md(markdown_table(table)),
                    "slices": dg.MetadataValue.md(markdown_table(judged.slice_rows())),
                    **{name: image(png) for name, png in judged.plots.items()},
                    **told,
                    **_link("mlflow_model", model_registry.version_url(declared.name, challenger.version)),
                },
                check_results=[
                    dg.AssetCheckResult(
                        asset_key=key,
                        check_name="gate",
                        passed=verdict.outcome == "promote",
                        description=f"{verdict.outcome}: {verdict.reason}",
                        metadata={
                            "outcome": verdict.outcome,
                            "model_version": challenger.version,
                            "model_digest": challenger.digest,
                            "measurements": dg.MetadataValue.md(markdown_table(table)),
                        },
                    )
                ],
            )

        return evaluation

    def _write_reference(
        self,
        context: dg.AssetExecutionContext,
        lake: Lake,
        view: FeatureViewDeclaration,
        monitor: "DriftMonitorDeclaration",
        made: "ModelPackage",
        uri: str,
    ) -> None:
        """Stores beside the package what its monitor compares windows with, thresholds included."""
        import pandas as pd

        from mlops_assets.monitoring.performance import performance_references
        from mlops_assets.monitoring.reference import Judged, make_reference
        from mlops_assets.training.training_set import EVALUATE
        from serve.scoring import scorer_from_bytes

        _, train = self._training_data(context, lake, view)
        _, unseen = self._training_data(context, lake, view, split=EVALUATE)
        scorer = scorer_from_bytes(made.manifest, made.payload)
        names = made.manifest.feature_names
        # Rows the model was trained on get sharper scores than any later row will.
        scores = scorer.score(scorer.encoder.columns({name: unseen.frame[name] for name in names}))

        def days(frame: "pd.DataFrame") -> "NDArray[np.int64] | None":
            at = view.event_timestamp
            return frame[at].dt.floor("D").astype("int64").to_numpy() if at else None

        everything = pd.concat([train.frame, unseen.frame], ignore_index=True)
        reference = make_reference(
            everything,
            made.manifest.features,
            judged=Judged(scores, unseen.target, days(unseen.frame)),
            task=self.declaration.task,
            classes=made.manifest.classes,
            groups=days(everything),
            window_days=monitor.window.total_seconds() / 86_400,
            performance=performance_references(
                self.declaration.task, unseen.target, scores, days(unseen.frame)
            ),
            seed=self.declaration.seed,
        )
        lake.write_text(f"{uri}/{REFERENCE_FILE}", reference.dumps())

    def _training_data(
        self,
        context: dg.AssetExecutionContext,
        lake: Lake,
        view: FeatureViewDeclaration,
        split: str = "train",
    ) -> "tuple[Record, TrainingData]":
        """One part of the pinned training set as matrix and target, with its record."""
        from mlops_assets.training.training_data import training_data

        record = require(context.instance, self._key("training_set"))
        frame = lake.read(
            table_name("training_set", self.declaration.name), version=int(record.metadata["delta_version"])
        )
        classes = record.metadata["classes"]
        return record, training_data(
            frame,
            split=split,
            features=view.features,
            classes=tuple(classes) if classes else None,
            join_keys=view.entity.join_keys,
            event_timestamp=view.event_timestamp,
        )


def _scorer(version: RegisteredVersion, lake: Lake) -> "Scorer":
    from serve.scoring import load_package

    return load_package(version.package_uri, lake.public_storage_options())


def _time_range(name: str, frame: "pd.DataFrame", event_timestamp: str | None) -> dict[str, str]:
    if event_timestamp is None or frame.empty:
        return {}
    times = frame[event_timestamp]
    return {f"{name}_from": times.min().isoformat(), f"{name}_until": times.max().isoformat()}


def _rejection(
    verdict: Verdict, challenger: RegisteredVersion, champion: RegisteredVersion, run_id: str
) -> Alert:
    """What people hear of a challenger that the gate does not let past."""
    return Alert(
        kind="gate_rejected",
        subject=asset_name("model", challenger.name),
        version=f"v{challenger.version}",
        summary=f"{verdict.outcome}: {verdict.reason}. v{champion.version} keeps answering",
        command=f"look at {asset_name('evaluation', challenger.name)} (plots, slices); an open episode tries "
        f"again with newer data, by hand: dg launch --assets "
        f"'key:\"{asset_name('training_set', challenger.name)}\"'",
        evidence={
            "outcome": verdict.outcome,
            "champion": f"v{champion.version}",
            "run_id": run_id,
            "measurements": {
                one.name: {"value": one.value, "limit": one.limit, "passed": one.passed}
                for one in verdict.measurements
            },
        },
        # The same model judged on newer rows is news.
        dedupe=verdict.reason,
    )


def _shown(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def _candidates_version(record: Record, results: "list[CandidateResult]", winner: int) -> str:
    """Same training set, same scores, same winner: same version, whatever the MLflow run ids are."""
    import hashlib

    content = repr(
        (record.data_version, winner, [(r.candidate.trainer, r.params, r.means()) for r in results])
    )
    return hashlib.sha256(content.encode()).hexdigest()[:32]
