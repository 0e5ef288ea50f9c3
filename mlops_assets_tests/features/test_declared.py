"""Categories from whole numbers: the text of the number, whatever holds it, and missing stays missing."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlops_assets.errors import DataError
from mlops_assets.features.declared import declare
from serve.schema import FeatureSpec

GATE = FeatureSpec(name="gate", type="category")
WHOLE = {
    "int64": pd.Series([3, -12, 3]),
    "uint8": pd.Series([3, 0, 255], dtype="uint8"),
    "nullable": pd.Series([3, None, -12], dtype="Int64"),
    "arrow": pd.Series([3, None, 2**62], dtype=pd.ArrowDtype(pa.int64())),
    "categorical": pd.Series([3, None, 7], dtype="Int64").astype("category"),
    "objects": pd.Series([3, None, np.int64(7), "01"], dtype=object),
    "nothing": pd.Series([None, None], dtype="Int64"),
    "text": pd.Series(["3", None, "01"]),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_number_is_the_category_of_its_text(kind: str) -> None:
    values = WHOLE[kind]
    made = declare(pd.DataFrame({"gate": values}), [GATE], keep={})
    assert made.problems == []
    assert [None if pd.isna(one) else one for one in made.frame["gate"]] == [
        None if pd.isna(one) else str(one) for one in values
    ]


@pytest.mark.parametrize(
    "values", [pd.Series([3.0, 1.5]), pd.Series([True, False]), pd.Series([3, True, 2.0], dtype=object)]
)
def test_what_is_no_whole_number_and_no_text_is_refused(values: pd.Series) -> None:
    made = declare(pd.DataFrame({"gate": values}), [GATE], keep={})
    assert "feature 'gate' must be category (" in str(made.problems[0])


def test_a_category_that_a_transform_gives_twice_is_an_error_that_names_it() -> None:
    twice = pd.DataFrame([[3, 4]], columns=["gate", "gate"])
    with pytest.raises(DataError, match="Column 'gate' cannot be read as a string"):
        declare(twice, [GATE], keep={})


def test_declared_categories_are_compared_as_text() -> None:
    gate = FeatureSpec(name="gate", type="category", categories=("3", "-12"))
    frame = pd.DataFrame({"gate": [3, -12, 4], "day": ["a", "a", "b"]})
    made = declare(frame, [gate], keep={}, partition_column="day")
    assert made.reasons() == {"b": ["feature 'gate' must be one of 3, -12, but 1 rows are another value"]}


def test_a_join_key_that_is_also_a_category_is_not_written_anew() -> None:
    made = declare(
        pd.DataFrame({"id": [1, 2], "gate": [3, 4]}), [GATE], keep={"gate": "string", "id": "integer"}
    )
    assert made.frame["id"].tolist() == [1, 2]
    assert [problem.feature for problem in made.problems] == ["gate"]
