import pytest
from pydantic import ValidationError

from mlops_assets.rollout import desired_state as state
from mlops_assets.rollout import transitions
from serve.schema import GatewayArgs, ModelArgs, RolloutMark, Route, Routing


def version(name: str) -> state.DeployedVersion:
    return state.DeployedVersion("flights", name, ModelArgs(version=name, package_uri=f"/packages/{name}"))


def routed(version: str) -> Routing:
    mark = RolloutMark(target=version, action="initial")
    return transitions.initial(transitions.RoutingSettings(deployment="flights"), version, mark)


def gateway(routing: Routing) -> state.Document:
    return state.gateway_application(GatewayArgs(name="flights"), routing)


def test_weights_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValidationError, match="9000, must be 10000"):
        Routing(revision=1, stable="v1", routes={"v1": Route(application="a", weight=9_000)})


def test_a_running_version_is_never_changed_in_place() -> None:
    running = state.version_application(version("v1"))
    moved = state.DeployedVersion("flights", "v1", ModelArgs(version="v1", package_uri="/elsewhere"))
    assert state.with_versions_added([running], [moved]) == [running]


def test_retiring_leaves_other_deployments_alone() -> None:
    other = {"name": "flights-eu--v1"}
    routing = routed("v2")
    applications = [state.version_application(version(name)) for name in ("v1", "v2")] + [
        gateway(routing),
        other,
    ]
    left = state.without_unrouted_versions(applications, deployment="flights", routing=routing)
    assert [application["name"] for application in left] == ["flights--v2", "flights", "flights-eu--v1"]


def test_the_routing_is_read_back_from_the_document() -> None:
    routing = routed("v1")
    assert state.routing_of([gateway(routing)], "flights") == routing
    assert state.routing_of([gateway(routing)], "other") is None


def test_ray_accepts_the_document() -> None:
    from ray.serve.schema import ServeDeploySchema

    routing = routed("v1")
    document = state.document(
        [gateway(routing), state.version_application(version("v1"))], host="127.0.0.1", port=8000
    )
    assert [a["name"] for a in document["applications"]] == ["flights", "flights--v1"]
    ServeDeploySchema.model_validate(document)
