"""The check ``replayed`` of a prediction log: answers of keys had the features that the offline view has.

Belongs here: which answers are replayed, against which versions of the lake, what is said of it. Does not
belong here: recomputing and comparing (``features/replay.py``), filling stores (``online_features.py``).

An answer is recomputed from exactly the versions that its store had applied: one different bit is *skew*, and
fails the check. Where the tables of today give other features, rows came after the answer: it was *late*,
which the data explains and no code can.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import table_name
from mlops_assets.assets.metadata import markdown_table
from mlops_assets.assets.online_features import OnlineTable, rows_from
from mlops_assets.errors import DataError
from mlops_assets.features.replay import LoggedRow, ReplayedView, Skew, skews
from mlops_assets.resources.lake import Lake

if TYPE_CHECKING:
    import pandas as pd

CHECK = "replayed"
MOST = 2_000
"""So many rows of a run are replayed, the newest: each group of versions is one computation."""
SHOWN = 20
COLUMNS = ["answer_id", "row", "at", "variant", "entity", "request", "features", "online"]


def replayed_spec(model: str) -> dg.AssetCheckSpec:
    """The check on the prediction log of a model."""
    return dg.AssetCheckSpec(
        CHECK,
        asset=asset_key("prediction_log", model),
        description="Features that were looked up by key are those of the offline view, to the bit.",
    )


@dataclass
class Replayed:
    """What became of the answers of keys of some days."""

    rows: int = 0
    older: int = 0
    """Rows beyond ``MOST``."""
    other_shapes: int = 0
    """Rows of a view that was declared otherwise: nothing here says what they looked at."""
    late: int = 0
    skewed: list[Skew] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def replay(lake: Lake, served: OnlineTable, model: str, *, day_column: str, days: Sequence[str]) -> Replayed:
    """Replays what the prediction log of a model holds of these days."""
    logged = lake.read(
        table_name("prediction_log", model), partitions=days, partition_column=day_column, columns=COLUMNS
    )
    found = Replayed()
    groups: dict[str, list[LoggedRow]] = defaultdict(list)
    for knew, row in _rows(logged, found):
        if knew["shape"] != served.online.shape:
            found.other_shapes += 1
            continue
        found.rows += 1
        groups[json.dumps(knew["applied"], sort_keys=True)].append(row)
    try:
        now = {name: lake.version(served.table.datasets[name].table().name) for name in served.datasets}
    except DataError as error:
        found.problems.append(str(error))
        return found
    for applied, rows in groups.items():
        versions = json.loads(applied)
        try:
            skewed = _skews(lake, served, versions, rows)
            found.skewed += skewed
            if versions != now:
                wrong = {(one.answer_id, one.row) for one in skewed}
                moved = {(one.answer_id, one.row) for one in _skews(lake, served, now, rows)}
                found.late += len(moved - wrong)
        except DataError as error:
            found.problems.append(f"{len(rows)} rows of versions {applied} cannot be replayed: {error}")
    return found


def check_result(model: str, found: Replayed) -> dg.AssetCheckResult:
    """What the check says: failed for skew, and for answers that nobody can recompute."""
    said = ""
    if found.skewed:
        answers = len({(one.answer_id, one.row) for one in found.skewed})
        said = f"{answers} of {found.rows} rows differ from the offline view: {found.skewed[0]}"
    elif found.problems:
        said = found.problems[0]
    metadata: dict[str, Any] = {
        "rows": found.rows,
        "rows_skewed": len({(one.answer_id, one.row) for one in found.skewed}),
        "rows_late": found.late,
        "rows_older": found.older,
        "rows_of_other_shapes": found.other_shapes,
    }
    if found.skewed:
        shown = [
            {
                "answer": one.answer_id,
                "row": one.row,
                "key": one.key,
                "feature": one.feature,
                "answered": repr(one.answered),
                "offline": repr(one.offline),
            }
            for one in found.skewed[:SHOWN]
        ]
        metadata["skew"] = dg.MetadataValue.md(markdown_table(shown))
    if found.problems:
        metadata["problems"] = dg.MetadataValue.md("\n".join(f"- {one}" for one in found.problems[:SHOWN]))
    return dg.AssetCheckResult(
        asset_key=asset_key("prediction_log", model),
        check_name=CHECK,
        passed=not found.skewed and not found.problems,
        severity=dg.AssetCheckSeverity.ERROR,
        description=said or None,
        metadata=metadata,
    )


def _rows(logged: "pd.DataFrame", found: Replayed) -> list[tuple[Mapping[str, Any], LoggedRow]]:
    """The newest rows of keys, each once: a shadow scored the same row."""
    keyed = logged[logged["request"].notna() & (logged["variant"] != "shadow")]
    keyed = keyed.drop_duplicates(["answer_id", "row"]).sort_values(["at", "answer_id", "row"])
    found.older = max(0, len(keyed) - MOST)
    return [
        (
            json.loads(one["online"]),
            LoggedRow(
                str(one["answer_id"]),
                int(one["row"]),
                json.loads(one["entity"]),
                json.loads(one["request"]),
                json.loads(one["features"]),
            ),
        )
        for one in keyed.tail(MOST).to_dict("records")
    ]


def _skews(
    lake: Lake, served: OnlineTable, versions: Mapping[str, int] | None, rows: Sequence[LoggedRow]
) -> list[Skew]:
    """What differs when the tables are those of these versions; None: the store knew nothing."""
    table = served.table
    tables = rows_from(lake, served, versions or {}, _first_day(served, rows)) if versions is not None else {}
    if versions is None:
        now = {name: lake.version(table.datasets[name].table().name) for name in served.datasets}
        tables = {name: frame.iloc[:0] for name, frame in rows_from(lake, served, now, date.max).items()}
    replayed = ReplayedView(table.view, table.declared.base, table.base.columns, table.declared.features)
    return skews(rows, replayed, tables)


def _first_day(served: OnlineTable, rows: Sequence[LoggedRow]) -> date | None:
    """The earliest day that any of the events looks back on; None: all days count."""
    declared = served.table.declared
    if declared.event_timestamp is None or served.table.base.partitions is None:
        return None
    # A local day may begin a day before or after that of UTC.
    earliest = min(str(one.request[declared.event_timestamp])[:10] for one in rows)
    return date.fromisoformat(earliest) - timedelta(days=declared.lookback_days + 2)
