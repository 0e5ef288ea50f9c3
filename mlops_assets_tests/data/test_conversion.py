"""Every cell of the table in ``docs/types.md``, with the values at its edges, from file to table."""

import datetime
import io
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from mlops_assets.data.content import content_version
from mlops_assets.data.conversion import ColumnType
from mlops_assets.data.loading import Source, load
from mlops_assets.data.schema import column_schema, conform, frame_of, typed_table
from mlops_assets.data.sources import FileReader
from mlops_assets.data.sources.csv_format import CsvFormat
from mlops_assets.data.sources.parquet_format import ParquetFormat
from mlops_assets.errors import DataError
from mlops_assets.resources.lake import Lake

KINDS: tuple[ColumnType, ...] = ("string", "integer", "number", "boolean", "timestamp", "date")
NO = object()
"""The value is refused."""


def utc(*parts: int) -> pd.Timestamp:
    return pd.Timestamp(datetime.datetime(*parts, tzinfo=datetime.UTC)).as_unit("us")  # type: ignore[arg-type]


DAY = datetime.date

TEXT = {
    "string": [("00501", "00501"), ("NA", "NA"), (" a ", " a "), ("12.5", "12.5"), ("ü\u0000", "ü\u0000")],
    "integer": [
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775808", NO),
        ("1582218195625938945", 1582218195625938945),
        ("17.0", 17),
        ("1e3", 1000),
        ("+7", 7),
        ("007", 7),
        ("1.5", NO),
        ("1,000", NO),
        ("0x10", NO),
        ("1_000", NO),
        ("1e9999999999999999999", NO),
        ("true", NO),
        ("٣", NO),
    ],
    "number": [
        ("12.5", 12.5),
        ("-0.1", -0.1),
        (".5", 0.5),
        ("1e308", 1e308),
        ("6.02214076e23", 6.02214076e23),
        ("9007199254740992", 2.0**53),
        ("9007199254740993", NO),
        ("9007199254740993.5", NO),
        ("1582218195625938945", NO),
        ("1e309", NO),
        ("1e9999999999999999999", NO),
        ("1e-400", NO),
        ("0.0e-400", 0.0),
        ("inf", NO),
        ("1,5", NO),
        ("true", NO),
    ],
    "boolean": [
        ("true", True),
        ("FALSE", False),
        ("1", True),
        ("0", False),
        ("yes", NO),
        ("2", NO),
        ("1.0", NO),
    ],
    "timestamp": [
        ("2024-01-31T13:45:00Z", utc(2024, 1, 31, 13, 45)),
        ("2024-01-31 13:45", utc(2024, 1, 31, 13, 45)),
        ("2024-01-31t13:45:00.250000000z", utc(2024, 1, 31, 13, 45, 0, 250_000)),
        ("2024-01-31T13:45:00+05:30", utc(2024, 1, 31, 8, 15)),
        ("2024-01-31T13:45:00-0800", utc(2024, 1, 31, 21, 45)),
        ("2024-01-31T13:45:00+14", utc(2024, 1, 30, 23, 45)),
        ("2024-01-31", utc(2024, 1, 31)),
        ("1582-10-15T00:00:00Z", utc(1582, 10, 15)),
        ("2262-04-12T00:00:00Z", utc(2262, 4, 12)),
        ("0001-01-01T00:00:00Z", utc(1, 1, 1)),
        ("9999-12-31T23:59:59.999999Z", utc(9999, 12, 31, 23, 59, 59, 999_999)),
        ("0001-01-01T00:00:00+00:01", NO),
        ("2024-01-31T13:45:00.0000001Z", NO),
        ("2024-02-30T00:00:00Z", NO),
        ("2024-01-31T24:00:00Z", NO),
        ("2024-06-30T23:59:60Z", NO),
        ("2024-01-31T13:45:00+24:00", NO),
        ("2024-01-31T13:45:00 Europe/Berlin", NO),
        ("1706708700", NO),
        ("20240131", NO),
        ("2024", NO),
        ("31.01.2024", NO),
    ],
    "date": [
        ("2024-01-31", DAY(2024, 1, 31)),
        ("0001-01-01", DAY(1, 1, 1)),
        ("9999-12-31", DAY(9999, 12, 31)),
        ("2024-01-31T00:00:00Z", DAY(2024, 1, 31)),
        ("2024-01-31T13:45:00Z", NO),
        ("2024-01-31T00:00:00+02:00", NO),
        ("2024-02-30", NO),
        ("0000-01-01", NO),
        ("20240131", NO),
    ],
}
"""What a text becomes in every declared type, in CSV and in Parquet."""


