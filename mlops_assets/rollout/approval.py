"""May this model be deployed? Pure: recorded facts in, a decision and its reason out.

Belongs here: what an approval is bound to, when it is void, what the gate's verdict allows. Does not
belong here: where the facts are stored (the approval asset's metadata, ``assets/approval.py``).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mlops_assets.asset_names import asset_name

Mode = Literal["auto", "manual"]
Decision = Literal["approve", "reject"]


@dataclass(frozen=True)
class Ruling:
    """Whether something may go on, and why in words."""

    allowed: bool
    reason: str


@dataclass(frozen=True)
class Approval:
    """One decision about one exact set of data versions ({asset key: data version})."""

    decision: Decision
    approver: str
    reason: str
    bound_to: Mapping[str, str]

    @property
    def version(self) -> str:
        """Hash of everything the approval says: the data version of the approval asset."""
        content = json.dumps(
            {
                "decision": self.decision,
                "approver": self.approver,
                "reason": self.reason,
                "bound_to": dict(self.bound_to),
            },
            sort_keys=True,
        )
        return hashlib.sha256(content.encode()).hexdigest()[:32]


def approval_of(metadata: Mapping[str, Any] | None) -> Approval | None:
    """The approval that the asset's metadata recorded; None without one."""
    if metadata is None:
        return None
    return Approval(
        decision=metadata["decision"],
        approver=metadata["approver"],
        reason=metadata["reason"],
        bound_to=metadata["bound_to"],
    )


def rule_on_request(
    *, mode: Mode, approver: str, decision: Decision, outcome: str, gate_reason: str, model: str
) -> Ruling:
    """May this decision be recorded now?

    A person may always reject, and is named. Nobody approves past the gate: only the outcome ``promote`` can
    be approved. In mode ``manual`` a person must be named; without one the approval is pending.
    """
    if decision == "reject":
        if not approver:
            step = f"mlops approve {model} --reject --by NAME --reason TEXT"
            return Ruling(False, f"a rejection names the person who rejects: {step}")
        return Ruling(True, f"rejected by {approver}")
    if outcome != "promote":
        return Ruling(False, f"the gate says {outcome}: {gate_reason}")
    if mode == "manual" and not approver:
        return Ruling(False, f"pending: approve with `mlops approve {model} --by NAME --reason TEXT`")
    return Ruling(True, f"approved by {approver or 'the gate (mode auto)'}")


def rule_on_deployment(approval: Approval | None, current: Mapping[str, str], *, model: str) -> Ruling:
    """May a deployment use this approval, given the current data versions?

    An approval is void as soon as one data version it is bound to is no longer the current one.
    """
    if approval is None:
        return Ruling(False, f"{asset_name('approval', model)} was never given; materialise it first")
    if approval.decision != "approve":
        return Ruling(
            False, f"{asset_name('approval', model)} is a rejection by {approval.approver}: {approval.reason}"
        )
    changed = sorted(
        key for key in {*approval.bound_to, *current} if approval.bound_to.get(key) != current.get(key)
    )
    if changed:
        facts = "; ".join(
            f"{key} was {_short(approval.bound_to.get(key))}, is {_short(current.get(key))}"
            for key in changed
        )
        return Ruling(
            False,
            f"{asset_name('approval', model)} is void, something upstream changed: {facts}; approve again",
        )
    return Ruling(True, f"{asset_name('approval', model)} by {approval.approver} holds: {approval.reason}")


def _short(version: str | None) -> str:
    return version[:12] if version else "absent"
