"""``<model>_performance``: how good the answers were, by window and version, as labels arrive.

Belongs here: which versions and windows are measured, what the record shows of them. Does not belong here:
the metrics and their uncertainty (``monitoring/performance.py``), the answers (``joined_answers.py``).
"""

from collections.abc import Mapping, Sequence
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
from mlops_assets.event_log.records import latest
from mlops_assets.monitoring.labels import Watermark
from mlops_assets.monitoring.windows import Window
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import ModelRegistry
from mlops_assets.resources.scratch import Scratch
from serve.schema import ModelManifest

if TYPE_CHECKING:
    from mlops_assets.monitoring.findings import WindowPerformance
    from mlops_assets.monitoring.lasting_loss import WindowDays
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
        before = latest(context.instance, monitored.key("performance"))
        known_before = before.metadata if before else {}
        with monitored.answers(scratch, lake, now, declared.slices) as answers:
            for played in answers.played():
                try:
                    registered = model_registry.version(declared.model, int(played.version[1:]))
                except RegistryError as error:
                    context.log.warning(f"Answers of {played.version} are not measured: {error}")
                    continue
                classes = ModelManifest.model_validate(registered.manifest()).classes
                measured = _Measured(monitored, answers, played, classes, reference_of(lake, registered))
                of_version = [
                    measured.performance(window, now) for window in windows if window.end > played.first
                ]
                found += measured.with_lasting_loss(of_version, earlier_days(known_before, played.version))
            known = answering.manifest.classes if answering else None
            counts, losses = answers.counts(), answers.losses(task, known)
        return dg.MaterializeResult(
            metadata={
                "served": answering.label if answering else "none",
                **counts,
                "measured_at": now.isoformat(),
                **_shown(found),
                "windows": compact_json([one.to_dict() for one in found]),
                "days": compact_json(judged_days(known_before, found)),
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
                declared.policy.level(declared.window),
                self.reference.performance if self.reference else (),
                declared.policy.performance.metric,
                declared.slices,
                self.reference.baseline if self.reference else (),
            ),
        )
        gap = self.answers.uncovered(played.version, window, shadow=is_shadow)
        if measured.status == "judged" and gap is not None:
            return replace(
                measured, status="too_few", reason=gap, loss=None, loss_low=None, below_baseline=None, days={}
            )
        return measured

    def with_lasting_loss(
        self, windows: "list[WindowPerformance]", earlier: "Sequence[WindowDays]"
    ) -> "list[WindowPerformance]":
        """The windows of a version that callers were answered by, with the evidence that added up."""
        from mlops_assets.monitoring.lasting_loss import LastingLossTest, with_lasting_loss

        declared = self.monitored.monitor
        if self.played.variant != "champion" or not windows:
            return windows
        test = LastingLossTest.declared(
            declared.policy,
            self.monitored.model.declaration.task,
            self.reference.performance if self.reference else (),
            declared.window,
        )
        first = datetime.fromisoformat(windows[0].end)
        past = [one for one in earlier if datetime.fromisoformat(one.end) < first]
        return with_lasting_loss(windows, test, earlier=past)


def judged_days(
    metadata: Mapping[str, Any], found: "Sequence[WindowPerformance]"
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """What each judged window's days say, by champion's version and end of window.

    Windows that are measured no more stay as the record before (its ``metadata``) has them, so that evidence
    adds up over the whole life of a version.
    """
    champions = [one for one in found if one.variant == "champion"]
    kept: dict[str, dict[str, dict[str, list[float]]]] = {}
    for version in dict.fromkeys(one.version for one in champions):
        own = [one for one in champions if one.version == version]
        first = min(datetime.fromisoformat(one.end) for one in own)
        kept[version] = {
            one.end: {metric: list(days) for metric, days in one.days.items()}
            for one in earlier_days(metadata, version)
            if datetime.fromisoformat(one.end) < first
        }
        for one in own:
            if one.status == "judged":
                kept[version][one.end] = {metric: list(days) for metric, days in one.days.items()}
    return kept


def earlier_days(metadata: Mapping[str, Any], version: str) -> "list[WindowDays]":
    """The judged windows of a version that a record holds, oldest first."""
    from mlops_assets.monitoring.lasting_loss import WindowDays

    found = (metadata.get("days") or {}).get(version) or {}
    return [
        WindowDays(end, {metric: tuple(days) for metric, days in found[end].items()})
        for end in sorted(found, key=datetime.fromisoformat)
    ]


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
