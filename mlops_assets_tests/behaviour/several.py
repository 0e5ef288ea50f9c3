"""Four small use cases of all three tasks, and what building them leaves behind as plain values.

Run as ``python -m mlops_assets_tests.behaviour.several STORE OUT NAME...``: builds the named ones in one run
of a process of its own, on the lake and the MLflow store below the folder STORE.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
from dagster.components.testing import create_defs_folder_sandbox

from mlops_assets.asset_keys import asset_key
from mlops_assets.event_log.records import latest
from mlops_assets.resources.alerts import Alerts
from mlops_assets.resources.experiment_tracking import ExperimentTracker
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import ModelRegistry

KINDS = ("dataset", "features", "training_set", "candidates", "model", "evaluation")
ROWS = 240
CASES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "apples": (
        "binary",
        [{"trainer": "lightgbm", "params": {"num_rounds": 8}}, {"trainer": "logistic_regression"}],
    ),
    "birches": (
        "multiclass",
        [{"trainer": "logistic_regression"}, {"trainer": "lightgbm", "params": {"num_rounds": 5}}],
    ),
    "cherries": (
        "regression",
        [{"trainer": "xgboost", "params": {"num_rounds": 8}}, {"trainer": "ridge"}],
    ),
    "damsons": ("binary", [{"trainer": "random_forest", "params": {"num_rounds": 8}}]),
}
"""Name: task and candidates."""

YAML = """\
type: mlops_assets.components.DatasetComponent
attributes:
  name: {name}
  source: {{format: csv, path: raw.csv}}
  columns: {{row_id: integer, size: number, weight: number, colour: integer, outcome: {outcome}}}
  primary_key: [row_id]
---
type: mlops_assets.components.FeatureViewComponent
attributes:
  name: {name}
  entity: {{name: row, join_keys: [row_id]}}
  base: {name}
  features:
    - {{name: size, type: number}}
    - {{name: weight, type: number}}
    - {{name: colour, type: category}}
---
type: mlops_assets.components.ModelComponent
attributes:
  name: {name}
  task: {task}
  feature_view: {name}
  label: {{dataset: {name}, column: outcome}}
  folds: 2
  evaluation_fraction: 0.4
  candidates: {candidates}
  gate: {{min_rows: 20}}
"""


def write(defs: Path, names: Sequence[str]) -> None:
    """A folder per name below ``defs``, each with its YAML and its data."""
    for name in names:
        task, candidates = CASES[name]
        folder = defs / name
        folder.mkdir(parents=True)
        outcome = {"binary": "string", "multiclass": "string", "regression": "number"}[task]
        text = YAML.format(name=name, task=task, candidates=json.dumps(candidates), outcome=outcome)
        (folder / "defs.yaml").write_text(text, encoding="utf-8")
        table(name, task).to_csv(folder / "raw.csv", index=False)


def table(name: str, task: str) -> pd.DataFrame:
    """Rows whose outcome follows from size and colour, most of the time."""
    random = np.random.default_rng(sorted(CASES).index(name))
    frame = pd.DataFrame(
        {
            "row_id": range(ROWS),
            "size": random.normal(size=ROWS).round(3),
            "weight": random.normal(size=ROWS).round(3),
            "colour": random.choice([2, 10, 33], ROWS),
        }
    )
    signal = 3 * frame["size"] + (frame["colour"] == 10) + random.normal(scale=0.3, size=ROWS)
    if task == "regression":
        return frame.assign(outcome=signal.round(3))
    names = ["bad", "good"] if task == "binary" else ["bad", "fair", "good"]
    return frame.assign(outcome=pd.qcut(signal, len(names), labels=names).astype(str))


def resources(store: Path) -> dict[str, Any]:
    """Lake, MLflow and alert log below one folder."""
    uri = f"sqlite:///{store}/mlflow.db"
    return {
        "lake": Lake(uri=str(store / "lake")),
        "model_registry": ModelRegistry(tracking_uri=uri),
        "experiment_tracker": ExperimentTracker(tracking_uri=uri, artifact_root=str(store / "artifacts")),
        "alerts": Alerts(log_file=str(store / "alerts.jsonl")),
    }


def build(store: Path, names: Sequence[str], instance: dg.DagsterInstance) -> dict[str, str]:
    """Builds the use cases in one run; data version by asset. An asset that was not made is left out."""
    with ExitStack() as stack:
        sandbox = stack.enter_context(create_defs_folder_sandbox())
        write(sandbox.defs_folder_path, names)
        loaded = stack.enter_context(sandbox.build_all_defs())
        definitions = dg.Definitions.merge(loaded, dg.Definitions(resources=resources(store)))
        job = definitions.resolve_implicit_global_asset_job_def()
        keys = [asset_key(kind, name) for name in names for kind in KINDS]
        job.execute_in_process(
            instance=instance,
            asset_selection=keys,
            run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
            raise_on_error=False,
        )
    found = {key.to_user_string(): latest(instance, key) for key in keys}
    return {key: record.data_version for key, record in found.items() if record is not None}


if __name__ == "__main__":
    with dg.DagsterInstance.ephemeral() as throwaway:
        made = build(Path(sys.argv[1]), sys.argv[3:], throwaway)
    Path(sys.argv[2]).write_text(json.dumps(made), encoding="utf-8")