def integers(dtype: pa.DataType, *values: int) -> list[tuple[pa.DataType, object]]:
    return [(dtype, value) for value in values]


BIG = 11069825858223412227
SOURCES: dict[str, list[tuple[pa.DataType, object, dict[str, object]]]] = {
    "whole number, up to 64 bits, signed or not": [
        (pa.int8(), -128, {"integer": -128, "number": -128.0}),
        (pa.uint8(), 255, {"integer": 255, "number": 255.0}),
        (pa.int64(), 2**63 - 1, {"integer": 2**63 - 1}),
        (pa.int64(), -(2**63), {"integer": -(2**63), "number": -(2.0**63)}),
        (pa.int64(), 2**53 + 1, {"integer": 2**53 + 1}),
        (pa.int64(), 2**53 + 2, {"integer": 2**53 + 2, "number": 2.0**53 + 2}),
        (pa.int32(), 1, {"integer": 1, "number": 1.0, "boolean": True}),
        (pa.int32(), 0, {"integer": 0, "number": 0.0, "boolean": False}),
        (pa.uint64(), 2**63 - 1, {"integer": 2**63 - 1}),
        (pa.uint64(), 2**63, {"number": 2.0**63}),
        (pa.uint64(), BIG, {}),
    ],
    "float, 16 to 64 bits": [
        (pa.float64(), 1.0, {"integer": 1, "number": 1.0, "boolean": True}),
        (pa.float64(), -1.5, {"number": -1.5}),
        (pa.float64(), 2.0**53 - 1, {"integer": 2**53 - 1, "number": 2.0**53 - 1}),
        (pa.float64(), 2.0**53, {"number": 2.0**53}),
        (pa.float64(), 1.7976931348623157e308, {"number": 1.7976931348623157e308}),
        (pa.float64(), float("inf"), {}),
        (pa.float64(), float("nan"), dict.fromkeys(KINDS)),
        (pa.float32(), 0.1, {"number": 0.10000000149011612}),
        (pa.float16(), 0.0, {"integer": 0, "number": 0.0, "boolean": False}),
    ],
    "decimal": [
        (pa.decimal128(20, 0), Decimal("9223372036854775807"), {"integer": 2**63 - 1}),
        (pa.decimal128(20, 0), Decimal("9223372036854775808"), {"number": 2.0**63}),
        (pa.decimal128(10, 2), Decimal("1.00"), {"integer": 1, "number": 1.0, "boolean": True}),
        (pa.decimal128(10, 2), Decimal("0.10"), {"number": 0.1}),
        (pa.decimal128(38, 10), Decimal("1582218195625938945.1"), {}),
        (pa.decimal256(50, 0), Decimal(10) ** 49, {"number": 1e49}),
    ],
    "boolean": [(pa.bool_(), True, {"boolean": True}), (pa.bool_(), False, {"boolean": False})],
    "timestamp, any unit and zone": [
        (
            pa.timestamp("s"),
            datetime.datetime(2024, 1, 31),
            {"timestamp": utc(2024, 1, 31), "date": DAY(2024, 1, 31)},
        ),
        (pa.timestamp("ms", tz="UTC"), utc(2024, 1, 31, 13), {"timestamp": utc(2024, 1, 31, 13)}),
        # Midnight in New York is a day there, and no day in UTC.
        (pa.timestamp("us", tz="America/New_York"), utc(2024, 1, 31, 5), {"timestamp": utc(2024, 1, 31, 5)}),
        (pa.timestamp("us", tz="America/New_York"), utc(2024, 1, 31), {"timestamp": utc(2024, 1, 31)}),
        (pa.timestamp("us"), datetime.datetime(1582, 10, 15, 1), {"timestamp": utc(1582, 10, 15, 1)}),
        (pa.timestamp("us"), datetime.datetime(2300, 1, 1, 1), {"timestamp": utc(2300, 1, 1, 1)}),
        (pa.timestamp("ns"), pd.Timestamp(1_000), {"timestamp": utc(1970, 1, 1, 0, 0, 0, 1)}),
        (pa.timestamp("ns"), pd.Timestamp(1_001), {}),
        (pa.timestamp("ms"), 10**16, {}),
        (pa.timestamp("ms"), -(10**16), {}),
    ],
    "date": [
        (pa.date32(), DAY(2024, 1, 31), {"timestamp": utc(2024, 1, 31), "date": DAY(2024, 1, 31)}),
        (pa.date64(), DAY(1, 1, 1), {"timestamp": utc(1, 1, 1), "date": DAY(1, 1, 1)}),
        (pa.date32(), DAY(9999, 12, 31), {"timestamp": utc(9999, 12, 31), "date": DAY(9999, 12, 31)}),
    ],
    "time of day": [
        (pa.time32("s"), datetime.time(13, 45), {}),
        (pa.time64("ns"), datetime.time(0), {}),
    ],
    "duration": [
        (pa.duration("us"), datetime.timedelta(seconds=1), {}),
        (pa.duration("ns"), datetime.timedelta(0), {}),
    ],
    "bytes": [(pa.binary(), b"abc", {}), (pa.binary(2), b"\xff\xfe", {}), (pa.large_binary(), b"1", {})],
    "list, struct, map": [
        (pa.list_(pa.int64()), [1], {}),
        (pa.struct([("a", pa.int64())]), {"a": 1}, {}),
        (pa.map_(pa.string(), pa.int64()), [("a", 1)], {}),
    ],
    "no value at all": [
        (pa.null(), None, dict.fromkeys(KINDS)),
        (pa.duration("s"), None, dict.fromkeys(KINDS)),
        (pa.uint64(), None, dict.fromkeys(KINDS)),
    ],
}
CELLS = [(source, kind) for source in ("CSV field", "text", *SOURCES) for kind in KINDS]


