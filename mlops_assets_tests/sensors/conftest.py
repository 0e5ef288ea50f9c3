"""A deployment that the rollout sensor watches."""

from mlops_assets.testing.deployed_world import cluster, serve_client, steps, world

__all__ = ["cluster", "serve_client", "steps", "world"]
