"""``<model>_backtest`` from YAML: what it reads, replays, shows and refuses."""

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from mlops_assets import cli
from mlops_assets import instance as dagster_instance
from mlops_assets.asset_keys import asset_key
from mlops_assets.assets.backtest import monitoring_of, overridden, recipe_of
from mlops_assets.backtest.trainings import Recipe, RowKeys, Trainings, make_history
from mlops_assets.commands.backtesting import overrides, regimes_asked_for, run_backtest
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.documents.model import ModelDeclaration
from mlops_assets.errors import DataError, DeclarationError, UnknownName
from mlops_assets.event_log.records import latest
from mlops_assets.resources.alerts import Alerts
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.experiment_tracking import ExperimentTracker
from mlops_assets.resources.inference_log import InferenceLog
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import ModelRegistry
from mlops_assets.resources.scratch import Scratch
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.testing.shop import visits
from mlops_assets.training.training_set import LABEL

Load = Callable[[str], dg.Definitions]

YAML = visits(
    Model={"evaluation_window_days": 7, "training_window_days": 21, "gate": {"margin": 0.02}},
    DriftMonitor={"labels": {"within": "2d"}},
)
MONITOR = DriftMonitorDeclaration.model_validate({"model": "shop", "logs_since": "2024-01-01"})
MODEL = ModelDeclaration.model_validate(
    {
        "name": "shop",
        "task": "binary",
        "feature_view": "shop",
        "label": {"dataset": "shop", "column": "bought"},
        "candidates": [{"trainer": "lightgbm", "params": {"num_rounds": 5}}, {"trainer": "random_forest"}],
    }
)


def visitors(days: int = 112) -> pd.DataFrame:
    """Visitors whose age decides for the first 70 days, and then no longer does."""
    random, count = np.random.default_rng(4), days * 40
    minutes = np.sort(random.uniform(0, days * 1440, count))
    at = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(minutes.round(), unit="min")
    age, spent = random.normal(40, 10, count).round(1), random.exponential(30, count).round(2)
    pull = np.where(minutes < 70 * 1440, (age - 40) / 6, (spent - 30) / 12)
    bought = (random.random(count) < 1 / (1 + np.exp(-pull))).astype(float)
    return pd.DataFrame(
        {
            "visit": [f"v{number:05}" for number in range(count)],
            "at": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "age": age,
            "spent": spent,
            "bought": np.where(random.random(count) < 0.02, np.nan, bought),
        }
    )


@pytest.fixture
def shop(
    use_case: Path, load: Load, instance: dg.DagsterInstance, tmp_path: Path, mlflow_uri: str
) -> dg.Definitions:
    """The use case with its tables and training set built."""
    visitors().to_csv(use_case / "raw.csv", index=False)
    unused = {
        "model_registry": ModelRegistry(tracking_uri=mlflow_uri),
        "experiment_tracker": ExperimentTracker(tracking_uri=mlflow_uri, artifact_root=str(tmp_path)),
        "alerts": Alerts(log_file=str(tmp_path / "alerts.jsonl")),
        "inference_log": InferenceLog(uri=str(tmp_path / "predictions")),
        "scratch": Scratch(folder=str(tmp_path / "scratch")),
        "clock": Clock(file=""),
        "serve_client": ServeClient(
            dashboard_url="http://127.0.0.1:9",
            serve_url="http://127.0.0.1:9",
            api_keys_file="off",
            state_file=str(tmp_path / "state"),
        ),
    }
    loaded = load(YAML, **unused)
    keys = [asset_key(kind, "shop") for kind in ("dataset", "quarantine", "features", "training_set")]
    known = loaded.resolve_asset_graph().materializable_asset_keys
    made = loaded.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=[key for key in keys if key in known]
    )
    assert made.success
    return loaded


