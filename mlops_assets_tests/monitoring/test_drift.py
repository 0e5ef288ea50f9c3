"""One window against a reference: every odd input has its answer, and drift is found where it is."""

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_assets.errors import DataError
from mlops_assets.monitoring.drift import Answers, DriftTest, assess_window, measured_frame
from mlops_assets.monitoring.findings import ColumnDrift, WindowDrift
from mlops_assets.monitoring.policy import DriftPolicy, drift_verdict
from mlops_assets.monitoring.reference import DriftReference, HeldOut, TrainingRows, make_reference
from mlops_assets.monitoring.windows import Window
from mlops_assets_tests.monitoring.odd_columns import ODD
from serve.schema import FeatureSpec

Array = np.ndarray
SPECS = (
    FeatureSpec(name="amount", type="number"),
    FeatureSpec(name="fixed", type="number"),
    FeatureSpec(name="shop", type="category"),
    FeatureSpec(name="member", type="boolean"),
)


def rows(count: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "amount": random.normal(20 + 5 * shift, 5, size=count),
            "fixed": 1.0,
            "shop": random.choice(["north", "south", "west"], p=[0.5, 0.3, 0.2], size=count),
            "member": random.random(count) < 0.3,
        }
    )


def answers(count: int, seed: int, shift: float = 0.0) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    scores = 1 / (1 + np.exp(-random.normal(-1 + shift, 1, size=count)))
    return scores, (random.random(count) < scores).astype(float)


def reference_of(seed: int) -> DriftReference:
    scores, target = answers(2_000, seed + 1)
    return make_reference(
        TrainingRows(rows(5_000, seed), SPECS),
        held_out=HeldOut(scores, target, None),
        task="binary",
        classes=("no", "yes"),
        window_days=7,
    )


@pytest.fixture(scope="module")
def reference() -> DriftReference:
    return reference_of(1)


def assessed(
    reference: DriftReference,
    features: pd.DataFrame,
    scores: Array | None = None,
    target: Array | None = None,
    level: float = 0.01,
    min_rows: int = 100,
) -> WindowDrift:
    week = Window(datetime(2013, 7, 1, tzinfo=UTC), datetime(2013, 7, 8, tzinfo=UTC))
    given = Answers(features, scores, target)
    return assess_window(reference, week, given, version="v7", test=DriftTest.at_level(level, min_rows))


def of(found: WindowDrift, name: str) -> ColumnDrift:
    return next(one for one in found.columns if one.column == name)


def test_an_empty_window_is_not_judged(reference: DriftReference) -> None:
    found = assessed(reference, rows(0, 3), np.empty(0), np.empty(0))
    assert (found.judged, found.reason, found.columns) == (False, "no answers", ())
    assert found.drifted("feature") is None
    assert not assessed(reference, rows(0, 3), min_rows=0).judged


def test_too_few_rows_are_not_judged_and_said(reference: DriftReference) -> None:
    found = assessed(reference, rows(99, 3))
    assert not found.judged
    assert found.reason == "99 answers, fewer than the 100 that a judgement needs"


def test_one_row_has_an_answer_when_one_is_asked_for(reference: DriftReference) -> None:
    found = assessed(reference, rows(1, 3), *answers(1, 3), min_rows=1)
    assert found.judged
    assert found.drifted("feature") is False
    assert found.drifted("prediction") is False


def test_values_that_do_not_fit_the_rows_are_refused(reference: DriftReference) -> None:
    with pytest.raises(DataError, match="scores: 3 values for 200 answers"):
        assessed(reference, rows(200, 3), np.zeros(3))
    with pytest.raises(DataError, match="target: 3 values for 200 answers"):
        assessed(reference, rows(200, 3), None, np.zeros(3))
    with pytest.raises(DataError, match=r"not \(200, 2\)"):
        assessed(reference, rows(200, 3), np.zeros((200, 2)))
    with pytest.raises(DataError, match="between 0 and 1"):
        assessed(reference, rows(200, 3), level=1.0)


