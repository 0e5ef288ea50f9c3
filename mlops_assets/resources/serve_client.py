"""The Ray Serve cluster as a resource: declare, wait, verify, ask.

Belongs here: Ray's deploy API (REST, no ray import) and the HTTP endpoint as a caller sees it. Does
not belong here: what to declare (``rollout/desired_state.py``) or whether it may be deployed
(``rollout/approval.py``).

Guarantees. ``apply`` replaces the whole declared state; what it sent is saved to ``state_file``
first, so a cluster that was lost can be declared again. ``wait_until_running`` returns only when
every named application is RUNNING, and raises DeploymentError with Ray's own words otherwise: Ray
itself never gives up on a replica that cannot be scheduled. Callers keep to one writer at a time.
"""

import json
import os
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from mlops_assets import environment
from mlops_assets.errors import ClusterUnreachable, DeploymentError, RayRefused
from mlops_assets.resources import trusted
from mlops_assets.rollout import desired_state
from mlops_assets.rollout.capacity import ClusterResources, Placement, cluster_resources, place
from serve.schema import Device, Evidence, ModelArgs, MonitoringReport

if TYPE_CHECKING:
    import httpx

Document = dict[str, Any]

SILENT_AFTER_S = 3.0
"""A gateway replica reports several times a second; one that is silent this long is gone."""
STATE_LIMIT = 10_000
"""The most that Ray's state API gives at once."""
FAILED_STATUSES = frozenset({"DEPLOY_FAILED"})
"""What Ray does not come back from. UNHEALTHY is not among them: one lost replica is enough for it, and
Ray is replacing that replica while it says so.
"""


