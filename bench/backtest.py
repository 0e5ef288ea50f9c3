"""What retraining on drift is worth on flights, beside never, monthly and weekly: April to December.

Belongs here: the flights history from the raw files and the numbers of docs/backtest.md. Does not belong
here: the replay itself (``mlops_assets/backtest/replay.py``), the same for any use case from its own
tables (``mlops backtest``).

``python -m bench.backtest`` prints the comparison, the months and the retrains, ``--json`` the same as JSON.
It needs no stack. The features are computed once and kept under the state folder; a run takes minutes.
"""

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.walk_forward import dataset, declarations
from mlops_assets import environment
from mlops_assets.assets.backtest import monitoring_of, overridden, recipe_of
from mlops_assets.backtest.replay import REGIMES, Monitoring, ReplayedUseCase, regimes, replay
from mlops_assets.backtest.report import (
    backtest_plot,
    calendar_rows,
    comparison_rows,
    conclusion,
    month_rows,
    retrain_rows,
    trade_rows,
)
from mlops_assets.backtest.trainings import History, Recipe, RowKeys, make_history
from mlops_assets.defs.flights.features import arrived_late, flight_features
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.documents.model import ModelDeclaration
from mlops_assets.features.declared import declare
from mlops_assets.features.view import compute
from mlops_assets.training.training_set import LABEL

ALL = ("never", "monthly", "four_weekly", "weekly", "weekly_ungated", "drift")
START, END = datetime(2013, 4, 1, tzinfo=UTC), datetime(2014, 1, 1, tzinfo=UTC)
LABELS_AFTER = timedelta(days=1)
"""A day's outcomes arrive one day after its end, as in ``make loop``."""


def flights_table() -> pd.DataFrame:
    """Every flight's features, keys, event time and label (missing where cancelled), from the raw files."""
    kept = environment.state_dir() / "bench" / "flights_history.parquet"
    if kept.exists():
        return pd.read_parquet(kept)
    view = FeatureViewDeclaration(**declarations("FeatureViewComponent")[0])
    declared = {one["name"]: DatasetDeclaration(**one) for one in declarations("DatasetComponent")}
    tables = {name: dataset(one) for name, one in declared.items()}
    flights = tables[view.base]
    computed = compute(view.computed_as(timedelta(days=view.lookback_days), flight_features), flights, tables)
    keys = list(view.entity.join_keys)
    made = declare(computed, view.features, keep=view.kept(declared[view.base]))
    if made.problems:
        raise SystemExit(f"features break their declaration: {made.problems[0]}")
    labels = flights[keys].assign(**{LABEL: arrived_late(flights)})
    frame = made.frame.merge(labels, on=keys, how="left", validate="one_to_one")
    kept.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(kept)
    return frame


def flights_history(model: ModelDeclaration, labels_after: timedelta = LABELS_AFTER) -> History:
    """The same as the history that regimes are replayed on."""
    view = FeatureViewDeclaration(**declarations("FeatureViewComponent")[0])
    frame = flights_table()
    keys = list(view.entity.join_keys)
    return make_history(
        frame.drop(columns=LABEL),
        frame[[*keys, LABEL]],
        RowKeys(keys, view.event_timestamp),
        task=model.task,
        classes=model.classes,
        labels_after=labels_after,
    )


def flights_recipe(model: ModelDeclaration) -> Recipe:
    """How the flights model is made, with its first candidate."""
    return recipe_of(model, FeatureViewDeclaration(**declarations("FeatureViewComponent")[0]))


def declared_monitor(changes: str = "") -> Monitoring:
    """What the flights document declares, with JSON laid over it; the defaults while it declares none."""
    found = declarations("DriftMonitorComponent")
    declared = DriftMonitorDeclaration(
        **(found[0] if found else {"model": "flights", "logs_since": "2013-01-01"})
    )
    return monitoring_of(overridden(declared, changes))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the comparison."""
    parser = argparse.ArgumentParser(prog="python -m bench.backtest", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--regime", action="append", choices=tuple(REGIMES), help="only these (default: all)")
    parser.add_argument("--monitor", default="", help="JSON over the declared drift monitor")
    parser.add_argument("--plot", type=Path, help="write the plot here (PNG)")
    chosen = parser.parse_args(arguments)
    console = Console(stderr=chosen.json)
    model = ModelDeclaration(**declarations("ModelComponent")[0])
    monitoring = declared_monitor(chosen.monitor)
    history = flights_history(model)
    found = replay(
        ReplayedUseCase(history, flights_recipe(model), monitoring),
        regimes(chosen.regime or ALL),
        start=START,
        end=END,
        report=console.log,
    )
    if chosen.plot:
        chosen.plot.write_bytes(backtest_plot(found))
    if chosen.json:
        print(json.dumps(found.to_dict(), indent=1))
        return
    for title, rows in (
        ("Regimes", comparison_rows(found)),
        ("What the rate of false alarms trades", trade_rows(found)),
        ("Months", month_rows(found)),
        ("Retrains on drift", retrain_rows(found)),
        ("What the calendar asked for", calendar_rows(found)),
    ):
        console.print(_table(title, rows))
    console.print(conclusion(found))


def _table(title: str, rows: "list[dict[str, Any]]") -> Table:
    table = Table(*(rows[0] if rows else ()), title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(str, row.values()))
    return table


if __name__ == "__main__":
    main()
