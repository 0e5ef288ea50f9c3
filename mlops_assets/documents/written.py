"""Documents as text, with comments that teach: what `mlops new`, `dg scaffold defs` and errors show.

Belongs here: the words of each kind of document. Pure. Does not belong here: what they are filled with
(``data/inference.py``), writing files (``commands/new.py``, ``components/scaffolding.py``), what a document
may say (the declarations beside this file).
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import yaml

from mlops_assets.asset_names import AssetName, Kind
from mlops_assets.data.schema import ColumnType
from serve.schema import FeatureType, Task

SEPARATOR = "---\n"
FIRST_DAY = "2026-01-01"
"""Any day before the first answer."""
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
CANDIDATES: Mapping[Task, Sequence[tuple[str, str]]] = {
    "binary": (
        ("lightgbm", "boosted trees"),
        ("logistic_regression", "the simple one that others have to beat"),
    ),
    "multiclass": (
        ("lightgbm", "boosted trees"),
        ("logistic_regression", "the simple one that others have to beat"),
    ),
    "regression": (("lightgbm", "boosted trees"), ("ridge", "the simple one that others have to beat")),
}


def scalar(value: Any) -> str:
    """A value as YAML reads it back: plain where that is the same, else in quotes."""
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) is not None and yaml.safe_load(value) == value
        return value if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(scalar, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{scalar(name)}: {scalar(one)}' for name, one in value.items())}}}"
    return json.dumps(value)


def dataset(
    name: str,
    *,
    source: str,
    path: str,
    columns: Mapping[str, ColumnType],
    key: Sequence[str],
    options: Mapping[str, Any] | None = None,
    transform: str = "",
    keyless: str = "",
) -> str:
    """A ``DatasetComponent`` of one file. ``keyless``: why no column of it is the key, where none is."""
    declared_source = {"format": source, "path": path, **(options or {})}
    declared = "\n".join(f"    {scalar(column)}: {one}" for column, one in columns.items())
    made = f"  transform: {transform}   # a function of the raw rows\n" if transform else ""
    missing = (
        f"""\
  # {keyless}, so no key is declared; a feature view needs one. Name columns that together tell
  # rows apart, or make one in a transform: `mlops new NAME --csv FILE` writes one that numbers the rows.
"""
        if keyless
        else ""
    )
    return f"""\
# The rows, checked: a table in the lake, read from the file anew whenever the asset is materialised.
type: mlops_assets.components.DatasetComponent
attributes:
  name: {name}
  source: {scalar(declared_source)}
{made}  # string, integer, number, boolean, timestamp or date; other values are refused (docs/types.md).
  columns:
{declared}
  # Rows with a missing or repeated key go to quarantine, and so do those that break a rule:
{missing}  primary_key: {scalar(list(key))}
  # A day at a time (docs/use-case.md#data-that-arrives-daily); the column is then a string, 2024-01-31:
  # partitions: {{start: "2024-01-01", column: COLUMN}}
  # row_rules:
  #   - {{type: expect_column_values_to_be_between, kwargs: {{column: COLUMN, min_value: 0}}}}
  max_quarantine_share: 0.02    # more than that, and nothing is written
"""


def stream(name: str, *, topic: str) -> str:
    """A ``StreamComponent`` of a topic of JSON objects."""
    return f"""\
# The records of a Kafka topic, each exactly once: a table that rows are only ever added to (docs/streams.md).
type: mlops_assets.components.StreamComponent
attributes:
  name: {name}
  topic: {scalar(topic)}
  # Names of environment variables; addresses and secrets stand in no file.
  bootstrap_servers: {name.upper()}_BROKER
  # client: {{security.protocol: {name.upper()}_PROTOCOL, sasl.password: {name.upper()}_PASSWORD}}
  value: {{format: json}}
  # Fields of the records; what does not fit is kept as bytes, with the reason.
  columns:
    id: integer
  # event_time: COLUMN          # left out: the time that the record was written
  # read_by: consumer           # left out: runs, started when there is lag
"""


def feature_view(
    name: str,
    *,
    base: str,
    key: Sequence[str],
    features: Mapping[str, FeatureType],
    examples: Mapping[str, Any] | None = None,
    event_timestamp: str | None = None,
) -> str:
    """A ``FeatureViewComponent`` of columns of its base."""
    shown = examples or {}
    declared = "\n".join(
        "    - "
        + scalar(
            {"name": one, "type": kind, **({"example": shown[one]} if shown.get(one) is not None else {})}
        )
        for one, kind in features.items()
    )
    time = (
        f"  event_timestamp: {scalar(event_timestamp)}   # when an answer is needed\n"
        if event_timestamp
        else ""
    )
    return f"""\