def test_what_cannot_be_replayed_is_said_in_a_sentence(shop: dg.Definitions, instance: Any) -> None:
    with pytest.raises(UnknownName, match="Unknown model with a drift monitor 'iris'"):
        run_backtest(shop, instance, "iris", {})
    for config, told in (
        ({"regimes": ["yearly"]}, "Unknown regime 'yearly'"),
        ({"since": "in March"}, "'in March' is no day"),
        ({"since": "2024-01-05"}, "no first model at 2024-01-05"),
        ({"trainer": "oracle"}, "Unknown candidate 'oracle'"),
        ({"monitor": '{"policy": {"false_alarms_per_year": 200}}'}, "policy.false_alarms_per_year"),
    ):
        with pytest.raises(DataError, match=told):
            run_backtest(shop, instance, "shop", config)


def test_a_backtest_that_fails_at_the_prompt_says_why_and_nothing_else(
    shop: dg.Definitions, instance: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dagster_instance, "running_instance", lambda: contextlib.nullcontext(instance))
    monkeypatch.setattr(cli, "_definitions", lambda: shop)
    result = CliRunner().invoke(cli.main, ["backtest", "shop", "--from", "2024-01-05"])
    assert result.exit_code == 1
    [said] = result.output.splitlines()
    assert said.startswith("Error: shop_backtest: ") and "no first model at 2024-01-05" in said


def test_a_backtest_is_an_asset_that_only_a_person_makes(shop: dg.Definitions, instance: Any) -> None:
    key = asset_key("backtest", "shop")
    node = shop.resolve_asset_graph().get(key)
    assert node.automation_condition is None and node.group_name == "shop"
    found, run_id = run_backtest(
        shop,
        instance,
        "shop",
        {
            "since": "2024-02-12",
            "regimes": ["never", "weekly", "calendar", "drift"],
            "monitor": overrides("", "", "0 3 1 * *"),
        },
    )
    record = latest(instance, key)
    assert record is not None and record.run_id == run_id
    assert record.metadata["conclusion"].startswith("From 2024-02-12 to 2024-04-22 retraining on drift")
    assert record.metadata["quality_over_time"].startswith("![plot](data:image/png;base64,")
    assert "| drift |" in record.metadata["comparison"]
    assert "2024-03-01T03:00 | granted" in record.metadata["calendar"]
    assert found.monitoring["labels_within_days"] == 2.0
    drift, never = found.replay_of("drift"), found.replay_of("never")
    assert drift is not None and never is not None
    assert drift.count("promoted") >= 1
    assert (drift.mean("roc_auc") or 0) > (never.mean("roc_auc") or 1)


