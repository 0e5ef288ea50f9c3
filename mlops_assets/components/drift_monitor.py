"""``DriftMonitorComponent``: what a deployment answered, measured, until its model is stale.

Belongs here: the assets prediction log, performance and drift of a model, its external assets drift
signal and retrain request, the checks ``no_drift`` and ``served``, wired from a declaration. Does not
belong here: reading what is measured (``assets/measuring.py``), the sensors (``sensors/drift.py``), what
is true of the version that answers (``event_log/served_state.py``), arithmetic and decisions
(``monitoring/``).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg
import numpy as np

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.asset_names import AssetName, Kind, asset_name, table_name
from mlops_assets.assets.automation import AFTER_DEPLOYMENT
from mlops_assets.assets.backtest import backtest_asset
from mlops_assets.assets.joined_answers import (
    Compacted,
    Current,
    JoinedAnswers,
    Played,
    labels_of,
    window_drift,
)
from mlops_assets.assets.logged_days import DAY_COLUMN, logged_days
from mlops_assets.assets.measuring import READ_UNTIL, first_day, read_until, reference_of
from mlops_assets.assets.metadata import compact_json, image, markdown_table
from mlops_assets.components.deployment import DeploymentComponent
from mlops_assets.components.document import DeclaredComponent, Need, named
from mlops_assets.components.model import ModelComponent
from mlops_assets.components.scaffolding import DriftMonitorScaffolder
from mlops_assets.documents.contradictions import of_monitor, refuse
from mlops_assets.documents.declared_table import DeclaredTable
from mlops_assets.documents.deployment import DeploymentDeclaration
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.errors import DeclarationError, RegistryError, UnknownName
from mlops_assets.event_log.episode_records import episode_log, requests_key, signal_key
from mlops_assets.event_log.partition_events import range_version, report_partitions, run_partitions
from mlops_assets.event_log.served_state import MONITORED, Monitored, Served, served, served_check
from mlops_assets.monitoring.detectors import DETECTORS
from mlops_assets.monitoring.labels import Watermark
from mlops_assets.monitoring.windows import Window, ended_windows
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.inference_log import InferenceLog
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import ModelRegistry
from mlops_assets.resources.scratch import Scratch
from mlops_assets.sensors.drift import (
    MEASURED,
    MEASURED_TAG,
    NO_DRIFT,
    drift_sensor,
    measure_sensor,
    no_drift_result,
)
from serve.schema import ModelManifest, Task

if TYPE_CHECKING:
    import pandas as pd

    from mlops_assets.monitoring.findings import WindowDrift, WindowPerformance
    from mlops_assets.monitoring.reference import DriftReference

WORST_SHOWN = 15
NO_ROWS = "no rows"
"""Version of a day without an answer."""
COMPACT_AFTER = timedelta(minutes=5)
"""An hour's files are merged this long after it ended: gateways write with a delay."""


