"""How metadata shows values in Dagster's UI: tables, numbers, pictures, links.

Belongs here: the form of a value. Does not belong here: which values an asset tells.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    import pandas as pd

_LONGEST = 200


def markdown_table(rows: "Sequence[Mapping[str, Any]] | pd.DataFrame") -> str:
    """A markdown table of the rows; columns are those of the first row. "no rows" when there are none."""
    records: Sequence[Mapping[str, Any]]
    records = rows if isinstance(rows, Sequence) else rows.to_dict("records")  # type: ignore[assignment]
    if not records:
        return "no rows"
    columns = list(records[0])
    lines = [_line(columns), _line(["---"] * len(columns))]
    lines += [_line([record.get(column, "") for column in columns]) for record in records]
    return "\n".join(lines)


def _line(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(value: Any) -> str:
    text = str(value).replace("|", "\\|").replace("\n", " ")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def image(png: bytes) -> dg.MarkdownMetadataValue:
    """A PNG inside the metadata itself, so the UI shows it wherever the artifacts are kept."""
    import base64

    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def link(name: str, url: str | None) -> dict[str, dg.MetadataValue[Any]]:
    """A link of that name, or nothing where there is no page."""
    return {name: dg.MetadataValue.url(url)} if url else {}


def number(value: float | None, form: str = ".4f") -> str:
    """A measured number in words; None is one that is not defined."""
    return "not defined" if value is None else format(value, form)


def compact_json(value: Mapping[str, Any] | Sequence[Any]) -> dg.JsonMetadataValue:
    """Plain values for metadata."""
    return dg.MetadataValue.json(json.loads(json.dumps(value, default=str)))
