"""Labels of a model's document: one per row, whatever the function does."""

import pandas as pd
import pytest

from mlops_assets.errors import DataError
from mlops_assets.training.label import Label

OUTCOMES = pd.DataFrame({"id": [1, 2, 3, 4], "delay": [20.0, None, 5.0, 30.0]})


def late(outcomes: pd.DataFrame) -> pd.Series:
    return (outcomes["delay"] > 15).astype("boolean").where(outcomes["delay"].notna())


def renumbered(outcomes: pd.DataFrame) -> pd.Series:
    """By its index the label of row 4 would be that of row 3."""
    return late(outcomes.dropna().reset_index(drop=True))


def filtered(outcomes: pd.DataFrame) -> pd.Series:
    return late(outcomes.dropna())


def broken(outcomes: pd.DataFrame) -> pd.Series:
    return outcomes["no such column"]


def not_a_series(outcomes: pd.DataFrame) -> list[bool]:
    return [True] * len(outcomes)


def overwrites(outcomes: pd.DataFrame) -> pd.Series:
    outcomes["id"] = 0
    return late(outcomes)


def labels_by(function) -> pd.Series:
    return Label(f"{function.__module__}.{function.__name__}", function).of(OUTCOMES)


def test_a_column_is_the_label_as_it_stands():
    assert Label("delay").of(OUTCOMES).equals(OUTCOMES["delay"])


def test_a_function_gives_one_label_per_row():
    assert labels_by(late).tolist() == [True, pd.NA, False, True]
    assert labels_by(overwrites).tolist() == [True, pd.NA, False, True]
    assert OUTCOMES["id"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (renumbered, "renumbered returned 3 labels for 4 rows; it must keep rows, order and index"),
        (filtered, "filtered returned 3 labels for 4 rows"),
        (broken, "broken failed with KeyError: 'no such column'"),
        (not_a_series, "not_a_series returned a list, not a Series"),
    ],
)
def test_labels_that_would_meet_another_row_are_refused(function, problem):
    with pytest.raises(DataError, match=problem):
        labels_by(function)
