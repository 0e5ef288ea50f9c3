"""Which feature can be made of which column, and which categories a column of integers can hold."""

import pytest

from mlops_assets.documents.feature_types import type_problem
from serve.schema import FeatureSpec


@pytest.mark.parametrize("column", ["string", "integer"])
def test_texts_and_whole_numbers_are_categories(column: str) -> None:
    assert type_problem(FeatureSpec(name="gate", type="category"), column) == ""


@pytest.mark.parametrize("column", ["number", "boolean", "timestamp", "date"])
def test_what_has_no_one_text_is_no_category(column: str) -> None:
    assert type_problem(FeatureSpec(name="gate", type="category"), column) == (
        f"feature 'gate' is declared as category, but its column as {column}; a category can be made of: "
        "string, integer. Or convert it in a transform."
    )


@pytest.mark.parametrize("impossible", ["01", "1.0", "+1", "-0", " 1", "A", "", "9223372036854775808"])
def test_a_declared_category_that_no_integer_is_written_as_is_refused(impossible: str) -> None:
    feature = FeatureSpec(name="gate", type="category", categories=("1", impossible))
    assert type_problem(feature, "string") == ""
    assert type_problem(feature, "integer") == (
        f"feature 'gate' is made of a column of integers, which never gives the category {impossible!r}: "
        "categories are then written like 3, 0 or -12"
    )


def test_declared_categories_of_whole_numbers_fit_a_column_of_integers() -> None:
    texts = ("0", "-12", "3", "9223372036854775807", "-9223372036854775808")
    assert type_problem(FeatureSpec(name="gate", type="category", categories=texts), "integer") == ""


def test_a_category_that_yaml_reads_as_a_number_is_refused_with_what_to_write() -> None:
    with pytest.raises(ValueError, match="3 is no text: write categories in quotes, like '3'"):
        FeatureSpec.model_validate({"name": "gate", "type": "category", "categories": ["1", 3]})
