"""What holds for all use cases, and keeps them apart."""

from typing import Any, cast

import dagster as dg
import pytest

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.asset_names import Kind
from mlops_assets.definitions import with_platform_policy
from mlops_assets.defs.platform.resources import resources


class Raises(dg.AutomationCondition[Any]):
    """A condition that cannot be evaluated."""

    def evaluate(self, context: Any) -> Any:
        raise ValueError("no partitions")


def use_case(name: str, condition: dg.AutomationCondition[Any]) -> dg.Definitions:
    @dg.asset(key=asset_key("dataset", name), tags=name_tags("dataset", name), group_name=name)
    def dataset() -> None: ...

    @dg.asset(
        key=asset_key("model", name),
        tags=name_tags("model", name),
        group_name=name,
        deps=[dataset],
        automation_condition=condition,
    )
    def model() -> None: ...

    return dg.Definitions(assets=[dataset, model])


def automation(definitions: dg.Definitions) -> dict[str, dg.AutomationConditionSensorDefinition]:
    return {
        sensor.name: sensor
        for sensor in definitions.sensors or []
        if isinstance(sensor, dg.AutomationConditionSensorDefinition)
    }


def test_automation_that_cannot_be_evaluated_stops_no_other_use_case() -> None:
    both = dg.Definitions.merge(
        use_case("apples", Raises()), use_case("birches", dg.AutomationCondition.missing()), resources()
    )
    definitions = with_platform_policy(both)
    sensors = automation(definitions)
    assert sorted(sensors) == ["automation_apples", "automation_birches"]
    assert all(one.default_status == dg.DefaultSensorStatus.RUNNING for one in sensors.values())

    with dg.DagsterInstance.ephemeral() as instance:

        def evaluated(name: str) -> int:
            keys = sensors[f"automation_{name}"].asset_selection.resolve(definitions.resolve_asset_graph())
            return dg.evaluate_automation_conditions(
                definitions, instance, asset_selection=dg.AssetSelection.assets(*keys)
            ).total_requested

        assert evaluated("birches") == 1
        with pytest.raises(Exception, match="conditions for apples_model"):
            evaluated("apples")


def test_every_asset_of_the_platform_is_of_one_automation_sensor() -> None:
    from mlops_assets.definitions import defs

    definitions = defs()
    graph = definitions.resolve_asset_graph()
    covered = [
        key for sensor in automation(definitions).values() for key in sensor.asset_selection.resolve(graph)
    ]
    assert len(covered) == len(set(covered))
    assert set(covered) >= graph.materializable_asset_keys


def test_every_asset_that_ages_has_a_freshness_policy_of_its_kind() -> None:
    from mlops_assets.definitions import FRESHNESS, defs

    policies = {kind: policy for kinds, policy in FRESHNESS for kind in kinds.split()}
    nodes = {node.key: node for node in defs().resolve_asset_graph().asset_nodes}
    for kind in ("dataset", "features", "training_set", "candidates", "model", "evaluation", "deployment"):
        node = nodes[asset_key(cast(Kind, kind), "flights")]
        assert node.freshness_policy_or_from_metadata == policies[kind], kind
    assert nodes[asset_key("drift", "flights")].freshness_policy_or_from_metadata is None
