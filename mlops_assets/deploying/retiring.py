"""Orphaned deployments: finding them, and the record that one was retired.

Belongs here: what is deployed against what is declared, and the event of retiring. Does not belong here: what
an orphan is (``rollout/orphans.py``), taking it out of the cluster (``resources/serving/``), when that
happens by itself (``sensors/orphans.py``).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from mlops_assets.asset_keys import asset_key, assets_of
from mlops_assets.asset_names import read_asset_name
from mlops_assets.documents.missing import missing_in
from mlops_assets.event_log.records import Record, latest
from mlops_assets.rollout import desired_state
from mlops_assets.rollout.orphans import Deployed, orphans

USE_CASE = "use_case"
"""Metadata of a deployment's materialisations: the folder whose document declared it then."""
RETIRED = "retired"
"""What ``phase`` says of a deployment that was taken out of service."""


@dataclass(frozen=True)
class Declared:
    """Deployments that documents declare, loaded or not, and use cases with a document that tells nothing."""

    deployments: frozenset[str]
    unread: frozenset[str]

    @staticmethod
    def of(graph: Any) -> "Declared":
        missing = missing_in(graph)
        lost = [read_asset_name(key) for one in missing for key in one.assets]
        return Declared(
            deployments=frozenset(
                {*assets_of(graph, "deployment"), *(name for kind, name in lost if kind == "deployment")}
            ),
            unread=frozenset(
                one.use_case
                for one in missing
                if any(read_asset_name(key).kind == "document" for key in one.assets)
            ),
        )


def orphaned(
    declared: Declared, instance: dg.DagsterInstance, applications: Iterable[Mapping[str, Any]]
) -> list[Deployed]:
    """The deployments among declared applications that no document declares."""
    deployed = [
        Deployed(name, _use_case(latest(instance, asset_key("deployment", name))))
        for name in desired_state.deployments(applications)
    ]
    return orphans(deployed, declared.deployments, declared.unread)


def in_service(record: Record | None) -> Record | None:
    """The last act of a deployment; None also when that was to retire it."""
    return None if record is None or record.metadata.get("phase") == RETIRED else record


def retirement(
    name: str, before: Record | None, *, by: str, reason: str, applications: Iterable[str]
) -> dg.AssetMaterialization:
    """What is recorded of a retired deployment: its last act."""
    last = before.metadata if before else {}
    revision = int(last.get("revision") or 0)
    return dg.AssetMaterialization(
        asset_key=asset_key("deployment", name),
        description=f"retired by {by}: {reason}",
        metadata={
            "phase": RETIRED,
            "action": RETIRED,
            "reason": reason,
            "by": by,
            "revision": revision,
            "traffic": f"{last.get('traffic', '')} → nothing".removeprefix(" "),
            "applications": ", ".join(applications),
            USE_CASE: _use_case(before),
        },
        tags={"dagster/data_version": f"{RETIRED}@{revision}"},
    )


def _use_case(record: Record | None) -> str:
    return str(record.metadata.get(USE_CASE, "")) if record else ""
