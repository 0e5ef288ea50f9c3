"""Files are read whole or not at all."""

import gzip
import io
import zipfile

import pandas as pd
import pytest

from mlops_assets.data.sources import CsvFormat, ParquetFormat
from mlops_assets.errors import DataError

CSV = b"id,code,amount\n1,007,1.5\n2,NA,\n3,012,2.5\n"


def zipped(content: bytes, *names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("data.csv",):
            archive.writestr(name, content)
    return buffer.getvalue()


def test_csv_infers_types_and_knows_missing_values():
    frame = CsvFormat().read(CSV, name="x.csv")
    assert frame["id"].tolist() == [1, 2, 3]
    assert frame["amount"].isna().tolist() == [False, True, False]


def test_text_columns_keep_leading_zeros_and_missing_values():
    frame = CsvFormat().read(CSV, name="x.csv", text_columns=["code", "not there"])
    assert frame["code"].tolist() == ["007", None, "012"]


def test_a_type_that_shows_late_in_a_large_file_is_seen():
    rows = b"".join(b"%d,1\n" % number for number in range(400_000)) + b"400000,late\n"
    frame = CsvFormat().read(b"id,value\n" + rows, name="x.csv")
    assert len(rows) > 2**20
    assert frame["value"].iloc[-1] == "late"


def test_delimiter_and_null_values_can_be_declared():
    frame = CsvFormat(delimiter=";", null_values=["-"]).read(b"a;b\n1;-\n2;NA\n", name="x.csv")
    assert frame["b"].tolist() == [None, "NA"]


@pytest.mark.parametrize(("name", "pack"), [("x.csv.zip", zipped), ("x.csv.gz", gzip.compress)])
def test_compressed_files_are_read(name, pack):
    assert len(CsvFormat().read(pack(CSV), name=name)) == 3


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
        CsvFormat().read(content, name="/raw/x.csv")
    assert "/raw/x.csv" in str(caught.value)


def test_a_missing_last_line_end_can_be_declared():
    assert len(CsvFormat(final_newline="optional").read(CSV.rstrip(b"\n"), name="x.csv")) == 3


@pytest.mark.parametrize(("name", "pack"), [("x.zip", zipped), ("x.gz", gzip.compress)])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_off_archive_is_an_error(name, pack, share):
    packed = pack(CSV * 1000)
    with pytest.raises(DataError, match="cut off or damaged"):
        CsvFormat().read(packed[: int(len(packed) * share)], name=name)


def test_a_damaged_archive_is_an_error():
    packed = bytearray(zipped(CSV * 1000))
    packed[60] ^= 0xFF
    with pytest.raises(DataError, match="cut off or damaged"):
        CsvFormat().read(bytes(packed), name="x.zip")


def test_an_archive_must_hold_one_file():
    with pytest.raises(DataError, match=r"must hold one file, not 2: \['a.csv', 'b.csv'\]"):
        CsvFormat().read(zipped(CSV, "a.csv", "b.csv"), name="x.zip")


def test_parquet_is_read_whole_or_not_at_all():
    buffer = io.BytesIO()
    pd.DataFrame({"a": range(1000)}).to_parquet(buffer)
    content = buffer.getvalue()
    assert len(ParquetFormat().read(content, name="x.parquet")) == 1000
    for cut in (content[:-1], content[: len(content) // 2], b""):
        with pytest.raises(DataError, match=r"x\.parquet is not valid Parquet"):
            ParquetFormat().read(cut, name="x.parquet")
