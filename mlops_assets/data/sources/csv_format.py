"""CSV files with a header line; plain, or compressed as .zip (one member) or .gz.

Belongs here: what YAML may say about them, reading, decompressing, telling a whole file from one that was cut
off, what means missing, and what text reads as where nothing is declared. Does not belong here: declared
types (``data/schema.py``).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from mlops_assets.data.conversion import (
    DAY_TEXT,
    MOMENT_TEXT,
    ColumnType,
    arrow_type,
    convert,
    text_microseconds,
)
from mlops_assets.data.guess import Guess
from mlops_assets.data.sources._base import SourceFormat, require_distinct
from mlops_assets.data.sources._csv_guesses import guessed_options
from mlops_assets.data.sources._files import FileSource
from mlops_assets.data.widening import require_same_columns, rows_alone
from mlops_assets.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

NULL_VALUES = ("", "NA", "NaN")
"""What means missing in columns of numbers, booleans and times."""
TEXT_NULL_VALUES = ("",)
"""What means missing in columns of text: NA is a country, and somebody's name."""

_PLAIN_WHOLE = r"^-?(?:0|[1-9][0-9]*)$"
_PLAIN_NUMBER = r"^-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_PLAIN_TRUTH = r"^(?:true|false|True|False|TRUE|FALSE)$"


@dataclass(frozen=True)
class Missing:
    """Which unquoted texts mean missing: in text, in other columns, and in single columns by name."""

    values: Sequence[str] = NULL_VALUES
    in_text: Sequence[str] = TEXT_NULL_VALUES
    by_column: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def of(self, column: str, *, text: bool) -> frozenset[str]:
        return frozenset(self.by_column.get(column, self.in_text if text else self.values))

    def everywhere(self) -> frozenset[str]:
        return frozenset(self.values).union(self.in_text, *self.by_column.values())


def _encoding(value: object) -> object:
    if isinstance(value, str):
        try:
            b" ".decode(value, "replace")
        except LookupError:  # hex and the like are codecs, but not of text
            raise ValueError(
                f"{value!r} is no encoding that Python knows; common ones: utf-8, utf-16, latin-1, cp1252"
            ) from None
    return value


Encoding = Annotated[str, BeforeValidator(_encoding)]
"""Python's name of a text encoding."""


def _delimiter(value: object) -> object:
    if isinstance(value, str) and (len(value) != 1 or not value.isascii() or value in '"\r\n\0'):
        raise ValueError(
            f"{value!r} is no delimiter: it is one ASCII character, and neither a quote nor the end of a line"
        )
    return value


Delimiter = Annotated[str, BeforeValidator(_delimiter)]
"""What stands between the fields of a CSV file."""


class CsvSource(FileSource):
    """CSV with a header line; ``.zip`` and ``.gz`` are decompressed."""

    name: ClassVar[str] = "csv"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv")

    delimiter: Delimiter = Field(default=",", description="Field separator.")
    encoding: Encoding = Field(default="utf-8", description="Python's name of the file's encoding.")
    null_values: tuple[str, ...] = Field(
        default=NULL_VALUES, description="Unquoted texts that mean missing in numbers, booleans and times."
    )
    text_null_values: tuple[str, ...] = Field(
        default=TEXT_NULL_VALUES, description="Unquoted texts that mean missing in columns of text."
    )
    column_null_values: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="The same for single columns of the file, instead of the above."
    )
    text_columns: tuple[str, ...] = Field(
        default=(),
        description="With a transform: columns of the file that stay text whatever they look like.",
    )
    final_newline: Literal["required", "optional"] = Field(
        default="required", description="A file whose last line has no end was cut off, unless optional."
    )

    def file_format(self) -> "CsvFormat":
        return CsvFormat(
            delimiter=self.delimiter,
            missing=Missing(self.null_values, self.text_null_values, self.column_null_values),
            final_newline=self.final_newline,
            encoding=self.encoding,
            text_columns=self.text_columns,
        )

    @classmethod
    def guessed(cls, content: bytes, name: str) -> tuple[dict[str, Any], list[Guess]]:
        def read(options: Mapping[str, Any]) -> "pa.Table":
            declared = cls(format=cls.name, path=name, **options)
            return declared.file_format().read(content, name=name, columns={}, infer=True)

        return guessed_options(decompressed(content, name), name, read, NULL_VALUES)

    def problem(
        self, columns: Mapping[str, ColumnType], *, transformed: bool, partitioned: bool
    ) -> str | None:
        of_path = super().problem(columns, transformed=transformed, partitioned=partitioned)
        if transformed or of_path:
            return of_path
        if self.text_columns:
            return "text_columns go with a transform; without one, declare the columns as string"
        unknown = sorted(set(self.column_null_values) - set(columns))
        if unknown:
            return (
                f"unknown columns in column_null_values: {', '.join(unknown)}; declared: {', '.join(columns)}"
            )
        return None


