"""``<model>_backtest``: what each way of retraining would have been worth on the model's own history.

Belongs here: the asset that reads the history from the lake, replays it as its configuration says, and shows
the comparison. Does not belong here: the replay (``backtest/replay.py``), its table and plot
(``backtest/report.py``), which monitor there is (``components/drift_monitor.py``).

It is made when a person asks for it (``mlops backtest``), never by automation: it trains many models and
changes nothing that answers.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field, ValidationError

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.asset_names import asset_name
from mlops_assets.assets.automation import AFTER_DEPLOYMENT
from mlops_assets.assets.metadata import image, markdown_table
from mlops_assets.assets.monitored_model import MonitoredModel
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.errors import DeclarationError, MlopsError, UnknownName
from mlops_assets.event_log.records import latest
from mlops_assets.monitoring.labels import Watermark
from mlops_assets.resources.lake import Lake

if TYPE_CHECKING:
    from mlops_assets.backtest.replay import Backtest, Monitoring
    from mlops_assets.backtest.trainings import History, Recipe
    from mlops_assets.documents.model import ModelDeclaration

REPORT = "report"
"""Metadata key of the whole backtest as JSON."""
CONCLUSION = "conclusion"
_FIRST_PART = 0.25
"""Share of the history that the first model is made of, unless a day is named."""


class BacktestConfig(dg.Config):
    """What is replayed. Empty texts mean the default."""

    since: str = Field(
        default="", description="First day, like 2013-04-01; empty: after the first quarter of the history."
    )
    until: str = Field(default="", description="The day after the last; empty: as far as outcomes are known.")
    regimes: list[str] = Field(
        default=[],
        description="never, monthly, four_weekly, weekly, weekly_ungated, calendar, drift, and drift at "
        "another rate of false alarms per year: drift_0.2, drift_0.5, drift_1, drift_2. Empty: never, "
        "monthly, weekly, drift, and calendar where the monitor declares one.",
    )
    monitor: str = Field(
        default="",
        description='JSON over the drift monitor\'s document, like {"window": "3d", "policy": '
        '{"prediction": {"windows": 1}}}: what would have come of another policy.',
    )
    trainer: str = Field(
        default="",
        description="Candidate that is trained; empty: the one that won last, else the first declared. "
        "all: they compete at every retrain, which costs several times as much.",
    )


def monitoring_of(declared: DriftMonitorDeclaration) -> "Monitoring":
    """What the monitor's document declares, as the replay takes it."""
    from mlops_assets.backtest.replay import Calendar, Monitoring

    calendar = declared.retrain
    return Monitoring(
        window=declared.window,
        min_rows=declared.min_rows,
        watermark=Watermark(declared.labels.within, declared.labels.min_share, declared.min_rows),
        policy=declared.policy,
        governor=declared.governor.governor(),
        max_data_age=declared.max_data_age,
        calendar=Calendar(calendar.schedule, calendar.between) if calendar else None,
    )


def overridden(declared: DriftMonitorDeclaration, text: str) -> DriftMonitorDeclaration:
    """The document with a JSON object laid over it, field by field; DeclarationError for a wrong one."""
    if not text:
        return declared
    try:
        changes = json.loads(text)
    except json.JSONDecodeError as error:
        raise DeclarationError(f"{text!r} is no JSON: {error}") from error
    if not isinstance(changes, dict):
        raise DeclarationError(f"{text!r} must be a JSON object of the drift monitor's fields")
    try:
        return DriftMonitorDeclaration.model_validate(_laid_over(declared.model_dump(), changes))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        fields = ", ".join(DriftMonitorDeclaration.model_fields)
        raise DeclarationError(f"{problems}. Fields of a drift monitor: {fields}") from error


def _laid_over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(base)
    for name, value in changes.items():
        nested = isinstance(value, dict) and isinstance(made.get(name), dict)
        made[name] = _laid_over(made[name], value) if nested else value
    return made


def recipe_of(
    model: "ModelDeclaration", view: FeatureViewDeclaration, *, trainer: str = "", won: int | None = None
) -> "Recipe":
    """How the model is made: by the candidate called ``trainer``, or ``all`` of them in competition.

    Empty: by the one that won, at place ``won``, else by the first. A candidate's training windows compete
    whichever it is. UnknownName lists the candidates.
    """
    from mlops_assets.backtest.trainings import Recipe

    competing = model.competing(timed=view.event_timestamp is not None)
    chosen = competing
    if trainer and trainer != "all":
        chosen = tuple(one for one in competing if one.trainer == trainer)
        if not chosen:
            raise UnknownName("candidate", trainer, [*dict.fromkeys(one.trainer for one in competing), "all"])
    elif not trainer:
        one = competing[won if won is not None and won < len(competing) else 0]
        chosen = tuple(
            other for other in competing if (other.trainer, other.params) == (one.trainer, one.params)
        )
    return Recipe(
        name=model.name,
        features=tuple(view.features),
        candidates=chosen,
        gate=model.gate,
        selecting_metric=model.selecting_metric,
        evaluation_window_days=model.evaluation_window_days,
        training_window_days=model.training_window_days,
        folds=model.folds,
        threshold=model.threshold,
        seed=model.seed,
    )


