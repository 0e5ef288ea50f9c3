"""The record of an act, and reading the last one back.

Belongs here: the materialisation, its metadata and the check. Does not belong here: what an act says
(``rollout/act.py``), carrying it out (``executor.py``), that a deployment was retired (``retiring.py``).
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import dagster as dg

from mlops_assets.deploying.executor import Done
from mlops_assets.deploying.retiring import USE_CASE, in_service
from mlops_assets.event_log.records import Record
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout.act import Recorded
from mlops_assets.rollout.acts import version_number
from mlops_assets.rollout.judging.judge import Judgement


def recorded(record: Record | None) -> Recorded:
    """What the last record says; a deployment that was retired begins anew, behind its old revisions."""
    serving = in_service(record)
    if serving is None:
        # Its old answers keep their revisions to themselves.
        return Recorded(revisions_before=int(record.metadata["revision"]) if record else 0)
    metadata = serving.metadata
    stable = str(metadata.get("stable", ""))
    # The event log sorts by name; a routing names stable first.
    percents = sorted((metadata.get("weights") or {}).items(), key=lambda one: one[0] != stable)
    weights = {version: round(percent * 100) for version, percent in percents}
    return Recorded(
        revision=int(metadata["revision"]) if "revision" in metadata else None,
        stable=stable,
        phase=str(metadata.get("phase", "")),
        weights=MappingProxyType(weights),
        withdrawn=MappingProxyType(dict(metadata.get("withdrawn") or {})),
        mark=(metadata.get("desired_state") or {}).get("rollout"),
    )


def described(judgement: Judgement | None) -> dict[str, Any] | None:
    """A judgement as plain values, for run configuration and metadata."""
    if judgement is None:
        return None
    return {
        "phase": judgement.phase,
        "reason": judgement.reason,
        "measurements": [
            {
                "metric": measurement.metric,
                "condition": str(measurement.condition),
                "phase": measurement.phase,
                "value": measurement.value,
                "low": measurement.low,
                "high": measurement.high,
                "samples": measurement.samples,
                "reason": measurement.reason,
            }
            for measurement in judgement.measurements
        ],
    }


def materialisation(
    done: Done, client: ServeClient, name: str, seconds: float, *, use_case: str = ""
) -> dg.MaterializeResult[Any]:
    """The record of an act; ``use_case`` is the folder that declares the deployment."""
    routing, entry = done.act.after, done.act.entry
    metadata: dict[str, Any] = {
        "phase": entry.phase,
        "action": entry.action,
        **({"step": entry.step} if entry.step else {}),
        "traffic": f"{_shares(entry.before)} → {_shares(routing.weights())}",
        "reason": entry.reason,
        "by": entry.by,
        "endpoint": dg.MetadataValue.url(f"{client.url(name)}/predict"),
        "api_docs": dg.MetadataValue.url(f"{client.url(name)}/docs"),
        "model_version": version_number(routing.stable),
        "stable": routing.stable,
        "target": entry.target,
        "revision": routing.revision,
        "weights_before": dg.MetadataValue.json(_percent(entry.before)),
        "weights": dg.MetadataValue.json(_percent(routing.weights())),
        "shadows": dg.MetadataValue.json({v: r.shadow / 100 for v, r in routing.routes.items() if r.shadow}),
        **({} if entry.samples is None else {"samples": entry.samples}),
        "verified": done.verified,
        "withdrawn": dg.MetadataValue.json(dict(entry.withdrawn)),
        "seconds": round(seconds, 1),
        USE_CASE: use_case,
        "desired_state": dg.MetadataValue.json(json.loads(routing.model_dump_json(exclude={"segments"}))),
    }
    for key, text in (("alert", done.alert), ("placement", done.placement)):
        if text:
            metadata[key] = text
    if entry.judgement:
        metadata["measurements"] = _measurement_table(entry.judgement)
        metadata["judgement"] = dg.MetadataValue.json(dict(entry.judgement))
    passed = entry.phase in ("progressing", "successful")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(f"{routing.stable}@{routing.revision}"),
        metadata=metadata,
        check_results=[
            dg.AssetCheckResult(
                check_name="rollout",
                passed=passed,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"{entry.phase}: {entry.reason}",
                metadata={"target": entry.target, "stable": routing.stable},
            )
        ],
    )


def _measurement_table(judgement: Mapping[str, Any]) -> dg.MetadataValue[Any]:
    columns = ("metric", "condition", "phase", "value", "low", "high", "samples", "reason")
    return dg.MetadataValue.table(
        records=[
            dg.TableRecord({column: _cell(measured.get(column)) for column in columns})
            for measured in judgement["measurements"]
        ],
        schema=dg.TableSchema(columns=[dg.TableColumn(column, "string") for column in columns]),
    )


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _shares(weights: Mapping[str, int]) -> str:
    return ", ".join(f"{version} {weight / 100:g} %" for version, weight in weights.items()) or "nothing"


def _percent(weights: Mapping[str, int]) -> dict[str, float]:
    return {version: weight / 100 for version, weight in weights.items()}
