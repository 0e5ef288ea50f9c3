"""Fixtures that several test folders share. Fixtures of one folder live in that folder."""

from collections.abc import Iterator

import pytest

from mlops_assets_tests.ray_cluster import RayCluster, local_ray


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[RayCluster]:
    """One real local Ray with Serve for the whole session; tests declare what they need on it."""
    with local_ray() as cluster:
        yield cluster
