"""A word is made of kind and name, and tells both again; what would tell something else is refused."""

import pytest

from mlops_assets.asset_names import (
    KINDS,
    AssetName,
    Kind,
    asset_name,
    asset_of_table,
    misread,
    read_asset_name,
    table_name,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["flights", "drift", "a_b", "model_drift_signals", "x1"])
def test_every_word_tells_its_kind_and_name(kind: Kind, name: str) -> None:
    assert misread(kind, name) is None
    assert read_asset_name(asset_name(kind, name)) == AssetName(kind, name)
    assert asset_of_table(table_name(kind, name)) == asset_name(kind, name)


def test_the_words_of_the_first_use_case() -> None:
    assert asset_name("dataset", "flights") == "flights"
    assert asset_name("training_set", "flights") == "flights_training_set"
    assert table_name("dataset", "flights") == "datasets/flights"
    assert table_name("features", "flights") == "features/flights"


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        ("dataset", "flights_model", "flights_model is that of the model of 'flights'"),
        ("dataset", "flights_drift_signal", "does not end in _drift_signal"),
        ("dataset", "flights_features", "that of the features of 'flights'"),
    ],
)
def test_a_name_whose_word_tells_another_kind_is_refused(kind: Kind, name: str, told: str) -> None:
    found = misread(kind, name)
    assert found is not None and told in found


def test_no_ending_hides_in_another() -> None:
    """Else the name of a model could end in what makes it another kind's."""
    endings = [kind for kind in KINDS if kind != "dataset"]
    hidden = [(a, b) for a in endings for b in endings if a != b and a.endswith(f"_{b}")]
    # A view whose name ends in _online is refused at load.
    assert hidden == [("online_features", "features")]
    assert misread("features", "flights_online") is not None
