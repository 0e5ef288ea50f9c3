"""From logged answers and late labels to measured windows: what the assets of a drift monitor compute.

Belongs here: reading the log, the labels and the reference of the version that answers, and calling the pure
functions on them. Does not belong here: statistics and labels' arithmetic (``monitoring/``), what follows
from a measurement (``sensors/drift.py``), the asset definitions (``components/drift_monitor.py``).
"""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.documents.declared_table import DeclaredTable
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.monitoring import windows
from mlops_assets.monitoring.labels import LABEL, join_labels, label_codes
from mlops_assets.monitoring.windows import Window
from mlops_assets.resources.inference_log import log_schema
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import RegisteredVersion
from serve.schema import FeatureSpec, ModelManifest, Task

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from mlops_assets.monitoring.reference import DriftReference

REFERENCE_FILE = "drift_reference.json"
"""Beside the model package: what windows are compared with, and from which scores on they differ."""
NEWEST_DATA = "newest_data"
"""Tag of a registered version: the newest partition of the labels' dataset when it was trained."""
DAY_COLUMN = "dt"
READ_UNTIL = "read_until"
"""Metadata of a day of the log: the instant (data time) until which all its answers are in the table."""
KEYS = ("answer_id", "row", "variant", "version")
"""What makes a logged row that row: a file that was written twice must not count twice."""
READ_COLUMNS = (
    "answer_id",
    "request_id",
    "row",
    "at",
    "variant",
    "version",
    "revision",
    "endpoint",
    "features",
    "score",
    "scores",
    "entity",
)
"""What measuring needs of a logged row."""


def log_frame(table: Any, day: str) -> "pd.DataFrame":
    """One day of the raw log as rows of the compacted table: no row twice, ``dt`` is the day.

    ``table`` is an Arrow table of the log's columns. Sorted by time; lists become JSON text; ``answer_id`` is
    never missing (``identified``).
    """
    frame = identified(table.to_pandas())
    frame = frame.sort_values(["at", *KEYS], kind="stable").drop_duplicates(list(KEYS))
    frame["scores"] = [None if value is None else json.dumps(list(value)) for value in frame["scores"]]
    frame[DAY_COLUMN] = day
    return frame.reset_index(drop=True)


