"""``<model>_approval``: a decision bound to exact data versions, and which version it lets past.

Belongs here: recording a decision or refusing to, finding the version that an approval names. Does not
belong here: what an approval allows (``rollout/approval.py``), deploying (``deployment.py``).
"""

from collections.abc import Iterator
from typing import Any, Literal

import dagster as dg

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.asset_names import asset_name
from mlops_assets.assets.automation import FOLLOW_PAST_THE_GATE
from mlops_assets.assets.evaluation import GATE
from mlops_assets.errors import ApprovalError
from mlops_assets.event_log.approvals import newest_decision
from mlops_assets.event_log.records import Record, current_versions, latest, require
from mlops_assets.event_log.successor import BOUND
from mlops_assets.resources.model_registry import ModelRegistry, RegisteredVersion
from mlops_assets.rollout.approval import Approval, Mode, rule_on_deployment, rule_on_request


class ApprovalConfig(dg.Config):
    """A person's decision, given when the approval is materialised by hand."""

    decision: Literal["approve", "reject"] = "approve"
    approver: str = ""
    reason: str = ""


def bound_keys(model: str) -> list[dg.AssetKey]:
    """What an approval is bound to; the evaluation comes first."""
    return [asset_key(kind, model) for kind in BOUND]


def approval_asset(group: str, model: str, mode: Mode) -> dg.AssetsDefinition:
    """The decision on a model's newest version."""

    @dg.asset(
        key=asset_key("approval", model),
        deps=bound_keys(model),
        group_name=group,
        kinds={"approval"},
        tags=name_tags("approval", model),
        description=(
            f"Approval of {model} (mode {mode}), bound to the data versions of the model, its "
            "evaluation and its training set. It is void as soon as one of them changes."
        ),
        code_version="1",
        automation_condition=FOLLOW_PAST_THE_GATE if mode == "auto" else None,
        # A rejection does what was asked and materialises nothing: nothing downstream may see it as news.
        output_required=False,
    )
    def approval(
        context: dg.AssetExecutionContext, config: ApprovalConfig, model_registry: ModelRegistry
    ) -> Iterator[dg.MaterializeResult[Any]]:
        yield from make_approval(context, config, model_registry, model, mode)

    return approval


def make_approval(
    context: dg.AssetExecutionContext,
    config: ApprovalConfig,
    registry: ModelRegistry,
    model: str,
    mode: Mode,
) -> Iterator[dg.MaterializeResult[Any]]:
    """The step: rule on the request, record the decision; a Failure for what is not allowed."""
    bound = bound_keys(model)
    evaluation = require(context.instance, bound[0])
    ruling = rule_on_request(
        mode=mode,
        approver=config.approver,
        decision=config.decision,
        outcome=evaluation.metadata["outcome"],
        gate_reason=evaluation.metadata["reason"],
        model=model,
    )
    if not ruling.allowed:
        raise dg.Failure(ruling.reason, allow_retries=False)
    recorded = Approval(
        decision=config.decision,
        approver=config.approver or "the gate",
        reason=config.reason or evaluation.metadata["reason"],
        bound_to=current_versions(context.instance, bound),
    )
    _tag(registry, model, evaluation, recorded)
    # As an observation a rejection stands against the approval it takes back.
    if recorded.decision == "reject":
        context.log_event(_observed(context.asset_key, recorded))
        return
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(recorded.version),
        metadata={
            **_said(recorded),
            "ruling": ruling.reason,
            "mode": mode,
            "model_version": int(evaluation.metadata["model_version"]),
            "bound_to": dg.MetadataValue.json(dict(recorded.bound_to)),
        },
    )


def _tag(registry: ModelRegistry, model: str, evaluation: Record, recorded: Approval) -> None:
    registry.set_tags(
        model,
        int(evaluation.metadata["model_version"]),
        {
            "approval": recorded.decision,
            "approver": recorded.approver,
            "approval_reason": recorded.reason,
        },
    )


def _said(recorded: Approval) -> dict[str, Any]:
    return {"decision": recorded.decision, "approver": recorded.approver, "reason": recorded.reason}


def _observed(key: dg.AssetKey, recorded: Approval) -> dg.AssetObservation:
    return dg.AssetObservation(
        asset_key=key,
        description=f"rejected by {recorded.approver}: {recorded.reason}",
        metadata={**_said(recorded), "bound_to": dg.MetadataValue.json(dict(recorded.bound_to))},
    )


def approved_version(instance: dg.DagsterInstance, registry: ModelRegistry, model: str) -> RegisteredVersion:
    """The version that the approval names, after reading approval and gate verdict once more.

    A check only guards the run it stands in; a deployment launched by itself would pass it by. Raises
    ApprovalError when there is none.
    """
    key, bound = asset_key("approval", model), bound_keys(model)
    approval = latest(instance, key)
    ruling = rule_on_deployment(
        newest_decision(instance, key), current_versions(instance, bound), model=model
    )
    if approval is None or not ruling.allowed:
        raise ApprovalError(ruling.reason)
    gate = instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(bound[0], GATE))
    passed = gate is not None and gate.event is not None and gate.event.dagster_event is not None
    if not passed or not gate.event.dagster_event.asset_check_evaluation_data.passed:  # type: ignore[union-attr]
        raise ApprovalError(
            f"check gate of {asset_name('evaluation', model)} did not pass; see the check for the verdict"
        )
    version = registry.version(model, int(approval.metadata["model_version"]))
    digest = require(instance, bound[1]).data_version
    if version.digest != digest:
        raise ApprovalError(
            f"{asset_name('model', model)} holds content {digest[:12]}, but v{version.version}, which is "
            f"approved, holds {version.digest[:12]} in the registry; materialise "
            f"{asset_name('evaluation', model)} again"
        )
    return version
