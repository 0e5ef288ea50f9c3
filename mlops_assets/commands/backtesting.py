"""``mlops backtest``: a person asks what another way of retraining would have been worth.

Belongs here: launching the asset with its configuration in this process, and printing what it found. Does
not belong here: the replay (``backtest/replay.py``), the asset (``assets/backtest.py``).
"""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.asset_keys import assets_of
from mlops_assets.assets.backtest import REPORT
from mlops_assets.errors import DataError, DeclarationError, UnknownName
from mlops_assets.event_log.records import latest
from mlops_assets.event_log.run_owner import OWNER_TAG, this_process

if TYPE_CHECKING:
    from mlops_assets.backtest.replay import Backtest


PROGRESS = "progress"


@dg.logger
def progress_logger(_: dg.InitLoggerContext) -> logging.Logger:
    """What the step says of its progress, on standard error. Dagster's own events are left out: a failure is
    told by the command, without the stack that led to it.
    """
    logger = logging.Logger(PROGRESS, level=logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_is_progress)
    handler.setFormatter(_Message())
    logger.addHandler(handler)
    return logger


class _Message(logging.Formatter):
    """The message alone, without the run and the step that it is from."""

    def format(self, record: logging.LogRecord) -> str:
        return str(vars(record)["dagster_meta"]["orig_message"])


def _is_progress(record: logging.LogRecord) -> bool:
    return vars(record)["dagster_meta"]["dagster_event"] is None


def run_backtest(
    definitions: dg.Definitions, instance: dg.DagsterInstance, model: str, config: Mapping[str, Any]
) -> tuple["Backtest", str]:
    """Materialises the backtest of a model with ``BacktestConfig`` values; what was found, and the run's id.

    What is being trained is told on standard error. Raises UnknownName for a model without a drift monitor,
    and DataError with the reason when nothing could be replayed.
    """
    from mlops_assets.backtest.replay import Backtest

    told_apart = dg.Definitions.merge(definitions, dg.Definitions(loggers={PROGRESS: progress_logger}))
    graph = told_apart.resolve_asset_graph()
    known = assets_of(graph, "backtest")
    if model not in known:
        raise UnknownName(
            "model with a drift monitor", model, known, next_step="Declare a DriftMonitorComponent for it."
        )
    key = known[model]
    result = told_apart.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[key],
        run_config={
            "ops": {key.to_python_identifier(): {"config": dict(config)}},
            "loggers": {PROGRESS: {}},
        },
        tags={OWNER_TAG: this_process()},
        raise_on_error=False,
    )
    if not result.success:
        failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
        reason = next((one.user_failure_data.description for one in failures if one.user_failure_data), None)
        raise DataError(reason or f"the backtest failed: see run {result.run_id}")
    record = latest(instance, key)
    assert record is not None
    return Backtest.from_dict(record.metadata[REPORT]), str(result.run_id)


def overrides(policy: str, monitor: str, schedule: str = "") -> str:
    """One JSON object over the drift monitor's document, from one over its policy and one over all of it.

    ``schedule`` (cron) takes the place of the calendar's. DeclarationError when one of the first two is no
    JSON object.
    """
    parts = {name: _json_object(name, text) for name, text in (("policy", policy), ("monitor", monitor))}
    made = dict(parts["monitor"])
    if parts["policy"]:
        made["policy"] = {**made.get("policy", {}), **parts["policy"]}
    if schedule:
        made["retrain"] = {**(made.get("retrain") or {}), "schedule": schedule}
    return json.dumps(made) if made else ""


def _json_object(name: str, text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise DeclarationError(f"--{name} {text!r} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise DeclarationError(f"--{name} {text!r} must be a JSON object")
    return found


def regimes_asked_for(names: Sequence[str], *, trade: bool) -> list[str]:
    """The regimes to replay: the named ones, and with ``trade`` drift at several rates; none: the default.

    With ``trade`` alone, never retraining stands beside them: what every rate is to be better than.
    """
    from mlops_assets.backtest.replay import TRADED

    return [*(names or ["never"]), *TRADED] if trade else list(names)


def print_backtest(found: "Backtest", run_id: str) -> None:
    """The comparison, what a setting trades, the months, and the retrains of drift and calendar as tables."""
    from rich.console import Console

    from mlops_assets.backtest.report import (
        calendar_rows,
        comparison_rows,
        conclusion,
        month_rows,
        retrain_rows,
        trade_rows,
    )

    console = Console()
    for title, rows in (
        ("Regimes", comparison_rows(found)),
        ("What the rate of false alarms trades", trade_rows(found)),
        ("Months", month_rows(found)),
        ("Retrains on drift", retrain_rows(found)),
        ("What the calendar asked for", calendar_rows(found)),
    ):
        _print_table(console, title, rows)
    console.print(f"{conclusion(found)} (run {run_id}).")


def _print_table(console: Any, title: str, rows: Sequence[Mapping[str, str]]) -> None:
    from rich.table import Table

    if not rows:
        return
    table = Table(*rows[0], title=title, title_justify="left")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