def identified(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The rows with an ``answer_id`` each: of what was logged before answers had one, its request id."""
    own = frame["answer_id"] if "answer_id" in frame.columns else frame["request_id"]
    return frame.assign(answer_id=own.fillna(frame["request_id"]))


def logged_schema() -> "pa.Schema":
    """The columns of the compacted table: the log's, lists as JSON text, and the day."""
    import pyarrow as pa

    fields = [pa.field(DAY_COLUMN, pa.string())]
    for field in log_schema():
        fields.insert(-1, pa.field(field.name, pa.string()) if pa.types.is_list(field.type) else field)
    return pa.schema(fields)


def features_of(rows: "pd.DataFrame", specs: Sequence[FeatureSpec]) -> "pd.DataFrame":
    """The logged inputs as columns, one per feature of ``specs``, typed as the model takes them.

    A feature that a row lacks is missing; one that ``specs`` do not name is left out.
    """
    import io

    import pyarrow as pa
    from pyarrow import json as pa_json

    types = {
        "number": pa.float64(),
        "integer": pa.float64(),
        "boolean": pa.bool_(),
        "category": pa.string(),
    }
    schema = pa.schema([(spec.name, types[spec.type]) for spec in specs])
    if rows.empty:
        return schema.empty_table().to_pandas()
    lines = io.BytesIO("\n".join(rows["features"]).encode())
    table = pa_json.read_json(
        lines,
        read_options=pa_json.ReadOptions(block_size=64 * 1024 * 1024),
        parse_options=pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )
    return table.to_pandas()


def scores_of(rows: "pd.DataFrame", manifest: ModelManifest) -> "NDArray[np.float64]":
    """The logged scores: shape (n,), or (n, classes) for several classes."""
    import numpy as np

    if rows.empty or manifest.task != "multiclass":
        return rows["score"].to_numpy(dtype=np.float64)
    width = len(manifest.classes or ())
    parsed = [json.loads(text) for text in rows["scores"]]
    return np.asarray(parsed, dtype=np.float64).reshape(len(parsed), width)


def reference_of(lake: Lake, version: RegisteredVersion) -> "DriftReference | None":
    """What was stored with the version; None for one that was trained without a monitor."""
    from mlops_assets.monitoring.reference import DriftReference

    text = lake.read_text(f"{version.package_uri}/{REFERENCE_FILE}")
    return DriftReference.loads(text) if text else None


def logged(lake: Lake, table: str, start: datetime, end: datetime) -> "pd.DataFrame":
    """Rows of the compacted log answered from ``start`` to ``end`` (exclusive), in order of time."""
    import pandas as pd

    days = pd.date_range(start.date(), end.date(), freq="D").strftime("%Y-%m-%d")
    # A table that was last written before answers had an id has no column for it.
    held = lake.columns(table).names
    columns = [name for name in READ_COLUMNS if name in held]
    frame = lake.read(table, partitions=list(days), partition_column=DAY_COLUMN, columns=columns)
    frame = identified(frame)
    at = pd.to_datetime(frame["at"], utc=True)
    rows = frame.assign(at=at)[(at >= start) & (at < end)]
    return rows.sort_values(["at", *KEYS], kind="stable").reset_index(drop=True)


def labelled(
    lake: Lake,
    rows: "pd.DataFrame",
    label_table: DeclaredTable,
    label: Callable[["pd.DataFrame"], "pd.Series[Any]"],
    join_keys: Sequence[str],
) -> "pd.DataFrame":
    """The rows with ``label`` (missing where none came yet) and ``has_keys``."""
    outcomes = label_table.read(lake) if lake.exists(label_table.name) else None
    keys = list(join_keys)
    if outcomes is None or rows.empty:
        import pandas as pd

        known = pd.DataFrame({name: [] for name in [*keys, LABEL]})
    else:
        known = outcomes[keys].assign(**{LABEL: label(outcomes)})
    return join_labels(rows, known, join_keys)


def targets(joined: "pd.DataFrame", task: Task, classes: Sequence[str] | None) -> "NDArray[np.float64]":
    """Labels as the codes or numbers a model is trained on, shape (n,).

    NaN where none came yet, and where one is outside the classes: what the model never heard of is no label.
    """
    return label_codes(joined[LABEL], task=task, classes=classes)


def read_until(instance: dg.DagsterInstance, log_key: dg.AssetKey) -> datetime | None:
    """Until when the compacted log is complete, by the newest day in it; None when that is not recorded.

    Time goes on while a run measures: a window that ended meanwhile has answers that the table lacks.
    """
    days = instance.get_materialized_partitions(log_key)
    if not days:
        return None
    newest = dg.AssetRecordsFilter(asset_key=log_key, asset_partitions=[max(days)])
    for record in instance.fetch_materializations(newest, limit=1).records:
        event = record.asset_materialization
        told = event.metadata.get(READ_UNTIL) if event else None
        if told is not None:
            return datetime.fromisoformat(str(told.value))
    return None


def within(frame: "pd.DataFrame", window: Window) -> "pd.DataFrame":
    """The rows of one window."""
    return frame[(frame["at"] >= window.start) & (frame["at"] < window.end)].reset_index(drop=True)


def uncovered(rows: "pd.DataFrame", everything: "pd.DataFrame", window: Window) -> str | None:
    """Why rows of a version cannot stand for the window; None when they can, or when there are none."""
    if rows.empty:
        return None
    asked = within(everything, window)["at"]
    return windows.uncovered(window, rows["at"].min(), rows["at"].max(), open_for=asked.max() - asked.min())


def first_day(declared: DriftMonitorDeclaration) -> datetime:
    """Start of the first day that the log may hold."""
    return datetime.combine(declared.logs_since, datetime.min.time(), tzinfo=UTC)
