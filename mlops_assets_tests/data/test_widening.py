"""Files that are read together become one table and no value changes, or an error says which two differ."""

import datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from mlops_assets.data.widening import one_table
from mlops_assets.errors import DataError

DAY = datetime.datetime(2024, 1, 31)


def joined(*arrays: pa.Array) -> pa.ChunkedArray:
    return one_table({f"{number}.pq": pa.table({"x": array}) for number, array in enumerate(arrays)})["x"]


@pytest.mark.parametrize(
    ("one", "other", "held"),
    [
        (pa.array([1], pa.int8()), pa.array([2], pa.int64()), "int64"),
        (pa.array([1], pa.uint8()), pa.array([2], pa.uint16()), "uint64"),
        (pa.array([1], pa.uint64()), pa.array([-2], pa.int8()), "int64"),
        (pa.array([2**53]), pa.array([0.5]), "double"),
        (pa.array([1.5], pa.float32()), pa.array([0.1]), "double"),
        (pa.array(["a"]), pa.array(["b"], pa.large_string()), "large_string"),
        (pa.array(["a"]).dictionary_encode(), pa.array(["b"]), "string"),
        (pa.array([b"a"]), pa.array([b"b"], pa.large_binary()), "large_binary"),
        (pa.array([Decimal("1.25")]), pa.array([Decimal("100.5")]), "decimal256(5, 2)"),
        (pa.array([DAY], pa.timestamp("s")), pa.array([DAY], pa.timestamp("us")), "timestamp[us]"),
        (pa.nulls(1), pa.array([True]), "bool"),
        (pa.array([DAY.date()]), pa.nulls(1), "date32[day]"),
    ],
)
def test_a_type_is_widened_where_no_value_changes(one, other, held):
    for pair in ((one, other), (other, one)):
        found = joined(*pair)
        assert str(found.type) == held
        assert found.to_pylist() == [*pair[0].to_pylist(), *pair[1].to_pylist()]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array([1]), pa.array(["1"])),
        (pa.array([1]), pa.array([True])),
        (pa.array([2**53 + 1]), pa.array([0.5])),
        (pa.array([2**63], pa.uint64()), pa.array([-1])),
        (pa.array([DAY]), pa.array([DAY], pa.timestamp("us", tz="UTC"))),
        (pa.array([DAY]), pa.array([DAY.date()])),
        (pa.array([datetime.datetime(2400, 1, 1)]), pa.array([DAY], pa.timestamp("ns"))),
        (pa.array([Decimal(1)], pa.decimal256(76, 0)), pa.array([Decimal("0.5")])),
        (pa.array([[1]]), pa.array([["a"]])),
    ],
)
def test_what_would_change_a_value_is_an_error_that_names_both_files_and_types(one, other):
    with pytest.raises(DataError, match=r"column 'x' is .* in \d\.pq and .* in \d\.pq, and") as caught:
        joined(one, one, other)
    for named in (str(one.type), str(other.type), "0.pq", "2.pq"):
        assert named in str(caught.value)
    with pytest.raises(DataError):
        joined(other, one)


def test_a_column_that_one_file_lacks_is_an_error_whichever_it_is():
    both, one = pa.table({"a": [1], "b": [2]}), pa.table({"a": [1]})
    for first, second in ((both, one), (one, both)):
        with pytest.raises(DataError, match=r"differ: (\w) has a column 'b', (\w) has none"):
            one_table({"x": first, "y": second})


def test_columns_may_stand_in_any_order_and_none_at_all_still_counts_rows():
    made = one_table({"x": pa.table({"a": [1], "b": [2]}), "y": pa.table({"b": [4], "a": [3]})})
    assert made.to_pydict() == {"a": [1, 3], "b": [2, 4]}
    empty = {name: pa.table({"a": ids}).select([]) for name, ids in (("x", [1, 2]), ("y", [3]))}
    assert one_table(empty).num_rows == 3
