"""Every serving target keeps the contract, and a new one is one file."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mlops_assets.errors import UnknownName
from mlops_assets.resources import serving as package
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.resources.serving import SERVING_TARGETS, Document, ServingTarget, TargetSite, Wait
from mlops_assets.resources.serving.ray_dashboard import RayDashboard
from mlops_assets.testing.conformance.serving_targets import ServingTargetConformance, whole
from mlops_assets.testing.small_serve import SmallCluster, small_cluster


class TestRay(ServingTargetConformance):
    target_type = RayDashboard

    @pytest.fixture
    def cluster(self) -> Iterator[SmallCluster]:
        with small_cluster() as running:
            yield running

    @pytest.fixture
    def site(self, cluster: SmallCluster, tmp_path: Path) -> TargetSite:
        return TargetSite(cluster.url, cluster.url, "", str(tmp_path / "state.json"), deadline_s=15)

    @pytest.fixture
    def away(self, site: TargetSite) -> TargetSite:
        return replace(site, dashboard_url="http://127.0.0.1:9")

    def test_one_that_is_late_is_told_beside_those_that_failed(
        self, target: ServingTarget, cluster: SmallCluster, v1: Document, tea: Document
    ) -> None:
        cluster.refuses_to_start["tea--v1"] = "its package is gone"
        target.apply(whole(v1, tea))
        cluster.status["flights--v1"] = ("DEPLOYING", "waiting for a GPU")
        times = iter(range(0, 1_000, 10))
        wait = Wait(clock=lambda: float(next(times)), sleep=lambda _: None)
        found = target.problems(["flights--v1", "tea--v1"], wait)
        assert found["tea--v1"] == "tea--v1 is DEPLOY_FAILED (its package is gone)"
        expected = "not running after 15 s: flights--v1 is DEPLOYING (waiting for a GPU)"
        assert found["flights--v1"] == expected


def test_every_target_is_tested() -> None:
    assert {one.target_type.name for one in ServingTargetConformance.__subclasses__()} == set(SERVING_TARGETS)


FILE = """
from mlops_assets.resources.serving import ServingTarget
from mlops_assets.rollout.capacity import ClusterResources

class NotebookTarget(ServingTarget):
    name = "notebook"
    document = None

    def applications(self):
        found = NotebookTarget.document["applications"] if NotebookTarget.document else []
        return {one["name"]: {"status": "RUNNING", "deployed_app_config": one} for one in found}

    def apply(self, document):
        NotebookTarget.document = document

    def saved_document(self):
        return NotebookTarget.document

    def cluster_resources(self):
        return ClusterResources(nodes=())
"""


def test_a_target_is_one_file_and_is_chosen_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = ServeClient(dashboard_url="", serve_url="", state_file="", serving_target="notebook")
    with pytest.raises(UnknownName, match=r"Unknown serving target 'notebook'\. Allowed: ray"):
        _ = client.target
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "notebook.py").write_text(FILE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "more")])
    client.target.apply(whole({"name": "flights--v1"}))
    client.target.wait_until_running(["flights--v1"])
    assert client.target.saved() == client.target.declared() == [{"name": "flights--v1"}]
    assert client.target.retire("flights") == ["flights--v1"] and client.target.declared() == []
