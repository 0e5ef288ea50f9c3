"""The version that answers, read from the records of real acts."""

from datetime import UTC, datetime

import dagster as dg
import pytest

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.commands.status import StatusSources, model_statuses
from mlops_assets.event_log.served_state import MonitorSummary, served_now, served_result, served_version
from mlops_assets.testing.deployed_world import DeployedWorld, start_v2

NOW = datetime(2013, 6, 3, tzinfo=UTC)
MONITOR = MonitorSummary(
    model="flights",
    deployment="flights",
    label_dataset="flights",
    max_data_age_s=30 * 86_400.0,
    training_code="code",
)

BACK = "v2 answered before and was rolled back to v1 (rolled back by ana: late flights are missed)"


@pytest.fixture
def steps() -> str:
    """A plan without steps: an approved version gets all traffic at once."""
    return ""


def label(world: DeployedWorld) -> str | None:
    answering = served_version(world.instance, world.registry, model="flights", deployment="flights")
    return answering.label if answering else None


def test_nothing_answers_before_the_first_act(world: DeployedWorld) -> None:
    with dg.DagsterInstance.ephemeral() as fresh:
        answering, staleness = served_now(fresh, world.registry, MONITOR, now=NOW)
    assert answering is None and staleness.stale is None
    assert served_result(answering, staleness)["metadata"]["version"] == "none"


def test_the_version_that_the_last_act_made_stable_answers(world: DeployedWorld) -> None:
    assert label(world) == "v1"
    start_v2(world)
    assert label(world) == "v2"
    world.decide("rollback", to="v1", reason="late flights are missed")
    assert label(world) == "v1"


def test_a_rollback_makes_what_answers_stale_with_the_reason_of_the_act(world: DeployedWorld) -> None:
    start_v2(world)
    world.decide("rollback", to="v1", reason="late flights are missed")
    answering, staleness = served_now(world.instance, world.registry, MONITOR, now=NOW)
    assert answering is not None and staleness.by_cause["rollback"]
    assert staleness.reason == (
        "v2 answered before and was rolled back to v1 (rolled back by ana: late flights are missed)"
    )
    result = served_result(answering, staleness)
    assert not result["passed"] and result["metadata"]["version"] == "v1"


def test_an_act_on_a_later_version_does_not_change_why_an_earlier_one_was_rolled_back(
    world: DeployedWorld,
) -> None:
    start_v2(world)
    world.decide("rollback", to="v1", reason="late flights are missed")
    act = world.record.metadata
    later = {**act, "action": "abort", "reason": "v3 answers too slowly"}
    later["withdrawn"] = {**act["withdrawn"], "v3": "v3 answers too slowly"}
    world.report("deployment", "later", {**later, "target": "v3"})
    _, staleness = served_now(world.instance, world.registry, MONITOR, now=NOW)
    assert (
        staleness.reason
        == "v2 answered before and was rolled back to v1 (rolled back by ana: late flights are missed)"
    )


def test_the_record_and_the_status_name_the_version_that_an_act_is_about(world: DeployedWorld) -> None:
    """Whoever reads a record finds the target under this key: a misspelt one fails here."""

    @dg.asset(key=asset_key("model", "flights"), tags=name_tags("model", "flights"))
    def model() -> None: ...

    definitions = dg.Definitions.merge(world.definitions, dg.Definitions(assets=[model]))

    def read() -> tuple[str, str, str]:
        sources = StatusSources(definitions, world.instance, world.client, world.registry)
        (status,) = model_statuses(sources, NOW)
        metadata = world.record.metadata
        assert status.rollout["target"] == metadata["target"]
        return metadata["action"], metadata["target"], metadata["stable"]

    assert read() == ("initial", "v1", "v1")
    start_v2(world)
    assert read() == ("promote", "v2", "v2")
    world.decide("rollback", to="v1")
    assert read() == ("rollback", "v1", "v1")


def test_a_summary_is_the_same_after_its_plain_values() -> None:
    assert MonitorSummary(**MONITOR.to_dict()) == MONITOR
