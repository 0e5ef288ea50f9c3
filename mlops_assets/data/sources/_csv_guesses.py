"""How a CSV file seems to be written: encoding, delimiter, last line, texts that mean missing.

Belongs here: guesses from all of a file's bytes. Does not belong here: reading what is declared
(``csv_format.py``), what the columns are (``data/inference.py``).
"""

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlops_assets.data.guess import Guess
from mlops_assets.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITERS = (",", ";", "\t", "|")
SNIFFED_LINES = 200
MISSING_TEXTS = ("nan", "N/A", "n/a", "#N/A", "NULL", "Null", "null", "None", "none", "?", "-", "--")
"""Texts that mean missing in many files, where everything else in the column reads as another type."""


Read = Callable[[Mapping[str, Any]], "pa.Table"]
"""The table that a file is with these options."""


def guessed_options(
    content: bytes, name: str, read: Read, null_values: Sequence[str]
) -> tuple[dict[str, Any], list[Guess]]:
    """The options of ``CsvSource`` that the file needs and that are not the default, and why.

    ``content`` is unpacked; ``null_values`` mean missing by default. Raises DataError for a file without
    rows or without a header.
    """
    options, guesses = _writing(content, name)
    table = read(options)
    _require_header(table.column_names, name)
    meant = _texts_that_mean_missing(read, options, table, null_values)
    if meant:
        options["column_null_values"] = {column: [*null_values, *texts] for column, texts in meant.items()}
    guesses += [
        Guess(
            f"{', '.join(map(repr, texts))} means missing in {column}",
            "everything else in the column reads as another type than text",
            "column_null_values under source",
        )
        for column, texts in meant.items()
    ]
    return options, guesses


def _writing(content: bytes, name: str) -> tuple[dict[str, Any], list[Guess]]:
    """Encoding, delimiter and last line, where they are not the default."""
    options: dict[str, Any] = {}
    guesses = []
    encoding = _encoding(content)
    if encoding != "utf-8":
        options["encoding"] = encoding
        guesses.append(Guess(f"the file is written in {encoding}", "it is no UTF-8", "encoding under source"))
    text = content.decode(encoding)
    if not text.strip():
        raise DataError(f"{name} is empty: the first line has to name the columns, the others are the rows.")
    delimiter = _delimiter(text)
    if delimiter != ",":
        options["delimiter"] = delimiter
        guesses.append(
            Guess(
                f"columns are separated by {delimiter!r}",
                "it cuts every line into the same number of fields",
                "delimiter under source",
            )
        )
    if not text.endswith(("\n", "\r")):
        options["final_newline"] = "optional"
        guesses.append(
            Guess(
                "the file is whole", "its last line does not end, which a cut file looks like too", "the file"
            )
        )
    return options, guesses


def _encoding(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    for encoding in ("utf-8", "cp1252"):
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"


def _delimiter(text: str) -> str:
    """What cuts the first lines into the same number of fields; of several, what cuts into the most."""
    lines = list(_lines(text))
    sample = "".join(lines)
    best, most = ",", 1
    for one in DELIMITERS:
        counts = {len(row) for row in csv.reader(io.StringIO(sample), delimiter=one) if row}
        if len(counts) == 1 and (count := counts.pop()) > most:
            best, most = one, count
    return best


def _lines(text: str) -> Iterator[str]:
    """The first lines; not one more line than the quotes that are open allow."""
    open_quotes = False
    for number, line in enumerate(io.StringIO(text, newline="")):
        yield line
        open_quotes ^= line.count('"') % 2 == 1
        if number >= SNIFFED_LINES and not open_quotes:
            return


def _require_header(names: Sequence[str], name: str) -> None:
    """DataError when the first line is a row: then the file names no columns."""
    if names and all(re.fullmatch(r"-?[0-9]+([.,][0-9]+)?", one.strip()) for one in names):
        raise DataError(
            f"The first line of {name} holds numbers ({', '.join(names[:4])}), not the names of the columns. "
            "Write a line with a name for every column above it."
        )


def _texts_that_mean_missing(
    read: Read, options: Mapping[str, Any], table: "pa.Table", null_values: Sequence[str]
) -> dict[str, list[str]]:
    """By column of text, the texts without which all of it reads as another type."""
    import pyarrow as pa
    import pyarrow.compute as pc

    present: dict[str, list[str]] = {}
    for column in table.column_names:
        values = table.column(column)
        if pa.types.is_string(values.type):
            distinct = set(pc.unique(values).to_pylist())
            found = [text for text in MISSING_TEXTS if text in distinct]
            if found and len(distinct - {None, *found}) > 0:
                present[column] = found
    if not present:
        return {}
    tried = {
        **options,
        "column_null_values": {column: [*null_values, *texts] for column, texts in present.items()},
    }
    without = read(tried)
    return {
        column: texts
        for column, texts in present.items()
        if not pa.types.is_string(without.schema.field(column).type)
    }