def backtest_asset(group: str, monitored: MonitoredModel) -> dg.AssetsDefinition:
    """``<model>_backtest``: the replay of the model's feature table and labels under the chosen regimes."""
    model = monitored.model
    name = model.declaration.name

    @dg.asset(
        key=model.key("backtest"),
        deps=[model.features.key, model.outcomes.key],
        group_name=group,
        kinds={"backtest"},
        # Asked for by a person; nothing that answers needs it.
        tags={**name_tags("backtest", name), AFTER_DEPLOYMENT: ""},
        description="What never, monthly, weekly and drift-triggered retraining would have been worth on the "
        "model's own history, decided by the code that decides in production.",
    )
    def backtest(
        context: dg.AssetExecutionContext, config: BacktestConfig, lake: Lake
    ) -> dg.MaterializeResult[Any]:
        try:
            found = _replayed(context, config, lake, monitored)
        except MlopsError as error:
            raise dg.Failure(f"{asset_name('backtest', name)}: {error}", allow_retries=False) from error
        return dg.MaterializeResult(
            data_version=dg.DataVersion(_version(found)), metadata=backtest_metadata(found)
        )

    return backtest


def _replayed(
    context: dg.AssetExecutionContext, config: BacktestConfig, lake: Lake, monitored: MonitoredModel
) -> "Backtest":
    from mlops_assets.backtest.replay import ReplayedUseCase, regimes, replay
    from mlops_assets.backtest.trainings import RowKeys, make_history
    from mlops_assets.training.training_set import LABEL

    model, view = monitored.model, monitored.model.view
    outcomes = model.outcomes.read(lake)
    keys = list(view.entity.join_keys)
    monitor = overridden(monitored.monitor, config.monitor)
    history = make_history(
        model.features.read(lake, columns=model.features.columns),
        outcomes[keys].assign(**{LABEL: model.label.of(outcomes)}),
        RowKeys(keys, view.event_timestamp),
        task=model.declaration.task,
        classes=model.declaration.classes,
        labels_after=monitor.labels.within,
    )
    start, end = _span(history, config)
    won = _winner(context.instance, model.declaration.name)
    monitoring = monitoring_of(monitor)
    return replay(
        ReplayedUseCase(
            history, recipe_of(model.declaration, view, trainer=config.trainer, won=won), monitoring
        ),
        regimes(config.regimes or monitoring.default_regimes),
        start=start,
        end=end,
        report=context.log.info,
    )


def backtest_metadata(found: "Backtest") -> dict[str, Any]:
    """What the asset's page shows."""
    from mlops_assets.backtest.report import (
        backtest_plot,
        calendar_rows,
        comparison_rows,
        conclusion,
        month_rows,
        retrain_rows,
        trade_rows,
    )

    return {
        CONCLUSION: conclusion(found),
        "comparison": dg.MetadataValue.md(markdown_table(comparison_rows(found))),
        "quality_over_time": image(backtest_plot(found)),
        "retrains": dg.MetadataValue.md(markdown_table(retrain_rows(found))),
        "trade": dg.MetadataValue.md(markdown_table(trade_rows(found))),
        "calendar": dg.MetadataValue.md(markdown_table(calendar_rows(found))),
        "months": dg.MetadataValue.md(markdown_table(month_rows(found))),
        "first_model": found.first,
        "from": found.start,
        "until": found.end,
        REPORT: dg.MetadataValue.json(json.loads(json.dumps(found.to_dict()))),
    }


def _span(history: "History", config: BacktestConfig) -> tuple[datetime, datetime]:
    """First and last moment of the replay, whole days in UTC."""
    import numpy as np

    def midnight(moment: np.datetime64) -> datetime:
        return datetime.fromisoformat(np.datetime_as_string(moment, unit="D")).replace(tzinfo=UTC)

    def day(text: str, default: datetime) -> datetime:
        if not text:
            return default
        try:
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        except ValueError as error:
            raise DeclarationError(f"{text!r} is no day: write it like 2013-04-01") from error

    labelled = history.times[~np.isnan(history.target)]
    first, end = midnight(labelled[0]), midnight(labelled[-1]) + timedelta(days=1)
    start = first + timedelta(days=round((end - first).days * _FIRST_PART))
    return day(config.since, start), day(config.until, end)


def _winner(instance: dg.DagsterInstance, model: str) -> int | None:
    record = latest(instance, asset_key("candidates", model))
    position = record.metadata.get("winner_position") if record else None
    return None if position is None else int(position)


def _version(found: "Backtest") -> str:
    return hashlib.sha256(json.dumps(found.to_dict(), sort_keys=True).encode()).hexdigest()[:32]
