"""What a measurement goes by: the reference of a version, the windows, until when the log is complete.

Belongs here: reading these from Dagster's events, the registry and the lake. Does not belong here: the
answers themselves (``joined_answers.py``), statistics (``monitoring/``), what follows from a measurement
(``sensors/drift.py``), the assets (``performance.py``, ``drift.py``).
"""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.monitoring.windows import Window, ended_windows
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import RegisteredVersion
from serve.schema import ModelManifest

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from mlops_assets.monitoring.reference import DriftReference

REFERENCE_FILE = "drift_reference.json"
"""Beside the model package: what windows are compared with, and from which scores on they differ."""
NEWEST_DATA = "newest_data"
"""Tag of a registered version: the newest partition of the labels' dataset when it was trained."""
MEASURED, MEASURED_TAG = "measured", "mlops/measured"
"""Metadata key of ``<model>_drift`` and tag of the run: what the measurement was launched on."""
READ_UNTIL = "read_until"
"""Metadata of a day of the log: the instant (data time) until which all its answers are in the table."""


def scores_of(rows: "pd.DataFrame", manifest: ModelManifest) -> "NDArray[np.float64]":
    """The logged scores: shape (n,), or (n, classes) for several classes."""
    import numpy as np

    if rows.empty or manifest.task != "multiclass":
        return rows["score"].to_numpy(dtype=np.float64)
    width = len(manifest.classes or ())
    scores = np.empty((len(rows), width))
    for row, text in enumerate(rows["scores"]):
        scores[row] = json.loads(text)
    return scores


def reference_of(lake: Lake, version: RegisteredVersion) -> "DriftReference | None":
    """What was stored with the version; None for one that was trained without a monitor."""
    from mlops_assets.monitoring.reference import DriftReference

    text = lake.read_text(f"{version.package_uri}/{REFERENCE_FILE}")
    return DriftReference.loads(text) if text else None


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
        until = event.metadata.get(READ_UNTIL) if event else None
        if until is not None:
            return datetime.fromisoformat(str(until.value))
    return None


def first_day(declared: DriftMonitorDeclaration) -> datetime:
    """Start of the first day that the log may hold."""
    return datetime.combine(declared.logs_since, datetime.min.time(), tzinfo=UTC)


def complete_until(instance: dg.DagsterInstance, log_key: dg.AssetKey, now: datetime) -> datetime:
    """Now, or the earlier instant until which the log was read."""
    known = read_until(instance, log_key)
    return now if known is None else min(now, known)


def kept_windows(declared: DriftMonitorDeclaration, until: datetime) -> list[Window]:
    """The windows that are over by then, the newest of them that the monitor keeps."""
    return ended_windows(first_day(declared), until, declared.window)[-declared.windows_kept :]
