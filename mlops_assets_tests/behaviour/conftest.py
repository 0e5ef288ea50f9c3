"""Use cases made of YAML alone, with every resource real."""

from mlops_assets_tests.components.conftest import instance, lake, load, use_case

__all__ = ["instance", "lake", "load", "use_case"]
