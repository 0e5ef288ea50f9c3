"""The resources of the code location, configured from the environment table.

Belongs here: which instance of a resource this location uses. Does not belong here: what a resource
does (``mlops_assets/resources/``) or the environment table itself (``mlops_assets/environment.py``).
"""

import dagster as dg

from mlops_assets import environment
from mlops_assets.resources.alerts import Alerts
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.experiment_tracking import ExperimentTracker
from mlops_assets.resources.inference_log import InferenceLog
from mlops_assets.resources.lake import Lake, S3Config
from mlops_assets.resources.model_registry import ModelRegistry
from mlops_assets.resources.online_stores import OnlineStores
from mlops_assets.resources.scratch import Scratch
from mlops_assets.resources.serve_client import ServeClient


@dg.definitions
def resources() -> dg.Definitions:
    """Every resource by the name that assets ask for it."""
    tracking_uri = environment.MLFLOW_TRACKING_URI.read()
    ui_url = _mlflow_url()
    return dg.Definitions(
        resources={
            "lake": lake(),
            "model_registry": model_registry(),
            "experiment_tracker": ExperimentTracker(
                tracking_uri=tracking_uri, artifact_root=environment.MLFLOW_ARTIFACTS.read(), ui_url=ui_url
            ),
            "serve_client": serve_client(),
            "inference_log": inference_log(),
            "scratch": Scratch(folder=str(environment.state_dir() / "scratch")),
            "online_stores": online_stores(),
            "clock": clock(),
            "alerts": Alerts(log_file=str(environment.state_dir() / "alerts.jsonl")),
        }
    )


def lake() -> Lake:
    """The lake; also what the command line writes streams to."""
    return Lake(uri=environment.LAKE_URI.read(), s3=_s3())


def online_stores() -> OnlineStores:
    """The stores of online features; also what the command line fills from a stream."""
    return OnlineStores(uri=environment.ONLINE_URI.read())


def serve_client() -> ServeClient:
    """The client of the cluster that deployments go to; also what the command line uses."""
    return ServeClient(
        dashboard_url=environment.ray_dashboard_url(),
        serve_url=environment.serve_url(),
        serve_host=environment.SERVE_HOST.read(),
        state_file=str(environment.state_dir() / "serve" / "desired_state.json"),
        api_keys_file=environment.API_KEYS_FILE.read(),
        prediction_log_uri=environment.PREDICTION_LOG_URI.read(),
        online_uri=environment.ONLINE_URI.read(),
        clock_file=environment.clock_file(),
        serving_target=environment.SERVING_TARGET.read(),
    )


def model_registry() -> ModelRegistry:
    """The registry; also what the command line reads."""
    return ModelRegistry(tracking_uri=environment.MLFLOW_TRACKING_URI.read(), ui_url=_mlflow_url())


def inference_log() -> InferenceLog:
    """What gateways logged; also what the command line reads."""
    return InferenceLog(uri=environment.PREDICTION_LOG_URI.read(), s3=_s3())


def clock() -> Clock:
    """The time that the data is measured by; also what the command line reads."""
    return Clock(file=environment.clock_file())


def _mlflow_url() -> str:
    return f"http://127.0.0.1:{environment.MLFLOW_PORT.read()}"


def _s3() -> S3Config:
    return S3Config(
        endpoint_url=environment.S3_ENDPOINT.read() or None, region_name=environment.S3_REGION.read()
    )
