"""Late labels: the join by keys, and when a window counts as labelled."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_assets.errors import DataError
from mlops_assets.monitoring.labels import Watermark, join_labels, label_codes, label_state
from serve.schema import Task

END = datetime(2013, 4, 8, tzinfo=UTC)
WATERMARK = Watermark(within=timedelta(days=3), min_share=0.8, min_rows=100)


def predictions(*entities: object) -> pd.DataFrame:
    texts = [one if one is None or isinstance(one, str) else json.dumps(one) for one in entities]
    return pd.DataFrame({"request_id": [f"r{i}" for i in range(len(texts))], "entity": texts})


def test_labels_that_contradict_each_other_label_nothing_and_the_same_twice_is_one() -> None:
    labels = pd.DataFrame({"id": ["a", "b", "c", "a", "b"], "label": [1, 0, 1, 1, 1]})
    joined = join_labels(predictions({"id": "a"}, {"id": "b"}, {"id": "c"}, None), labels, ["id"])
    assert joined["label"].isna().tolist() == [False, True, False, True]
    assert joined["label"].tolist()[0] == 1 and joined["label"].tolist()[2] == 1
    assert joined["ambiguous_label"].tolist() == [False, True, False, False]
    assert joined["has_keys"].tolist() == [True, True, True, False]
    text = pd.DataFrame({"id": ["a", "a"], "label": ["late", "on_time"]})
    assert join_labels(predictions({"id": "a"}), text, ["id"])["label"].isna().all()


@pytest.mark.parametrize(
    ("labels", "task", "classes", "codes"),
    [
        ([0.0, 1.0, 2.0, None], "binary", ("on_time", "late"), [0, 1, None, None]),
        (["late", "2.0", "on_time"], "binary", ("on_time", "late"), [1, None, 0]),
        (["late", 0, True, None], "binary", ("on_time", "late"), [1, 0, 1, None]),
        ([True, False], "binary", ("on_time", "late"), [1, 0]),
        ([1, 2, 3], "binary", ("1", "2"), [0, 1, None]),
        ([1], "binary", ("1", "2"), [0]),
        ([0, 1], "binary", ("1", "2"), [None, 0]),
        ([0, 1, True], "binary", ("1", "0"), [1, 0, None]),
        ([True, False], "binary", ("true", "false"), [0, 1]),
        ([9, 9], "binary", ("on_time", "late"), [None, None]),
        (["b", "x", "a", None], "multiclass", ("a", "b", "c"), [1, None, 0, None]),
        ([2.0, 3.0, 0.0], "multiclass", ("0", "1", "2"), [2, None, 0]),
        ([1.5, "2", "none", np.inf, None], "regression", None, [1.5, 2, None, None, None]),
        ([], "binary", ("on_time", "late"), []),
    ],
)
def test_labels_that_a_task_cannot_use_have_no_code(
    labels: list[Any], task: Task, classes: tuple[str, ...] | None, codes: list[float | None]
) -> None:
    found = label_codes(pd.Series(labels, dtype=object), task=task, classes=classes)
    np.testing.assert_array_equal(found, np.array(codes, dtype=np.float64))


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    with pytest.raises(DataError, match="no column 'flight_id', which the join by flight_id needs"):
        join_labels(predictions(), pd.DataFrame({"id": [1], "label": [1]}), ["flight_id"])
    with pytest.raises(DataError, match=r"predictions have no column 'entity', which"):
        join_labels(pd.DataFrame({"x": [1]}), pd.DataFrame({"id": [1], "label": [1]}), ["id"])


@pytest.mark.parametrize("text", ["{broken", "[1]", '"a"'])
def test_an_entity_that_is_no_object_of_keys_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="the entity"):
        join_labels(predictions(text), pd.DataFrame({"id": ["a"], "label": [1]}), ["id"])


def test_keys_are_compared_as_text_and_order_and_index_stay() -> None:
    asked = predictions({"id": 7}, {"id": "7"}, {"id": "x"}, None, {"other": 7}, {"id": None})
    asked.index = pd.Index([5, 4, 3, 2, 1, 0])
    labels = pd.DataFrame({"id": [7.0, 8.0, np.nan], "label": [True, False, True]})
    joined = join_labels(asked, labels, ["id"])
    assert joined.index.tolist() == [5, 4, 3, 2, 1, 0]
    assert joined["label"].tolist()[:2] == [True, True]
    assert joined["label"].isna().tolist() == [False, False, True, True, True, True]
    assert joined["has_keys"].tolist() == [True, True, True, False, False, False]
    assert list(asked.columns) == ["request_id", "entity"]


def test_keys_fall_apart_in_one_way_only() -> None:
    labels = pd.DataFrame({"a": ["x\x1fy"], "b": ["z"], "label": [1.0]})
    asked = predictions({"a": "x", "b": "y\x1fz"}, {"a": "x\x1fy", "b": "z"})
    assert join_labels(asked, labels, ["a", "b"])["label"].isna().tolist() == [True, False]


def test_several_keys_have_to_agree_together() -> None:
    labels = pd.DataFrame({"carrier": ["UA", "UA"], "number": [1, 2], "label": [10.0, 20.0]})
    joined = join_labels(
        predictions({"number": 2, "carrier": "UA"}, {"carrier": "U", "number": "A2"}),
        labels,
        ["carrier", "number"],
    )
    assert joined["label"].tolist()[0] == 20.0 and np.isnan(joined["label"].iloc[1])
    assert joined["has_keys"].all()


def test_a_label_that_is_missing_labels_nothing_and_may_come_twice() -> None:
    labels = pd.DataFrame({"id": ["a", "a"], "label": [None, 1.0]})
    assert join_labels(predictions({"id": "a"}), labels, ["id"])["label"].tolist() == [1.0]


def test_no_predictions_and_no_labels_join_to_nothing() -> None:
    empty = join_labels(predictions(), pd.DataFrame({"id": [], "label": []}), ["id"])
    assert len(empty) == 0 and {"label", "has_keys"} <= set(empty.columns)
    unlabelled = join_labels(predictions({"id": 1}), pd.DataFrame({"id": [], "label": []}), ["id"])
    assert unlabelled["label"].isna().all() and unlabelled["has_keys"].all()


@pytest.mark.parametrize(
    ("after_end", "answers", "with_keys", "labelled", "status", "says"),
    [
        (timedelta(hours=-1), 1000, 1000, 1000, "waiting", "the window runs until 2013-04-08"),
        (timedelta(days=9), 0, 0, 0, "too_few", "0 answers, 100 are needed"),
        (timedelta(days=9), 99, 99, 99, "too_few", "99 answers"),
        (timedelta(0), 1000, 0, 0, "no_keys", "no answer carries the keys"),
        (timedelta(0), 1000, 1000, 799, "waiting", "labels may come until 2013-04-11"),
        (timedelta(0), 1000, 1000, 800, "judged", r"enough labels came: 800 of 1,000 .*80.0%"),
        (timedelta(0), 1000, 200, 160, "judged", "800 came without keys and cannot be labelled"),
        (timedelta(0), 1000, 100, 90, "waiting", "and at least 100 labels"),
        (timedelta(days=3), 1000, 100, 90, "too_few", "100 labels are needed"),
        (timedelta(days=3), 1000, 1000, 0, "unlabelled", "no label came by 2013-04-11"),
        (timedelta(days=3), 1000, 1000, 400, "judged", r"no more labels can come: .*40.0%"),
    ],
)
def test_a_window_waits_until_enough_is_labelled_or_nothing_more_can_come(
    after_end: timedelta, answers: int, with_keys: int, labelled: int, status: str, says: str
) -> None:
    import re

    found = label_state(
        end=END,
        now=END + after_end,
        answers=answers,
        with_keys=with_keys,
        labelled=labelled,
        watermark=WATERMARK,
    )
    assert found.status == status
    assert re.search(says, found.reason), found.reason
    assert found.share == (labelled / answers if answers else 0.0)
