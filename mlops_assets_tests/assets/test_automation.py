"""Who wakes whom: tried on a chain with the conditions that components use."""

from collections.abc import Iterator

import dagster as dg
import pytest

from mlops_assets.assets.automation import (
    FOLLOW_CHANGED_DATA,
    FOLLOW_PAST_THE_GATE,
    follow_all_but,
)


class Outcome(dg.Config):
    """What the model's content and the gate's verdict are in this run."""

    version: str = "1"
    passed: bool = True


@dg.asset
def model(config: Outcome) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(data_version=dg.DataVersion(config.version))


@dg.asset(
    deps=[model],
    automation_condition=FOLLOW_CHANGED_DATA,
    check_specs=[dg.AssetCheckSpec("gate", asset="evaluation", blocking=True)],
)
def evaluation(config: Outcome) -> Iterator[dg.MaterializeResult[None]]:
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(config.version),
        check_results=[dg.AssetCheckResult(check_name="gate", passed=config.passed)],
    )


@dg.asset(deps=[evaluation], automation_condition=FOLLOW_PAST_THE_GATE)
def approval() -> None: ...


@dg.asset(deps=[approval], automation_condition=FOLLOW_PAST_THE_GATE)
def deployment() -> None: ...


CHAIN = dg.Definitions(assets=[model, evaluation, approval, deployment])


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as found:
        yield found


def requested(result: dg.EvaluateAutomationConditionsResult) -> set[str]:
    graph = CHAIN.resolve_asset_graph()
    return {
        key.to_user_string() for key in graph.materializable_asset_keys if result.get_num_requested(key) > 0
    }


def run(instance: dg.DagsterInstance, *assets: dg.AssetsDefinition, **outcome: object) -> None:
    config = {
        asset.key.to_user_string(): {"config": outcome} for asset in assets if asset in (model, evaluation)
    }
    dg.materialize(
        [model, evaluation, approval, deployment],
        selection=list(assets),
        instance=instance,
        run_config={"ops": config},
        raise_on_error=False,
    )


def tick(
    instance: dg.DagsterInstance, before: dg.EvaluateAutomationConditionsResult | None = None
) -> dg.EvaluateAutomationConditionsResult:
    return dg.evaluate_automation_conditions(CHAIN, instance, cursor=before.cursor if before else None)


def test_changed_content_runs_the_whole_chain_at_once(instance: dg.DagsterInstance) -> None:
    run(instance, model, evaluation, approval, deployment, version="1")
    quiet = tick(instance)
    run(instance, model, version="2")

    assert requested(tick(instance, quiet)) == {"evaluation", "approval", "deployment"}


def test_the_same_content_again_wakes_nobody(instance: dg.DagsterInstance) -> None:
    run(instance, model, evaluation, approval, deployment, version="1")
    quiet = tick(instance)
    run(instance, model, version="1")

    assert requested(tick(instance, quiet)) == set()


def test_nothing_follows_a_failed_gate(instance: dg.DagsterInstance) -> None:
    run(instance, model, evaluation, approval, deployment, version="1")
    quiet = tick(instance)
    run(instance, model, evaluation, version="2", passed=False)

    after = tick(instance, quiet)

    assert requested(after) == set()
    assert requested(tick(instance, after)) == set()


def test_a_passed_gate_is_followed(instance: dg.DagsterInstance) -> None:
    run(instance, model, evaluation, approval, deployment, version="1")
    quiet = tick(instance)
    run(instance, model, evaluation, version="2", passed=True)

    assert requested(tick(instance, quiet)) == {"approval", "deployment"}


REQUESTS, SIGNAL = dg.AssetKey("requests"), dg.AssetKey("signal")


@dg.asset(deps=[REQUESTS])
def training_set() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(data_version=dg.DataVersion("same"))


@dg.asset(deps=[training_set, SIGNAL], automation_condition=follow_all_but(SIGNAL))
def retrained() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(data_version=dg.DataVersion("same"))


@dg.asset(deps=[retrained], automation_condition=FOLLOW_PAST_THE_GATE)
def deployed() -> None: ...


RETRAINING = dg.Definitions(
    assets=[training_set, retrained, deployed, dg.AssetSpec(REQUESTS), dg.AssetSpec(SIGNAL)]
)


def retraining_tick(
    instance: dg.DagsterInstance, before: dg.EvaluateAutomationConditionsResult | None = None
) -> tuple[dg.EvaluateAutomationConditionsResult, set[str]]:
    result = dg.evaluate_automation_conditions(RETRAINING, instance, cursor=before.cursor if before else None)
    assets = (training_set, retrained, deployed)
    return result, {asset.key.to_user_string() for asset in assets if result.get_num_requested(asset.key)}


def report(instance: dg.DagsterInstance, key: dg.AssetKey, version: str) -> None:
    tags = {"dagster/data_version": version}
    instance.report_runless_asset_event(dg.AssetMaterialization(key, tags=tags))


@pytest.mark.parametrize("reported", [SIGNAL, REQUESTS])
def test_no_reported_event_retrains_anybody(instance: dg.DagsterInstance, reported: dg.AssetKey) -> None:
    dg.materialize([training_set, retrained, deployed], instance=instance)
    before, _ = retraining_tick(instance)
    for number in range(2):
        report(instance, reported, f"by-hand-{number}")
        before, requested_now = retraining_tick(instance, before)
        assert requested_now == set()


def test_a_new_training_set_runs_what_follows(instance: dg.DagsterInstance) -> None:
    # Neither the signal nor the requests ever had an event: that must not hold anything up.
    dg.materialize([training_set, retrained, deployed], instance=instance)
    quiet, _ = retraining_tick(instance)
    report(instance, training_set.key, "another")

    assert retraining_tick(instance, quiet)[1] == {"retrained", "deployed"}
