"""The resources of the code location, configured from the environment table.

Belongs here: which instance of a resource this location uses. Does not belong here: what a resource
does (``mlops_assets/resources/``) or the environment table itself (``mlops_assets/environment.py``).
"""

import dagster as dg
from dagster_aws.s3 import S3Resource
from dagster_mlflow import mlflow_tracking

from mlops_assets import environment
from mlops_assets.resources.experiment_tracking import ExperimentTracker
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import ModelRegistry
from mlops_assets.resources.serve_client import ServeClient


@dg.definitions
def resources() -> dg.Definitions:
    tracking_uri = environment.MLFLOW_TRACKING_URI.read()
    return dg.Definitions(
        resources={
            "lake": Lake(
                uri=environment.LAKE_URI.read(),
                s3=S3Resource(
                    endpoint_url=environment.S3_ENDPOINT.read() or None,
                    region_name=environment.S3_REGION.read(),
                ),
            ),
            "model_registry": ModelRegistry(tracking_uri=tracking_uri),
            "experiment_tracker": ExperimentTracker(tracking_uri=tracking_uri),
            "mlflow": mlflow_tracking,
            "serve_client": ServeClient(
                dashboard_url=environment.ray_dashboard_url(),
                serve_url=environment.serve_url(),
                state_file=str(environment.state_dir() / "serve" / "desired_state.json"),
                api_keys_file=environment.API_KEYS_FILE.read(),
            ),
        }
    )
