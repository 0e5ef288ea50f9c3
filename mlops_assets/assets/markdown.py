"""Markdown tables for metadata, as Dagster's UI shows them.

Belongs here: text layout of a small table. Does not belong here: what goes into one.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
