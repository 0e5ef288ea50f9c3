"""The one entry point of the code location: load every declaration, apply platform policy.

Belongs here: what holds for all assets, by selection. Does not belong here: declarations (``defs/``),
how they become assets (``components/``) or what becomes of one that cannot (``components/use_cases.py``).
"""

from datetime import timedelta
from pathlib import Path

import dagster as dg
from dagster.components.core.component_tree import ComponentTree

from mlops_assets import environment
from mlops_assets.asset_keys import KIND_TAG
from mlops_assets.components.use_cases import load_use_cases
from mlops_assets.event_log.runs import LAUNCHED_BY_TAG
from mlops_assets.sensors.orphans import orphan_watch

FRESHNESS: tuple[tuple[str, dg.FreshnessPolicy], ...] = (
    # Data arrives daily; half a day of slack before it counts as late.
    (
        "dataset features",
        dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=36), warn_window=timedelta(hours=26)),
    ),
    # A model is retrained at least monthly.
    (
        "training_set candidates model evaluation approval deployment",
        dg.FreshnessPolicy.time_window(fail_window=timedelta(days=35), warn_window=timedelta(days=31)),
    ),
)
"""Policy by asset kind, for assets whose declaration gives none."""


def with_platform_policy(loaded: dg.Definitions) -> dg.Definitions:
    """The definitions with a freshness policy on every materialisable asset, automation for each use case and
    a watch of orphans; a run is one process.
    """
    policies = {kind: policy for kinds, policy in FRESHNESS for kind in kinds.split()}

    def apply(spec: dg.AssetSpec) -> dg.AssetSpec:
        policy = policies.get(spec.tags.get(KIND_TAG, ""))
        return dg.apply_freshness_policy(spec, policy, overwrite_existing=False) if policy else spec

    governed = loaded.permissive_map_resolved_asset_specs(
        func=apply, selection=dg.AssetSelection.all().materializable()
    )
    graph = governed.resolve_asset_graph()
    use_cases = {graph.get(key).group_name for key in graph.materializable_asset_keys}
    platform = dg.Definitions(
        sensors=[_automation(use_case) for use_case in sorted(use_cases)],
        # A process per step would import every library anew: 5 s a step on two cores.
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(governed, platform, orphan_watch(graph))


def _automation(use_case: str) -> dg.AutomationConditionSensorDefinition:
    """What evaluates the automation conditions of one use case, running from the start.

    One for each: an evaluation that fails stops no other use case, and no run mixes two of them.
    """
    return dg.AutomationConditionSensorDefinition(
        f"automation_{use_case}",
        target=dg.AssetSelection.groups(use_case),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=10,
        run_tags={LAUNCHED_BY_TAG: "automation"},
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Every document under ``defs/`` that can be loaded, with the platform's policy.

    Where the definitions are checked, all of them have to be.
    """
    tree = ComponentTree.for_project(Path(__file__).parent)
    return with_platform_policy(load_use_cases(tree, strict=environment.definitions_are_checked()))
