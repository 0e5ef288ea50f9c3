"""What training rows teach: dictionaries, examples, golden rows; from columns of any dtype."""

import numpy as np
import pandas as pd
import pytest

from mlops_assets.training.dictionary import golden_positions, row_values, with_dictionaries
from serve.schema import FeatureSpec
from serve.scoring import Encoder
from serve.validation import RowValidator, batch_rows

FEATURES = (
    FeatureSpec(name="carrier", type="category"),
    FeatureSpec(name="distance", type="number", minimum=0, maximum=5000),
    FeatureSpec(name="seats", type="integer"),
    FeatureSpec(name="holiday", type="boolean", nullable=False),
)


def rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "carrier": ["UA", "B6", "UA", "AA", None, "B6"],
            "distance": [1400.0, 200.0, None, 9000.0, None, 700.0],
            "seats": [150, None, 20, 30, None, 40],
            "holiday": [True, False, False, True, False, None],
        }
    )


def test_a_dictionary_is_ordered_by_frequency_then_name_whatever_the_rows_order() -> None:
    for frame in (rows(), rows().sample(frac=1, random_state=1)):
        assert with_dictionaries(frame, FEATURES)[0].categories == ("B6", "UA", "AA")


def test_the_rarest_categories_beyond_the_limit_are_left_out() -> None:
    frame = pd.DataFrame({"c": [f"v{i:03}" for i in range(300)] + ["v299"]})
    [spec] = with_dictionaries(frame, [FeatureSpec(name="c", type="category")])
    assert spec.categories is not None and len(spec.categories) == 250
    assert spec.categories[:2] == ("v299", "v000") and "v298" not in spec.categories


def test_what_was_declared_stays() -> None:
    declared = FeatureSpec(name="carrier", type="category", categories=("AA", "ZZ"), example="AA")
    assert with_dictionaries(rows(), [declared]) == (declared,)


@pytest.mark.parametrize("frame", [rows(), rows().convert_dtypes(), rows().astype({"carrier": "category"})])
def test_examples_are_plain_values_of_the_declared_type(frame: pd.DataFrame) -> None:
    examples = [spec.example for spec in with_dictionaries(frame, FEATURES)]
    assert examples == ["B6", 1400.0, 40, False]
    assert [type(value) for value in examples] == [str, float, int, bool]


def test_a_column_without_any_value_has_no_dictionary_entry_and_no_example() -> None:
    empty = pd.DataFrame({name: pd.Series([None, None], dtype=object) for name in rows()})
    filled = with_dictionaries(empty, FEATURES)
    assert filled[0].categories == () and {spec.example for spec in filled} == {None}


def test_golden_rows_are_valid_requests_and_show_missing_values() -> None:
    features = with_dictionaries(rows(), FEATURES)
    assert golden_positions(rows(), features, count=3) == [4, 0, 1]  # 3 is too far, 5 lacks a required value
    assert row_values(rows(), 4, features) == {
        "carrier": None,
        "distance": None,
        "seats": None,
        "holiday": False,
    }


def test_a_category_that_would_be_refused_is_not_golden() -> None:
    features = [FeatureSpec(name="carrier", type="category", categories=("UA",), unseen="reject")]
    assert set(golden_positions(rows(), features, count=9)) == {0, 2, 4}


def test_no_valid_row_gives_no_golden_row() -> None:
    assert (
        golden_positions(
            rows(), [FeatureSpec(name="seats", type="integer", minimum=1e6, nullable=False)], count=3
        )
        == []
    )


@pytest.mark.parametrize("frame", [rows(), rows().convert_dtypes(), rows().astype({"carrier": "category"})])
def test_a_row_as_a_request_encodes_as_in_its_table(frame: pd.DataFrame) -> None:
    features = with_dictionaries(frame, FEATURES)
    encoder = Encoder(features)
    requests = [row_values(frame, position, features) for position in range(len(frame))]
    np.testing.assert_array_equal(
        encoder.rows(requests), encoder.columns({name: frame[name] for name in frame})
    )


def test_the_texts_of_whole_numbers_are_encoded_alike_in_training_and_as_a_request_sends_them() -> None:
    frame = pd.DataFrame({"gate": ["12", "3", "12", None, "-1"]})
    specs = with_dictionaries(frame, [FeatureSpec(name="gate", type="category")])
    assert specs[0].categories == ("12", "-1", "3")
    validator = RowValidator(specs)
    for gate in (12, "12", 12.0):
        (row,) = batch_rows({"instances": [{"gate": gate}]}, validator, max_rows=1)
        assert Encoder(specs).rows([row])[0, 0] == Encoder(specs).columns(frame)[0, 0] == 0
