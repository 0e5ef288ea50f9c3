"""The deployed model that the tests of this folder share, with two replicas of everything."""

from collections.abc import Iterator

import pytest

from mlops_assets.testing.life_cycle import Platform, start
from mlops_assets.testing.ray_cluster import RayCluster


@pytest.fixture(scope="package")
def platform(ray_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    made = Platform(ray_cluster, tmp_path_factory.mktemp("lifecycle"))
    start(made)
    yield made
    made.close()
