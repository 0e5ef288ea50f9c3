"""A window counted in parts has exactly the scores of one that is looked at as a whole."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from mlops_assets.monitoring.counting import NumberCounts
from mlops_assets.monitoring.detectors.ks import ks, ks_of_counts
from mlops_assets.monitoring.drift import Answers, DriftTest, WindowCounts, assess_window
from mlops_assets.monitoring.findings import WindowDrift
from mlops_assets.monitoring.reference import (
    DriftReference,
    HeldOut,
    TrainingRows,
    feature_values,
    make_reference,
)
from mlops_assets.monitoring.scores import counts_between, distinct, finite_sorted
from mlops_assets.monitoring.windows import Window
from mlops_assets_tests.monitoring.odd_columns import ODD
from serve.schema import FeatureSpec

ROWS = 203
WEEK = Window(datetime(2013, 4, 1, tzinfo=UTC), datetime(2013, 4, 8, tzinfo=UTC))
TEST = DriftTest.at_level(0.01, min_rows=50)


def window(seed: int, rows: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Every odd column at once, scores of three classes, and labels that are missing here and there."""
    random = np.random.default_rng(seed)
    columns = {
        f"{kind} {name}": made(rows).sample(frac=1.0, random_state=seed).reset_index(drop=True)
        for kind, odd in ODD.items()
        for name, made in odd.items()
    }
    scores = random.dirichlet([1.0, 1.0, 1.0], size=rows)
    target = random.integers(0, 3, size=rows).astype(float)
    return pd.DataFrame(columns), scores, target


@pytest.fixture(scope="module")
def reference() -> DriftReference:
    features, scores, target = window(1, 400)
    specs = [FeatureSpec(name=name, type=name.split()[0]) for name in features.columns]
    return make_reference(
        TrainingRows(features, specs),
        held_out=HeldOut(scores, target, None),
        task="multiclass",
        classes=("a", "b", "c"),
        window_days=7,
    )


@pytest.mark.parametrize("size", [1, 7, 64, ROWS])
def test_parts_of_any_size_are_judged_as_the_whole(reference: DriftReference, size: int) -> None:
    features, scores, target = window(2, ROWS)
    features, target[::3] = features.drop(columns=["number zero"]), np.nan
    features["number varied"] += 3.0
    features["category one"] = [f"new{number % 9}" for number in range(ROWS)]
    scores[5] = np.nan
    whole: WindowDrift = assess_window(
        reference, WEEK, Answers(features, scores, target), version="v7", test=TEST
    )
    assert {one.drifted for one in whole.columns} == {True, False, None}
    counts = WindowCounts(reference)
    for start in range(0, ROWS, size):
        counts.add_features(features.iloc[start : start + size])
    for start in range(0, ROWS, 50):
        counts.add_answers(scores[start : start + 50], target[start : start + 50])
    assert counts.assessed(WEEK, version="v7", test=TEST) == whole


@pytest.mark.parametrize("name", ODD["number"])
def test_counts_are_those_of_the_sorted_values(reference: DriftReference, name: str) -> None:
    column = reference.column(f"number {name}")
    assert column is not None
    series = pd.concat([ODD["number"][name](ROWS), ODD["number"]["varied"](ROWS)], ignore_index=True)
    counts = NumberCounts(column)
    for start in range(0, len(series), 11):
        part = series.iloc[start : start + 11]
        counts.add(feature_values(column.column, "number", part, boolean=False))
    values = feature_values(column.column, "number", series, boolean=False).numbers
    assert values is not None
    ordered, missing = finite_sorted(values)
    cuts, sample = np.asarray(column.cuts), np.asarray(column.sample)
    assert (counts.missing, counts.there) == (missing, len(ordered))
    np.testing.assert_array_equal(counts.between(cuts), counts_between(ordered, cuts))
    around = counts.around(distinct(sample))
    assert ks_of_counts(sample, *around, counts.there) == ks(sample, ordered)


def test_a_window_without_rows_is_no_window(reference: DriftReference) -> None:
    counts = WindowCounts(reference)
    counts.add_features(window(1, 10)[0].head(0))
    counts.add_answers(np.empty(0), np.empty(0))
    assert counts.assessed(WEEK, version="v7", test=TEST).reason == "no answers"
