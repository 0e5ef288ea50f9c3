"""The kinds of YAML document. A type named in a ``defs.yaml`` must be exported here."""

from mlops_assets.components.dataset import DatasetComponent

__all__ = ["DatasetComponent"]
