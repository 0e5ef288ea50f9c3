"""The story's stack lies in a folder and on ports of its own, and takes over nothing that touches others."""

from pathlib import Path

from demo.run import KEPT_VARIABLES, STATE, loop_settings
from mlops_assets import environment
from mlops_assets.local_stack.processes import process_environment


def test_nothing_of_the_platforms_environment_is_taken_over():
    foreign = {variable.name: "elsewhere" for variable in environment.VARIABLES}
    settings = loop_settings(Path("/checkout"), {**foreign, "HOME": "/home/ana"})

    made = process_environment(settings)

    state = f"/checkout/{STATE}"
    assert made["HOME"] == "/home/ana"
    assert made[environment.STATE_DIR.name] == state
    assert made["DAGSTER_HOME"] == f"{state}/dagster"
    assert made[environment.CLOCK_FILE.name] == f"{state}/clock"
    assert {name for name in foreign if made.get(name) == "elsewhere"} == set(KEPT_VARIABLES)
    ports = {
        made[variable.name]
        for variable in (
            environment.DAGSTER_PORT,
            environment.MLFLOW_PORT,
            environment.SERVE_PORT,
            environment.RAY_DASHBOARD_PORT,
            environment.RAY_GCS_PORT,
        )
    }
    assert len(ports) == 5
    assert not ports & {"elsewhere", "3000", "5000", "8000", "8265", "6379"}
    assert settings.local_ray
    assert not settings.remote_tracking
