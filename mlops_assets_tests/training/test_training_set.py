import numpy as np
import pandas as pd
import pytest

from mlops_assets.errors import DataError
from mlops_assets.training.training_set import (
    EVALUATE,
    SPLIT,
    TRAIN,
    SplitRule,
    assemble,
    encode_target,
    evaluation_days,
    not_trained_on,
)


def rows(days: int = 20, per_day: int = 3) -> tuple[pd.DataFrame, pd.DataFrame]:
    count = days * per_day
    times = pd.date_range("2024-01-01", periods=count, freq=pd.Timedelta(days=1) / per_day, tz="UTC")
    features = pd.DataFrame({"id": range(count), "at": times, "x": np.arange(count, dtype=float)})
    labels = pd.DataFrame({"id": range(count), "label": (np.arange(count) % 2).astype(float)})
    return features, labels


def build(features: pd.DataFrame, labels: pd.DataFrame, **changes: object) -> object:
    """A split by time, unless ``changes`` say otherwise; they are fields of its rule, or arguments."""
    rule: dict[str, object] = {"event_timestamp": "at", "evaluation_window_days": 5}
    given: dict[str, object] = {"join_keys": ["id"], "task": "binary"}
    for name, value in changes.items():
        (rule if name in SplitRule.__dataclass_fields__ else given)[name] = value
    return assemble(features, labels, split=SplitRule(**rule), **given)  # type: ignore[arg-type]


def test_the_newest_days_are_evaluated_and_never_trained_on() -> None:
    made = build(*rows())
    assert (
        made.part(TRAIN)["at"].max() < made.part(EVALUATE)["at"].min() == pd.Timestamp("2024-01-16", tz="UTC")
    )
    assert len(made.part(EVALUATE)) == 15


def test_the_window_counts_back_from_the_newest_label_not_the_newest_row() -> None:
    features, labels = rows()
    made = build(features, labels[labels["id"] < 45])
    assert made.part(EVALUATE)["at"].min() == pd.Timestamp("2024-01-11", tz="UTC")
    assert made.unlabelled == 15


def test_rows_before_the_training_window_are_left_out_and_counted() -> None:
    made = build(*rows(), training_window_days=4)
    assert made.part(TRAIN)["at"].min() == pd.Timestamp("2024-01-12", tz="UTC")
    assert made.too_old == 33


def test_the_order_of_the_input_does_not_matter() -> None:
    features, labels = rows()
    shuffled = build(features.sample(frac=1, random_state=1), labels.sample(frac=1, random_state=2))
    pd.testing.assert_frame_equal(shuffled.frame, build(features, labels).frame)


def test_without_time_the_same_rows_are_held_out_whatever_their_order() -> None:
    features, labels = rows(days=100)
    first = build(features.drop(columns="at"), labels, event_timestamp=None)
    second = build(features.drop(columns="at").sample(frac=1, random_state=3), labels, event_timestamp=None)
    pd.testing.assert_frame_equal(first.frame, second.frame)
    assert 0.1 < (first.frame[SPLIT] == EVALUATE).mean() < 0.3
    other = build(features.drop(columns="at"), labels, event_timestamp=None, seed=1)
    assert (other.frame[SPLIT] != first.frame[SPLIT]).any()


def test_a_repeated_key_is_an_error_that_counts() -> None:
    features, labels = rows()
    with pytest.raises(DataError, match="labels hold 1 rows with a repeated key"):
        build(features, pd.concat([labels, labels.head(1)]))


def test_no_label_at_all_is_an_error() -> None:
    features, labels = rows()
    with pytest.raises(DataError, match="none of 60"):
        build(features, labels.assign(id=labels["id"] + 1_000))


def test_a_window_that_swallows_everything_is_an_error() -> None:
    with pytest.raises(DataError, match="train part is empty"):
        build(*rows(), evaluation_window_days=30)


def test_booleans_take_the_two_names_in_order() -> None:
    codes, names = encode_target(pd.Series([True, False]), task="binary", classes=["on_time", "late"])
    assert codes.tolist() == [1.0, 0.0] and names == ("on_time", "late")


