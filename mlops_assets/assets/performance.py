"""``<model>_performance``: how good the answers were, by window and version, as labels arrive.

Belongs here: which versions and windows are measured, what the record shows of them. Does not belong here:
the metrics and their uncertainty (``monitoring/performance.py``), the answers (``joined_answers.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.asset_keys import name_tags
from mlops_assets.assets.automation import AFTER_DEPLOYMENT
from mlops_assets.assets.joined_answers import JoinedAnswers, Played
from mlops_assets.assets.measuring import reference_of
from mlops_assets.assets.metadata import compact_json, image, markdown_table, number
from mlops_assets.assets.monitored_model import MonitoredModel
from mlops_assets.errors import RegistryError
from mlops_assets.monitoring.labels import Watermark
from mlops_assets.monitoring.windows import Window
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import ModelRegistry
from mlops_assets.resources.scratch import Scratch
from serve.schema import ModelManifest

if TYPE_CHECKING:
    from mlops_assets.monitoring.findings import WindowPerformance
    from mlops_assets.monitoring.reference import DriftReference


def performance_asset(group: str, monitored: MonitoredModel) -> dg.AssetsDefinition:
    """The measured performance of every version that answered in a kept window."""
    declared = monitored.monitor

    @dg.asset(
        key=monitored.key("performance"),
        deps=[monitored.key("prediction_log"), monitored.model.outcomes.key],
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
        now = clock.now()
        answering = monitored.served(context.instance, model_registry)
        windows = monitored.windows(context.instance, now)
        task = monitored.model.declaration.task
        found: list[WindowPerformance] = []
        with monitored.answers(scratch, lake, now, declared.slices) as answers:
            for played in answers.played():
                try:
                    registered = model_registry.version(declared.model, int(played.version[1:]))
                except RegistryError as error:
                    context.log.warning(f"Answers of {played.version} are not measured: {error}")
                    continue
                classes = ModelManifest.model_validate(registered.manifest()).classes
                measured = _Measured(monitored, answers, played, classes, reference_of(lake, registered))
                found += [
                    measured.performance(window, now) for window in windows if window.end > played.first
                ]
            known = answering.manifest.classes if answering else None
            counts, losses = answers.counts(), answers.losses(task, known)
        return dg.MaterializeResult(
            metadata={
                "served": answering.label if answering else "none",
                **counts,
                "measured_at": now.isoformat(),
                **_shown(found),
                "windows": compact_json([one.to_dict() for one in found]),
                "losses": compact_json(losses),
            },
        )

    return performance


@dataclass(frozen=True)
class _Measured:
    """The answers of one version in one part, and what they are compared with."""

    monitored: MonitoredModel
    answers: JoinedAnswers
    played: Played
    classes: tuple[str, ...] | None
    reference: "DriftReference | None"

    def performance(self, window: Window, now: datetime) -> "WindowPerformance":
        """One window of them; one that was answered in part only is not judged."""
        from mlops_assets.monitoring.performance import PerformanceTest, window_performance

        declared, played = self.monitored.monitor, self.played
        is_shadow = played.variant == "shadow"
        measured = window_performance(
            self.answers.part(played.version, window, shadow=is_shadow),
            window,
            version=played.version,
            variant=played.variant,
            now=now,
            test=PerformanceTest(
                self.monitored.model.declaration.task,
                self.classes,
                Watermark(declared.labels.within, declared.labels.min_share, declared.min_rows),
                declared.policy.false_alarm_rate,
                self.reference.performance if self.reference else (),
                declared.policy.performance.metric,
                declared.slices,
            ),
        )
        gap = self.answers.uncovered(played.version, window, shadow=is_shadow)
        if measured.status == "judged" and gap is not None:
            return replace(measured, status="too_few", reason=gap, loss=None, loss_low=None)
        return measured


def _shown(found: "Sequence[WindowPerformance]") -> dict[str, Any]:
    """All windows as a table; of the champion's judged ones the newest value, a plot and the slices."""
    from mlops_assets.monitoring.plots import performance_plot

    judged = [one for one in found if one.variant == "champion" and one.status == "judged"]
    newest = judged[-1] if judged else None
    return {
        "by_window": dg.MetadataValue.md(markdown_table(_rows(found))),
        **({newest.metric: newest.value} if newest and newest.value is not None else {}),
        **({"performance": image(performance_plot(judged))} if judged else {}),
        **({"slices": dg.MetadataValue.md(_slices(newest))} if newest and newest.slices else {}),
    }


def _rows(found: "Sequence[WindowPerformance]") -> list[dict[str, str]]:
    """Newest first."""
    return [
        {
            "window": f"{one.start[:10]} to {one.end[:10]}",
            "version": one.version,
            "as": one.variant,
            "answers": f"{one.answers:,}",
            "labelled": f"{one.labelled:,} ({one.share:.0%})",
            one.metric or "metric": number(one.value),
            "interval": f"[{number(one.low)}, {number(one.high)}]" if one.low is not None else "",
            "at training": number(one.reference),
            "worse by": f"{number(one.loss)} (at least {number(one.loss_low)})"
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
            one.metric: number(part.metric_value),
            "interval": f"[{number(part.low)}, {number(part.high)}]" if part.low is not None else "",
        }
        for part in one.slices
    ]
    return markdown_table(rows)
