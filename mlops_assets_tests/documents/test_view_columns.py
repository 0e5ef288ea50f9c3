"""What a view says of columns is held against its datasets: from declarations alone, in their order."""

from dataclasses import dataclass

import pytest

from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.documents.view_columns import key_problem, view_problem


@dataclass(frozen=True)
class Dataset:
    """A dataset's declaration whose fields all stand in one place."""

    declaration: DatasetDeclaration

    def where(self, *path: str | int) -> str:
        return f"defs.yaml/{self.declaration.name}/{'/'.join(map(str, path))}"


def dataset(name: str, columns: dict[str, str], *, daily: bool = True) -> Dataset:
    declared = {
        "name": name,
        "source": {"format": "csv", "path": "raw.csv"},
        "partitions": {"start": "2024-01-01", "column": "day"} if daily else None,
        "columns": {"day": "string", **columns},
    }
    return Dataset(DatasetDeclaration.model_validate(declared))


DATASETS = {
    one.declaration.name: one
    for one in (
        dataset("trips", {"id": "integer", "plane": "string", "at": "timestamp", "delay": "number"}),
        dataset("weather", {"plane": "string", "known_at": "timestamp", "temp": "number"}),
        dataset("planes", {"plane": "string", "seats": "integer", "at": "timestamp"}, daily=False),
    )
}
WEATHER = {
    "dataset": "weather",
    "keys": ["plane"],
    "timestamp": "known_at",
    "tolerance": "3h",
    "columns": ["temp"],
}
ROLLING = {"name": "late", "value": "delay", "known_at": "at", "window": "24h", "aggregate": "mean"}


def view(**changes: object) -> FeatureViewDeclaration:
    declared = {
        "name": "trips",
        "entity": {"name": "trip", "join_keys": ["id"]},
        "event_timestamp": "at",
        "base": "trips",
        "joins": [WEATHER, {"dataset": "planes", "keys": ["plane"], "columns": ["seats"]}],
        "lookback_days": 2,
        "rolling": [ROLLING],
        "features": [{"name": "temp", "type": "number"}, {"name": "late", "type": "number"}],
    }
    return FeatureViewDeclaration.model_validate(declared | changes)


def test_a_view_of_what_there_is_has_no_problem() -> None:
    assert view_problem(view(), DATASETS) is None


