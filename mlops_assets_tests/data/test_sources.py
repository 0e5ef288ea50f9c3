"""Files are read whole or not at all."""

import datetime
import gzip
import io
import zipfile

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from mlops_assets.data.sources import SOURCES, FileSource
from mlops_assets.data.sources.csv_format import CsvFormat, CsvSource, Missing
from mlops_assets.data.sources.parquet_format import ParquetFormat, ParquetSource
from mlops_assets.errors import DataError
from mlops_assets.testing.conformance.sources import SourceConformance


class TestCsv(SourceConformance):
    source = CsvSource(format="csv", path="x.csv")
    ends_with_any_row = True

    def written(self, rows: pa.Table) -> bytes:
        sink = io.BytesIO()
        csv.write_csv(rows, sink)
        return sink.getvalue()


class TestParquet(SourceConformance):
    source = ParquetSource(format="parquet", path="x.parquet")

    def written(self, rows: pa.Table) -> bytes:
        sink = io.BytesIO()
        parquet.write_table(rows, sink)
        return sink.getvalue()


def test_every_format_is_tested():
    tested = {found.source.name for found in SourceConformance.__subclasses__()}
    assert tested == {name for name in SOURCES if issubclass(SOURCES[name], FileSource)}


CSV = b"id,code,amount\n1,007,1.5\n2,NA,\n3,012,2.5\n"


def zipped(content: bytes, *names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("data.csv",):
            archive.writestr(name, content)
    return buffer.getvalue()


def inferred(content: bytes, **options) -> dict:
    table = CsvFormat(**options).read(content, name="x.csv", columns={}, infer=True)
    return table.to_pydict()


def as_declared(content: bytes, columns, **options) -> dict:
    return CsvFormat(**options).read(content, name="x.csv", columns=columns).to_pydict()


def test_declared_fields_are_text_as_it_stands_and_others_are_left_out():
    found = as_declared(CSV, {"amount": "number", "code": "string", "absent": "string"})
    assert found == {"code": ["007", "NA", "012"], "amount": ["1.5", None, "2.5"]}


def test_csv_infers_types_and_knows_missing_values():
    assert inferred(b"id,amount\n1,1.5\n2,NA\n3,NaN\n") == {"id": [1, 2, 3], "amount": [1.5, None, None]}


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        (["1582218195625938945", ""], [1582218195625938945, None]),
        # One number with a fraction would make a float of it, and two customers one.
        (["1582218195625938945", "2.5"], ["1582218195625938945", "2.5"]),
        (["12345678901234567890"], ["12345678901234567890"]),
        (["007", "8"], ["007", "8"]),
        (["+7"], ["+7"]),
        (["1", "1.5", "-2e3"], [1.0, 1.5, -2000.0]),
        (["1", "x"], ["1", "x"]),
        (["true", "False", ""], [True, False, None]),
        (["yes"], ["yes"]),
        (["2024-01-31", ""], [datetime.date(2024, 1, 31), None]),
        (["2024-01-31T10:00:00"], [datetime.datetime(2024, 1, 31, 10)]),
        (["2024-01-31T10:00:00Z"], [datetime.datetime(2024, 1, 31, 10, tzinfo=datetime.UTC)]),
        (["2024-01-31T10:00:00Z", "2024-01-31T10:00:00"], ["2024-01-31T10:00:00Z", "2024-01-31T10:00:00"]),
        (["2024-01-31T10:00:00.1234567Z"], ["2024-01-31T10:00:00.1234567Z"]),
        (["10:00"], ["10:00"]),
        (["", "NA"], [None, None]),
    ],
)
def test_inferring_loses_nothing(fields, values):
    content = "x,row\n" + "".join(f"{field},{row}\n" for row, field in enumerate(fields))
    assert inferred(content.encode())["x"] == values


def test_what_means_missing_depends_on_the_type_of_the_column():
    content = b"id,country,amount\n1,NA,12.5\n2,DE,NA\n3,,NaN\n"
    columns = {"id": "integer", "country": "string", "amount": "number"}
    assert as_declared(content, columns) == {
        "id": ["1", "2", "3"],
        "country": ["NA", "DE", None],
        "amount": ["12.5", None, None],
    }
    assert inferred(content) == {"id": [1, 2, 3], "country": ["NA", "DE", None], "amount": [12.5, None, None]}


