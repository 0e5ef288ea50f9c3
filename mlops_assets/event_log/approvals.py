"""The newest decision about a version of a model, as it was recorded.

Belongs here: reading approvals and rejections. Does not belong here: whether one holds
(``rollout/approval.py``), giving one (``assets/approval.py``).
"""

import dagster as dg

from mlops_assets.event_log.records import latest
from mlops_assets.rollout.approval import Approval, approval_of


def newest_decision(instance: dg.DagsterInstance, approval_key: dg.AssetKey) -> Approval | None:
    """The last approval, or the rejection that took it back: a rejection is observed, not materialised."""
    record = latest(instance, approval_key)
    for observed in instance.fetch_observations(approval_key, limit=1).records:
        event = observed.asset_observation
        metadata = {name: value.value for name, value in event.metadata.items()} if event else {}
        newer = record is None or observed.timestamp > record.timestamp
        if newer and metadata.get("decision") == "reject":
            return approval_of(metadata)
    return approval_of(record.metadata if record else None)
