"""Keys of assets in Dagster, and what a key is the key of.

Belongs here: making a key of kind and name, reading it back, the tags that say the same, finding the assets
of a kind in a graph. Does not belong here: the form of the word (``asset_names.py``).
"""

from typing import Any

import dagster as dg

from mlops_assets.asset_names import AssetName, Kind, asset_name, read_asset_name

KIND_TAG, NAME_TAG = "mlops/kind", "mlops/name"


def asset_key(kind: Kind, name: str) -> dg.AssetKey:
    """The key of an asset: ``flights_model`` for the model of ``flights``."""
    return dg.AssetKey([asset_name(kind, name)])


def read_key(key: dg.AssetKey) -> AssetName:
    """Kind and name of an asset of this platform; a key of several parts is taken for a dataset's name."""
    return read_asset_name(key.to_user_string())


def name_tags(kind: Kind, name: str) -> dict[str, str]:
    """Tags of an asset that say what its key says: plain definitions may end in any word."""
    return {KIND_TAG: kind, NAME_TAG: name}


def assets_of(graph: Any, kind: Kind) -> dict[str, dg.AssetKey]:
    """The assets of one kind that a graph can materialise, by name in alphabetical order."""
    nodes = (graph.get(key) for key in graph.materializable_asset_keys)
    return dict(sorted((node.tags[NAME_TAG], node.key) for node in nodes if node.tags.get(KIND_TAG) == kind))