@dg.scaffold_with(DriftMonitorScaffolder)
class DriftMonitorComponent(DeclaredComponent[DriftMonitorDeclaration]):
    """Watches the version that answers; drift opens an episode, which makes its model stale.

    .. code-block:: yaml

        type: mlops_assets.components.DriftMonitorComponent
        attributes:
          model: flights
          logs_since: "2013-01-01"
          window: 7d
          labels: {within: 3d, min_share: 0.8}
          policy:
            prediction: {action: open, windows: 2, of: 3}
            performance: {action: open, windows: 2, of: 3}
          governor: {cooldown: 7d, daily_budget: 2}
    """

    Declaration = DriftMonitorDeclaration
    MAKES: ClassVar = {
        "model": (
            "drift",
            "prediction_log",
            "performance",
            "backtest",
            "drift_signal",
            "retrain_request",
        )
    }
    NEEDS: ClassVar = {"model": "model"}
    clock = staticmethod(time.time)
    """Real time, Unix seconds: by it runs are waited for and launched again."""

    @classmethod
    def needs(cls, attributes: Mapping[str, Any]) -> list[Need]:
        by = "deployment" if attributes.get("deployment") else "model"
        served_by = [Need(AssetName("deployment", name), path) for path, name in named(attributes, by)]
        return [*super().needs(attributes), *served_by]

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        folder = context.path if context.path.is_dir() else context.path.parent
        model = self._model(context)
        view = model.feature_view(context)
        deployment = self._deployment(context)
        declared = self.declaration
        refuse(self, of_monitor(declared, model.declaration, view, deployment))
        features, labels = model.tables(context, view)
        monitored = Monitored(
            model=declared.model,
            deployment=declared.served_by,
            label_dataset=model.declaration.label.dataset,
            max_data_age_s=declared.max_data_age.total_seconds(),
            training_code=model.training_code(),
            approval=deployment.approval.mode if deployment else "auto",
            relaunch=declared.relaunch.relaunch().model_dump(mode="json"),
        )
        log, performance, drift = (
            self._prediction_logs(folder.name),
            self._performance(folder.name, model, view, labels),
            self._drift(folder.name, model, view, monitored, labels),
        )
        return dg.Definitions(
            assets=[
                *self._external(folder.name),
                log,
                performance,
                drift,
                backtest_asset(
                    folder.name, declared, model.declaration, view, features, labels, labels_of=model.labels
                ),
            ],
            asset_checks=[
                self._no_drift(),
                served_check(monitored),
            ],
            sensors=[
                measure_sensor(
                    declared, label_key=labels.key, measured=[log.key, performance.key, drift.key]
                ),
                drift_sensor(declared, monitored, clock=self.clock),
            ],
        )

    def _key(self, kind: Kind) -> dg.AssetKey:
        return asset_key(kind, self.declaration.model)

    def _model(self, context: dg.ComponentLoadContext) -> ModelComponent:
        models = {
            component.declaration.name: component
            for component in context.component_tree.get_all_components(ModelComponent)
        }
        name = self.declaration.model
        if name not in models:
            raise DeclarationError(str(UnknownName("model", name, models)), where=self.where("model"))
        return models[name]

    def _deployment(self, context: dg.ComponentLoadContext) -> DeploymentDeclaration | None:
        """The declaration of the deployment whose answers are read; None where nobody declares it."""
        declared = (one.declaration for one in context.component_tree.get_all_components(DeploymentComponent))
        return next((one for one in declared if one.name == self.declaration.served_by), None)

    def _external(self, group: str) -> list[dg.AssetSpec]:
        model = self.declaration.model
        return [
            dg.AssetSpec(
                signal_key(model),
                group_name=group,
                kinds={"drift_signal"},
                tags=name_tags("drift_signal", model),
                description=f"Drift episodes of {model}. A new one makes the model stale, and says why.",
            ),
            dg.AssetSpec(
                requests_key(model),
                group_name=group,
                kinds={"retrain_request"},
                description=f"Granted retrains of {model}; the sensor drift_{model} follows each with one "
                "run from the training set to the deployment. What is reported here by hand is a request: "
                "the governor answers it.",
            ),
        ]

    # -- assets ----------------------------------------------------------------------------------------

    def _prediction_logs(self, group: str) -> dg.AssetsDefinition:
        declared = self.declaration
        key = self._key("prediction_log")

        @dg.asset(
            key=key,
            deps=[],
            group_name=group,
            kinds={"prediction_log", "deltalake"},
            tags={**name_tags("prediction_log", declared.model), AFTER_DEPLOYMENT: ""},
            description=f"Every answer of {declared.served_by}, by day (UTC), each exactly once.",
            partitions_def=dg.DailyPartitionsDefinition(
                start_date=declared.logs_since.isoformat(), end_offset=1
            ),
            backfill_policy=dg.BackfillPolicy.single_run(),
            code_version="1",
        )
        def prediction_logs(
            context: dg.AssetExecutionContext,
            lake: Lake,
            inference_log: InferenceLog,
            scratch: Scratch,
            clock: Clock,
        ) -> Iterator[dg.MaterializeResult[Any]]:
            days = run_partitions(context) or []
            start = first_day(declared)
            # Before anything is read: what comes later may or may not be in it.
            now = clock.now()
            newest = inference_log.last_files(declared.served_by, 1)
            later = bool(newest and days) and newest[0].hour.date().isoformat() > days[-1]
            merged = inference_log.compact(declared.served_by, before=now - COMPACT_AFTER, since=start)
            with logged_days(scratch, inference_log, declared.served_by, days) as logged:
                wrote = lake.write(
                    table_name("prediction_log", declared.model),
                    logged.rows,
                    partition_column=DAY_COLUMN,
                    partitions=days,
                    commit={"run_id": context.run.run_id},
                )
            with_rows = logged.contents.versions()
            versions = {day: with_rows.get(day, NO_ROWS) for day in days}
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(range_version(versions)),
                metadata={
                    "dagster/row_count": wrote.rows,
                    "delta_version": wrote.version,
                    "dagster/uri": wrote.uri,
                    "files_merged": merged.files,
                    "versions": dg.MetadataValue.json(dict(logged.by_version.most_common())),
                },
            )
            report_partitions(
                context,
                key,
                versions,
                {
                    day: {
                        "dagster/partition_row_count": logged.by_day[day],
                        # After the newest answers there are none: the log is complete until now.
                        READ_UNTIL: (min(now, _end_of(day)) if later else now).isoformat(),
                    }
                    for day in days
                },
            )

        return prediction_logs

    def _performance(
        self, group: str, model: ModelComponent, view: FeatureViewDeclaration, labels: DeclaredTable
    ) -> dg.AssetsDefinition:
        declared, task = self.declaration, model.declaration.task

        @dg.asset(
            key=self._key("performance"),
            deps=[self._key("prediction_log"), labels.key],
            group_name=group,
            kinds={"performance"},
            tags={**name_tags("performance", declared.model), AFTER_DEPLOYMENT: ""},
            description=f"How good the answers of {declared.served_by} were, by window, as labels arrive.",
            code_version="1",
        )
        def performance(
            context: dg.AssetExecutionContext,
            lake: Lake,
            model_registry: ModelRegistry,
            scratch: Scratch,
            clock: Clock,
        ) -> dg.MaterializeResult[Any]:
            from mlops_assets.monitoring.plots import performance_plot

            now = clock.now()
            answering = self._served(context, model_registry)
            windows = self._windows(self._complete_until(context, now))
            found: list[WindowPerformance] = []
            with self._answers(scratch, lake, model, view, labels, now, declared.slices) as answers:
                for played in answers.played():
                    try:
                        registered = model_registry.version(declared.model, int(played.version[1:]))
                    except RegistryError as error:
                        context.log.warning(f"Answers of {played.version} are not measured: {error}")
                        continue
                    classes = ModelManifest.model_validate(registered.manifest()).classes
                    reference = reference_of(lake, registered)
                    found += [
                        self._window_performance(answers, window, played, reference, classes, task, now)
                        for window in windows
                        if window.end > played.first
                    ]
                known = answering.manifest.classes if answering else None
                counts, losses = answers.counts(), answers.losses(task, known)
            judged = [one for one in found if one.variant == "champion" and one.status == "judged"]
            newest = judged[-1] if judged else None
            return dg.MaterializeResult(
                metadata={
                    "served": answering.label if answering else "none",
                    **counts,
                    "measured_at": now.isoformat(),
                    "by_window": dg.MetadataValue.md(markdown_table(_performance_rows(found))),
                    **({newest.metric: newest.value} if newest and newest.value is not None else {}),
                    **({"performance": image(performance_plot(judged))} if judged else {}),
                    **({"slices": dg.MetadataValue.md(_slices(newest))} if newest and newest.slices else {}),
                    "windows": compact_json([one.to_dict() for one in found]),
                    "losses": compact_json(losses),
                },
            )

        return performance

    def _drift(
        self,
        group: str,
        model: ModelComponent,
        view: FeatureViewDeclaration,
        monitored: Monitored,
        labels: DeclaredTable,
    ) -> dg.AssetsDefinition:
        declared = self.declaration

        @dg.asset(
            key=self._key("drift"),
            # Not of performance: an odd label must not blind it.
            deps=[self._key("prediction_log"), monitored.label_key],
            group_name=group,
            kinds={"drift", "evidently"},
            tags={**name_tags("drift", declared.model), AFTER_DEPLOYMENT: ""},
            description=f"Answers of {declared.served_by} against the training set of the version that gave "
            "them, by window, with thresholds calibrated on that training set.",
            code_version="1",
            metadata={MONITORED: monitored.told()},
        )
        def drift(
            context: dg.AssetExecutionContext,
            lake: Lake,
            model_registry: ModelRegistry,
            scratch: Scratch,
            clock: Clock,
        ) -> dg.MaterializeResult[Any]:
            from mlops_assets.monitoring.findings import WindowDrift

            now = clock.now()
            answering = self._served(context, model_registry)
            reference = reference_of(lake, answering.version) if answering else None
            if answering is None or reference is None:
                return dg.MaterializeResult(
                    metadata={
                        "windows": compact_json([]),
                        "reason": self._nothing(answering),
                        MEASURED: context.run.tags.get(MEASURED_TAG, ""),
                    }
                )
            found: list[WindowDrift] = []
            newest: Current | None = None
            with self._answers(scratch, lake, model, view, labels, now) as answers:
                live = [one for one in answers.played() if one.version == answering.label]
                first = min((one.first for one in live if one.variant != "shadow"), default=None)
                for window in self._windows(self._complete_until(context, now)):
                    if first is None or window.end <= first:
                        continue
                    gap = answers.uncovered(answering.label, window)
                    if gap is not None:
                        start, end = window.start.isoformat(), window.end.isoformat()
                        rows = answers.size(answering.label, window)
                        found.append(WindowDrift(start, end, answering.label, rows, False, gap))
                        continue
                    current = window_drift(
                        answers,
                        window,
                        reference,
                        version=answering.label,
                        manifest=answering.manifest,
                        level=declared.policy.false_alarm_rate,
                        min_rows=declared.min_rows,
                    )
                    found.append(current.assessed)
                    if current.assessed.judged:
                        newest = current
            return dg.MaterializeResult(
                metadata={
                    "served": answering.label,
                    "measured_at": now.isoformat(),
                    MEASURED: context.run.tags.get(MEASURED_TAG, ""),
                    "by_window": dg.MetadataValue.md(markdown_table(_drift_rows(found))),
                    **self._shown(lake, model, model_registry, answering, reference, found, newest),
                    "windows": compact_json([one.to_dict() for one in found]),
                },
            )

        return drift

    def _served(self, context: dg.AssetExecutionContext, registry: ModelRegistry) -> Served | None:
        declared = self.declaration
        return served(context.instance, registry, model=declared.model, deployment=declared.served_by)

    def _nothing(self, answering: Served | None) -> str:
        if answering is None:
            return "nothing answers"
        return (
            f"{answering.label} was trained without a monitor, so nothing to compare with was stored; train "
            f"anew with: dg launch --assets 'key:\"{asset_name('training_set', self.declaration.model)}\"+'"
        )

    @contextmanager
    def _answers(
        self,
        scratch: Scratch,
        lake: Lake,
        model: ModelComponent,
        view: FeatureViewDeclaration,
        labels: DeclaredTable,
        now: datetime,
        slices: Sequence[str] = (),
    ) -> "Iterator[JoinedAnswers]":
        """Every answer from the oldest kept window until now, with its label where it has one."""
        windows = self._windows(now)
        table = table_name("prediction_log", self.declaration.model)
        log = Compacted(
            lake,
            table,
            lake.version(table),
            windows[0].start if windows else first_day(self.declaration),
            now + timedelta(days=1),
        )
        join_keys = view.entity.join_keys
        with scratch.database() as connection:
            # Not kept by a name: they may be many.
            yield JoinedAnswers(
                connection, log, labels_of(lake, labels, model.labels, join_keys), join_keys, slices
            )

    def _window_performance(
        self,
        answers: JoinedAnswers,
        window: Window,
        played: Played,
        reference: "DriftReference | None",
        classes: tuple[str, ...] | None,
        task: Task,
        now: datetime,
    ) -> "WindowPerformance":
        from mlops_assets.monitoring.performance import window_performance

        declared = self.declaration
        is_shadow = played.variant == "shadow"
        measured = window_performance(
            answers.part(played.version, window, shadow=is_shadow),
            start=window.start,
            end=window.end,
            version=played.version,
            variant=played.variant,
            task=task,
            classes=classes,
            now=now,
            watermark=Watermark(declared.labels.within, declared.labels.min_share, declared.min_rows),
            level=declared.policy.false_alarm_rate,
            references=reference.performance if reference else (),
            metric=declared.policy.performance.metric,
            slices=declared.slices,
        )
        gap = answers.uncovered(played.version, window, shadow=is_shadow)
        if measured.status == "judged" and gap is not None:
            return replace(measured, status="too_few", reason=gap, loss=None, loss_low=None)
        return measured

    def _shown(
        self,
        lake: Lake,
        model: ModelComponent,
        registry: ModelRegistry,
        answering: Served,
        reference: "DriftReference",
        found: "Sequence[WindowDrift]",
        newest: "Current | None",
    ) -> dict[str, Any]:
        """Plots of what was judged, the worst columns as a table, and Evidently's page."""
        from mlops_assets.monitoring.drift import measured_frame
        from mlops_assets.monitoring.plots import distributions_plot, drift_plot
        from mlops_assets.monitoring.report import evidently_html

        judged = [one for one in found if one.judged]
        if newest is None or not judged:
            return {}
        current = measured_frame(reference, newest.features, newest.scores, newest.target)
        before = self._reference_frame(lake, model, answering, reference)
        page = evidently_html(before, current, reference.kinds(), of_rows=newest.assessed.rows)
        return {
            "window": f"{newest.assessed.start} to {newest.assessed.end}",
            "worst_columns": dg.MetadataValue.md(markdown_table(_column_rows(newest.assessed))),
            "drift_over_windows": image(drift_plot(judged)),
            "distributions": image(distributions_plot(reference, newest.assessed, current)),
            **_report_link(registry, answering, newest, page),
        }

    def _reference_frame(
        self, lake: Lake, model: ModelComponent, answering: Served, reference: "DriftReference"
    ) -> "pd.DataFrame":
        """The training set of the version, as windows are compared with it: answers on unseen rows only."""
        import pandas as pd

        from mlops_assets.monitoring.drift import measured_frame
        from mlops_assets.training.training_set import EVALUATE, LABEL, SPLIT
        from serve.scoring import load_package

        table = table_name("training_set", self.declaration.model)
        frame = lake.read(table, version=int(answering.version.tags["training_set_delta"]))
        unseen = frame[frame[SPLIT] == EVALUATE]
        trained = frame[frame[SPLIT] != EVALUATE]
        scorer = load_package(answering.version.package_uri, lake.public_storage_options())
        names = list(scorer.manifest.feature_names)
        scores = scorer.score(scorer.encoder.columns({name: unseen[name] for name in names}))
        target = unseen[LABEL].to_numpy(dtype=np.float64)
        parts = [
            measured_frame(reference, trained[names]),
            measured_frame(reference, unseen[names], scores, target),
        ]
        return pd.concat(parts, ignore_index=True)

    def _no_drift(self) -> dg.AssetChecksDefinition:
        model = self.declaration.model

        @dg.asset_check(
            asset=self._key("model"),
            name=NO_DRIFT,
            description="No drift episode of the version that answers is open.",
        )
        def no_drift(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
            return dg.AssetCheckResult(**no_drift_result(episode_log(context.instance, model)))

        return no_drift

    def _complete_until(self, context: dg.AssetExecutionContext, now: datetime) -> datetime:
        """Now, or the earlier instant until which the log was read."""
        known = read_until(context.instance, self._key("prediction_log"))
        return now if known is None else min(now, known)

    def _windows(self, now: datetime) -> list[Window]:
        declared = self.declaration
        return ended_windows(first_day(declared), now, declared.window)[-declared.windows_kept :]


def _end_of(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1)


def _number(value: float | None, form: str = ".4f") -> str:
    return "not defined" if value is None else format(value, form)


def _performance_rows(found: "Sequence[WindowPerformance]") -> list[dict[str, str]]:
    """Newest first."""
    return [
        {
            "window": f"{one.start[:10]} to {one.end[:10]}",
            "version": one.version,
            "as": one.variant,
            "answers": f"{one.answers:,}",
            "labelled": f"{one.labelled:,} ({one.share:.0%})",
            one.metric or "metric": _number(one.value),
            "interval": f"[{_number(one.low)}, {_number(one.high)}]" if one.low is not None else "",
            "at training": _number(one.reference),
            "worse by": f"{_number(one.loss)} (at least {_number(one.loss_low)})"
            if one.loss is not None
            else "",
            "status": f"{one.status}: {one.reason}",
        }
        for one in sorted(found, key=lambda one: (one.start, one.version, one.variant), reverse=True)
    ]


def _slices(one: "WindowPerformance") -> str:
    rows = [
        {
            "slice": f"{part.column} = {part.value}",
            "rows": f"{part.rows:,}",
            one.metric: _number(part.metric_value),
            "interval": f"[{_number(part.low)}, {_number(part.high)}]" if part.low is not None else "",
        }
        for part in one.slices
    ]
    return markdown_table(rows)


def _drift_rows(found: "Sequence[WindowDrift]") -> list[dict[str, str]]:
    """Newest first."""

    def told(one: "WindowDrift", role: Any) -> str:
        drifted = [column.column for column in one.of(role) if column.drifted]
        return {None: "not judged", False: "no", True: ", ".join(drifted[:5])}[one.drifted(role)] + (
            f" and {len(drifted) - 5} more" if len(drifted) > 5 else ""
        )

    return [
        {
            "window": f"{one.start[:10]} to {one.end[:10]}",
            "version": one.version,
            "rows": f"{one.rows:,}",
            "prediction": told(one, "prediction"),
            "label": told(one, "label"),
            "features": told(one, "feature"),
            "note": "" if one.judged else one.reason,
        }
        for one in reversed(found)
    ]


def _column_rows(one: "WindowDrift") -> list[dict[str, str]]:
    rows = []
    for column in one.worst(WORST_SHOWN):
        scores = {
            score.statistic: f"{_number(score.value, '.3f')} (limit {_number(score.threshold, '.3f')})"
            for score in column.scores
        }
        rows.append(
            {
                "column": column.column,
                "role": column.role,
                "drifted": {True: "yes", False: "no", None: "not defined"}[column.drifted],
                **{name: scores.get(name, "") for name in DETECTORS},
                "missing": f"{column.missing_share:.1%}",
                "note": column.note,
            }
        )
    return rows


def _report_link(
    registry: ModelRegistry, answering: Served, newest: Current, page: bytes
) -> dict[str, dg.MetadataValue[Any]]:
    """Keeps Evidently's page with the run that trained the version: MLflow's UI shows it."""
    name = f"drift/{newest.assessed.start[:10]}_{newest.assessed.end[:10]}.html"
    with TemporaryDirectory() as folder:
        path = Path(folder) / Path(name).name
        path.write_bytes(page)
        url = registry.log_artifact(answering.version.run_id, path, Path(name).parent.name)
    shown = dg.MetadataValue.url(url) if url.startswith("http") else dg.MetadataValue.path(url)
    return {"evidently_report": shown}
