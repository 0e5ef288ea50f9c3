"""The use case ``shop`` that tests declare: as few documents as answer, and one that is watched over time.

Belongs here: documents that several tests declare, and where they differ. Does not belong here: the data and
what happens in the shop, which is each test's own.
"""

from collections.abc import Mapping
from typing import Any

import yaml

DATASET = """\
type: mlops_assets.components.DatasetComponent
attributes:
  name: {name}
  source: {{format: csv, path: raw.csv}}
  columns: {{row_id: integer, price: number, sold: boolean}}
"""
VIEW = """\
---
type: mlops_assets.components.FeatureViewComponent
attributes:
  name: {name}
  entity: {{name: row, join_keys: [row_id]}}
  base: {name}
  features:
    - {{name: price, type: number}}
"""
MODEL = """\
---
type: mlops_assets.components.ModelComponent
attributes:
  name: {name}
  task: binary
  feature_view: {name}
  label: {{dataset: {name}, column: sold}}
  candidates:
    - {{trainer: lightgbm}}
"""
DEPLOYMENT = """\
---
type: mlops_assets.components.DeploymentComponent
attributes:
  name: {name}
  model: {name}
"""
MONITOR = """\
---
type: mlops_assets.components.DriftMonitorComponent
attributes:
  model: {name}
  logs_since: "2024-01-01"
"""
WHOLE = DATASET + VIEW + MODEL + DEPLOYMENT


def whole(name: str = "shop") -> str:
    """Everything from a dataset to a deployment, as text in which a test changes a line."""
    return WHOLE.format(name=name)


VISITS: Mapping[str, Mapping[str, Any]] = {
    "Dataset": {
        "name": "shop",
        "source": {"format": "csv", "path": "raw.csv"},
        "columns": {
            "visit": "string",
            "at": "timestamp",
            "age": "number",
            "spent": "number",
            "bought": "number",
        },
        "primary_key": ["visit"],
    },
    "FeatureView": {
        "name": "shop",
        "entity": {"name": "visit", "join_keys": ["visit"]},
        "event_timestamp": "at",
        "base": "shop",
        "features": [{"name": "age", "type": "number"}, {"name": "spent", "type": "number"}],
    },
    "Model": {
        "name": "shop",
        "task": "binary",
        "feature_view": "shop",
        "label": {"dataset": "shop", "column": "bought"},
        "classes": ["no", "yes"],
        "candidates": [{"trainer": "logistic_regression"}],
    },
    "Deployment": {"name": "shop", "model": "shop"},
    "DriftMonitor": {"model": "shop", "logs_since": "2024-01-01", "min_rows": 100},
}
"""Attributes by kind of document: visitors whose age and spending say whether they buy."""


def visits(**more: Mapping[str, Any]) -> str:
    """A shop that is watched over time; attributes by kind of document go before those of ``VISITS``."""
    return yaml.safe_dump_all(
        [
            {
                "type": f"mlops_assets.components.{kind}Component",
                "attributes": {**attributes, **more.get(kind, {})},
            }
            for kind, attributes in VISITS.items()
        ],
        sort_keys=False,
    )