def samples(source: str, kind: ColumnType) -> list[tuple[pa.DataType, object, object]]:
    """(type, value, what it becomes) of one cell."""
    if source in ("CSV field", "text"):
        return [(pa.string(), value, becomes) for value, becomes in TEXT[kind]]
    return [(held, value, becomes.get(kind, NO)) for held, value, becomes in SOURCES[source]]


def is_missing(value: object) -> bool:
    return value is None or value is NO


def same(found: object, wanted: object) -> bool:
    if is_missing(wanted):
        return bool(pd.isna(found))
    return (
        type(found) is not bool and found == wanted if not isinstance(wanted, bool) else bool(found) is wanted
    )


def through(folder: Path, source: str, held: pa.DataType, values: list[object], kind: ColumnType):
    """The values in a file of the source, loaded as the declared kind: the frame and the findings."""
    if source == "CSV field":
        lines = ["x,row"] + [
            f"{'' if value is None else chr(34) + str(value) + chr(34)},{row}"
            for row, value in enumerate(values)
        ]
        (folder / "x.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        declared = Source(FileReader("x.csv", CsvFormat(), folder))
    else:
        array = pa.array(values, held) if not isinstance(held, type(None)) else pa.nulls(len(values))
        parquet.write_table(
            pa.table({"x": array}), folder / "x.parquet", version="2.6", coerce_timestamps=None
        )
        declared = Source(FileReader("x.parquet", ParquetFormat(), folder))
    return load(declared, {"x": kind}, partition_column=None, partitions=None, lake=Lake(uri="unused"))


def documented() -> dict[tuple[str, str], str]:
    """{(source type, declared type): cell} of the table in the docs."""
    lines = Path("docs/types.md").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| source type"))
    cells = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        source, *found = [cell.strip() for cell in line.strip("|").split("|")]
        cells.update({(source, kind): cell for kind, cell in zip(KINDS, found, strict=True)})
    return cells


@pytest.mark.parametrize(("source", "kind"), CELLS)
def test_every_cell_keeps_or_refuses_as_documented(tmp_path, source, kind):
    outcomes = []
    for held, value, becomes in samples(source, kind):
        for values in ([value], [None, value], [value, None, value]):
            loaded = through(tmp_path, source, held, values, kind)
            wanted = [becomes if one is value else None for one in values]
            found = loaded.frame["x"].tolist()
            shown = f"{held} {value!r} as {kind}: {found}, {loaded.findings}"
            assert all(same(one, expected) for one, expected in zip(found, wanted, strict=True)), shown
            refused = sum(one is NO for one in wanted)
            assert bool(loaded.findings) is (refused > 0), shown
            if refused:
                (finding,) = loaded.findings
                assert finding.what == "type of x"
                assert finding.observed.startswith(f"{refused} values that do not fit, e.g. ")
                assert finding.expected.startswith(("a ", "an ", "text "))
        outcomes.append(becomes is not NO)
    present = [
        kept for kept, (_, value, _) in zip(outcomes, samples(source, kind), strict=True) if value == value
    ]
    cell = "kept" if all(present) else "what fits" if any(present) else "refused"
    assert documented()[(source, kind)] == cell


def test_the_docs_have_no_other_cells():
    assert set(documented()) == set(CELLS)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_kept_is_what_the_table_holds(tmp_path, kind):
    kept = [
        becomes
        for source, _ in dict.fromkeys((source, None) for source, _ in CELLS)
        for _, _, becomes in samples(source, kind)
        if not is_missing(becomes)
    ]
    lake = Lake(uri=str(tmp_path / "lake"))
    for name, values in (("full", kept), ("first_missing", [None, *kept]), ("empty", [None, None])):
        conformed = conform(pd.DataFrame({"x": pd.Series(values, dtype=object)}), {"x": kind})
        assert not conformed.misfits
        rows = typed_table(conformed.frame, column_schema({"x": kind}))
        lake.write(name, rows, partition_column=None, partitions=None, commit={})
        found = lake.read(name)
        assert all(same(one, wanted) for one, wanted in zip(found["x"].tolist(), values, strict=True))
        assert content_version(found) == content_version(frame_of(rows)) == content_version(conformed.frame)
        assert found["x"].dtype == conformed.frame["x"].dtype


PLUS_ONE = datetime.timezone(datetime.timedelta(hours=1))


def objects(*values: object) -> pd.Series:
    return pd.Series(list(values), dtype=object)


def test_a_frame_of_python_objects_is_held_to_the_same_table():
    values = [1, "2", 3.0, Decimal("4"), True, 2**70, None, float("nan"), pd.NA, b"5", "six"]
    result = conform(pd.DataFrame({"x": pd.Series(values, dtype=object)}), {"x": "integer"})
    assert result.frame["x"].tolist() == [1, 2, 3, 4, *[pd.NA] * 7]
    refused = [values[row] for row in range(len(values)) if result.misfits["x"].rows[row]]
    assert refused == [True, 2**70, b"5", "six"]
    assert result.misfits["x"].example == "True"
    assert (
        result.misfits["x"].reason
        == "an integer is not a boolean: only numbers are; convert it in the transform"
    )


@pytest.mark.parametrize(
    ("values", "kind", "becomes"),
    [
        (pd.Series([BIG, None], dtype="UInt64"), "integer", [NO, None]),
        (pd.Series([pd.Timedelta("1s"), None]), "number", [NO, None]),
        (pd.Series([1 + 2j]), "number", [NO]),
        (pd.Series(["a", None], dtype="category"), "string", ["a", None]),
        (pd.Series([1.0, 0.0], dtype="Sparse[float64]"), "boolean", [True, False]),
        (pd.Series(pd.period_range("2024-01-01", periods=1, freq="D")), "date", [NO]),
        (pd.Series([1, None], dtype="int64[pyarrow]"), "integer", [1, None]),
        (pd.Series(["\ud800", "a"]), "string", [NO, "a"]),
        (pd.Series([pd.Timestamp("2024-01-01", tz="Europe/Berlin")]), "timestamp", [utc(2023, 12, 31, 23)]),
        (
            pd.Series([pd.Timestamp("2024-01-01T12:00"), utc(2024, 1, 1), None], dtype=object),
            "timestamp",
            [utc(2024, 1, 1, 12), utc(2024, 1, 1), None],
        ),
        (pd.Series([pd.Timestamp(1)], dtype=object), "timestamp", [NO]),
        (objects(np.datetime64("2024-01-01", "ns"), None), "integer", [NO, None]),
        (
            objects(np.datetime64("2024-01-01T12", "us"), utc(2024, 1, 1)),
            "timestamp",
            [utc(2024, 1, 1, 12)] * 1 + [utc(2024, 1, 1)],
        ),
        (
            objects(np.datetime64("2024-01-01", "D"), np.datetime64("2024-01", "M")),
            "date",
            [DAY(2024, 1, 1), NO],
        ),
        (objects(np.timedelta64(5, "ns"), np.timedelta64(5, "Y"), np.timedelta64(5)), "integer", [NO] * 3),
        (objects(np.longdouble("0.1"), 0.5), "number", [NO, 0.5]),
        (objects(np.uint64(2**63), np.int8(3)), "number", [2.0**63, 3.0]),
        (
            objects(datetime.datetime(2024, 1, 31, 1, tzinfo=PLUS_ONE), datetime.datetime(2024, 1, 31)),
            "date",
            [NO, DAY(2024, 1, 31)],
        ),
        (
            objects(pd.Timestamp("2024-01-31T01:00+01:00"), pd.Timestamp("2024-01-31", tz="UTC")),
            "date",
            [NO, DAY(2024, 1, 31)],
        ),
        (objects(datetime.datetime(2024, 1, 31, 1, tzinfo=PLUS_ONE)), "timestamp", [utc(2024, 1, 31)]),
        (objects(datetime.datetime(1, 1, 1, tzinfo=PLUS_ONE)), "timestamp", [NO]),
    ],
)
def test_what_a_transform_returns_is_held_to_the_same_table(values, kind, becomes):
    result = conform(pd.DataFrame({"x": values}), {"x": kind})
    assert all(same(one, wanted) for one, wanted in zip(result.frame["x"].tolist(), becomes, strict=True))
    refused = result.misfits["x"].rows.tolist() if result.misfits else [False] * len(becomes)
    assert refused == [wanted is NO for wanted in becomes]


def test_an_object_that_cannot_be_looked_at_is_an_error_of_its_column():
    with pytest.raises(DataError, match="Column 'x' cannot be read as a number: InvalidOperation"):
        conform(pd.DataFrame({"x": objects(Decimal("sNaN"))}), {"x": "number"})


OLD_TIMES = [utc(1, 1, 1), utc(1500, 1, 1), utc(2024, 1, 1, 1, 2, 3, 456_789), utc(9999, 12, 31), None]


@pytest.mark.parametrize("infer", [False, True])
def test_times_in_96_bits_keep_every_year(infer):
    sink = io.BytesIO()
    times = pa.array([None if one is None else one.to_pydatetime() for one in OLD_TIMES], pa.timestamp("us"))
    parquet.write_table(pa.table({"t": times, "n": range(5)}), sink, use_deprecated_int96_timestamps=True)
    read = ParquetFormat().read(sink.getvalue(), name="x.parquet", columns={"t": "timestamp"}, infer=infer)
    found = conform(frame_of(read) if infer else read, {"t": "timestamp"})
    assert not found.misfits
    assert all(same(one, wanted) for one, wanted in zip(found.frame["t"].tolist(), OLD_TIMES, strict=True))


def test_times_in_96_bits_lose_no_nanoseconds():
    def read(*nanoseconds: int) -> pa.Table:
        sink = io.BytesIO()
        table = pa.table({"t": pa.array(nanoseconds, pa.timestamp("ns"))})
        parquet.write_table(table, sink, use_deprecated_int96_timestamps=True)
        return ParquetFormat().read(sink.getvalue(), name="x.parquet", columns={"t": "timestamp"})

    assert conform(read(1_000, 1), {"t": "timestamp"}).misfits["t"].rows.tolist() == [False, True]
    assert not conform(read(1_000, -2_000), {"t": "timestamp"}).misfits


def test_text_that_is_no_utf8_is_refused_row_by_row(tmp_path):
    raw = pa.Array.from_buffers(
        pa.string(),
        2,
        [None, pa.py_buffer(b"\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"), pa.py_buffer(b"a\xff")],
    )
    sink = io.BytesIO()
    parquet.write_table(pa.table({"x": raw}), sink)
    table = ParquetFormat().read(sink.getvalue(), name="x.parquet", columns={"x": "string"})
    for kind in ("string", "integer", "boolean", "timestamp"):
        result = conform(table, {"x": kind})
        assert result.misfits["x"].rows.tolist()[1] is True
    assert conform(table, {"x": "string"}).frame["x"].tolist() == ["a", None]


def test_a_reason_names_the_range():
    result = conform(pa.table({"x": pa.array([BIG], pa.uint64())}), {"x": "integer"})
    assert result.misfits["x"].example == str(BIG)
    assert re.search(r"from -9223372036854775808 to 9223372036854775807", result.misfits["x"].reason)
