"""The desired state of a Ray Serve cluster as one document (Ray's ServeDeploySchema).

Belongs here: pure functions from versions and weights to the document, and from one document to the
next. Does not belong here: declaring it (``resources/serving/``) or deciding who may be
deployed (``rollout/approval.py``). The same document is KubeRay's ``serveConfigV2``.

Topology: one immutable application per model version (``flights--v7``, no route), and one gateway
application per deployment (``flights``, route ``/flights``) that reaches versions through handles.
Weights live in the gateway's ``user_config``, so changing them restarts nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from serve.schema import GatewayArgs, ModelArgs, Routing

MODEL_BUILDER = "serve.builder:build_model"
GATEWAY_BUILDER = "serve.builder:build_gateway"
GATEWAY_DEPLOYMENT = "Gateway"

Document = dict[str, Any]


@dataclass(frozen=True)
class DeployedVersion:
    """One model version as a Ray Serve application."""

    deployment: str
    version: str
    args: ModelArgs

    @property
    def application(self) -> str:
        return application_name(self.deployment, self.version)


def application_name(deployment: str, version: str) -> str:
    """``flights--v7``."""
    return f"{deployment}--{version}"


def version_application(version: DeployedVersion) -> Document:
    """The application of one model version. Its arguments never change in place."""
    return {
        "name": version.application,
        "route_prefix": None,
        "import_path": MODEL_BUILDER,
        "args": version.args.model_dump(mode="json"),
    }


def gateway_application(args: GatewayArgs, routing: Routing) -> Document:
    """The application that callers reach under ``/<name>``."""
    return {
        "name": args.name,
        "route_prefix": f"/{args.name}",
        "import_path": GATEWAY_BUILDER,
        "args": args.model_dump(mode="json"),
        "deployments": [{"name": GATEWAY_DEPLOYMENT, "user_config": routing.model_dump(mode="json")}],
    }


def document(applications: Iterable[Document], *, host: str, port: int, timeout_s: float = 30.0) -> Document:
    """The whole cluster. Applications come in name order, so equal states are equal documents."""
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": host, "port": port, "request_timeout_s": timeout_s},
        "applications": sorted(applications, key=lambda application: application["name"]),
    }


def routing_of(applications: Iterable[Mapping[str, Any]], deployment: str) -> Routing | None:
    """The routing that a deployment's gateway was last given, or None when it has no gateway."""
    for application in applications:
        if application["name"] == deployment:
            for part in application.get("deployments", ()):
                if part["name"] == GATEWAY_DEPLOYMENT and part.get("user_config"):
                    return Routing.model_validate(part["user_config"])
    return None


def deployments(applications: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the deployments among the applications: those that callers reach."""
    return sorted(one["name"] for one in applications if one.get("import_path") == GATEWAY_BUILDER)


def of_deployment(applications: Iterable[Document], deployment: str) -> list[Document]:
    """The applications of one deployment: its gateway and its versions."""
    prefix = application_name(deployment, "")
    return [one for one in applications if one["name"] == deployment or one["name"].startswith(prefix)]


def without_deployment(applications: Iterable[Document], deployment: str) -> list[Document]:
    """The applications less those of one deployment."""
    applications = list(applications)
    gone = {one["name"] for one in of_deployment(applications, deployment)}
    return [one for one in applications if one["name"] not in gone]


def with_versions_added(applications: Iterable[Document], added: Iterable[DeployedVersion]) -> list[Document]:
    """The applications plus the added versions; versions that already run stay as they are."""
    by_name = {application["name"]: application for application in applications}
    for version in added:
        by_name.setdefault(version.application, version_application(version))
    return list(by_name.values())


def with_gateway(applications: Iterable[Document], gateway: Document) -> list[Document]:
    """The applications with this gateway in place of the one of the same name."""
    others = [application for application in applications if application["name"] != gateway["name"]]
    return [*others, gateway]


def without_unrouted_versions(
    applications: Iterable[Document], *, deployment: str, routing: Routing
) -> list[Document]:
    """The applications less this deployment's versions that the routing no longer names."""
    routed = {route.application for route in routing.routes.values()}
    prefix = application_name(deployment, "")
    return [
        application
        for application in applications
        if not application["name"].startswith(prefix) or application["name"] in routed
    ]
