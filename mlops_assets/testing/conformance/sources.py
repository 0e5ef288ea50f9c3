"""What every source format must do (``data/sources/_base.py`` says it in words).

class TestCsv(SourceConformance):
source = CsvSource(format="csv", path="x.csv")

def written(self, table): ...  # bytes of one file with these rows
"""

import datetime as dt
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
from pydantic import ValidationError

from mlops_assets.data.conversion import ColumnType
from mlops_assets.data.inference import format_of, infer_rows
from mlops_assets.data.schema import conform
from mlops_assets.data.sources import SOURCES, FileSource
from mlops_assets.errors import DataError

WHEN = dt.datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=dt.UTC)
COLUMNS: dict[ColumnType, tuple[pa.DataType, list[Any]]] = {
    "string": (pa.string(), ["NA", "007", "ü, \"quoted\"\nline", " ", None, "NaN"]),
    "integer": (pa.int64(), [2**63 - 1, -(2**63), 2**53 + 1, 0, None, -1]),
    "number": (pa.float64(), [0.1, -1e300, 5e-324, 1 / 3, None, 2.0**53]),
    "boolean": (pa.bool_(), [True, False, True, False, None, True]),
    "timestamp": (pa.timestamp("us", tz="UTC"),
                  [WHEN, WHEN.replace(year=1600), WHEN.replace(year=2400), WHEN, None, WHEN]),
    "date": (pa.date32(), [dt.date(2024, 2, 29), dt.date(1600, 1, 1), dt.date(9999, 12, 31), dt.date(1, 1, 1),
                           None, dt.date(1970, 1, 1)]),
}  # fmt: skip
"""Values of every declared type that a careless reader changes."""


def table(*kinds: ColumnType) -> pa.Table:
    """One column per type, called like it."""
    return pa.table({kind: pa.array(COLUMNS[kind][1], COLUMNS[kind][0]) for kind in kinds or COLUMNS})


class SourceConformance:
    """One format, as it is when nothing but the path is declared."""

    source: ClassVar[FileSource]

    @abstractmethod
    def written(self, rows: pa.Table) -> bytes:
        """One file with these rows, as programs write it."""

    def read(self, content: bytes, columns: dict[str, ColumnType], *, infer: bool = False) -> pa.Table:
        return self.source.file_format().read(content, name="/raw/file", columns=columns, infer=infer)

    def test_yaml_finds_it_by_its_name(self) -> None:
        assert SOURCES[self.source.format] is type(self.source)
        assert type(self.source).model_validate(self.source.model_dump()) == self.source

    def test_a_file_is_known_by_its_name_packed_or_not(self) -> None:
        assert self.source.suffixes
        for suffix in self.source.suffixes:
            assert suffix == suffix.lower()
            for name in (f"x{suffix}", f"X{suffix.upper()}", f"x{suffix}.gz"):
                assert format_of(Path(name)) == self.source.format

    def test_what_is_guessed_of_a_file_reads_it(self) -> None:
        rows = table("integer", "boolean").drop_null()
        found = infer_rows(self.written(rows), source=self.source.format, name="/raw/file")
        assert found.source == self.source.format and found.rows == rows.num_rows
        assert {one.name: one.type for one in found.columns} == {"integer": "integer", "boolean": "boolean"}

    def test_a_field_it_does_not_have_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            type(self.source).model_validate({**self.source.model_dump(), "no_such": 1})

    @pytest.mark.parametrize("kind", COLUMNS)
    def test_a_declared_type_keeps_every_value(self, kind: ColumnType) -> None:
        conformed = conform(self.read(self.written(table()), {kind: kind}), {kind: kind})
        assert conformed.misfits == {} and conformed.missing == ()
        values = conformed.frame[kind]
        found = [None if gone else value for value, gone in zip(values, values.isna(), strict=True)]
        if kind == "timestamp":
            found = [value and value.to_pydatetime() for value in found]
        assert found == COLUMNS[kind][1]

    def test_only_declared_columns_are_read_in_the_order_of_the_file(self) -> None:
        columns: dict[str, ColumnType] = {"number": "number", "absent": "string", "integer": "integer"}
        assert self.read(self.written(table()), columns).column_names == ["integer", "number"]

    def test_a_transform_gets_every_column_and_declared_text_as_text(self) -> None:
        found = self.read(self.written(table()), {"string": "string"}, infer=True)
        assert found.column_names == list(COLUMNS)
        assert found.column("string").to_pylist() == COLUMNS["string"][1]
        assert found.column("integer").to_pylist() == COLUMNS["integer"][1]

    def test_a_file_without_rows_has_its_columns(self) -> None:
        found = self.read(self.written(table("integer", "number").slice(0, 0)), {"integer": "integer"})
        assert found.column_names == ["integer"] and found.num_rows == 0

    @pytest.mark.parametrize("infer", [False, True])
    def test_a_column_that_comes_twice_is_an_error(self, infer: bool) -> None:
        twice = pa.table([pa.array([1]), pa.array([2])], names=["x", "x"])
        with pytest.raises(DataError, match="/raw/file has columns twice: 'x'"):
            self.read(self.written(twice), {"x": "integer"}, infer=infer)

    @pytest.mark.parametrize("infer", [False, True])
    def test_several_files_are_read_as_if_they_were_one(self, infer: bool) -> None:
        file_format = self.source.file_format()
        declared: dict[str, ColumnType] = {kind: kind for kind in COLUMNS}
        parts = {
            f"/raw/{start}": file_format.part(
                self.written(table().slice(start, 2)), name=f"/raw/{start}", columns=declared, infer=infer
            )
            for start in (0, 2, 4)
        }
        found = file_format.joined(parts, columns=declared, infer=infer)
        whole = self.read(self.written(table()), declared, infer=infer)
        assert conform(found, declared).frame.equals(conform(whole, declared).frame)
        assert found.schema.types == whole.schema.types

    def test_a_column_that_one_of_several_files_lacks_is_an_error_that_names_both(self) -> None:
        file_format = self.source.file_format()
        parts = {
            name: file_format.part(self.written(rows), name=name, columns={}, infer=True)
            for name, rows in (("/raw/1", table("integer", "number")), ("/raw/2", table("integer")))
        }
        with pytest.raises(DataError, match="/raw/1 has a column 'number', /raw/2 has none"):
            file_format.joined(parts, columns={}, infer=True)

    def test_an_empty_file_is_an_error(self) -> None:
        with pytest.raises(DataError, match="/raw/file"):
            self.read(b"", {"integer": "integer"})

    def test_a_file_that_was_cut_off_is_an_error_wherever(self) -> None:
        content = self.written(table("integer", "boolean"))
        for end in range(1, len(content), max(1, len(content) // 50)):
            # A cut right behind a whole row of a format without an end mark leaves a whole, shorter file.
            if content[end - 1 : end] == b"\n" and self.ends_with_any_row:
                continue
            with pytest.raises(DataError, match="/raw/file"):
                self.read(content[:end], {"integer": "integer"})

    ends_with_any_row: ClassVar[bool] = False
    """Whether a file may end after any row, so that one without its last rows is a file too."""
