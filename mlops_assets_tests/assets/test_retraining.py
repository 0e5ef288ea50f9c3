"""A retrain after a change, through the assets: windows, split, the rows of the verdict, a second look."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from mlops_assets.asset_keys import asset_key
from mlops_assets.event_log.episode_records import episode_opened
from mlops_assets.event_log.records import Record, latest
from mlops_assets.monitoring.episodes import EpisodeLog, open_episode
from mlops_assets.resources.alerts import Alerts
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.experiment_tracking import ExperimentTracker
from mlops_assets.resources.inference_log import InferenceLog
from mlops_assets.resources.model_registry import CHAMPION, ModelRegistry
from mlops_assets.resources.scratch import Scratch
from mlops_assets.resources.serve_client import ServeClient

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
TURN, PER_DAY = 98, 48
"""From this day on what made a visitor buy keeps him from it."""
SHOWN = FIRST + timedelta(days=TURN + 7)
"""The end of the first weekly window that shows it."""

YAML = """
type: mlops_assets.components.DatasetComponent
attributes:
  name: shop
  source: {format: csv, path: raw.csv}
  columns: {visit: integer, at: timestamp, age: number, bought: boolean}
  primary_key: [visit]
---
type: mlops_assets.components.FeatureViewComponent
attributes:
  name: shop
  entity: {name: visit, join_keys: [visit]}
  event_timestamp: at
  base: shop
  features: [{name: age, type: number}]
---
type: mlops_assets.components.ModelComponent
attributes:
  name: shop
  task: binary
  feature_view: shop
  label: {dataset: shop, column: bought}
  candidates: [{trainer: logistic_regression}]
