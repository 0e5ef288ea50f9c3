"""A person's decisions, recorded as materialisations of the running instance.

Belongs here: launching an approval with its configuration. Does not belong here: what an approval
allows (``rollout/approval.py``) or printing (``cli.py``).
"""

from typing import Literal

import dagster as dg

from mlops_assets.errors import ApprovalError, UnknownName


def decide_approval(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    model: str,
    *,
    approver: str,
    reason: str,
    decision: Literal["approve", "reject"] = "approve",
) -> str:
    """Materialises ``approvals/<model>`` with the decision; id of the Dagster run.

    Raises UnknownName for a model that needs no approval, and ApprovalError with the ruling when the
    approval is not allowed (the gate did not promote, or the decision is a rejection).
    """
    graph = definitions.resolve_asset_graph()
    known = {key.path[1]: key for key in graph.materializable_asset_keys if key.path[0] == "approvals"}
    if model not in known:
        raise UnknownName("model with an approval", model, known)
    key = known[model]
    config = {"decision": decision, "approver": approver, "reason": reason}
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[key],
        run_config={"ops": {key.to_python_identifier(): {"config": config}}},
        tags={"mlops/decided_by": approver},
        raise_on_error=False,
    )
    if not result.success:
        failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
        told = next((f.user_failure_data.description for f in failures if f.user_failure_data), None)
        raise ApprovalError(
            told or str(failures[0].error.message if failures and failures[0].error else "run failed")
        )
    return str(result.run_id)