def test_a_window_like_the_reference_does_not_drift(reference: DriftReference) -> None:
    found = assessed(reference, rows(1_000, 4), *answers(1_000, 4))
    assert [found.drifted(role) for role in ("feature", "prediction", "label")] == [False] * 3
    assert found.reason == "1,000 answers: none of 6 columns drifted"


def test_a_shift_is_found_in_its_column_and_named(reference: DriftReference) -> None:
    found = assessed(reference, rows(1_000, 4, shift=0.5), *answers(1_000, 4))
    assert [one.column for one in found.columns if one.drifted] == ["amount"]
    assert "1 of 6 columns drifted: amount (" in found.reason
    assert found.worst(1)[0].column == "amount"


def test_predictions_and_labels_drift_apart_from_features(reference: DriftReference) -> None:
    found = assessed(reference, rows(1_000, 4), *answers(1_000, 4, shift=1.0))
    assert found.drifted("feature") is False
    assert found.drifted("prediction") is True
    assert found.drifted("label") is True


def test_without_scores_and_labels_only_features_are_measured(reference: DriftReference) -> None:
    found = assessed(reference, rows(1_000, 4))
    assert {one.role for one in found.columns} == {"feature"}
    assert found.drifted("prediction") is None


def test_labels_that_did_not_come_back_do_not_count(reference: DriftReference) -> None:
    scores, target = answers(1_000, 4)
    late = np.where(np.arange(1_000) < 50, target, np.nan)
    few = of(assessed(reference, rows(1_000, 4), scores, late), "label")
    assert few.drifted is None
    assert "50 answers have a label" in few.note
    half = np.where(np.arange(1_000) < 500, target, np.nan)
    enough = of(assessed(reference, rows(1_000, 4), scores, half), "label")
    assert (enough.drifted, enough.missing_share) == (False, 0.0)


def test_all_values_missing_is_drift_with_a_note(reference: DriftReference) -> None:
    found = assessed(reference, rows(500, 4).assign(amount=np.nan, shop=None))
    for name in ("amount", "shop"):
        column = of(found, name)
        assert (column.drifted, column.missing_share) == (True, 1.0)
        assert column.note == "all values are missing"
    distance = of(found, "amount").score("ks")
    assert distance is not None and distance.value is None


def test_a_share_of_missing_values_is_drift_although_the_rest_is_as_before(reference: DriftReference) -> None:
    frame = rows(1_000, 4)
    frame.loc[::2, "amount"] = np.nan
    column = of(assessed(reference, frame), "amount")
    distance = column.score("ks")
    assert distance is not None and distance.exceeded is False
    assert column.drifted is True
    assert column.note == "50% of the values are missing, 0% in the reference"


def test_a_column_that_became_constant_is_said(reference: DriftReference) -> None:
    column = of(assessed(reference, rows(500, 4).assign(amount=20.0)), "amount")
    assert column.drifted is True
    assert column.note == "every value is 20"


def test_a_constant_reference_drifts_with_values_that_matter_and_not_with_the_first_other_one(
    reference: DriftReference,
) -> None:
    same = of(assessed(reference, rows(500, 4)), "fixed")
    assert (same.drifted, same.severity) == (False, 0.0)
    frame = rows(500, 4)
    frame.loc[0, "fixed"] = 0.5
    assert of(assessed(reference, frame), "fixed").drifted is False
    frame.loc[:49, "fixed"] = 0.5
    assert of(assessed(reference, frame), "fixed").drifted is True


def test_one_outlier_changes_next_to_nothing(reference: DriftReference) -> None:
    frame, shifted = rows(1_000, 4), rows(1_000, 4, shift=0.5)
    for one, drifted in ((frame, False), (shifted, True)):
        one.loc[0, "amount"] = 1e6
        assert of(assessed(reference, one), "amount").drifted is drifted