def test_what_means_missing_can_be_declared_for_all_for_text_and_for_one_column():
    content = b"a,b,c,d\n-,-,-,-\nNA,NA,NA,NA\n"
    missing = Missing(values=["-"], in_text=["NA"], by_column={"d": ["-", "NA"]})
    columns = dict.fromkeys("abcd", "string") | {"c": "number"}
    assert as_declared(content, columns, missing=missing) == {
        "a": ["-", None],
        "b": ["-", None],
        "c": [None, "NA"],
        "d": [None, None],
    }


def test_a_quoted_field_never_means_missing():
    columns = {"a": "string", "b": "number"}
    assert as_declared(b'a,b\n"","NA"\n', columns) == {"a": [""], "b": ["NA"]}


def test_a_column_without_a_value_is_of_its_declared_type():
    table = CsvFormat().read(b"a,b\n,1\n,2\n", name="x.csv", columns={"a": "timestamp"}, infer=True)
    assert str(table.schema.field("a").type) == "timestamp[us, tz=UTC]"
    assert str(inferred(b"a,b\n,1\n")["a"]) == "[None]"


def test_text_columns_stay_text_in_front_of_a_transform():
    found = inferred(b"zip,row\n10115,1\n80331,2\n", text_columns=["zip"])
    assert found == {"zip": ["10115", "80331"], "row": [1, 2]}


@pytest.mark.parametrize(
    "options", [{"text_columns": ["zlp"]}, {"missing": Missing(by_column={"zlp": ["", "NA"]})}]
)
def test_an_option_for_a_column_that_is_not_there_is_an_error(options):
    option = "text_columns" if "text_columns" in options else "column_null_values"
    with pytest.raises(
        DataError, match=rf"x\.csv has no columns \['zlp'\], which {option} names. It has: zip, row"
    ):
        inferred(b"zip,row\n10115,1\n", **options)


def test_a_type_that_shows_late_in_a_large_file_is_seen():
    rows = b"".join(b"%d,1\n" % number for number in range(400_000)) + b"400000,late\n"
    assert len(rows) > 2**20
    assert inferred(b"id,value\n" + rows)["value"][-1] == "late"


def test_the_delimiter_can_be_declared():
    assert inferred(b"a;b\n1;2\n", delimiter=";") == {"a": [1], "b": [2]}


def test_a_byte_order_mark_is_no_part_of_a_name():
    assert inferred(b"\xef\xbb\xbfa,b\n1,2\n") == {"a": [1], "b": [2]}


def test_another_encoding_must_be_declared():
    content = "straße,n\nMüller,1\n"
    assert inferred(content.encode("cp1252"), encoding="cp1252") == {"straße": ["Müller"], "n": [1]}
    assert inferred(content.encode("utf-16"), encoding="utf-16") == {"straße": ["Müller"], "n": [1]}
    for part in (content.encode("latin-1"), "n\nMüller\n".encode("latin-1")):
        with pytest.raises(DataError, match=r"x\.csv is not utf-8: .* declare it: encoding: latin-1"):
            inferred(part)


@pytest.mark.parametrize("infer", [True, False])
def test_a_column_twice_is_an_error(infer):
    with pytest.raises(DataError, match=r"x\.csv has columns twice: 'a'"):
        CsvFormat().read(b"a,b,a\n1,2,3\n", name="x.csv", columns={"b": "integer"}, infer=infer)
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), sink)
    with pytest.raises(DataError, match=r"x\.parquet has columns twice: 'a'"):
        ParquetFormat().read(sink.getvalue(), name="x.parquet", columns={"a": "integer"}, infer=infer)


@pytest.mark.parametrize("content", [b'a,b\n1,"x\n', b'a,b\n1,"\n', b'a,b\n"1","x\r\n'])
def test_a_file_cut_off_inside_quotes_is_an_error(content):
    with pytest.raises(
        DataError, match="looks cut off: the field that starts in line 2 has an opening quote"
    ):
        inferred(content)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'a,b\n1,"abc\n2,def\n3,"ghi"\n', 2),  # rows 2 and 3 became a part of row 1
        (b'a,b\n"Big" John,2\n', 2),
        (b'a,b\n"x\\"y",2\n', 2),
        (b'a,b\n1,2\r\n"x" ,3\r\n', 3),
        (b'a,b\n"x\ny","z"" \n"5,6" 7\n', 3),
        (b'a,"b"c\n1,2\n', 1),
    ],
)
def test_a_quoted_field_ends_with_its_closing_quote(content, line):
    reason = f"text follows the closing quote of the field that starts in line {line}"
    with pytest.raises(DataError, match=reason):
        inferred(content)


