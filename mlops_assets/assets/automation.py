"""When an asset materialises by itself: the automation conditions that components share.

Belongs here: conditions, with what each one reacts to. Does not belong here: the sensor that
evaluates them (``definitions.py``).
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

_IDLE = ~dg.AutomationCondition.in_progress() & ~dg.AutomationCondition.any_deps_in_progress()
_NEWS: dg.AutomationCondition[Any] = (
    dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.data_version_changed() | dg.AutomationCondition.will_be_requested()
    )
    | dg.AutomationCondition.code_version_changed()
)
_NEWS_OR_MISSING: dg.AutomationCondition[Any] = _NEWS | dg.AutomationCondition.missing().newly_true()

FOLLOW_CHANGED_DATA = (
    _NEWS.since_last_handled() & ~dg.AutomationCondition.any_deps_missing() & _IDLE
).with_label("follow changed data")
"""Follows the data version of what is upstream: writing the same content again wakes nobody."""

FOLLOW_CHANGED_PARTITIONS = (
    _NEWS_OR_MISSING.since_last_handled() & ~dg.AutomationCondition.any_deps_missing() & _IDLE
).with_label("follow changed partitions")
"""The same for every partition by itself, old ones too; partitions that were never made count as news.

A partition waits until nothing it looks back on is missing or being made.
"""

AFTER_DEPLOYMENT = "mlops/after_deployment"
"""Tag of assets that only make sense once a deployment answers: bringing the graph up leaves them out."""


def follow_all_but(signal: dg.AssetKey) -> dg.AutomationCondition[Any]:
    """Follows changed data upstream, except of ``signal``: it only says why, others say when."""
    ignored = dg.AssetSelection.assets(signal)
    news: dg.AutomationCondition[Any] = (
        dg.AutomationCondition.any_deps_match(
            dg.AutomationCondition.data_version_changed() | dg.AutomationCondition.will_be_requested()
        ).ignore(ignored)
        | dg.AutomationCondition.code_version_changed()
    )
    present = ~dg.AutomationCondition.any_deps_missing().ignore(ignored)
    return (news.since_last_handled() & present & _IDLE).with_label("follow changed data")


def follow_tables_but(filled_otherwise: Sequence[dg.AssetKey]) -> dg.AutomationCondition[Any]:
    """Follows changed data of whole tables upstream, whichever of their partitions were never made.

    Not that of ``filled_otherwise``: whoever reads these brings what is new by itself.
    """
    ignored = dg.AssetSelection.assets(*filled_otherwise)
    news: dg.AutomationCondition[Any] = (
        dg.AutomationCondition.any_deps_match(
            dg.AutomationCondition.data_version_changed() | dg.AutomationCondition.will_be_requested()
        ).ignore(ignored)
        | dg.AutomationCondition.code_version_changed()
    )
    busy = dg.AutomationCondition.any_deps_in_progress().ignore(ignored)
    idle = ~dg.AutomationCondition.in_progress() & ~busy
    return (news.since_last_handled() & idle).with_label("follow changed tables")


FOLLOW_PAST_THE_GATE = (
    FOLLOW_CHANGED_DATA
    & (
        dg.AutomationCondition.all_deps_blocking_checks_passed()
        | dg.AutomationCondition.any_deps_match(dg.AutomationCondition.will_be_requested())
    )
).with_label("follow past the gate")
"""The same, but never past a failed blocking check: for approvals and deployments.

A dependency that is requested in the same tick brings its check along, in the same run.
"""