class ServeClient(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Talks to one Ray Serve cluster through its dashboard and its HTTP endpoint."""

    dashboard_url: str = Field(description="Base URL of Ray's dashboard, e.g. http://127.0.0.1:8265.")
    serve_url: str = Field(description="Base URL of the HTTP endpoint, e.g. http://127.0.0.1:8000.")
    state_file: str = Field(description="Where the last declared state is saved.")
    serve_host: str = Field(
        default="", description="Address that the endpoint listens on; empty: the host of serve_url."
    )
    api_keys_file: str = Field(
        default="", description="Keys file of gateways that declare none; off: no keys; empty: refused."
    )
    prediction_log_uri: str = Field(default="", description="Where gateways log answers; empty: nowhere.")
    clock_file: str = Field(
        default="", description="Where gateways take the time of answers from; empty: the machine's clock."
    )
    deadline_s: float = Field(default=180.0, description="How long a declared state may take to be real.")

    def applications(self) -> dict[str, Document]:
        """Every application Ray knows: {name: {status, message, deployed_app_config, ...}}."""
        return dict(self._dashboard("GET", "/api/serve/applications/").get("applications", {}))

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

        url = httpx.URL(self.serve_url)
        return self.serve_host or url.host, url.port or 80

    def apply(self, document: Document) -> None:
        """Saves and declares the whole state. Applications that are not in it are deleted."""
        before = self._save(json.dumps(document, indent=1))
        try:
            self._dashboard("PUT", "/api/serve/applications/", document)
        except RayRefused:
            # It was never declared, so it must not be what a lost cluster gets back.
            self._save(before)
            raise

    def _save(self, text: str | None) -> str | None:
        """Replaces the saved state (None: removes it) and gives what it was."""
        path = Path(self.state_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") if path.exists() else None
        if text is None:
            path.unlink(missing_ok=True)
        else:
            partial = path.with_suffix(".partial")
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
        return before

    def saved(self) -> list[Document]:
        """The application documents of the saved state; [] when nothing is saved."""
        path = Path(self.state_file)
        if not path.exists():
            return []
        return list(json.loads(path.read_text(encoding="utf-8"))["applications"])

    def declare_saved(self, *, without: Collection[str] = ()) -> list[str]:
        """Declares the saved state again, less the deployments ``without``; names of its applications, [] if
        none was saved. It does not wait for them.
        """
        path = Path(self.state_file)
        if not path.exists():
            return []
        saved = json.loads(path.read_text(encoding="utf-8"))
        applications = saved["applications"]
        for name in without:
            applications = desired_state.without_deployment(applications, name)
        self.apply({**saved, "applications": applications})
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
        deadline = time.monotonic() + self.deadline_s
        while left := sorted(set(own) & set(self.applications())):
            if time.monotonic() > deadline:
                raise DeploymentError(
                    f"{name} is no longer declared, and Ray has not stopped {', '.join(left)} after "
                    f"{self.deadline_s:.0f} s"
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

    def cluster_resources(self) -> ClusterResources:
        """What the cluster has and who holds it, as Ray's dashboard tells it."""
        return cluster_resources(
            nodes=self._state("nodes"),
            actors=self._state("actors"),
            measured=self._dashboard("GET", "/nodes?view=summary")["data"]["summary"],
            replicas=[
                replica
                for application in self.applications().values()
                for deployment in application.get("deployments", {}).values()
                for replica in deployment.get("replicas", ())
            ],
        )

    def _state(self, kind: str) -> list[Document]:
        """A list of Ray's state API, whole: without a limit it gives the first hundred."""
        answer = self._dashboard("GET", f"/api/v0/{kind}?detail=1&limit={STATE_LIMIT}")
        return list(answer["data"]["result"]["result"])

    def wait_until_running(
        self,
        names: Collection[str],
        *,
        report: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Returns when every named application is RUNNING; DeploymentError on failure or deadline."""
        problems = self._settle(names, report, clock, sleep, until_one_fails=True)
        if problems:
            raise DeploymentError("; ".join(problems.values()))

    def problems(
        self,
        names: Collection[str],
        *,
        report: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> dict[str, str]:
        """Waits for the named applications: {name: why} of those that failed or are late at the deadline."""
        return self._settle(names, report, clock, sleep, until_one_fails=False)

    def _settle(
        self,
        names: Collection[str],
        report: Callable[[str], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        *,
        until_one_fails: bool,
    ) -> dict[str, str]:
        start = clock()
        said = ""
        # Right after a PUT an application may still read RUNNING in its old state.
        sleep(0.5)
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
                report(line)
                said = line
            if clock() - start > self.deadline_s:
                late = {
                    name: f"not running after {self.deadline_s:.0f} s: {_why(name, known.get(name, {}))}"
                    for name in waiting
                }
                return {**failed, **late}
            sleep(0.5)

    def wait_for_revision(
        self,
        name: str,
        revision: int,
        *,
        weights: dict[str, int],
        replicas: int = 1,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Document:
        """The ``/ready`` answer once every gateway replica runs this revision with exactly these weights.

        ``/evidence`` lists the replicas with their revisions. Raises DeploymentError at the deadline.
        """
        start = clock()
        while True:
            status, answer = self.ready(name)
            seen = {version: route["weight"] for version, route in answer.get("routes", {}).items()}
            if status == 200 and answer.get("revision") == revision and seen == weights:
                reports = self.evidence(name).replicas
                alive = [report for report in reports.values() if report.age_s < SILENT_AFTER_S]
                if len(alive) >= replicas and all(report.revision == revision for report in alive):
                    return answer
                told = f"replicas report {[report.revision for report in alive]}"
            else:
                told = f"its last answer: HTTP {status} {json.dumps(answer)}"
            if clock() - start > self.deadline_s:
                raise DeploymentError(
                    f"{name} does not run revision {revision} with weights {weights} on {replicas} gateway "
                    f"replicas after {self.deadline_s:.0f} s; {told}"
                )
            sleep(0.2)

    def evidence(self, name: str) -> Evidence:
        """What the gateway measured since its routing took effect, over all replicas."""
        return Evidence.model_validate(self._get(name, "evidence"))

    def report_monitoring(self, name: str, report: MonitoringReport) -> None:
        """Shows a report at the gateway's ``/metrics``, in place of the one before.

        Raises ClusterUnreachable when the endpoint or its referee does not answer (try again later), and
        DeploymentError when it refuses the report, e.g. because another version is stable by now.
        """
        self._asked(name, "monitoring", body=report.model_dump(mode="json"))

    def _get(self, name: str, path: str) -> Document:
        return dict(self._asked(name, path).json())

    def _asked(
        self, name: str, path: str, *, body: Document | None = None, timeout_s: float = 30.0
    ) -> "httpx.Response":
        """The answer to a GET, or to a POST of ``body``."""
        import httpx

        try:
            with self._endpoint(timeout_s) as endpoint:
                method = "GET" if body is None else "POST"
                response = endpoint.request(method, f"/{name}/{path}", json=body)
        except httpx.TransportError as error:
            raise ClusterUnreachable(f"{self.url(name)}/{path} does not answer ({error})") from error
        if response.status_code in (401, 403):
            raise DeploymentError(
                f"{self.url(name)}/{path} refuses the platform's key with HTTP {response.status_code}; set "
                "MLOPS_API_KEY to a key with role operate"
            )
        if response.status_code == 400:
            raise DeploymentError(f"{self.url(name)}/{path} refuses what it was sent: {response.text[:1000]}")
        if response.status_code != 200:
            raise ClusterUnreachable(
                f"{self.url(name)}/{path} answered HTTP {response.status_code}: {response.text[:500]}"
            )
        return response

    def metrics(self, name: str, *, timeout_s: float = 30.0) -> str:
        """The Prometheus text of a deployment, summed over its gateway replicas.

        Raises ClusterUnreachable, or DeploymentError when the platform's key is refused.
        """
        return self._asked(name, "metrics", timeout_s=timeout_s).text

    def ready(self, name: str, *, timeout_s: float = 30.0) -> tuple[int, Document]:
        """HTTP status and body of ``/ready``; status 0 when nothing answers at all."""
        import httpx

        try:
            with self._endpoint(timeout_s) as endpoint:
                response = endpoint.get(f"/{name}/ready")
        except httpx.TransportError as error:
            return 0, {"error": {"code": "unreachable", "message": str(error)}}
        with suppress(ValueError):
            body = response.json()
            if isinstance(body, dict):
                return response.status_code, body
        return response.status_code, {"error": {"code": "not_json", "message": response.text[:500]}}

    def predict(self, name: str, features: Document) -> tuple[int, Document]:
        """HTTP status and body of one prediction; ClusterUnreachable when nothing answers at all."""
        import httpx

        try:
            with self._endpoint() as endpoint:
                response = endpoint.post(f"/{name}/predict", json={"features": features})
        except httpx.TransportError as error:
            raise ClusterUnreachable(f"{self.url(name)}/predict does not answer ({error})") from error
        with suppress(ValueError):
            body = response.json()
            if isinstance(body, dict):
                return response.status_code, body
        return response.status_code, {"error": {"code": "not_json", "message": response.text[:500]}}

    def batch_predict(self, name: str, instances: Iterable[Document]) -> Document:
        """One answered batch; DeploymentError when it is not answered."""
        with self._endpoint() as endpoint:
            response = endpoint.post(f"/{name}/batch-predict", json={"instances": list(instances)})
        if response.status_code != 200:
            raise DeploymentError(f"{name} answered HTTP {response.status_code}: {response.text[:1000]}")
        return dict(response.json())

    def keys_file(self, name: str, declared: str | None) -> str | None:
        """The keys file of a gateway; None when keys are off, which somebody has to have said.

        Raises DeploymentError when nobody said anything.
        """
        chosen = declared or self.api_keys_file
        if not chosen:
            raise DeploymentError(
                f"{name} has no API keys: set MLOPS_API_KEYS_FILE (or api_keys_file of the deployment) to a "
                f"file of hashed keys, or to `{environment.KEYS_OFF}` for local use"
            )
        return None if chosen == environment.KEYS_OFF else chosen

    def url(self, name: str) -> str:
        """Public URL of a deployment."""
        return f"{self.serve_url.rstrip('/')}/{name}"

    def _endpoint(self, timeout_s: float = 30.0) -> "httpx.Client":
        import httpx

        key = environment.API_KEY.read() if _same(self.serve_url, environment.serve_url()) else ""
        headers = _bearer(key)
        return httpx.Client(
            base_url=self.serve_url,
            headers=headers,
            timeout=timeout_s,
            trust_env=False,
            verify=trusted.certificates(),
        )

    def _dashboard(self, method: str, path: str, body: Document | None = None) -> Document:
        import httpx

        own = _same(self.dashboard_url, environment.ray_dashboard_url())
        headers = _bearer(environment.ray_token() if own else "")
        url = f"{self.dashboard_url.rstrip('/')}{path}"
        try:
            response = httpx.request(
                method,
                url,
                json=body,
                headers=headers,
                timeout=60.0,
                trust_env=False,
                verify=trusted.certificates(),
            )
        except httpx.TransportError as error:
            raise ClusterUnreachable(
                f"Ray's dashboard at {self.dashboard_url} does not answer ({error}). Start the cluster with "
                "`make up`, or point MLOPS_RAY_DASHBOARD_URL at a running one."
            ) from error
        if response.status_code in (401, 403):
            raise RayRefused(
                f"Ray's dashboard at {self.dashboard_url} refuses {'this' if headers else 'a missing'} token "
                f"(HTTP {response.status_code}: {response.text[:200]}). Set "
                f"{environment.RAY_TOKEN_FILE.name} to the file with the cluster's token and "
                f"{environment.RAY_DASHBOARD_URL.name} to this dashboard; the token is sent nowhere else."
            )
        if response.is_error:
            raise RayRefused(
                f"Ray refused {method} {path} with HTTP {response.status_code}: {response.text[:2000]}"
            )
        return dict(response.json()) if response.content else {}


def _same(url: str, declared: str) -> bool:
    """Whether a secret of the environment may go there: to the address that the environment names, alone.

    A run's configuration can point this client anywhere. For the same reason no secret is a field; besides,
    Dagster's UI shows those.
    """
    return url.rstrip("/") == declared


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"} if secret else {}


def _why(name: str, application: Document) -> str:
    """Status and every message Ray has for an application."""
    messages = [application.get("message", "")] + [
        f"{part}: {details.get('message', '')}"
        for part, details in application.get("deployments", {}).items()
    ]
    told = " | ".join(message for message in messages if message.strip(": "))
    return f"{name} is {application.get('status', 'ABSENT')}" + (f" ({told[-3000:]})" if told else "")