@pytest.mark.parametrize(
    ("labels", "classes", "codes"),
    [
        ([0, 1], ("1", "0"), [1, 0]),
        (["0", "1"], ("1", "0"), [1, 0]),
        ([1.0, 0.0], ("1", "0"), [0, 1]),
        ([True, False], ("true", "false"), [0, 1]),
        ([True, False], ("False", "True"), [1, 0]),
        ([0, 1], ("no", "1"), [0, 1]),
        ([0, 1], ("1", "2"), None),
        ([0], ("1", "2"), None),
    ],
)
def test_a_label_that_is_the_name_of_a_class_means_that_class(labels, classes, codes) -> None:
    series = pd.Series(labels)
    if codes is None:
        with pytest.raises(DataError, match=r"labels outside the classes: \['0'\]"):
            encode_target(series, task="binary", classes=classes)
        return
    found, names = encode_target(series, task="binary", classes=classes)
    assert found.tolist() == codes and names == classes


def test_declared_classes_fix_the_order() -> None:
    codes, names = encode_target(pd.Series(["b", "a", "c"]), task="multiclass", classes=["c", "b", "a"])
    assert codes.tolist() == [1.0, 2.0, 0.0] and names == ("c", "b", "a")


def test_integer_classes_survive_a_float_column() -> None:
    codes, names = encode_target(pd.Series([0.0, 2.0, 1.0]), task="multiclass", classes=None)
    assert names == ("0", "1", "2") and codes.tolist() == [0.0, 2.0, 1.0]


def test_a_label_outside_the_classes_is_named() -> None:
    with pytest.raises(DataError, match="cat"):
        encode_target(pd.Series(["dog", "cat"]), task="binary", classes=["dog", "fish"])


def test_three_classes_are_not_binary() -> None:
    with pytest.raises(DataError, match="does not fit 3 classes"):
        encode_target(pd.Series(["a", "b", "c"]), task="binary", classes=None)


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("x", "object"),
        (2**53 + 1, "Int64"),
        (True, "bool"),
        (np.inf, "float64"),
        (pd.Timestamp("2024-01-01"), "datetime64[us]"),
        (pd.Timedelta(days=1), "timedelta64[us]"),
    ],
)
def test_what_is_no_number_is_no_regression_target(label: object, kind: str) -> None:
    with pytest.raises(DataError, match=r"1 labels of a regression are no numbers, e\.g\. "):
        encode_target(pd.Series([label], dtype=kind), task="regression", classes=None)  # type: ignore[call-overload]


def test_a_missing_key_has_no_label() -> None:
    features, labels = rows()
    features["id"], labels["id"] = (frame["id"].astype("Int64") for frame in (features, labels))
    features.loc[[3, 4], "id"] = pd.NA
    labels.loc[[5, 6], "id"] = pd.NA
    made = build(features, labels)
    assert made.unlabelled == 4
    assert made.frame["id"].notna().all()


def test_a_row_without_event_time_is_an_error() -> None:
    features, labels = rows()
    features.loc[3, "at"] = pd.NaT
    with pytest.raises(DataError, match="1 labelled rows have no at"):
        build(features, labels)
    assert build(features, labels[labels["id"] != 3]).unlabelled == 1


@pytest.mark.parametrize(
    ("days_since", "judged"),
    [(0, 5), (7, 5), (9, 5), (10, 6), (13, 7), (20, 11), (26, 14), (200, 14)],
)
def test_after_a_change_half_of_the_days_behind_it_are_judged_on(days_since: int, judged: int) -> None:
    newest = pd.Timestamp("2024-06-01 23:00", tz="UTC")
    assert evaluation_days(newest, 14, newest - pd.Timedelta(days=days_since)) == judged
    assert evaluation_days(newest, 14, None) == 14
    assert evaluation_days(newest, 3, newest) == 3


def test_the_split_follows_a_change() -> None:
    made = build(*rows(), evaluation_window_days=14, changed_by=pd.Timestamp("2024-01-10", tz="UTC"))
    assert made.part(EVALUATE)["at"].min() == pd.Timestamp("2024-01-15", tz="UTC")
    assert made.part(TRAIN)["at"].max() > pd.Timestamp("2024-01-10", tz="UTC")
    as_declared = build(*rows(), evaluation_window_days=14)
    assert as_declared.part(EVALUATE)["at"].min() == pd.Timestamp("2024-01-07", tz="UTC")


def test_what_came_since_is_later_and_not_merely_labelled_late() -> None:
    features, labels = rows()
    now = build(features, labels)
    trained = now.part(TRAIN)
    before = trained[trained["id"] != 4]
    assert not_trained_on(now.frame, before, ["id"], "at")["id"].tolist() == now.part(EVALUATE)["id"].tolist()
    assert not_trained_on(now.frame, before, ["id"], None)["id"].tolist() == [
        4,
        *now.part(EVALUATE)["id"],
    ]
