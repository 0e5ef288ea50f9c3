"""What a serving target must do: the place where the desired state of Ray Serve is declared.

Belongs here: the ABC, and what follows for every target from its few questions: waiting, retiring, whether a
version fits. Does not belong here: one target (a file beside this one), what to declare
(``rollout/desired_state.py``), the endpoint that callers reach (``resources/serve_client.py``).
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from mlops_assets.errors import DeploymentError
from mlops_assets.rollout import desired_state
from mlops_assets.rollout.capacity import ClusterResources, Placement, place
from serve.schema import Device, ModelArgs

Document = dict[str, Any]

FAILED_STATUSES = frozenset({"DEPLOY_FAILED"})
"""What Ray does not come back from. UNHEALTHY is not among them: one lost replica is enough for it, and
Ray is replacing that replica while it says so.
"""


@dataclass(frozen=True)
class TargetSite:
    """Where deployments go, as the resource is configured. What else a target needs, it reads from the
    environment by itself.

    ``serve_url``: the endpoint's base URL; ``serve_host``: the address it listens on, "" for the host of the
    URL. ``state_file``: where a target without a memory saves what was declared. ``deadline_s``: how long a
    declared state may take to be real.
    """

    dashboard_url: str
    serve_url: str
    serve_host: str
    state_file: str
    deadline_s: float


@dataclass(frozen=True)
class Wait:
    """How waiting is reported and timed. ``clock`` in seconds."""

    report: Callable[[str], None] = lambda line: None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


SILENTLY = Wait()


class ServingTarget(ABC):
    """Where the desired state of one cluster is declared, whole: an application that is not in it is deleted.

    Documents are Ray's (``ServeDeploySchema``), statuses are Ray Serve's words. Callers keep to one writer at
    a time. Every question raises ClusterUnreachable when the target does not answer, and RayRefused, which is
    one, when it answers with an error.
    """

    name: ClassVar[str]
    """What ``MLOPS_SERVING_TARGET`` calls it."""

    def __init__(self, site: TargetSite) -> None:
        self.site = site

    @abstractmethod
    def applications(self) -> dict[str, Document]:
        """Every application of the cluster: {name: {status, message, deployed_app_config, deployments}}.

        One that is declared is among them at once; one that was taken out stays until it has stopped.
        """

    @abstractmethod
    def apply(self, document: Document) -> None:
        """Declares the whole state, and keeps it: ``saved_document`` gives it from then on.

        A state that is refused is not kept, and what was declared before stays declared.
        """

    @abstractmethod
    def saved_document(self) -> Document | None:
        """What was declared last, also when the cluster has lost everything; None before the first time."""

    @abstractmethod
    def cluster_resources(self) -> ClusterResources:
        """What the cluster has and who holds it."""

    def declared(self) -> list[Document]:
        """The application documents that were declared, without those being deleted."""
        return [
            application["deployed_app_config"]
            for application in self.applications().values()
            if application.get("deployed_app_config") and application["status"] != "DELETING"
        ]

    def http_options(self) -> tuple[str, int]:
        """Host and port that the endpoint listens on, for the document.

        Serve gives the host to every replica too: on several hosts no address but 0.0.0.0 is there on all.
        """
        import httpx

        url = httpx.URL(self.site.serve_url)
        return self.site.serve_host or url.host, url.port or 80

    def saved(self) -> list[Document]:
        """The application documents of the saved state; [] when nothing is saved."""
        document = self.saved_document()
        return list(document["applications"]) if document else []

    def declare_saved(self, *, without: Collection[str] = ()) -> list[str]:
        """Declares the saved state again, less the deployments ``without``; names of its applications, [] if
        none was saved. It does not wait for them.
        """
        document = self.saved_document()
        if document is None:
            return []
        applications = document["applications"]
        for name in without:
            applications = desired_state.without_deployment(applications, name)
        self.apply({**document, "applications": applications})
        return [application["name"] for application in applications]

    def retire(self, name: str, report: Callable[[str], None] = lambda line: None) -> list[str]:
        """Takes a deployment out of the declared state and waits until it is gone; names of the applications
        that were its own. Every other application stays as it is.

        Raises DeploymentError when there is nothing of it, or when it is not gone at the deadline.
        """
        # An empty cluster has lost its state: what was saved of the others must not be lost with it.
        declared = self.declared() or self.saved()
        own = [one["name"] for one in desired_state.of_deployment(declared, name)]
        if not own:
            known = ", ".join(desired_state.deployments(declared)) or "none"
            raise DeploymentError(f"{name} is not deployed; deployed are: {known}")
        host, port = self.http_options()
        self.apply(
            desired_state.document(desired_state.without_deployment(declared, name), host=host, port=port)
        )
        deadline = time.monotonic() + self.site.deadline_s
        while left := sorted(set(own) & set(self.applications())):
            if time.monotonic() > deadline:
                raise DeploymentError(
                    f"{name} is no longer declared, and Ray has not stopped {', '.join(left)} after "
                    f"{self.site.deadline_s:.0f} s"
                )
            report(f"stopping {', '.join(left)}")
            time.sleep(0.5)
        return own

    def require_resources(
        self,
        *,
        application: str,
        num_gpus: float,
        device: Device = "cpu",
        replicas: int = 1,
        package_bytes: int = 0,
        model_format: str = "lightgbm-text",
    ) -> Placement:
        """Where a version is going to run, decided before it is declared: Ray would wait for ever.

        Give the declared version ``num_gpus`` of the placement. Raises DeploymentError with the numbers
        when it fits nowhere (``rollout/capacity.py``). A version that is declared already stays as it is.
        """
        for known in self.declared():
            if known["name"] == application:
                args = ModelArgs.model_validate(known["args"])
                return Placement(
                    device="gpu" if args.num_gpus and args.device != "cpu" else "cpu",
                    num_gpus=args.num_gpus,
                    reason="it is declared already, and stays as it is",
                )
        return place(
            application=application,
            device=device,
            num_gpus=num_gpus,
            replicas=replicas,
            cluster=self.cluster_resources(),
            package_bytes=package_bytes,
            model_format=model_format,
        )

    def wait_until_running(
        self,
        names: Collection[str],
        wait: Wait = SILENTLY,
    ) -> None:
        """Returns when every named application is RUNNING; DeploymentError on failure or deadline."""
        problems = self._settle(names, wait, until_one_fails=True)
        if problems:
            raise DeploymentError("; ".join(problems.values()))

    def problems(
        self,
        names: Collection[str],
        wait: Wait = SILENTLY,
    ) -> dict[str, str]:
        """Waits for the named applications: {name: why} of those that failed or are late at the deadline."""
        return self._settle(names, wait, until_one_fails=False)

    def _settle(
        self,
        names: Collection[str],
        wait: Wait,
        *,
        until_one_fails: bool,
    ) -> dict[str, str]:
        start = wait.clock()
        said = ""
        # Right after a PUT an application may still read RUNNING in its old state.
        wait.sleep(0.5)
        while True:
            known = self.applications()
            states = {name: known.get(name, {}).get("status", "ABSENT") for name in names}
            failed = {
                name: _why(name, known[name]) for name, state in states.items() if state in FAILED_STATUSES
            }
            waiting = [name for name, state in states.items() if state != "RUNNING" and name not in failed]
            if not waiting or (failed and until_one_fails):
                return failed
            line = ", ".join(f"{name} {state.lower()}" for name, state in sorted(states.items()))
            if line != said:
                wait.report(line)
                said = line
            if wait.clock() - start > self.site.deadline_s:
                late = {
                    name: f"not running after {self.site.deadline_s:.0f} s: {_why(name, known.get(name, {}))}"
                    for name in waiting
                }
                return {**failed, **late}
            wait.sleep(0.5)


def _why(name: str, application: Document) -> str:
    """Status and every message Ray has for an application."""
    messages = [application.get("message", "")] + [
        f"{part}: {details.get('message', '')}"
        for part, details in application.get("deployments", {}).items()
    ]
    said = " | ".join(message for message in messages if message.strip(": "))
    return f"{name} is {application.get('status', 'ABSENT')}" + (f" ({said[-3000:]})" if said else "")
