"""The client's monitoring report, against a real gateway on a real port."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mlops_assets.errors import ClusterUnreachable, DeploymentError
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.rollout.desired_state import (
    DeployedVersion,
    document,
    gateway_application,
    version_application,
)
from mlops_assets_tests.serve.small_models import package, routing
from mlops_assets_tests.small_serve import SmallCluster, small_cluster
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
    client.apply(document(applications, host="127.0.0.1", port=80))
    client.wait_for_revision("flights", 1, weights={"v1": 10_000}, replicas=2)
    return client


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