def test_infinite_values_are_counted_and_said(reference: DriftReference) -> None:
    frame = rows(1_000, 4)
    frame.loc[:1, "amount"] = [np.inf, -np.inf]
    column = of(assessed(reference, frame), "amount")
    assert column.drifted is False
    assert column.note == "2 infinite values count as larger than all others"


def test_new_categories_are_named(reference: DriftReference) -> None:
    frame = rows(1_000, 4)
    frame.loc[:99, "shop"] = ["east", "online"] * 50
    column = of(assessed(reference, frame), "shop")
    assert column.drifted is True
    assert column.note == "10.0% of the values never occur in the reference: east, online"


def test_an_absent_column_is_not_judged_and_the_others_are(reference: DriftReference) -> None:
    found = assessed(reference, rows(500, 4).drop(columns="amount"))
    column = of(found, "amount")
    assert (column.drifted, column.missing_share) == (None, 1.0)
    assert column.note == "the window holds no such column"
    assert found.drifted("feature") is False


def test_text_where_numbers_are_expected_is_missing(reference: DriftReference) -> None:
    column = of(assessed(reference, rows(500, 4).assign(amount="many")), "amount")
    assert column.missing_share == 1.0


@pytest.mark.parametrize(
    "values", [pd.Series([True, False, None], dtype="boolean"), [1, 0, None], ["true", "False", None]]
)
def test_booleans_are_the_same_however_they_were_stored(reference: DriftReference, values: object) -> None:
    frame = pd.DataFrame({"member": pd.Series(values)})
    assert measured_frame(reference, frame)["member"].tolist() == ["true", "false", None]


def test_the_measured_frame_holds_all_rows_and_leaves_the_input_alone(reference: DriftReference) -> None:
    features, (scores, target) = rows(50, 4), answers(50, 4)
    target[0], scores[1] = np.nan, np.nan
    before = features.copy()
    frame = measured_frame(reference, features, scores, target)
    assert list(frame.columns) == list(reference.kinds())
    assert len(frame) == 50
    assert frame["label"].isna().tolist() == [True] + [False] * 49
    assert set(frame["label"].dropna()) == {"no", "yes"}
    assert np.isnan(frame["prediction"][1])
    assessed(reference, features, scores, target, min_rows=10)
    pd.testing.assert_frame_equal(features, before)


def test_multiclass_windows_are_assessed() -> None:
    random = np.random.default_rng(5)
    scores, target = random.dirichlet([3, 2, 1], size=2_000), random.integers(0, 3, size=2_000).astype(float)
    made = make_reference(
        TrainingRows(rows(500, 1), SPECS),
        held_out=HeldOut(scores, target, None),
        task="multiclass",
        classes=("a", "b", "c"),
        window_days=7,
    )
    same = assessed(made, rows(500, 4), random.dirichlet([3, 2, 1], size=500))
    other = assessed(made, rows(500, 4), random.dirichlet([1, 2, 3], size=500))
    assert (same.drifted("prediction"), other.drifted("prediction")) == (False, True)
    broken = assessed(made, rows(500, 4), np.full((500, 3), np.nan))
    assert of(broken, "prediction").note == "all values are missing"


def test_clean_windows_drift_as_rarely_as_the_level_says() -> None:
    """400 windows at a level of 5 % a role, against ten references: one alone is off in its own way."""
    drifted = {"feature": 0, "prediction": 0, "label": 0}
    for number in range(400):
        if number % 40 == 0:
            reference = reference_of(10_000 + number)
        found = assessed(
            reference, rows(300, 1_000 + number), *answers(300, 1_000 + number), level=0.05, min_rows=50
        )
        for role in drifted:
            drifted[role] += bool(found.drifted(role))  # type: ignore[arg-type]
    assert max(drifted.values()) <= 400 * 0.08, drifted


# -- columns that hold next to nothing -----------------------------------------------------------------


def alone(kind: Any, series: pd.Series) -> DriftReference:
    """The reference of one column."""
    return make_reference(
        TrainingRows(pd.DataFrame({"x": series}), [FeatureSpec(name="x", type=kind)]),
        held_out=None,
        task="binary",
        classes=("no", "yes"),
        window_days=7,
    )