---
type: mlops_assets.components.DeploymentComponent
attributes: {name: shop, model: shop}
---
type: mlops_assets.components.DriftMonitorComponent
attributes: {model: shop, logs_since: "2024-01-01"}
"""


class Shop:
    """The use case with a file that grows, up to the verdict on what was trained last."""

    def __init__(self, folder: Path, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self.folder, self.instance = folder, instance
        self.job = definitions.resolve_implicit_global_asset_job_def()

    def grows(self, days: int) -> None:
        random = np.random.default_rng(0)
        row = np.arange(200 * PER_DAY)
        age = random.normal(40, 10, len(row)).round(1)
        sign = np.where(row // PER_DAY < TURN, 1, -1)
        bought = random.random(len(row)) < 1 / (1 + np.exp(-sign * (age - 40) / 7))
        at = pd.Timestamp(FIRST) + pd.to_timedelta(row * (1440 // PER_DAY), unit="min")
        frame = pd.DataFrame(
            {"visit": row, "at": at.strftime("%Y-%m-%dT%H:%M:%SZ"), "age": age, "bought": bought}
        )
        frame[row // PER_DAY < days].to_csv(self.folder / "raw.csv", index=False)
        self.make("dataset", "features")

    def make(self, *kinds: str, look: int | None = None) -> None:
        config = {"ops": {"shop_evaluation": {"config": {"look": look}}}} if look else {}
        made = self.job.execute_in_process(
            instance=self.instance,
            asset_selection=[asset_key(kind, "shop") for kind in kinds],  # type: ignore[arg-type]
            run_config=config,
            raise_on_error=False,
        )
        assert made.success or "evaluation" in kinds  # the gate fails a run that does not promote

    def retrains(self) -> None:
        for kind in ("training_set", "candidates", "model", "evaluation"):
            self.make(kind)

    def record(self, kind: str) -> Record:
        found = latest(self.instance, asset_key(kind, "shop"))  # type: ignore[arg-type]
        assert found is not None
        return found


@pytest.fixture
def registry(mlflow_uri: str) -> ModelRegistry:
    return ModelRegistry(tracking_uri=mlflow_uri)


@pytest.fixture
def shop(
    use_case: Path,
    load: Callable[[str], dg.Definitions],
    instance: dg.DagsterInstance,
    tmp_path: Path,
    registry: ModelRegistry,
) -> Shop:
    resources = {
        "model_registry": registry,
        "experiment_tracker": ExperimentTracker(
            tracking_uri=registry.tracking_uri, artifact_root=str(tmp_path / "artifacts")
        ),
        "alerts": Alerts(log_file=str(tmp_path / "alerts.jsonl")),
        "inference_log": InferenceLog(uri=str(tmp_path / "predictions")),
        "scratch": Scratch(folder=str(tmp_path / "scratch")),
        "clock": Clock(file=""),
        # Nothing listens there.
        "serve_client": ServeClient(
            dashboard_url="http://127.0.0.1:9",
            serve_url="http://127.0.0.1:9",
            api_keys_file="off",
            state_file=str(tmp_path / "state"),
        ),
    }
    (use_case / "raw.csv").write_text("visit,at,age,bought\n")
    return Shop(use_case, load(YAML, **resources), instance)


def test_after_a_change_a_version_of_what_is_true_now_passes_the_gate(
    shop: Shop, registry: ModelRegistry, tmp_path: Path
) -> None:
    """Two weeks after the relation turned around: nothing is declared but the model and its monitor."""
    shop.grows(TURN)
    shop.retrains()
    assert shop.record("evaluation").metadata["outcome"] == "promote"
    assert shop.record("candidates").metadata["winner"] == "logistic_regression"
    assert registry.version("shop", 1).tags["training_window"] == "all"
    assert registry.version("shop", 1).manifest()["training_window"] is None
    registry.set_alias("shop", CHAMPION, 1)

    shop.grows(TURN + 14)
    log = open_episode(
        EpisodeLog(), version="v1", reason="performance was lost", now=SHOWN, changed_by=SHOWN.isoformat()
    )
    shop.instance.report_runless_asset_event(episode_opened("shop", log, {}))
    shop.retrains()

    made, competed = shop.record("model"), shop.record("candidates")
    assert competed.metadata["winner"] == "logistic_regression 7d"
    assert "is proven better on the newest rows" in competed.metadata["why"]
    assert "logistic_regression 28d" in competed.metadata["leaderboard"]
    assert competed.metadata["out"] == {}
    window = {"training_window": "7d", "first_training_day": "2024-04-10", "last_training_day": "2024-04-16"}
    assert {name: made.metadata[name] for name in window} == window and made.metadata[
        "train_rows"
    ] == 7 * PER_DAY
    second = registry.version("shop", 2)
    assert {name: second.tags[name] for name in window} == window
    assert second.manifest()["training_window"] == {
        "days": 7, "first_day": "2024-04-10", "last_day": "2024-04-16",
    }  # fmt: skip
    runs = registry.client().search_runs(["1"], filter_string="tags.candidate LIKE 'logistic_regression%'")
    assert {run.data.tags["candidate"] for run in runs} == {
        "logistic_regression", "logistic_regression 7d", "logistic_regression 28d", "logistic_regression 90d",
    }  # fmt: skip

    judged = shop.record("evaluation").metadata
    assert judged["outcome"] == "promote" and judged["model_version"] == 2
    assert judged["reason"].endswith(
        "judged on 240 rows from 2024-04-17 to 2024-04-21, "
        "240 of them after 2024-04-15, the end of the first window that showed a change"
    )
    assert (judged["evaluation_from"], judged["evaluation_until"]) == ("2024-04-17", "2024-04-21")
    assert (judged["evaluation_rows"], judged["rows_after_change"], judged["look"]) == (240, 240, 1)


def test_another_look_takes_in_the_rows_that_came_since_and_trains_nothing(
    shop: Shop, registry: ModelRegistry, tmp_path: Path
) -> None:
    shop.grows(60)
    shop.retrains()
    registry.set_alias("shop", CHAMPION, 1)
    shop.grows(64)
    shop.retrains()
    first = shop.record("evaluation")
    assert first.metadata["outcome"] == "inconclusive" and first.metadata["evaluation_rows"] == 14 * PER_DAY
    told = (tmp_path / "alerts.jsonl").read_text().splitlines()
    assert len(told) == 1
    before = {kind: shop.record(kind).data_version for kind in ("training_set", "candidates", "model")}

    shop.grows(67)
    shop.make("evaluation", look=2)

    second = shop.record("evaluation")
    assert second.metadata["look"] == 2 and second.metadata["evaluation_rows"] == 17 * PER_DAY
    assert second.metadata["model_version"] == first.metadata["model_version"] == 2
    assert second.metadata["evaluation_from"] == first.metadata["evaluation_from"]
    assert second.data_version != first.data_version
    assert "at 97.5%" in second.metadata["reason"] and "at 95%" in first.metadata["reason"]
    assert {kind: shop.record(kind).data_version for kind in before} == before
    # Still undecided is no news.
    assert second.metadata["outcome"] == "inconclusive"
    assert (tmp_path / "alerts.jsonl").read_text().splitlines() == told
