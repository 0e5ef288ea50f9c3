"""Whatever a driver gives becomes Arrow values that are the same, and is converted by its own type."""

import datetime as dt
from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pytest

from mlops_assets.data.conversion import convert
from mlops_assets.data.schema import conform, frame_of
from mlops_assets.data.sources._object_values import ColumnValues
from mlops_assets.errors import DataError

AT = dt.datetime(2024, 3, 31, 1, 30, 0, 123456)


def column(*batches):
    made = ColumnValues("x")
    for batch in batches:
        made.add(batch)
    return made.whole()


@pytest.mark.parametrize(
    ("values", "held"),
    [
        ([1, None, -(2**63), 2**63 - 1], pa.int64()),
        ([0.1, None, 5e-324], pa.float64()),
        ([True, None, False], pa.bool_()),
        (["NA", "", None], pa.string()),
        ([b"\x00", None], pa.binary()),
        ([dt.date(1, 1, 1), None, dt.date(9999, 12, 31)], pa.date32()),
        ([AT, None], pa.timestamp("us")),
        ([AT.replace(tzinfo=dt.UTC), None], pa.timestamp("us", tz="UTC")),
        ([dt.time(1, 2, 3, 4), None], pa.time64("us")),
        ([dt.timedelta(1, 2, 3), None], pa.duration("us")),
        ([Decimal("1.50"), None, Decimal("-12345678901234567890.1")], pa.decimal128(22, 2)),
        ([None, None], pa.null()),
        ([], pa.null()),
    ],
)
def test_a_type_has_its_column_whatever_batch_its_values_came_in(values, held):
    for batches in ([values], [[one] for one in values], [[None], values]):
        found = column(*batches)
        assert found.type == held
        assert [one for one in found.to_pylist() if one is not None] == [
            one for one in values if one is not None
        ]
        assert len(found) == sum(map(len, batches))


def test_an_instant_is_the_same_in_whatever_zone_it_came():
    east = AT.replace(tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30)))
    assert column([east, AT.replace(tzinfo=dt.UTC)]).to_pylist() == [east, AT.replace(tzinfo=dt.UTC)]


def test_decimals_of_all_batches_share_a_type_that_holds_their_digits():
    found = column([Decimal("0.001")], [Decimal("1E+5"), Decimal(2**70)])
    assert found.to_pylist() == [Decimal("0.001"), Decimal(100000), Decimal(2**70)]
    with pytest.raises(DataError, match="'x' needs 100 digits; 76 are the most"):
        column([Decimal("1." + "0" * 50)], [Decimal(10**49)])


def test_a_decimal_that_is_no_number_is_missing_and_an_infinite_one_is_refused_alone():
    found = column([Decimal("NaN"), Decimal("1.5"), Decimal("Infinity"), None])
    made = convert(found, "number")
    assert made.values.to_pylist() == [None, 1.5, None, None]
    assert made.refused.tolist() == [False, False, True, False]
    assert column([Decimal("NaN")]).to_pylist() == [None]


def test_whole_numbers_beyond_64_bits_keep_their_digits():
    found = column([1, 2], [2**64 - 1, None])
    assert convert(found, "integer").refused.tolist() == [False, False, True, False]
    assert convert(found, "number").refused.tolist() == [False, False, True, False]
    assert found.to_pylist() == [1, 2, Decimal(2**64 - 1), None]


def test_ids_are_text():
    one = UUID(int=5)
    assert column([one, None]).to_pylist() == [str(one), None]


MIXED = [1, None, "x", 2.5, "7", b"?", None, 2**53 + 1]


@pytest.mark.parametrize("cut", range(len(MIXED) + 1))
def test_values_of_several_types_are_converted_each_by_its_own(cut):
    found = column(MIXED[:cut], MIXED[cut:])
    assert found.to_pylist() == MIXED
    expected = {
        "integer": ([1, None, None, None, 7, None, None, 2**53 + 1], [2, 3, 5]),
        "number": ([1.0, None, None, 2.5, 7.0, None, None, None], [2, 5, 7]),
        "string": ([None, None, "x", None, "7", None, None, None], [0, 3, 5, 7]),
    }
    for kind, (values, refused) in expected.items():
        made = convert(found, kind)
        assert made.values.to_pylist() == values
        assert [row for row, bad in enumerate(made.refused) if bad] == refused
    misfit = conform(pa.table({"x": found}), {"x": "integer"}).misfits["x"]
    assert misfit.example == "'x'"


def test_a_transform_gets_values_of_several_types_as_they_are():
    assert frame_of(pa.table({"x": column(MIXED)}))["x"].tolist() == MIXED


def test_times_with_and_without_a_zone_do_not_become_one_another():
    found = column([AT, AT.replace(tzinfo=dt.UTC)])
    assert found.to_pylist() == [AT, AT.replace(tzinfo=dt.UTC)]


def test_what_no_type_holds_is_named():
    with pytest.raises(
        DataError, match=r"Column 'x' holds values of type complex, like '\(1\+2j\)'.*Cast it"
    ):
        column([None, 1 + 2j])
