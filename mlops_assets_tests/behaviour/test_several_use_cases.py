"""Several use cases in one process, and in two at once: each is what it is alone."""

import json
import os
import random
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import matplotlib as mpl
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from mlops_assets.asset_names import asset_name, read_asset_name
from mlops_assets_tests.behaviour.several import CASES, KINDS, build, resources
from serve.schema import ModelManifest

pytestmark = pytest.mark.timeout(300)
NAMES = list(CASES)


def reversed_order(step: Any) -> tuple[int, ...]:
    """Of the steps that can run, the last by name first: the opposite of Dagster's own order."""
    return tuple(-ord(letter) for letter in step.key)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Path:
    folder = tmp_path_factory.mktemp("in_order")
    shutil.copy(empty_mlflow, folder)
    return folder


@pytest.fixture(scope="module")
def in_order(store: Path) -> dict[str, str]:
    with dg.DagsterInstance.ephemeral() as instance:
        return build(store, NAMES, instance)


def of(name: str, built: dict[str, str]) -> dict[str, str]:
    return {key: version for key, version in built.items() if read_asset_name(key).name == name}


def test_four_use_cases_are_built_in_one_run(in_order: dict[str, str]) -> None:
    assert sorted(in_order) == sorted(asset_name(kind, name) for kind in KINDS for name in NAMES)


@pytest.mark.usefixtures("mlflow_uri")
def test_the_other_way_round_they_are_the_same(in_order: dict[str, str], tmp_path: Path) -> None:
    with (
        dg.DagsterInstance.ephemeral() as instance,
        mock.patch("dagster._core.execution.plan.active._default_sort_key", reversed_order),
    ):
        assert build(tmp_path, NAMES, instance) == in_order
        (run,) = instance.get_runs()
        started = instance.all_logs(run.run_id, of_type={dg.DagsterEventType.STEP_START})
        steps = [entry.get_dagster_event().step_key for entry in started]
    assert steps.index("damsons_model") < steps.index("apples_candidates")


@pytest.mark.usefixtures("mlflow_uri", "rendered")
def test_a_use_case_leaves_the_process_as_it_found_it(in_order: dict[str, str], tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        before = process_state()
        alone = build(tmp_path, ["birches"], instance)
        after = process_state()

    assert {name: value for name, value in after.items() if before[name] != value} == {}
    assert alone == {
        key: version for key, version in in_order.items() if read_asset_name(key).name == "birches"
    }


def test_each_models_runs_are_in_its_own_experiment(in_order: dict[str, str], store: Path) -> None:
    client = resources(store)["model_registry"].client()
    for name in NAMES:
        experiment = client.get_experiment_by_name(name)
        runs = client.search_runs([experiment.experiment_id])
        (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        children = [run for run in runs if run is not parent]
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
        trained = [candidate["trainer"] for candidate in CASES[name][1]]
        assert sorted(run.data.tags["candidate"] for run in children) == sorted(trained)
        version = client.get_model_version_by_alias(name, "challenger")
        assert version.run_id in {run.info.run_id for run in children}


def test_every_package_takes_a_column_of_codes_as_categories(in_order: dict[str, str], store: Path) -> None:
    for name in NAMES:
        version = resources(store)["model_registry"].by_alias(name, "challenger")
        colour = ModelManifest.model_validate(version.manifest()).features[2]
        assert (colour.name, colour.type, colour.coded) == ("colour", "category", True)
        assert sorted(colour.categories or ()) == ["10", "2", "33"]


def test_two_processes_on_one_store_do_not_disturb_each_other(
    in_order: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "mlops_assets_tests.behaviour.several", str(tmp_path)]
    names = ("apples", "cherries")
    running = [
        subprocess.Popen([*command, str(tmp_path / name), name], stderr=subprocess.PIPE, text=True)
        for name in names
    ]
    said = [process.communicate(timeout=250)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said

    for name in names:
        made = json.loads((tmp_path / name).read_text(encoding="utf-8"))
        assert made == {
            key: version for key, version in in_order.items() if read_asset_name(key).name == name
        }


def process_state() -> dict[str, Any]:
    """What one use case could leave for the next in the same process."""
    from mlflow.tracking import fluent
    from mlflow.tracking._model_registry import utils as registry
    from mlflow.tracking._tracking_service import utils as tracking

    return {
        "environment": dict(os.environ),
        "working folder": (str(Path.cwd()), sorted(path.name for path in Path.cwd().iterdir())),
        "random numbers": (random.getstate(), str(np.random.get_state())),
        "warnings": [str(entry) for entry in warnings.filters],
        "numpy errors": np.geterr(),
        "threads": sorted((pool["filepath"], pool["num_threads"]) for pool in threadpool_info()),
        "drawing": {name: str(value) for name, value in mpl.rcParams.items()},
        "import path": list(sys.path),
        "MLflow": (
            tracking._tracking_uri,
            registry._registry_uri,
            fluent._active_experiment_id,
            list(fluent._active_run_stack.get()),
            fluent._last_active_run_id.get(),
            fluent._last_logged_model_id.get(),
        ),
    }
