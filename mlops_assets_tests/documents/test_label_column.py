"""What a model says of its labels is held against the datasets: from declarations alone."""

from typing import Any

import pytest

from mlops_assets.documents.contradictions import Contradiction
from mlops_assets.documents.label_column import label_problem
from mlops_assets.documents.model import ModelDeclaration
from mlops_assets_tests.documents.test_view_columns import DATASETS, Dataset, dataset, view

OUTCOMES = dataset("outcomes", {"id": "integer", "late": "boolean", "by": "number", "closed": "date"})


def model(task: str = "binary", **label: str) -> ModelDeclaration:
    regression = task == "regression"
    declared: dict[str, Any] = {
        "name": "trips",
        "task": task,
        "feature_view": "trips",
        "label": {"dataset": "outcomes", **(label or {"column": "late"})},
        "candidates": [{"trainer": "ridge" if regression else "lightgbm"}],
    }
    return ModelDeclaration.model_validate(declared)


def problem(
    declared: ModelDeclaration,
    *,
    base: Dataset | None = DATASETS["trips"],
    outcomes: Dataset | None = OUTCOMES,
) -> Contradiction | None:
    return label_problem(declared, view(), base=base, outcomes=outcomes)


@pytest.mark.parametrize(
    ("task", "column"),
    [("binary", "late"), ("binary", "by"), ("regression", "by"), ("multiclass", "id")],
)
def test_a_column_that_can_be_the_label_is_taken(task: str, column: str) -> None:
    assert problem(model(task, column=column)) is None


@pytest.mark.parametrize(
    ("task", "column", "said"),
    [
        ("binary", "closed", "'closed' of dataset 'outcomes' is a date, which is no label of a binary task"),
        ("regression", "late", "takes: number, integer. Or make the label by a function."),
        ("multiclass", "late", "takes: string, integer, number."),
        ("binary", "lte", "Unknown column of dataset 'outcomes' 'lte'"),
    ],
)
def test_another_column_is_refused_where_the_document_names_it(task: str, column: str, said: str) -> None:
    found = problem(model(task, column=column))
    assert found is not None and said in found.said and found.path == ("label", "column")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"late": "boolean"}, "Labels are joined by the join keys of feature view 'trips'."),
        ({"id": "string", "late": "boolean"}, "(defs.yaml/outcomes/columns/id)"),
    ],
)
def test_labels_that_cannot_be_joined_are_refused(columns: dict[str, str], said: str) -> None:
    found = problem(model(), outcomes=dataset("outcomes", columns))
    assert found is not None and said in found.said and found.path == ("label", "dataset")


def test_of_a_dataset_that_no_document_declares_nothing_is_known() -> None:
    assert problem(model(column="anything"), outcomes=None) is None
    assert (
        problem(model(), base=None, outcomes=dataset("outcomes", {"id": "string", "late": "boolean"})) is None
    )


def test_a_function_may_make_the_label_of_any_columns() -> None:
    assert problem(model(function="shop.late"), outcomes=dataset("outcomes", {"id": "integer"})) is None