class CsvFormat(SourceFormat):
    """Values are text. A quoted text never means missing.

    Rows with too few or too many fields are an error, and so is a quote that is not closed or not at the
    end of its field: where such a field ends is a guess, and a wrong one swallows rows. So is a last line
    without a line end, the one trace of a file cut inside its last field; ``final_newline="optional"``
    accepts it, for writers that never end their files with one.

    Inferred types lose nothing: whole numbers without leading zeros that fit, decimal numbers, true and
    false, ISO 8601 dates and timestamps (all with a zone, or all without). Everything else stays text, and so
    do the columns named in ``text_columns``.
    """

    def __init__(
        self,
        *,
        delimiter: str = ",",
        missing: Missing | None = None,
        final_newline: Literal["required", "optional"] = "required",
        encoding: str = "utf-8",
        text_columns: Sequence[str] = (),
    ) -> None:
        self._delimiter = delimiter
        self._missing = missing or Missing()
        self._final_newline_required = final_newline == "required"
        self._encoding, self._text_columns = encoding, frozenset(text_columns)

    def read(
        self, content: bytes, *, name: str, columns: Mapping[str, ColumnType], infer: bool = False
    ) -> "pa.Table":
        part = self.part(content, name=name, columns=columns, infer=infer)
        return self.joined({name: part}, columns=columns, infer=infer)

    def part(self, content: bytes, *, name: str, columns: Mapping[str, ColumnType], infer: bool) -> "_Texts":
        content = self._decoded(decompressed(content, name), name)
        if not content.strip():
            raise DataError(f"Source file {name} is empty.")
        self._require_whole(content, name)
        self._require_whole_quotes(content, name)
        texts = self._texts(content, name, self._missing.everywhere(), None)
        require_distinct(texts.column_names, name)
        self._require_named(texts.column_names, columns, name)
        chosen = [column for column in texts.column_names if infer or column in columns]
        raw = self._raw(content, name, texts, chosen)

        def without(column: str, *, text: bool) -> "pa.Array[Any]":
            return _without(texts.column(column), raw.get(column), self._missing.of(column, text=text))

        return _Texts(
            rows=texts.num_rows,
            as_text={column: without(column, text=True) for column in chosen},
            as_other={column: without(column, text=False) for column in chosen},
        )

    def joined(
        self, parts: "Mapping[str, _Texts]", *, columns: Mapping[str, ColumnType], infer: bool
    ) -> "pa.Table":
        """What a column reads as is told from the texts of all files."""
        import pyarrow as pa

        require_same_columns({name: part.as_text for name, part in parts.items()})
        texts = parts.values()
        made: dict[str, pa.Array[Any]] = {}
        for column in next(iter(texts)).as_text:
            kind = columns.get(column)
            text = partial(_end_to_end, [part.as_text[column] for part in texts])
            other = partial(_end_to_end, [part.as_other[column] for part in texts])
            if kind == "string" or column in self._text_columns:
                made[column] = text()
            elif not infer:
                made[column] = other()
            else:
                found = _inferred(other(), kind)
                made[column] = text() if found is None else found
        return pa.table(made) if made else rows_alone(sum(part.rows for part in texts))

    def _decoded(self, content: bytes, name: str) -> bytes:
        """The content in UTF-8, without a byte order mark."""
        try:
            return content.decode(self._encoding).removeprefix("\ufeff").encode()
        except UnicodeError as error:
            start = getattr(error, "start", 0)
            near = content[max(0, start - 20) : start + 20]
            raise DataError(
                f"Source file {name} is not {self._encoding}: {getattr(error, 'reason', error)} at byte "
                f"{start} ({near!r}). If it is written in another encoding, declare it: encoding: latin-1"
            ) from error

    def _require_whole(self, content: bytes, name: str) -> None:
        if self._final_newline_required and not content.endswith((b"\n", b"\r")):
            tail = content[-60:].rsplit(b"\n", 1)[-1].decode(errors="replace")
            raise DataError(
                f"Source file {name} looks cut off: its last line has no line end (...{tail!r}). "
                "If its writer never ends the last line, declare final_newline: optional."
            )

    def _require_named(self, found: Sequence[str], columns: Mapping[str, ColumnType], name: str) -> None:
        """DataError for an option that names a column which is neither in the file nor declared: a typo."""
        named = {"column_null_values": set(self._missing.by_column), "text_columns": self._text_columns}
        for option, given in named.items():
            absent = sorted(given - set(found) - set(columns))
            if absent:
                raise DataError(
                    f"Source file {name} has no columns {absent}, which {option} names. It has: "
                    f"{', '.join(found)}."
                )

    def _require_whole_quotes(self, content: bytes, name: str) -> None:
        """DataError when a quoted field does not end with its closing quote: Arrow would read on."""
        if b'"' not in content:
            return
        ends = re.escape(self._delimiter.encode()) + rb"\r\n"
        quoted = rb"(?<![^" + ends + rb'])"[^"]*+(?:""[^"]*+)*+'
        # What whole quoted fields leave behind has no quote at the start of a field.
        rest = re.sub(quoted + rb'"(?=[' + ends + rb"]|\Z)", b"", content)
        if not re.search(rb"(?<![^" + ends + rb'])"', rest):
            return
        after = {b"", b"\r", b"\n", self._delimiter.encode()}
        broken = next(
            found
            for found in re.finditer(quoted + rb'(?P<closed>"?)', content)
            if not found["closed"] or content[found.end() : found.end() + 1] not in after
        )
        line = 1 + len(re.findall(rb"\r\n|\r|\n", content[: broken.start()]))
        if not broken["closed"]:
            raise DataError(
                f"Source file {name} looks cut off: the field that starts in line {line} has an opening "
                "quote only."
            )
        shown = content[broken.start() : broken.end() + 20][-60:].decode(errors="replace")
        raise DataError(
            f"Source file {name} is not valid CSV: text follows the closing quote of the field that starts "
            f"in line {line} (...{shown!r}). A quote inside a quoted field is written twice."
        )

    def _texts(
        self, content: bytes, name: str, null_values: frozenset[str], columns: Sequence[str] | None
    ) -> "pa.Table":
        """All columns (or these) as text, null where an unquoted value is among ``null_values``."""
        import pyarrow as pa
        from pyarrow import csv

        try:
            return csv.read_csv(
                pa.BufferReader(content),
                read_options=csv.ReadOptions(block_size=min(max(len(content) + 1, 1 << 16), (1 << 31) - 1)),
                parse_options=csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=b'"' in content),
                convert_options=csv.ConvertOptions(
                    null_values=sorted(null_values),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    default_column_type=pa.string(),
                    include_columns=columns,
                ),
            )
        except pa.ArrowInvalid as error:
            raise DataError(f"Source file {name} is not valid CSV: {error}") from error

    def _raw(
        self, content: bytes, name: str, texts: "pa.Table", chosen: Sequence[str]
    ) -> dict[str, "pa.ChunkedArray[Any]"]:
        """Of the columns where not everything that means missing somewhere does, what stands in the file."""
        everywhere = self._missing.everywhere()
        needed = [
            column
            for column in chosen
            if texts.column(column).null_count
            and any(self._missing.of(column, text=text) != everywhere for text in (True, False))
        ]
        if not needed:
            return {}
        unread = self._texts(content, name, frozenset(), needed)
        return {column: unread.column(column) for column in needed}


