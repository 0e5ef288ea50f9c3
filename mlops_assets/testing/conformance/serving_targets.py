"""What every serving target must do (``resources/serving/_base.py`` says it in words).

class TestRay(ServingTargetConformance):
    target_type = RayDashboard

    @pytest.fixture
    def cluster(self): ...  # a Cluster, empty

    @pytest.fixture
    def site(self, cluster, tmp_path): ...  # where a target finds it

    @pytest.fixture
    def away(self, site): ...  # where nothing answers
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest

from mlops_assets.errors import ClusterUnreachable, DeploymentError, RayRefused
from mlops_assets.resources.serving import SERVING_TARGETS, Document, ServingTarget, TargetSite, Wait
from mlops_assets.rollout.desired_state import DeployedVersion, document, version_application
from mlops_assets.testing.small_models import package
from serve.schema import ModelArgs
from serve.scoring import write_package


class Cluster(Protocol):
    """The other side of a target: it runs what is declared, without a person's help."""

    declared: Mapping[str, Document]
    """The applications that it was told to run, by name."""
    refuses_to_start: dict[str, str]
    """Applications that will not start, and why."""
    put_fails: list[int]
    """A 1 for each of the next declarations that it refuses."""

    def forget_everything(self) -> None:
        """It lost its state."""


def whole(*applications: Document) -> Document:
    return document(applications, host="127.0.0.1", port=80)


def names(applications: Any) -> list[str]:
    return sorted(one["name"] for one in applications)


class ServingTargetConformance:
    """One target, against a small cluster of its kind."""

    target_type: ClassVar[type[ServingTarget]]

    @pytest.fixture
    def cluster(self) -> Any:
        raise NotImplementedError("the fixture cluster gives the other side of the target, empty")

    @pytest.fixture
    def site(self, cluster: Cluster, tmp_path: Path) -> TargetSite:
        raise NotImplementedError("the fixture site says where the cluster is")

    @pytest.fixture
    def away(self, site: TargetSite) -> TargetSite:
        raise NotImplementedError("the fixture away says where nothing answers")

    @pytest.fixture
    def target(self, site: TargetSite) -> ServingTarget:
        return self.target_type(site)

    @pytest.fixture
    def v1(self, tmp_path: Path) -> Document:
        return self.version(tmp_path, "flights", "v1")

    @pytest.fixture
    def tea(self, tmp_path: Path) -> Document:
        return self.version(tmp_path, "tea", "v1")

    def version(self, folder: Path, deployment: str, label: str) -> Document:
        """The application of a version with a package of its own."""
        uri = folder / f"{deployment}-{label}"
        write_package(str(uri), *package("binary"))
        args = ModelArgs(version=label, package_uri=str(uri))
        return version_application(DeployedVersion(deployment, label, args))

    def test_it_is_found_by_its_name(self) -> None:
        assert SERVING_TARGETS[self.target_type.name] is self.target_type

    def test_what_was_declared_is_read_back_as_it_was(
        self, target: ServingTarget, v1: Document, tea: Document
    ) -> None:
        assert (target.declared(), target.saved(), target.saved_document()) == ([], [], None)
        target.apply(whole(v1, tea))
        assert sorted(target.declared(), key=lambda one: str(one["name"])) == [v1, tea]
        assert target.saved() == [v1, tea] and target.saved_document() == whole(v1, tea)
        target.wait_until_running(["flights--v1", "tea--v1"])
        known = target.applications()
        assert {name: one["status"] for name, one in known.items()} == {
            "flights--v1": "RUNNING",
            "tea--v1": "RUNNING",
        }

    def test_what_is_left_out_is_deleted(
        self, target: ServingTarget, cluster: Cluster, v1: Document, tea: Document
    ) -> None:
        target.apply(whole(v1, tea))
        target.apply(whole(tea))
        assert names(target.declared()) == ["tea--v1"] == list(cluster.declared)

    def test_a_refused_state_is_not_kept(
        self, target: ServingTarget, cluster: Cluster, v1: Document, tea: Document
    ) -> None:
        cluster.put_fails[:] = [1]
        with pytest.raises(RayRefused):
            target.apply(whole(v1))
        assert target.saved_document() is None
        target.apply(whole(v1))
        cluster.put_fails[:] = [1]
        with pytest.raises(RayRefused):
            target.apply(whole(v1, tea))
        assert names(target.saved()) == ["flights--v1"] == names(target.declared())

    def test_what_a_cluster_lost_is_declared_again_without_what_is_left_out(
        self, target: ServingTarget, cluster: Cluster, v1: Document, tea: Document
    ) -> None:
        target.apply(whole(v1, tea))
        cluster.forget_everything()
        assert target.declared() == [] and names(target.saved()) == ["flights--v1", "tea--v1"]
        assert target.declare_saved(without=["tea"]) == ["flights--v1"]
        assert names(target.declared()) == names(target.saved()) == ["flights--v1"]

    def test_nothing_saved_is_nothing_to_declare(self, target: ServingTarget, cluster: Cluster) -> None:
        assert target.declare_saved() == [] and dict(cluster.declared) == {}

    def test_each_application_has_its_own_problem(
        self, target: ServingTarget, cluster: Cluster, v1: Document, tea: Document
    ) -> None:
        cluster.refuses_to_start["tea--v1"] = "its package is gone"
        target.apply(whole(v1, tea))
        found = target.problems(["flights--v1", "tea--v1"])
        assert set(found) == {"tea--v1"} and "its package is gone" in found["tea--v1"]
        with pytest.raises(DeploymentError, match="its package is gone"):
            target.wait_until_running(["flights--v1", "tea--v1"])

    def test_one_that_never_comes_is_told_at_the_deadline(self, target: ServingTarget) -> None:
        times, lines = iter(range(0, 10_000, 50)), list[str]()
        wait = Wait(lines.append, clock=lambda: float(next(times)), sleep=lambda _: None)
        found = target.problems(["nope--v1"], wait)
        assert "not running after" in found["nope--v1"] and lines == ["nope--v1 absent"]

    def test_a_deployment_is_retired_and_no_other(
        self, target: ServingTarget, v1: Document, tea: Document
    ) -> None:
        target.apply(whole(v1, tea))
        assert target.retire("tea") == ["tea--v1"]
        assert names(target.declared()) == ["flights--v1"] and "tea--v1" not in target.applications()
        with pytest.raises(DeploymentError, match="tea is not deployed"):
            target.retire("tea")

    def test_a_version_that_is_declared_needs_no_second_place(
        self, target: ServingTarget, v1: Document
    ) -> None:
        target.apply(whole(v1))
        placed = target.require_resources(application="flights--v1", num_gpus=9.0, device="gpu")
        assert (placed.device, placed.num_gpus) == ("cpu", 0)

    def test_what_fits_nowhere_is_refused_with_the_numbers(self, target: ServingTarget) -> None:
        assert target.cluster_resources().nodes
        with pytest.raises(DeploymentError, match="GPU"):
            target.require_resources(application="flights--v9", num_gpus=9_999.0, device="gpu")

    def test_one_that_is_away_says_nothing_of_any_version(self, away: TargetSite) -> None:
        with pytest.raises(ClusterUnreachable):
            self.target_type(away).declared()