def test_another_policy_is_tried_without_touching_the_document(
    shop: dg.Definitions, instance: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    warns = {name: {"action": "warn"} for name in ("prediction", "performance", "age")}
    deaf = overrides(json.dumps(warns), "")
    config = {"since": "2024-02-12", "regimes": ["drift"], "monitor": deaf}
    found, _ = run_backtest(shop, instance, "shop", config)
    told = capsys.readouterr().err.splitlines()
    assert told and not any("STEP_" in line or " - " in line for line in told), told
    drift = found.replay_of("drift")
    assert drift is not None and not drift.episodes and not drift.retrains
    assert any(action == "warn" for _, action, _ in drift.decisions)


def test_the_replayed_training_set_is_the_one_that_production_makes(shop: dg.Definitions, lake: Lake) -> None:
    """The same rows train and judge as in ``shop_training_set``, once everything is known."""
    outcomes, features = lake.read("datasets/shop"), lake.read("features/shop")
    history = make_history(
        features,
        outcomes[["visit"]].assign(**{LABEL: outcomes["bought"]}),
        RowKeys(["visit"], "at"),
        task="binary",
        classes=("no", "yes"),
        labels_after=timedelta(days=2),
    )
    recipe = Recipe(
        **{
            **vars(recipe_of(MODEL, _view())),
            "evaluation_window_days": 7,
            "training_window_days": 21,
        }
    )
    model = Trainings(history, recipe, window_days=7).at(datetime(2024, 6, 1, tzinfo=UTC))
    pinned = lake.read("training_sets/shop")
    for split, rows in (("train", model.trained), ("evaluate", model.judged)):
        part = pinned[pinned["split"] == split].set_index("visit")
        replayed = history.frame.iloc[rows]["visit"]
        assert set(part.index) == set(replayed)
        assert (part.loc[replayed, "label"].to_numpy() == history.target[rows]).all()


def _view() -> Any:
    from mlops_assets.documents.feature_view import FeatureViewDeclaration

    return FeatureViewDeclaration.model_validate(
        {
            "name": "shop",
            "entity": {"name": "visit", "join_keys": ["visit"]},
            "event_timestamp": "at",
            "base": "shop",
            "features": [{"name": "age", "type": "number"}, {"name": "spent", "type": "number"}],
        }
    )


def test_wrong_overrides_say_what_is_allowed() -> None:
    with pytest.raises(DeclarationError, match="--policy 'x' is no JSON"):
        overrides("x", "")
    with pytest.raises(DeclarationError, match="--monitor '3' must be a JSON object"):
        overrides("", "3")
    with pytest.raises(DeclarationError, match=r"windw: Extra inputs.*Fields of a drift monitor: model, "):
        overridden(MONITOR, '{"windw": "3d"}')
    with pytest.raises(DeclarationError, match="can never agree"):
        overridden(MONITOR, '{"policy": {"prediction": {"windows": 4}}}')


def test_overrides_change_what_they_name_and_nothing_else() -> None:
    text = overrides(
        '{"prediction": {"windows": 1}}', '{"window": "3d", "policy": {"false_alarms_per_year": 2}}'
    )
    assert json.loads(text)["policy"] == {"false_alarms_per_year": 2, "prediction": {"windows": 1}}
    changed = overridden(MONITOR, text)
    assert changed.window == timedelta(days=3) and changed.policy.false_alarms_per_year == 2
    assert (changed.policy.prediction.windows, changed.policy.prediction.of) == (1, 3)
    assert changed.policy.performance.action == "open" and changed.governor == MONITOR.governor
    assert overridden(MONITOR, "") is MONITOR and overrides("", "") == ""


def test_the_trade_stands_beside_the_named_regimes_or_beside_never() -> None:
    rates = ["drift_0.2", "drift_0.5", "drift_1", "drift_2"]
    assert regimes_asked_for((), trade=True) == ["never", *rates]
    assert regimes_asked_for(("weekly",), trade=True) == ["weekly", *rates]
    assert regimes_asked_for(("weekly",), trade=False) == ["weekly"]
    assert regimes_asked_for((), trade=False) == []


def test_a_schedule_at_the_prompt_is_the_calendar_that_is_replayed() -> None:
    assert monitoring_of(MONITOR).calendar is None
    text = overrides("", '{"retrain": {"timezone": "Europe/Berlin"}}', "0 3 1 * *")
    calendar = monitoring_of(overridden(MONITOR, text)).calendar
    assert calendar is not None and calendar.schedule == "0 3 1 * *"
    found = list(calendar.between(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)))
    assert found == [datetime(2024, month, 1, 2, tzinfo=UTC) for month in (1, 2)]
    with pytest.raises(DeclarationError, match=r"retrain\.schedule: .*'monthly' is no schedule"):
        overridden(MONITOR, overrides("", "", "monthly"))


def test_the_last_winner_is_trained_with_its_windows_unless_one_is_named() -> None:
    def names(**chosen: Any) -> list[str]:
        return [one.name for one in recipe_of(MODEL, _view(), **chosen).candidates]

    boosted, forest = (
        [name, f"{name} 90d", f"{name} 28d", f"{name} 7d"] for name in ("lightgbm", "random_forest")
    )
    assert names() == names(won=3) == boosted
    assert names(won=4) == names(won=7) == forest and names(won=9) == boosted
    assert names(trainer="random_forest", won=0) == forest
    assert names(trainer="all") == [*boosted, *forest]
    with pytest.raises(UnknownName, match=r"'ridge'\. Allowed: all, lightgbm, random_forest"):
        names(trainer="ridge")
