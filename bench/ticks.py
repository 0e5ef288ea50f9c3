"""How long one tick of automation and of each monitor's sensors takes: three use cases, 365 partitions each.

Belongs here: timing evaluations on an instance on disk that holds a year of events. Does not belong here:
what is decided (tests), how long runs take (``graph.py``).

``python -m bench.ticks`` copies the flights declarations three times under other names, reports a year of
materialisations for each, and evaluates in this process what the daemon evaluates.
"""

import argparse
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster.components.testing import create_defs_folder_sandbox

from mlops_assets.asset_keys import asset_key, read_key
from mlops_assets.definitions import with_platform_policy
from mlops_assets.resources.alerts import Alerts
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.experiment_tracking import ExperimentTracker
from mlops_assets.resources.inference_log import InferenceLog
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import ModelRegistry
from mlops_assets.resources.scratch import Scratch
from mlops_assets.resources.serve_client import ServeClient

FLIGHTS = Path(__file__).resolve().parent.parent / "mlops_assets/defs/flights/defs.yaml"
USE_CASES = ("flights", "second", "third")
TICKS = 5
METADATA: dict[str, dict[str, Any]] = {
    "evaluation": {"outcome": "promote", "model_version": 1},
    "approval": {"decision": "approve", "approver": "the gate", "reason": "better", "bound_to": {}},
}
"""What the sensors read of a materialisation."""


def declarations(name: str) -> str:
    """The flights declarations with every name of an asset in them changed."""
    text = FLIGHTS.read_text(encoding="utf-8")
    for known in ("flights", "weather", "planes") if name != "flights" else ():
        text = re.sub(
            rf"((?:name|base|dataset|model|feature_view): ){known}\b", rf"\g<1>{name}_{known}", text
        )
    return text


def ticks(folder: Path) -> dict[str, float]:
    """Median seconds of one tick, by what ticks; automation with no news and with one changed partition."""
    with create_defs_folder_sandbox() as sandbox:
        for name in USE_CASES:
            (sandbox.defs_folder_path / name).mkdir()
            (sandbox.defs_folder_path / name / "defs.yaml").write_text(declarations(name), encoding="utf-8")
        with sandbox.build_all_defs() as loaded, dg.DagsterInstance.local_temp(str(folder)) as instance:
            definitions = with_platform_policy(
                dg.Definitions.merge(loaded, dg.Definitions(resources=_resources(folder)))
            )
            graph = definitions.resolve_asset_graph()
            _report_a_year(graph, instance)
            found: dict[str, float] = {}
            first = _evaluated(definitions, instance, None)
            found["automation, first tick"] = first[0]
            cursor = first[1].cursor
            quiet = [_evaluated(definitions, instance, cursor) for _ in range(TICKS)]
            found["automation, no news"] = _median([one[0] for one in quiet])
            changed = dg.AssetMaterialization(
                asset_key("dataset", "flights"),
                partition="2013-12-24",
                tags={"dagster/data_version": "changed"},
            )
            instance.report_runless_asset_event(changed)
            found["automation, one changed partition"] = _evaluated(definitions, instance, cursor)[0]
            for sensor in definitions.sensors or []:
                if sensor.name in ("measure_flights", "drift_flights", "freshness_alerts", "health_alerts"):
                    assert isinstance(sensor, dg.SensorDefinition)
                    found[sensor.name] = _median(
                        [_timed(lambda one=sensor: _tick(one, instance, definitions)) for _ in range(TICKS)]
                    )
            return found


def _resources(folder: Path) -> dict[str, Any]:
    return {
        "lake": Lake(uri=str(folder / "lake")),
        "model_registry": ModelRegistry(tracking_uri=f"sqlite:///{folder}/mlflow.db"),
        "experiment_tracker": ExperimentTracker(
            tracking_uri=f"sqlite:///{folder}/mlflow.db", artifact_root=str(folder)
        ),
        "inference_log": InferenceLog(uri=str(folder / "predictions")),
        "scratch": Scratch(folder=str(folder / "scratch")),
        "alerts": Alerts(log_file=str(folder / "alerts.jsonl")),
        "clock": Clock(),
        "serve_client": ServeClient(
            dashboard_url="http://127.0.0.1:9",
            serve_url="http://127.0.0.1:9",
            api_keys_file="off",
            state_file=str(folder / "state"),
        ),
    }


def _report_a_year(graph: Any, instance: dg.DagsterInstance) -> None:
    """One materialisation of every asset, and of every partition of those with 365."""
    for key in sorted(graph.materializable_asset_keys):
        partitions = graph.get(key).partitions_def
        keys = partitions.get_partition_keys()[:365] if partitions else [None]
        for partition in keys:
            instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    key,
                    partition=partition,
                    metadata=METADATA.get(read_key(key).kind, {}),
                    tags={"dagster/data_version": f"{key.to_user_string()} {partition}"},
                )
            )


def _evaluated(definitions: dg.Definitions, instance: dg.DagsterInstance, cursor: Any) -> tuple[float, Any]:
    started = time.perf_counter()
    result = dg.evaluate_automation_conditions(definitions, instance, cursor=cursor)
    return time.perf_counter() - started, result


def _tick(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, definitions: dg.Definitions) -> None:
    resources = {key: (definitions.resources or {})[key] for key in sensor.required_resource_keys}
    context = dg.build_sensor_context(instance=instance, definitions=definitions, resources=resources)
    sensor(context)


def _timed(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints seconds by what ticks."""
    parser = argparse.ArgumentParser(prog="python -m bench.ticks", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    chosen = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="mlops-bench-"))
    try:
        found = ticks(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if chosen.json:
        print(json.dumps(found, indent=1))
        return
    for name, seconds in found.items():
        print(f"{name:40}{seconds:8.3f} s")


if __name__ == "__main__":
    main()
