"""A bad model: as good as the champion on every row of the gate, and no number at all for some live requests.

Belongs here: making it from the champion and handing it in, as a colleague would who trained elsewhere. Does
not belong here: judging it; the platform's own gate and guard do.

The champion's trees get one more, which gives "not a number" to rows in which a whole feed of features is
missing. The gate's rows always have that feed, so its verdict is that of the champion's twin. A caller whose
feed fails is what the offline rows never showed.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import asset_name, table_name
from mlops_assets.assets.measuring import REFERENCE_FILE
from mlops_assets.errors import StackError
from serve.schema import GoldenRow, ModelManifest

if TYPE_CHECKING:
    import dagster as dg
    import pandas as pd

MADE_OF_TAGS = ("dagster/input_data_version", "dagster/input_event_pointer", "dagster/code_version")
"""Tags of a materialisation with its inputs: the planted one claims the same inputs as the champion's."""


def plant_model(
    definitions: "dg.Definitions", instance: "dg.DagsterInstance", model: str, without: Sequence[str]
) -> dict[str, Any]:
    """Registers the champion's bad twin and reports it as a materialisation of the model.

    Gives ``version`` and ``digest``. StackError without a champion, or when a row of the gate would reveal
    the defect.
    """
    from serve.scoring import package_digest, read_package, write_package

    resources = definitions.resources or {}
    lake, registry = resources["lake"], resources["model_registry"]
    champion = registry.by_alias(model, "champion")
    key = asset_key("model", model)
    newest = instance.get_latest_materialization_event(key)
    if champion is None or newest is None or newest.asset_materialization is None:
        raise StackError(f"{asset_name('model', model)} has no champion; nothing can be planted beside it.")
    manifest, payload = read_package(champion.package_uri, lake.public_storage_options())
    positions = [manifest.feature_names.index(name) for name in without]
    _require_hidden(lake, model, without)
    bad = spoiled(payload, manifest.model_format, positions)
    twin = manifest.model_copy(update={"golden": _golden(manifest, bad, without)})
    digest = package_digest(twin, bad)
    uri = lake.package_uri(model, digest)
    write_package(uri, twin, bad, lake.public_storage_options())
    reference = lake.read_text(f"{champion.package_uri}/{REFERENCE_FILE}")
    if reference is not None:
        lake.write_text(f"{uri}/{REFERENCE_FILE}", reference)
    version = registry.register(
        model,
        digest=digest,
        package_uri=uri,
        run_id=champion.run_id,
        manifest=twin,
        payload=bad,
        tags={
            name: value
            for name, value in champion.tags.items()
            if name in ("training_set_version", "pinned_tables", "trained_until", "git_sha")
        },
        example=_example(twin),
    )
    metadata = {"model_version": version.version, "package": uri, "bytes": len(bad)}
    instance.report_runless_asset_event(_handed_in(newest.asset_materialization, digest, metadata))
    return {"version": version.version, "digest": digest}


def _handed_in(
    newest: "dg.AssetMaterialization", digest: str, metadata: Mapping[str, Any]
) -> "dg.AssetMaterialization":
    """The materialisation of the planted model, with the inputs and the metadata of the newest one."""
    import dagster as dg

    inputs = {name: value for name, value in (newest.tags or {}).items() if name.startswith(MADE_OF_TAGS)}
    return dg.AssetMaterialization(
        newest.asset_key,
        description="A model that a colleague trained elsewhere.",
        metadata={**newest.metadata, **metadata, "why": "handed in from outside"},
        tags={**inputs, "dagster/data_version": digest},
    )


def _golden(manifest: ModelManifest, payload: bytes, without: Sequence[str]) -> tuple[GoldenRow, ...]:
    """The champion's golden rows as the twin answers them; one without the feed would give it away."""
    from serve.scoring import scorer_from_bytes

    scorer = scorer_from_bytes(manifest, payload)
    return tuple(
        GoldenRow(features=row.features, scores=(float(scorer.score_rows([row.features])[0]),))
        for row in manifest.golden
        if any(row.features.get(name) is not None for name in without)
    )


def _require_hidden(lake: Any, model: str, without: Sequence[str]) -> None:
    rows = lake.read(table_name("training_set", model), columns=list(without))
    shown = int(rows.isna().all(axis=1).sum())
    if shown:
        raise StackError(
            f"{shown} of {len(rows)} rows that {model} was made of lack {', '.join(without)}: the gate "
            "would see what is wrong with the planted model."
        )


def _example(manifest: ModelManifest) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame([row.features for row in manifest.golden])


