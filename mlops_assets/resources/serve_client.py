"""The endpoint as its callers see it, and the serving target behind it, as one resource.

Belongs here: questions to the endpoint over HTTP (ready, evidence, predictions, metrics), and how both are
configured. Does not belong here: where the desired state is declared (``resources/serving/``), what to
declare (``rollout/desired_state.py``) or whether it may be deployed (``rollout/approval.py``).
"""

import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from mlops_assets import environment
from mlops_assets.errors import ClusterUnreachable, DeploymentError
from mlops_assets.resources import trusted
from mlops_assets.resources.bearer import bearer, same_address
from mlops_assets.resources.serving import SERVING_TARGETS, Document, ServingTarget, TargetSite
from serve.schema import Evidence, MonitoringReport

if TYPE_CHECKING:
    import httpx

SILENT_AFTER_S = 3.0
"""A gateway replica reports several times a second; one that is silent this long is gone."""


class ServeClient(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One Ray Serve cluster: its HTTP endpoint, asked here, and its deploy API behind ``target``."""

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
    online_uri: str = Field(default="", description="Where stores of online features lie; empty: nowhere.")
    clock_file: str = Field(
        default="", description="Where gateways take the time of answers from; empty: the machine's clock."
    )
    deadline_s: float = Field(default=180.0, description="How long a declared state may take to be real.")
    serving_target: str = Field(
        default="ray", description="Where the state is declared: a target of resources/serving."
    )

    @property
    def target(self) -> ServingTarget:
        """Where the desired state is declared. Raises UnknownName for a target that nobody wrote."""
        site = TargetSite(
            dashboard_url=self.dashboard_url,
            serve_url=self.serve_url,
            serve_host=self.serve_host,
            state_file=self.state_file,
            deadline_s=self.deadline_s,
        )
        return SERVING_TARGETS[self.serving_target](site)

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
                state = f"replicas report {[report.revision for report in alive]}"
            else:
                state = f"its last answer: HTTP {status} {json.dumps(answer)}"
            if clock() - start > self.deadline_s:
                raise DeploymentError(
                    f"{name} does not run revision {revision} with weights {weights} on {replicas} gateway "
                    f"replicas after {self.deadline_s:.0f} s; {state}"
                )
            sleep(0.2)

    def evidence(self, name: str) -> Evidence:
        """What the gateway measured since its routing took effect, over all replicas."""
        return Evidence.model_validate(self._get(name, "evidence"))

    def report_monitoring(self, name: str, report: MonitoringReport) -> None:
        """Shows a report at the gateway's ``/metrics``, in place of the one before.

        Raises ClusterUnreachable when the endpoint or its aggregator does not answer (try again later), and
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

        key = environment.API_KEY.read() if same_address(self.serve_url, environment.serve_url()) else ""
        headers = bearer(key)
        return httpx.Client(
            base_url=self.serve_url,
            headers=headers,
            timeout=timeout_s,
            trust_env=False,
            verify=trusted.certificates(),
        )