@pytest.mark.parametrize("rows_before", [1, 200])
@pytest.mark.parametrize("kind", ODD)
def test_every_odd_window_has_a_defined_finding_against_every_odd_reference(
    kind: str, rows_before: int
) -> None:
    for before in ODD[kind].values():
        odd = DriftReference.loads(alone(kind, before(rows_before)).dumps())
        for now in ODD[kind].values():
            for rows_now in (1, 200):
                found = assessed(odd, pd.DataFrame({"x": now(rows_now)}), min_rows=1)
                # JSON has no NaN and no infinity.
                text = json.dumps(found.to_dict(), allow_nan=False)
                assert WindowDrift.from_dict(json.loads(text)) == found
                (column,) = found.columns
                assert column.drifted is not None and column.score("psi").value is not None
                assert drift_verdict(DriftPolicy(), [found], []).reason


def test_a_number_without_any_value_in_training_has_a_finding_with_and_without_values() -> None:
    never = alone("number", pd.Series([np.nan] * 200))
    without = assessed(never, pd.DataFrame({"x": [np.nan] * 300}))
    with_some = assessed(never, pd.DataFrame({"x": [*range(30), *[np.nan] * 270]}))

    assert (of(without, "x").drifted, of(with_some, "x").drifted) == (False, True)
    assert of(without, "x").note == "all values are missing, as in the reference"
    assert of(with_some, "x").note == "the reference has no values at all"
    for found in (without, with_some):
        score = of(found, "x").score("ks")
        assert score is not None and (score.value, score.threshold) == (None, None)
    assert of(with_some, "x").missing_share == 0.9


def learned(train: pd.DataFrame, held_out: pd.DataFrame) -> DriftReference:
    """The reference of a model that was fitted to ``train`` alone."""
    both = pd.concat([train, held_out], ignore_index=True)
    fitted = np.arange(len(both)) < len(train)
    return make_reference(
        TrainingRows(both, SPECS, None, fitted),
        held_out=None,
        task="binary",
        classes=("no", "yes"),
        window_days=7,
    )


def test_values_that_the_model_was_not_fitted_to_are_counted() -> None:
    train = rows(2_000, 1).assign(amount=np.nan)
    reference = learned(train, rows(500, 2).assign(fixed=2.0))
    frame = rows(1_000, 3)
    frame.loc[:299, "fixed"] = 2.0
    frame.loc[:99, "amount"] = np.nan
    frame.loc[:199, "shop"] = "east"

    found = assessed(reference, frame)

    assert {name: of(found, name).unlearned for name in ("amount", "fixed", "shop", "member")} == {
        "amount": 0.9,
        "fixed": 0.3,
        "shop": 0.2,
        "member": 0.0,
    }
    assert (
        "30.0% of the values are other than 1, the only one that the model was trained on"
        in of(found, "fixed").note
    )
    assert (
        "90.0% of the values are of a column that the model was trained without" in of(found, "amount").note
    )
    assert "20.0% of the values are of categories that the model was not trained on" in of(found, "shop").note


def test_as_many_new_categories_as_are_usual_are_no_news() -> None:
    held_out = rows(1_000, 2)
    held_out.loc[:99, "shop"] = [f"new {number}" for number in range(100)]
    reference = learned(rows(2_000, 1), held_out)
    for count, excess in ((100, 0.0), (250, 0.15)):
        frame = rows(1_000, 3)
        frame.loc[: count - 1, "shop"] = [f"newer {number}" for number in range(count)]
        assert of(assessed(reference, frame), "shop").unlearned == pytest.approx(excess)


def test_nothing_is_said_of_what_was_learned_where_nobody_noted_it(reference: DriftReference) -> None:
    frame = rows(1_000, 3).assign(fixed=2.0)
    assert all(one.unlearned is None for one in assessed(reference, frame).of("feature"))