# What the model sees, and what a request holds. minimum, maximum and nullable: false refuse other values, in
# training and over HTTP. Joins, aggregates of the past and computed features: docs/use-case.md.
type: mlops_assets.components.FeatureViewComponent
attributes:
  name: {name}
  # The key says which thing a row is about; sent with a request ("entity"), it joins outcome and answer.
  entity: {{name: row, join_keys: {scalar(list(key))}}}
  base: {base}
{time}  features:
{declared}
"""


def model(
    name: str,
    *,
    task: Task,
    view: str,
    dataset: str,
    label: str,
    classes: Sequence[str] | None = None,
    evaluation_window_days: int | None = None,
    evaluation_fraction: float | None = None,
    min_rows: int | None = None,
) -> str:
    """A ``ModelComponent`` with candidates that suit the task."""
    lines = [
        f"  name: {name}",
        f"  task: {task}   # binary, multiclass or regression",
        f"  feature_view: {view}",
        f"  label: {scalar({'dataset': dataset, 'column': label})}",
    ]
    if classes:
        lines.append(f"  classes: {scalar(list(classes))}   # the negative one first")
    lines.append("  candidates:")
    lines += [f"    - {{trainer: {trainer}}}   # {what}" for trainer, what in CANDIDATES[task]]
    if evaluation_window_days:
        lines.append(f"  evaluation_window_days: {evaluation_window_days}   # the newest days, judged on")
    if evaluation_fraction:
        lines.append(
            f"  evaluation_fraction: {evaluation_fraction:g}   # of the rows, judged on, never trained on"
        )
    if min_rows:
        lines.append(f"  gate: {{min_rows: {min_rows}}}   # fewer judged rows decide nothing")
    stands = "\n".join(lines)
    return f"""\
# Candidates are trained on the same folds; the best has to beat the baseline, later the model that answers.
# A gate that says inconclusive has too few rows to be sure: give it more, or judge on more of them.
# How far back each learns (training_window) is chosen among all, 90d, 28d and 7d where rows have a time.
type: mlops_assets.components.ModelComponent
attributes:
{stands}
"""


def deployment(name: str, *, model: str) -> str:
    """A ``DeploymentComponent`` that deploys what the gate promotes."""
    return f"""\
# The endpoint /{name}/predict.
type: mlops_assets.components.DeploymentComponent
attributes:
  name: {name}
  model: {model}
  approval: {{mode: auto}}        # manual: a person decides, `mlops approve {model} --by NAME --reason TEXT`
  # Try a new version on a share of the traffic first (docs/rollouts.md):
  # steps:
  #   - {{set_weight: 10, min_requests: 200}}
  #   - {{set_weight: 100}}
"""


def drift_monitor(model: str, *, since: date, deployment: str = "") -> str:
    """A ``DriftMonitorComponent`` that watches what answers from a day on."""
    served_by = f"  deployment: {deployment}\n" if deployment and deployment != model else ""
    return f"""\
# Watches what is asked and answered; drift makes the model stale and asks for a retrain (docs/monitoring.md).
type: mlops_assets.components.DriftMonitorComponent
attributes:
  model: {model}
{served_by}  logs_since: "{since.isoformat()}"       # no answer is older
  window: 7d                     # so much is judged at once
  min_rows: 200                  # fewer answers in a window are not judged
  labels: {{within: 3d}}           # outcomes that come later are not waited for
"""


def shortest(asset: AssetName, *, model: str = "", deployment: str = "") -> str:
    """The shortest document that makes an asset, to be completed where it says COLUMN; "" when none does.

    ``model``: the model of a deployment of another name; ``deployment``: the same of a monitor.
    """
    name = asset.name
    served_by = [f"deployment: {deployment}"] if deployment and deployment != name else []
    forms: dict[Kind, tuple[str, list[str]]] = {
        "dataset": (
            "DatasetComponent",
            [f"name: {name}", f"source: {{format: csv, path: {name}.csv}}", "columns: {COLUMN: string}"],
        ),
        "stream": (
            "StreamComponent",
            [
                f"name: {name}",
                f"topic: {name}",
                f"bootstrap_servers: {name.upper()}_BROKER",
                "value: {format: json}",
                "columns: {COLUMN: string}",
            ],
        ),
        "features": (
            "FeatureViewComponent",
            [
                f"name: {name}",
                f"base: {name}",
                "entity: {name: row, join_keys: [COLUMN]}",
                "features: [{name: COLUMN, type: number}]",
            ],
        ),
        "model": (
            "ModelComponent",
            [
                f"name: {name}",
                "task: binary",
                f"feature_view: {name}",
                f"label: {{dataset: {name}, column: COLUMN}}",
                "candidates: [{trainer: lightgbm}]",
            ],
        ),
        "deployment": ("DeploymentComponent", [f"name: {name}", f"model: {model or name}"]),
        "drift": ("DriftMonitorComponent", [f"model: {name}", *served_by, f'logs_since: "{FIRST_DAY}"']),
    }
    if asset.kind not in forms:
        return ""
    component, lines = forms[asset.kind]
    attributes = "\n".join(f"  {line}" for line in lines)
    return f"---\ntype: mlops_assets.components.{component}\nattributes:\n{attributes}"
