"""A deployment whose runs, sensor and commands the tests carry out."""

from mlops_assets.testing.deployed_world import cluster, serve_client, steps, world

__all__ = ["cluster", "serve_client", "steps", "world"]
