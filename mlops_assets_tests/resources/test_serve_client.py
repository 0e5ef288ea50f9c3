"""The client against real gateways on a real port."""

import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlops_assets.errors import ClusterUnreachable, DeploymentError, RayRefused
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout.desired_state import (
    DeployedVersion,
    document,
    gateway_application,
    version_application,
)
from mlops_assets.testing.small_models import package, routing
from mlops_assets.testing.small_serve import SmallCluster, small_cluster
from serve.schema import GatewayArgs, ModelArgs, MonitoringReport, Routing
from serve.scoring import write_package

REPORT = MonitoringReport(
    version="v1",
    stale={"drift": True, "data": False},
    data_until=1_364_774_400.0,
    drift={"distance": {"psi": 0.31}},
    episode_open=True,
)


@pytest.fixture
def cluster() -> Iterator[SmallCluster]:
    with small_cluster() as running:
        yield running


@pytest.fixture
def client(cluster: SmallCluster, tmp_path: Path) -> ServeClient:
    """Of a deployment with two gateway replicas."""
    client = ServeClient(
        dashboard_url=cluster.url,
        serve_url=cluster.url,
        state_file=str(tmp_path / "state.json"),
        deadline_s=15,
    )
    write_package(str(tmp_path / "package"), *package("binary"))
    args = ModelArgs(version="v1", package_uri=str(tmp_path / "package"))
    declared = Routing.model_validate(routing())
    applications = [
        version_application(DeployedVersion("flights", "v1", args)),
        gateway_application(GatewayArgs(name="flights", num_replicas=2), declared),
    ]
    client.target.apply(document(applications, host="127.0.0.1", port=80))
    client.wait_for_revision("flights", 1, weights={"v1": 10_000}, replicas=2)
    return client


def test_a_request_reads_no_certificates_once_they_are_known(
    client: ServeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.target.applications()
    monkeypatch.setattr(ssl, "create_default_context", lambda *_, **__: pytest.fail("read again"))
    assert client.target.applications()
    assert client.evidence("flights").revision == 1


def test_a_report_of_another_version_is_refused_in_the_gateways_words(client: ServeClient) -> None:
    with pytest.raises(DeploymentError, match=r"/flights/monitoring refuses .*stable version, which is v1"):
        client.report_monitoring("flights", REPORT.model_copy(update={"version": "v2"}))


def test_an_endpoint_that_is_away_is_said_so(client: ServeClient, cluster: SmallCluster) -> None:
    cluster.forget_everything()
    with pytest.raises(ClusterUnreachable, match="monitoring answered HTTP 404"):
        client.report_monitoring("flights", REPORT)


def test_every_replica_shows_what_one_was_told(client: ServeClient, cluster: SmallCluster) -> None:
    client.report_monitoring("flights", REPORT)
    for _ in range(2):  # One request each: they take turns.
        text = httpx.get(f"{cluster.url}/flights/metrics", trust_env=False).text
        assert 'mlops_served_stale{cause="drift",deployment="flights"} 1.0' in text
        assert 'mlops_drift_score{column="distance",deployment="flights",statistic="psi"} 0.31' in text
        assert 'mlops_drift_episode_open{deployment="flights"} 1.0' in text


@dataclass
class Listener:
    """Answers everything with one status and {}; keeps what was said in Authorization."""

    url: str = ""
    status: int = 200
    said: list[str | None] = field(default_factory=list)


@pytest.fixture
def listener() -> Iterator[Listener]:
    heard = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.said.append(self.headers["Authorization"])
            self.send_response(heard.status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    heard.url = f"http://127.0.0.1:{server.server_port}"
    yield heard
    server.shutdown()
    thread.join()
    server.server_close()


def of(dashboard: str, serve: str) -> ServeClient:
    return ServeClient(dashboard_url=dashboard, serve_url=serve, state_file="")


def test_ray_is_told_the_token_and_the_endpoint_the_key(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "ray-hush")
    monkeypatch.setenv("MLOPS_API_KEY", "key-hush")
    monkeypatch.setenv("MLOPS_RAY_DASHBOARD_URL", f"{listener.url}/")
    monkeypatch.setenv("MLOPS_SERVE_URL", listener.url)
    client = of(f"{listener.url}/", listener.url)
    client.target.applications()
    client.ready("flights")
    assert listener.said == ["Bearer ray-hush", "Bearer key-hush"]


def test_an_address_that_the_environment_does_not_name_is_told_neither(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a run's configuration can do with any field of a resource.
    monkeypatch.setenv("RAY_AUTH_TOKEN", "ray-hush")
    monkeypatch.setenv("MLOPS_API_KEY", "key-hush")
    monkeypatch.setenv("MLOPS_RAY_DASHBOARD_URL", "http://ray.example:8265")
    monkeypatch.setenv("MLOPS_SERVE_URL", "http://models.example")
    client = of(listener.url, listener.url)
    client.target.applications()
    client.ready("flights")
    assert listener.said == [None, None]
    assert "hush" not in repr(client)


@pytest.mark.parametrize(("status", "token"), [(401, ""), (403, "ray-hush")])
def test_a_refused_token_says_what_to_set_and_not_the_token(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, status: int, token: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    monkeypatch.setenv("MLOPS_RAY_DASHBOARD_URL", listener.url)
    listener.status = status
    with pytest.raises(RayRefused, match=r"token .*Set RAY_AUTH_TOKEN_PATH to the file") as told:
        of(listener.url, listener.url).target.applications()
    assert "hush" not in str(told.value)
    assert ("refuses this token" in str(told.value)) == bool(token)


def test_the_endpoint_listens_on_the_host_of_its_url_or_on_the_one_that_is_said() -> None:
    client = of("http://10.0.0.1:8265", "http://10.0.0.1:8000")
    assert client.target.http_options() == ("10.0.0.1", 8000)
    assert client.model_copy(update={"serve_host": "0.0.0.0"}).target.http_options() == ("0.0.0.0", 8000)