@dataclass(frozen=True)
class _Texts:
    """The fields of one file by column, with what means missing in text, and in columns of other types."""

    rows: int
    as_text: "Mapping[str, pa.Array[Any]]"
    as_other: "Mapping[str, pa.Array[Any]]"


def _end_to_end(arrays: "Sequence[pa.Array[Any]]") -> "pa.Array[Any]":
    import pyarrow as pa

    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)


def _without(
    texts: "pa.ChunkedArray[Any]", raw: "pa.ChunkedArray[Any] | None", null_values: frozenset[str]
) -> "pa.Array[Any]":
    """The column with only ``null_values`` missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if raw is None:
        return texts.combine_chunks()
    unread = raw.combine_chunks()
    missing = pc.and_(
        texts.combine_chunks().is_null(), pc.is_in(unread, pa.array(sorted(null_values), pa.string()))
    )
    return pc.if_else(missing, None, unread)


def _inferred(texts: "pa.Array[Any]", declared: ColumnType | None) -> "pa.Array[Any] | None":
    """The column as what all its texts read as without a loss; None where that is only text.

    A column without a value is of the declared type, else a number: what pandas makes of one, too. Text with
    a sign or leading zeros is what the column is declared as, when all of it reads so.
    """
    import pyarrow as pa

    if texts.null_count == len(texts):
        return pa.nulls(len(texts), arrow_type(declared or "number"))
    encoded = texts.dictionary_encode()
    made = _plain(encoded.dictionary)
    if made is None and declared in ("integer", "number", "boolean"):
        converted = convert(encoded.dictionary, declared)
        made = None if converted.refused.any() else converted.values
    return None if made is None else made.take(encoded.indices)


def _plain(distinct: "pa.Array[Any]") -> "pa.Array[Any] | None":
    """Texts as what all of them are written like: whole numbers, decimal ones, truth, days, moments."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def all_match(pattern: str) -> bool:
        return bool(pc.all(pc.match_substring_regex(distinct, pattern)).as_py())

    kinds: tuple[tuple[str, ColumnType], ...] = (
        (_PLAIN_WHOLE, "integer"),
        (_PLAIN_NUMBER, "number"),
        (_PLAIN_TRUTH, "boolean"),
        (DAY_TEXT, "date"),
    )
    for pattern, kind in kinds:
        if all_match(pattern):
            made = convert(distinct, kind)
            return None if made.refused.any() else made.values
    if not all_match(MOMENT_TEXT):
        return None
    zoned = {bool(re.search(r"([Zz]|[+-]\d{2}(:?\d{2})?)$", text[16:])) for text in distinct.to_pylist()}
    micros, fits = text_microseconds(distinct)
    if len(zoned) > 1 or not np.all(fits):
        return None
    return pa.array(micros).cast(pa.timestamp("us", tz="UTC" if zoned == {True} else None))


def decompressed(content: bytes, name: str) -> bytes:
    """What a file holds whose name ends in .zip or .gz; the content itself of any other."""
    import gzip
    import io
    import zipfile
    import zlib

    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = archive.namelist()
                if len(members) != 1:
                    raise DataError(f"Source file {name} must hold one file, not {len(members)}: {members}")
                return archive.read(members[0])
        if name.endswith(".gz"):
            return gzip.decompress(content)
    except (zipfile.BadZipFile, EOFError, OSError, zlib.error, RuntimeError, NotImplementedError) as error:
        raise DataError(f"Source file {name} is cut off or damaged: {error}") from error
    return content