PLANES = {"dataset": "planes", "keys": ["plane"], "columns": ["seats"]}
WRONG = {
    "base": ({"base": "tips"}, ("base",), "Unknown dataset 'tips'. Allowed: planes"),
    "key": (
        {"entity": {"name": "trip", "join_keys": ["trip"]}},
        ("entity", "join_keys", 0),
        "Unknown column of dataset 'trips' 'trip'",
    ),
    "time": ({"event_timestamp": "day"}, ("event_timestamp",), "is a string; here it must be: timestamp"),
    "joined dataset": ({"joins": [WEATHER | {"dataset": "wether"}]}, ("joins", 0, "dataset"), "'wether'"),
    "joined column": (
        {"joins": [WEATHER, PLANES | {"columns": ["wings"]}]},
        ("joins", 1, "columns"),
        "Unknown column of dataset 'planes' 'wings'",
    ),
    "no time": (
        {"joins": [{"dataset": "weather", "keys": ["plane"], "columns": ["temp"]}]},
        ("joins", 0),
        "declare timestamp and tolerance for the join",
    ),
    "taken": (
        {"joins": [PLANES | {"columns": ["at"]}]},
        ("joins", 0),
        "column 'at' is there already",
    ),
    "tolerance": (
        {"joins": [WEATHER | {"tolerance": "5d"}]},
        ("joins", 0, "tolerance"),
        "tolerance 5 days, 0:00:00 needs lookback_days of 6 at least",
    ),
    "window": ({"rolling": [ROLLING | {"window": "47.5h"}]}, ("rolling", 0, "window"), "lookback_days of 3"),
    "value": (
        {"rolling": [ROLLING | {"value": "plane"}]},
        ("rolling", 0, "value"),
        "must be: boolean, integer, number",
    ),
    "feature": (
        {"features": [{"name": "temp", "type": "number"}, {"name": "wind", "type": "number"}]},
        ("features", 1),
        "Unknown feature 'wind'",
    ),
    "kept": (
        {"features": [{"name": "id", "type": "number"}]},
        ("features", 0),
        "kept beside the features as integer",
    ),
    "type": (
        {"features": [{"name": "temp", "type": "category"}]},
        ("features", 0),
        "its column as number; a category can be made of",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_the_first_thing_that_is_wrong_is_said_with_its_place(kind: str) -> None:
    changes, path, said = WRONG[kind]
    found = view_problem(view(**changes), DATASETS)
    assert found is not None
    assert found.path == path
    assert said in found.said


def test_a_window_as_long_as_the_look_back_but_for_a_clock_change_fits() -> None:
    assert view_problem(view(rolling=[ROLLING | {"window": "47h"}]), DATASETS) is None


def test_with_a_transform_any_name_and_type_may_be_made() -> None:
    features = [{"name": "wind", "type": "number"}, {"name": "temp", "type": "category"}]
    assert view_problem(view(transform="somewhere.made", features=features), DATASETS) is None


@pytest.mark.parametrize("name", ["label", "Split"])
def test_names_of_the_training_set_are_taken(name: str) -> None:
    features = [{"name": name, "type": "number"}]
    found = view_problem(view(transform="somewhere.made", features=features), DATASETS)
    assert found is not None and found.path == ("features",)
    assert f"column name {name!r} is taken: it is a column of the training set" in found.said


def test_a_key_of_two_types_is_told_with_both_places() -> None:
    other = dataset("planes", {"plane": "integer", "seats": "integer"}, daily=False)
    assert key_problem("plane", DATASETS["trips"], DATASETS["planes"]) == ""
    assert key_problem("plane", DATASETS["trips"], other) == (
        "key 'plane' is declared as string in dataset 'trips' (defs.yaml/trips/columns/plane) and as integer "
        "in dataset 'planes' (defs.yaml/planes/columns/plane): no row of one would match a row of the other. "
        "Declare it alike in both."
    )
    found = view_problem(view(), {**DATASETS, "planes": other})
    assert found is not None and found.path == ("joins", 1, "keys")


def keyed() -> dict[str, Dataset]:
    """The datasets with keys that tell their rows apart."""
    of = {"trips": ("id",), "weather": ("plane", "known_at"), "planes": ("plane",)}
    return {
        name: Dataset(one.declaration.model_copy(update={"primary_key": of[name]}))
        for name, one in DATASETS.items()
    }


@pytest.mark.parametrize(
    ("changes", "path", "said"),
    [
        ({"request": ["at"]}, ("online", "request"), "column 'plane' is a key of the join with dataset 'p"),
        ({"request": ["plane"]}, ("online", "request"), "column 'at' is the event_timestamp, so it has to"),
        ({"request": ["at", "wing"]}, ("online", "request", 1), "Unknown column of dataset 'trips' 'wing'"),
        ({"request": ["id", "at"]}, ("online", "request", 0), "column 'id' is a join key: it comes as one"),
    ],
)
def test_what_is_looked_up_by_comes_with_the_request(
    changes: dict[str, object], path: tuple[str | int, ...], said: str
) -> None:
    problem = view_problem(view(online=changes), keyed())
    assert problem is not None and problem.path == path and problem.said.startswith(said)


def test_a_view_that_can_be_looked_up_has_no_problem() -> None:
    assert view_problem(view(online={"request": ["at", "plane"]}), keyed()) is None


def test_a_feature_that_is_a_column_of_the_base_comes_with_the_request() -> None:
    features = [{"name": "delay", "type": "number"}]
    problem = view_problem(view(online={"request": ["at", "plane"]}, features=features), keyed())
    assert problem is not None and problem.said.startswith("column 'delay' is a feature")


def test_rows_that_cannot_be_told_apart_cannot_be_looked_up() -> None:
    problem = view_problem(view(online={"request": ["at", "plane"]}), DATASETS)
    assert problem is not None and problem.path == ("online",)
    assert problem.said.startswith("dataset 'trips' declares no primary_key (defs.yaml/trips/name)")


def test_a_transform_has_one_for_one_row_and_only_then() -> None:
    for changes in ({"transform": "a.b"}, {"online": {"request": ["at"], "transform": "a.b"}}):
        with pytest.raises(ValueError, match=r"online\.transform and transform go together"):
            view(**{"online": {"request": ["at"]}, **changes})
