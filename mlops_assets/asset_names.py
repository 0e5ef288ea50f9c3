"""What assets are called: a kind and a name make one word, and the word tells both.

Belongs here: the kinds of asset, the word of an asset, the table of an asset in the lake. Does not belong
here: Dagster's keys (``asset_keys.py``), what an asset is (the components).

The Dagster UI draws the last part of a key. A key is therefore one part that says what its asset is:
``flights_model`` is the model of ``flights``, and a dataset has its name alone. Tables in the lake lie by
kind (``datasets/flights``), as folders are read.
"""

from typing import Literal, NamedTuple, get_args

Kind = Literal[
    "stream",
    "dataset",
    "quarantine",
    "features",
    "online_features",
    "training_set",
    "candidates",
    "model",
    "evaluation",
    "approval",
    "deployment",
    "prediction_log",
    "performance",
    "drift",
    "drift_signal",
    "retrain_request",
    "backtest",
    "document",
]

"""``document`` stands for one that does not tell what it would make."""

KINDS: tuple[Kind, ...] = get_args(Kind)

_ENDINGS = sorted((kind for kind in KINDS if kind != "dataset"), key=len, reverse=True)
"""Kinds that a word ends in, the longest first."""

_FOLDERS: dict[Kind, str] = {
    "stream": "streams",
    "dataset": "datasets",
    "training_set": "training_sets",
    "prediction_log": "prediction_logs",
}
"""Folder of a kind in the lake where it is not the kind itself."""


class AssetName(NamedTuple):
    """Kind and name of an asset: the model ``flights``."""

    kind: Kind
    name: str


def asset_name(kind: Kind, name: str) -> str:
    """The word of an asset: ``flights_model`` for the model of ``flights``."""
    return name if kind == "dataset" else f"{name}_{kind}"


def read_asset_name(text: str) -> AssetName:
    """Kind and name that make this word; the longest ending counts, and a word without one is a dataset."""
    for kind in _ENDINGS:
        name = text.removesuffix(f"_{kind}")
        if name and name != text:
            return AssetName(kind, name)
    return AssetName("dataset", text)


def misread(kind: Kind, name: str) -> str | None:
    """Why this name makes a word that tells another kind; None when it does not.

    ``flights_model`` as a dataset would be taken for the model of ``flights``.
    """
    word = asset_name(kind, name)
    read = read_asset_name(word)
    if read == (kind, name):
        return None
    return (
        f"the key {word} is that of the {read.kind} of {read.name!r}: choose a name that does not end in "
        f"_{read.kind.removesuffix(f'_{kind}')}"
    )


def table_name(kind: Kind, name: str) -> str:
    """The table in the lake that an asset writes: ``datasets/flights``."""
    return f"{_FOLDERS.get(kind, kind)}/{name}"


def asset_of_table(table: str) -> str:
    """The asset that writes a table: ``flights_training_set`` for ``training_sets/flights``."""
    folder, _, name = table.partition("/")
    for kind in KINDS:
        if _FOLDERS.get(kind, kind) == folder:
            return asset_name(kind, name)
    return table
