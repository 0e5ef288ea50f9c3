"""A bad model: as good as the champion on every row of the gate, and no number at all for some live requests.

Belongs here: making it from the champion and handing it in, as a colleague would who trained elsewhere. Does
not belong here: judging it; the platform's own gate and guard do.

The champion's trees get one more, which gives "not a number" to rows in which a whole feed of features is
missing. The gate's rows always have that feed, so its verdict is that of the champion's twin. A caller whose
feed fails is what the offline rows never showed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mlops_assets.components.measuring import REFERENCE_FILE
from mlops_assets.errors import StackError
from serve.schema import ModelManifest

if TYPE_CHECKING:
    import dagster as dg
    import pandas as pd

LIGHTGBM = "lightgbm-text"
MADE_OF_TAGS = ("dagster/input_data_version", "dagster/input_event_pointer", "dagster/code_version")
"""Tags of a materialisation that say what it was made of: the planted one claims to be made of the same."""


def plant_model(
    definitions: "dg.Definitions", instance: "dg.DagsterInstance", model: str, without: Sequence[str]
) -> dict[str, Any]:
    """Registers the champion's bad twin as a version and reports it as a materialisation of ``models/<model>``.

    Gives ``version`` and ``digest``. StackError when there is no champion, or when a row of the gate would
    show what is wrong with it.
    """
    import dagster as dg

    from serve.scoring import package_digest, read_package, write_package

    resources = definitions.resources or {}
    lake, registry = resources["lake"], resources["model_registry"]
    champion = registry.by_alias(model, "champion")
    key = dg.AssetKey(["models", model])
    newest = instance.get_latest_materialization_event(key)
    if champion is None or newest is None or newest.asset_materialization is None:
        raise StackError(f"models/{model} has no champion; nothing can be planted beside it.")
    manifest, payload = read_package(champion.package_uri, lake.public_storage_options())
    if manifest.model_format != LIGHTGBM:
        raise StackError(
            f"the champion v{champion.version} is {manifest.model_format}; only {LIGHTGBM} can be spoiled."
        )
    positions = [manifest.feature_names.index(name) for name in without]
    _require_hidden(lake, model, without)
    bad = spoiled(payload, positions)
    # A golden row without the feed would give it away at once.
    golden = tuple(
        row for row in manifest.golden if any(row.features.get(name) is not None for name in without)
    )
    twin = manifest.model_copy(update={"golden": golden})
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
    event = newest.asset_materialization
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            key,
            description="A model that a colleague trained elsewhere.",
            metadata={
                **event.metadata,
                "model_version": version.version,
                "package": uri,
                "bytes": len(bad),
                "why": "handed in from outside",
            },
            tags={
                **{
                    name: value for name, value in (event.tags or {}).items() if name.startswith(MADE_OF_TAGS)
                },
                "dagster/data_version": digest,
            },
        )
    )
    return {"version": version.version, "digest": digest}


def _require_hidden(lake: Any, model: str, without: Sequence[str]) -> None:
    rows = lake.read(f"training_sets/{model}", columns=list(without))
    shown = int(rows.isna().all(axis=1).sum())
    if shown:
        raise StackError(
            f"{shown} of {len(rows)} rows of training_sets/{model} lack {', '.join(without)}: the gate would see "
            "what is wrong with the planted model."
        )


def _example(manifest: ModelManifest) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame([row.features for row in manifest.golden])


def spoiled(payload: bytes, positions: Sequence[int]) -> bytes:
    """The same LightGBM model in text with one more tree that gives NaN where all these columns are missing.

    StackError when the text is not LightGBM's.
    """
    text = payload.decode()
    head, found, rest = text.partition("\nend of trees")
    if not found or "tree_sizes=" not in head:
        raise StackError("the planted model needs a champion in LightGBM's text format.")
    count = head.count("\nTree=")
    tree = _tree(count, positions)
    lines = head.split("\n")
    at = next(n for n, line in enumerate(lines) if line.startswith("tree_sizes="))
    lines[at] = f"{lines[at]} {len(tree.encode())}"
    return ("\n".join(lines) + "\n" + tree + "end of trees" + rest).encode()


def _tree(number: int, positions: Sequence[int]) -> str:
    """A chain: each node sends a missing value on to the next, everything else to a leaf of value 0."""
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
            # No value is that small, so only what is missing goes left: bit 1 sends it there, and the missing
            # type in bits 2 and 3 is NaN.
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
