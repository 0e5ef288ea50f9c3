"""``<model>_drift``: the answers of the version that answers against what it was trained on, by window.

Belongs here: which windows are compared, what the record shows of them. Does not belong here: the
statistics and their thresholds (``monitoring/drift.py``), the answers (``joined_answers.py``), what follows
from drift (``sensors/drift.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

from mlops_assets.asset_keys import name_tags
from mlops_assets.asset_names import asset_name, table_name
from mlops_assets.assets.automation import AFTER_DEPLOYMENT
from mlops_assets.assets.joined_answers import Current, JoinedAnswers, window_drift
from mlops_assets.assets.measuring import MEASURED, MEASURED_TAG, reference_of
from mlops_assets.assets.metadata import compact_json, image, markdown_table, number
from mlops_assets.assets.monitored_model import MonitoredModel
from mlops_assets.event_log.served_state import MONITORED, MonitorSummary, ServedVersion
from mlops_assets.monitoring.detectors import DETECTORS
from mlops_assets.monitoring.drift import DriftTest
from mlops_assets.monitoring.windows import Window
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import ModelRegistry
from mlops_assets.resources.scratch import Scratch

if TYPE_CHECKING:
    import pandas as pd

    from mlops_assets.monitoring.findings import WindowDrift
    from mlops_assets.monitoring.reference import DriftReference

WORST_SHOWN = 15


def drift_asset(group: str, monitored: MonitoredModel, summary: MonitorSummary) -> dg.AssetsDefinition:
    """The measured drift of the version that answers. ``summary``: what others read of the monitor here."""
    declared = monitored.monitor

    @dg.asset(
        key=monitored.key("drift"),
        # Not of performance: an odd label must not blind it.
        deps=[monitored.key("prediction_log"), summary.label_key],
        group_name=group,
        kinds={"drift", "evidently"},
        tags={**name_tags("drift", declared.model), AFTER_DEPLOYMENT: ""},
        description=f"Answers of {declared.served_by} against the training set of the version that gave "
        "them, by window, with thresholds calibrated on that training set.",
        code_version="1",
        metadata={MONITORED: summary.to_dict()},
    )
    def drift(
        context: dg.AssetExecutionContext,
        lake: Lake,
        model_registry: ModelRegistry,
        scratch: Scratch,
        clock: Clock,
    ) -> dg.MaterializeResult[Any]:
        now = clock.now()
        answering = monitored.served(context.instance, model_registry)
        reference = reference_of(lake, answering.version) if answering else None
        launched_on = context.run.tags.get(MEASURED_TAG, "")
        if answering is None or reference is None:
            return dg.MaterializeResult(
                metadata={
                    "windows": compact_json([]),
                    "reason": _nothing(declared.model, answering),
                    MEASURED: launched_on,
                }
            )
        compared = _Compared(monitored, answering, reference)
        with monitored.answers(scratch, lake, now) as answers:
            found, newest = compared.windows(answers, monitored.windows(context.instance, now))
        return dg.MaterializeResult(
            metadata={
                "served": answering.label,
                "measured_at": now.isoformat(),
                MEASURED: launched_on,
                "by_window": dg.MetadataValue.md(markdown_table(_rows(found))),
                **compared.shown(lake, model_registry, found, newest),
                "windows": compact_json([one.to_dict() for one in found]),
            },
        )

    return drift


def _nothing(model: str, answering: ServedVersion | None) -> str:
    if answering is None:
        return "nothing answers"
    return (
        f"{answering.label} was trained without a monitor, so nothing to compare with was stored; train "
        f"anew with: dg launch --assets 'key:\"{asset_name('training_set', model)}\"+'"
    )


@dataclass(frozen=True)
class _Compared:
    """The version that answers and its reference."""

    monitored: MonitoredModel
    answering: ServedVersion
    reference: "DriftReference"

    def windows(
        self, answers: JoinedAnswers, windows: Sequence[Window]
    ) -> "tuple[list[WindowDrift], Current | None]":
        """What was found in each window since the version answers, and the newest that was judged."""
        from mlops_assets.monitoring.findings import WindowDrift

        declared, label = self.monitored.monitor, self.answering.label
        found: list[WindowDrift] = []
        newest: Current | None = None
        first = self._first_answer(answers)
        for window in windows:
            if first is None or window.end <= first:
                continue
            gap = answers.uncovered(label, window)
            if gap is not None:
                start, end = window.start.isoformat(), window.end.isoformat()
                found.append(WindowDrift(start, end, label, answers.size(label, window), False, gap))
                continue
            current = window_drift(
                answers,
                window,
                self.reference,
                version=label,
                manifest=self.answering.manifest,
                test=DriftTest(declared.policy.levels(declared.window), declared.min_rows),
            )
            found.append(current.assessed)
            if current.assessed.judged:
                newest = current
        return found, newest

    def _first_answer(self, answers: JoinedAnswers) -> datetime | None:
        live = [one for one in answers.played() if one.version == self.answering.label]
        return min((one.first for one in live if one.variant != "shadow"), default=None)

    def shown(
        self,
        lake: Lake,
        registry: ModelRegistry,
        found: "Sequence[WindowDrift]",
        newest: Current | None,
    ) -> dict[str, Any]:
        """Plots of what was judged, the worst columns as a table, and Evidently's page."""
        from mlops_assets.monitoring.drift import measured_frame
        from mlops_assets.monitoring.plots import distributions_plot, drift_plot
        from mlops_assets.monitoring.report import evidently_html

        judged = [one for one in found if one.judged]
        if newest is None or not judged:
            return {}
        reference = self.reference
        current = measured_frame(reference, newest.features, newest.scores, newest.target)
        page = evidently_html(
            self._trained_on(lake), current, reference.kinds(), of_rows=newest.assessed.rows
        )
        return {
            "window": f"{newest.assessed.start} to {newest.assessed.end}",
            "worst_columns": dg.MetadataValue.md(markdown_table(_column_rows(newest.assessed))),
            "drift_over_windows": image(drift_plot(judged)),
            "distributions": image(distributions_plot(reference, newest.assessed, current)),
            **_report_link(registry, self.answering, newest, page),
        }

    def _trained_on(self, lake: Lake) -> "pd.DataFrame":
        """The training set of the version, as windows are compared with it: answers on unseen rows only."""
        import pandas as pd

        from mlops_assets.monitoring.drift import measured_frame
        from mlops_assets.training.training_set import EVALUATE, LABEL, SPLIT
        from serve.scoring import load_package

        version, table = self.answering.version, table_name("training_set", self.monitored.monitor.model)
        frame = lake.read(table, version=int(version.tags["training_set_delta"]))
        unseen = frame[frame[SPLIT] == EVALUATE]
        trained = frame[frame[SPLIT] != EVALUATE]
        scorer = load_package(version.package_uri, lake.public_storage_options())
        names = list(scorer.manifest.feature_names)
        scores = scorer.score(scorer.encoder.columns({name: unseen[name] for name in names}))
        target = unseen[LABEL].to_numpy(dtype=np.float64)
        parts = [
            measured_frame(self.reference, trained[names]),
            measured_frame(self.reference, unseen[names], scores, target),
        ]
        return pd.concat(parts, ignore_index=True)


