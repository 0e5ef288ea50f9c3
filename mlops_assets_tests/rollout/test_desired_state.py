import pytest
from pydantic import ValidationError

from mlops_assets.rollout import desired_state as state
from serve.schema import GatewayArgs, ModelArgs, Route, Routing


def version(name: str) -> state.DeployedVersion:
    return state.DeployedVersion("flights", name, ModelArgs(version=name, package_uri=f"/packages/{name}"))


def gateway(routing: Routing) -> state.Document:
    return state.gateway_application(GatewayArgs(name="flights"), routing)


def test_the_first_version_takes_everything_at_revision_one() -> None:
    routing = state.all_traffic_to(None, deployment="flights", version="v1")
    assert routing.revision == 1
    assert routing.routes == {"v1": Route(application="flights--v1", weight=10_000)}


def test_the_next_version_takes_over_and_the_previous_stays_warm_at_zero() -> None:
    first = state.all_traffic_to(None, deployment="flights", version="v1")
    second = state.all_traffic_to(first, deployment="flights", version="v2")
    assert (second.revision, second.stable) == (2, "v2")
    assert {name: route.weight for name, route in second.routes.items()} == {"v2": 10_000, "v1": 0}


def test_only_one_previous_version_stays_warm() -> None:
    routing = None
    for name in ("v1", "v2", "v3"):
        routing = state.all_traffic_to(routing, deployment="flights", version=name)
    assert routing is not None and set(routing.routes) == {"v3", "v2"}


def test_the_same_state_keeps_its_revision() -> None:
    routing = state.all_traffic_to(None, deployment="flights", version="v1")
    assert state.all_traffic_to(routing, deployment="flights", version="v1") is routing


def test_a_changed_timeout_is_a_new_revision_that_keeps_the_warm_version() -> None:
    routing = None
    for name in ("v1", "v2"):
        routing = state.all_traffic_to(routing, deployment="flights", version=name)
    slower = state.all_traffic_to(routing, deployment="flights", version="v2", timeout_s=9.0)
    assert (slower.revision, slower.timeout_s, set(slower.routes)) == (3, 9.0, {"v1", "v2"})


def test_weights_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValidationError, match="9000, must be 10000"):
        Routing(revision=1, stable="v1", routes={"v1": Route(application="a", weight=9_000)})


def test_a_running_version_is_never_changed_in_place() -> None:
    running = state.version_application(version("v1"))
    moved = state.DeployedVersion("flights", "v1", ModelArgs(version="v1", package_uri="/elsewhere"))
    assert state.with_versions_added([running], [moved]) == [running]


def test_retiring_leaves_other_deployments_alone() -> None:
    other = {"name": "flights-eu--v1"}
    routing = state.all_traffic_to(None, deployment="flights", version="v2")
    applications = [state.version_application(version(name)) for name in ("v1", "v2")] + [
        gateway(routing),
        other,
    ]
    left = state.without_unrouted_versions(applications, deployment="flights", routing=routing)
    assert [application["name"] for application in left] == ["flights--v2", "flights", "flights-eu--v1"]


def test_the_routing_is_read_back_from_the_document() -> None:
    routing = state.all_traffic_to(None, deployment="flights", version="v1")
    assert state.routing_of([gateway(routing)], "flights") == routing
    assert state.routing_of([gateway(routing)], "other") is None


def test_ray_accepts_the_document() -> None:
    from ray.serve.schema import ServeDeploySchema

    routing = state.all_traffic_to(None, deployment="flights", version="v1")
    document = state.document(
        [gateway(routing), state.version_application(version("v1"))], host="127.0.0.1", port=8000
    )
    assert [a["name"] for a in document["applications"]] == ["flights", "flights--v1"]
    ServeDeploySchema.model_validate(document)