def test_a_quoted_field_holds_whatever_is_in_it():
    content = b'a,b\r\n"x,""y""\r\n""z",""\r\n"","""\n"\r"5"";6",7\r\n'
    columns = {"a": "string", "b": "string"}
    found = as_declared(content, columns)
    assert found == {"a": ['x,"y"\r\n"z', "", '5";6'], "b": ["", '"\n', "7"]}
    assert (
        as_declared(content.replace(b'",', b'"|').replace(b"a,", b"a|"), columns, delimiter="|")["a"]
        == found["a"]
    )


def test_a_single_quote_inside_a_field_is_a_character():
    assert inferred(b'a,b\n1,5"\n2,"x\n"\n')["b"] == ['5"', "x\n"]


@pytest.mark.parametrize(("name", "pack"), [("x.csv.zip", zipped), ("x.csv.gz", gzip.compress)])
def test_compressed_files_are_read(name, pack):
    assert CsvFormat().read(pack(CSV), name=name, columns={"id": "integer"}).num_rows == 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (CSV[:-5], "looks cut off"),
        (b"id,code\n1,2\n3\n", "Expected 2 columns, got 1"),
        (b"id,code\n1,2\n3,4,5\n", "Expected 2 columns, got 3"),
    ],
)
def test_a_broken_csv_is_an_error_that_names_file_and_reason(content, reason):
    with pytest.raises(DataError, match=reason) as caught:
        CsvFormat().read(content, name="/raw/x.csv", columns={"id": "integer"})
    assert "/raw/x.csv" in str(caught.value)


def test_a_missing_last_line_end_can_be_declared():
    assert inferred(CSV.rstrip(b"\n"), final_newline="optional")["id"] == [1, 2, 3]


@pytest.mark.parametrize(("name", "pack"), [("x.zip", zipped), ("x.gz", gzip.compress)])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_off_archive_is_an_error(name, pack, share):
    packed = pack(CSV * 1000)
    with pytest.raises(DataError, match="cut off or damaged"):
        CsvFormat().read(packed[: int(len(packed) * share)], name=name, columns={})


def test_a_damaged_archive_is_an_error():
    packed = bytearray(zipped(CSV * 1000))
    packed[60] ^= 0xFF
    with pytest.raises(DataError, match="cut off or damaged"):
        CsvFormat().read(bytes(packed), name="x.zip", columns={})


def test_an_archive_must_hold_one_file():
    with pytest.raises(DataError, match=r"must hold one file, not 2: \['a.csv', 'b.csv'\]"):
        CsvFormat().read(zipped(CSV, "a.csv", "b.csv"), name="x.zip", columns={})


def test_parquet_is_read_whole_or_not_at_all():
    buffer = io.BytesIO()
    pd.DataFrame({"a": range(1000)}).to_parquet(buffer)
    content = buffer.getvalue()
    columns = {"a": "integer"}
    assert ParquetFormat().read(content, name="x.parquet", columns=columns).num_rows == 1000
    assert ParquetFormat().read(content, name="x.parquet", columns={}).num_rows == 1000
    for cut in (content[:-1], content[: len(content) // 2], b""):
        with pytest.raises(DataError, match=r"x\.parquet is not valid Parquet"):
            ParquetFormat().read(cut, name="x.parquet", columns=columns)


def test_a_damaged_page_is_an_error_where_the_writer_left_a_checksum():
    buffer = io.BytesIO()
    table = pa.table({"id": pa.array([77_777_777, 2, 3])})
    parquet.write_table(
        table,
        buffer,
        write_page_checksum=True,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
    )
    content = bytearray(buffer.getvalue())
    content[content.index((77_777_777).to_bytes(8, "little"))] ^= 1
    with pytest.raises(DataError, match=r"x\.parquet is not valid Parquet, or is cut off: .*CRC"):
        ParquetFormat().read(bytes(content), name="x.parquet", columns={"id": "integer"})