def _rows(found: "Sequence[WindowDrift]") -> list[dict[str, str]]:
    """Newest first."""

    def in_words(one: "WindowDrift", role: Any) -> str:
        drifted = [column.column for column in one.of(role) if column.drifted]
        return {None: "not judged", False: "no", True: ", ".join(drifted[:5])}[one.drifted(role)] + (
            f" and {len(drifted) - 5} more" if len(drifted) > 5 else ""
        )

    return [
        {
            "window": f"{one.start[:10]} to {one.end[:10]}",
            "version": one.version,
            "rows": f"{one.rows:,}",
            "prediction": in_words(one, "prediction"),
            "label": in_words(one, "label"),
            "features": in_words(one, "feature"),
            "note": "" if one.judged else one.reason,
        }
        for one in reversed(found)
    ]


def _column_rows(one: "WindowDrift") -> list[dict[str, str]]:
    rows = []
    for column in one.worst(WORST_SHOWN):
        scores = {
            score.statistic: f"{number(score.value, '.3f')} (limit {number(score.threshold, '.3f')})"
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
    registry: ModelRegistry, answering: ServedVersion, newest: Current, page: bytes
) -> dict[str, dg.MetadataValue[Any]]:
    """Keeps Evidently's page with the run that trained the version: MLflow's UI shows it."""
    name = f"drift/{newest.assessed.start[:10]}_{newest.assessed.end[:10]}.html"
    with TemporaryDirectory() as folder:
        path = Path(folder) / Path(name).name
        path.write_bytes(page)
        url = registry.log_artifact(answering.version.run_id, path, Path(name).parent.name)
    shown = dg.MetadataValue.url(url) if url.startswith("http") else dg.MetadataValue.path(url)
    return {"evidently_report": shown}
