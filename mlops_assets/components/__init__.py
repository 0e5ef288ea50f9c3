"""The kinds of YAML document. A type named in a ``defs.yaml`` must be exported here."""

from mlops_assets.components.dataset import DatasetComponent
from mlops_assets.components.deployment import DeploymentComponent
from mlops_assets.components.drift_monitor import DriftMonitorComponent
from mlops_assets.components.feature_view import FeatureViewComponent
from mlops_assets.components.model import ModelComponent
from mlops_assets.components.stream import StreamComponent

__all__ = [
    "DatasetComponent",
    "DeploymentComponent",
    "DriftMonitorComponent",
    "FeatureViewComponent",
    "ModelComponent",
    "StreamComponent",
]