def spoiled(payload: bytes, model_format: str, positions: Sequence[int]) -> bytes:
    """The same trees and one more, which gives NaN where all these columns are missing and 0 elsewhere.

    StackError for a model that is no trees.
    """
    spoil = {"lightgbm-text": _spoiled_lightgbm, "xgboost-ubj": _spoiled_xgboost}.get(model_format)
    if spoil is None:
        raise StackError(f"only models of trees can be spoiled; the champion is {model_format}.")
    return spoil(payload, positions)


def _spoiled_lightgbm(payload: bytes, positions: Sequence[int]) -> bytes:
    head, found, rest = payload.decode().partition("\nend of trees")
    lines = head.split("\n")
    sizes = next((n for n, line in enumerate(lines) if line.startswith("tree_sizes=")), None)
    if not found or sizes is None:
        raise StackError("the champion's file is not LightGBM's text format.")
    tree = _lightgbm_tree(sum(line.startswith("Tree=") for line in lines), positions)
    lines[sizes] = f"{lines[sizes]} {len(tree.encode())}"
    return ("\n".join(lines) + "\n" + tree + "end of trees" + rest).encode()


def _lightgbm_tree(number: int, positions: Sequence[int]) -> str:
    """A chain: each node sends a missing value on to the next one, everything else to a leaf of value 0."""
    nodes = len(positions)

    def row(name: str, values: Sequence[object]) -> str:
        return f"{name}={' '.join(map(str, values))}"

    zeros = [0] * nodes
    return "\n".join(
        [
            f"Tree={number}",
            row("num_leaves", [nodes + 1]),
            "num_cat=0",
            row("split_feature", positions),
            row("split_gain", zeros),
            # No value is that small, so only what is missing goes left: bit 1 sends it there, and bits 2
            # and 3 say that missing is NaN.
            row("threshold", ["-1e+300"] * nodes),
            row("decision_type", [0b1010] * nodes),
            row("left_child", [*range(1, nodes), -1]),
            row("right_child", [-(leaf + 1) for leaf in range(1, nodes + 1)]),
            row("leaf_value", ["nan", *zeros]),
            row("leaf_weight", [0, *zeros]),
            row("leaf_count", [0, *zeros]),
            row("internal_value", zeros),
            row("internal_weight", zeros),
            row("internal_count", zeros),
            "is_linear=0",
            "shrinkage=1",
            "\n",
        ]
    )


def _spoiled_xgboost(payload: bytes, positions: Sequence[int]) -> bytes:
    import json

    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bytearray(payload))
    document = json.loads(bytes(booster.save_raw("json")))
    model = document["learner"]["gradient_booster"]["model"]
    count = len(model["trees"])
    columns = int(document["learner"]["learner_model_param"]["num_feature"])
    model["trees"].append(_xgboost_tree(count, positions, columns))
    model["tree_info"].append(0)
    model["iteration_indptr"].append(model["iteration_indptr"][-1] + 1)
    model["gbtree_model_param"]["num_trees"] = str(count + 1)
    twin = xgboost.Booster()
    twin.load_model(bytearray(json.dumps(document).encode()))
    return bytes(twin.save_raw("ubj"))


def _xgboost_tree(number: int, positions: Sequence[int], columns: int) -> dict[str, Any]:
    """The same chain. XGBoost takes a node's right child to be the one after its left child."""
    depth = len(positions)
    nodes = 2 * depth + 1
    tree: dict[str, Any] = {
        "id": number,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(columns),
            "num_nodes": str(nodes),
            "size_leaf_vector": "1",
        },
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "left_children": [-1] * nodes,
        "right_children": [-1] * nodes,
        "parents": [2**31 - 1] * nodes,
        "default_left": [0] * nodes,
        "split_indices": [0] * nodes,
        "split_type": [0] * nodes,
        # The value of a leaf, or what a value must be below to go left.
        "split_conditions": [0.0] * nodes,
        "base_weights": [0.0] * nodes,
        "loss_changes": [0.0] * nodes,
        "sum_hessian": [0.0] * nodes,
    }
    node = 0
    for level, position in enumerate(positions):
        left, right = 2 * level + 1, 2 * level + 2
        tree["left_children"][node], tree["right_children"][node] = left, right
        tree["parents"][left] = tree["parents"][right] = node
        tree["default_left"][node] = 1
        tree["split_indices"][node] = position
        tree["split_conditions"][node] = -3.4e38
        node = left
    tree["split_conditions"][node] = float("nan")
    return tree
