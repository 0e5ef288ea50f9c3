"""The reference document: what it refuses, what it holds, and that it is the same every time."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mlops_assets.errors import DataError
from mlops_assets.monitoring.day_measures import Level
from mlops_assets.monitoring.performance import performance_references
from mlops_assets.monitoring.reference import (
    CATEGORIES,
    DriftReference,
    HeldOut,
    TrainingRows,
    make_reference,
)
from serve.schema import FeatureSpec

SPECS = (
    FeatureSpec(name="amount", type="number"),
    FeatureSpec(name="visits", type="integer"),
    FeatureSpec(name="shop", type="category"),
    FeatureSpec(name="member", type="boolean"),
)


def rows(count: int = 400, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    amount = random.normal(20, 5, size=count)
    amount[::10] = np.nan
    return pd.DataFrame(
        {
            "amount": amount,
            "visits": pd.array(random.poisson(2, size=count), dtype="Int64"),
            "shop": random.choice(["north", "south"], size=count),
            "member": pd.array(random.random(count) < 0.3, dtype="boolean"),
        }
    )


def judged(count: int = 400, seed: int = 1) -> HeldOut:
    random = np.random.default_rng(seed)
    scores = random.beta(2, 5, size=count)
    return HeldOut(scores, (random.random(count) < scores).astype(float), np.arange(count) // 20)


def made(
    frame: pd.DataFrame | None = None, answers: HeldOut | None = None, **changes: object
) -> DriftReference:
    frame = rows() if frame is None else frame
    values: dict[str, object] = {
        "held_out": answers,
        "task": "binary",
        "classes": ("no", "yes"),
        "window_days": 7.0,
        **changes,
    }
    groups = values.pop("groups", np.arange(len(frame)) // 20)
    training = TrainingRows(frame, values.pop("specs", SPECS), groups)  # type: ignore[arg-type]
    return make_reference(training, **values)  # type: ignore[arg-type]


def test_no_rows_and_absent_columns_are_refused() -> None:
    with pytest.raises(DataError, match="the training set has no rows"):
        made(rows(0))
    with pytest.raises(DataError, match=r"lacks the features \['shop'\]"):
        made(rows().drop(columns="shop"))


def test_wrong_lengths_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="groups: 3 values for 400 rows"):
        made(groups=np.arange(3))
    with pytest.raises(DataError, match="held-out target: 2 values for 400 rows"):
        made(answers=HeldOut(judged().scores, np.zeros(2), None))


def test_judged_rows_without_label_or_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match="have no label"):
        made(answers=HeldOut(np.zeros(3), np.array([0.0, np.nan, 1.0]), None))
    with pytest.raises(DataError, match=r"shape \(rows, 3\)"):
        made(answers=HeldOut(np.zeros(3), np.zeros(3), None), task="multiclass", classes=("a", "b", "c"))
    with pytest.raises(DataError, match="label 4 is not the code of a class"):
        made(answers=HeldOut(np.zeros(3), np.full(3, 4.0), None))


def test_a_feature_cannot_have_the_name_of_an_answer() -> None:
    with pytest.raises(DataError, match=r"\['label'\]"):
        made(
            rows().rename(columns={"shop": "label"}),
            judged(),
            specs=[FeatureSpec(name="label", type="category")],
        )


def test_another_text_is_no_reference() -> None:
    with pytest.raises(DataError, match="not a drift reference"):
        DriftReference.loads('{"rows": 1}')
    with pytest.raises(DataError, match="not a drift reference"):
        DriftReference.loads("{")


def test_it_survives_json_and_is_the_same_every_time() -> None:
    first, second = (made(answers=judged(), seed=5) for _ in range(2))
    assert first.dumps() == second.dumps()
    assert DriftReference.loads(first.dumps()) == first
    json.loads(first.dumps(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    answers = judged()
    assert first.performance == performance_references(
        "binary", answers.target, answers.scores, answers.groups
    )
    assert made().performance == ()


def test_the_level_of_its_days_is_counted_from_the_baseline() -> None:
    answers = replace(judged(), baseline=(0.1,))
    found = {one.metric: one.value for one in made(answers=answers).performance}
    level = Level(0.1).value(answers.target, answers.scores)
    assert found["level"] == pytest.approx(abs(level or 0.0))
    assert found["level"] != pytest.approx(abs(Level(0.5).value(answers.target, answers.scores) or 0.0))


def test_a_new_feature_leaves_the_thresholds_of_others_as_they_are() -> None:
    frame = rows()
    more = made(frame.assign(extra=1.0), specs=[FeatureSpec(name="extra", type="number"), *SPECS])
    assert more.columns[1:] == made(frame).columns


def test_every_column_has_its_role_kind_and_statistics() -> None:
    found = made(answers=judged())
    assert found.kinds() == {
        "amount": "number",
        "visits": "number",
        "shop": "category",
        "member": "category",
        "prediction": "number",
        "label": "category",
    }
    assert [one.role for one in found.columns] == ["feature"] * 4 + ["prediction", "label"]
    amount, shop = found.column("amount"), found.column("shop")
    assert amount is not None and shop is not None
    assert [null.statistic for null in amount.nulls] == ["kl", "ks", "psi"]
    assert [null.statistic for null in shop.nulls] == ["kl", "psi"]
    assert amount.missing_share == pytest.approx(0.1)
    assert sum(amount.counts) == 400
    assert len(amount.sample) == 360
    assert shop.sample == ()


def test_multiclass_predictions_are_a_category_and_a_probability() -> None:
    random = np.random.default_rng(3)
    scores = random.dirichlet([1, 2, 3], size=300)
    found = made(
        answers=HeldOut(scores, random.integers(0, 2, size=300).astype(float), None),
        task="multiclass",
        classes=("a", "b", "c"),
    )
    assert found.kinds()["prediction"] == "category"
    assert found.kinds()["prediction_probability"] == "number"
    label = found.column("label")
    assert label is not None
    # A class that never came true has a bin as well.
    assert label.categories == ("a", "b", "c")
    assert label.counts[2] == 0


def test_a_regression_has_numbers_for_answers_and_labels() -> None:
    values = np.random.default_rng(4).normal(size=300)
    found = made(answers=HeldOut(values, values + 1, None), task="regression", classes=None)
    assert {name: kind for name, kind in found.kinds().items() if name in ("prediction", "label")} == {
        "prediction": "number",
        "label": "number",
    }


def test_rare_categories_share_a_bin() -> None:
    names = [f"c{number:03}" for number in range(80)]
    frame = rows(800).assign(shop=np.repeat(names, 10))
    shop = made(frame).column("shop")
    assert shop is not None
    assert shop.categories == tuple(names[:CATEGORIES])
    assert shop.other_share == pytest.approx(30 / 80)


def test_infinite_missing_and_constant_columns_make_a_reference() -> None:
    frame = rows()
    frame["amount"] = np.where(np.arange(400) % 2, np.inf, -np.inf)
    frame["visits"] = pd.array([pd.NA] * 400, dtype="Int64")
    frame["shop"] = None
    frame["member"] = True
    found = made(frame)
    assert DriftReference.loads(found.dumps()) == found
    assert [one.missing_share for one in found.columns] == [0.0, 1.0, 1.0, 0.0]


def test_what_it_was_made_of_is_said() -> None:
    assert "400 rows of the training set, of 20 days that vary as wholes" in made().made_of
    assert "taken as independent" in made(groups=None).made_of
    assert "of 4 days, too few to tell" in made(groups=np.arange(400) // 100).made_of
