"""The check ``replayed`` of a prediction log: answers of keys had the features that the offline view has.

Belongs here: which answers are replayed, against which versions of the lake, what is said of it. Does not
belong here: recomputing and comparing (``features/replay.py``), filling stores (``online_features.py``).

An answer is recomputed from exactly what its store had applied, versions of tables and records of streams
before an offset: one different bit is *skew*, and fails the check. Where all there is today gives other
features, rows came after the answer: it was *late*, which the data explains and no code can.
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
from mlops_assets.assets.online_rows import OnlineRows, reached
from mlops_assets.assets.online_table import OnlineTable
from mlops_assets.errors import DataError
from mlops_assets.features.replay import LoggedRow, ReplayedView, Skew, skews
from mlops_assets.resources.lake import Lake

if TYPE_CHECKING:
    import pandas as pd

CHECK = "replayed"
MOST = 2_000
"""So many rows of a run are replayed, the newest."""
MOST_STATES = 100
"""So many states of the store, the newest. Each is a computation of its own, of the flights view .2 s of CPU,
and a consumer may make one a second.
"""
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
    """Rows beyond ``MOST``, and of states beyond ``MOST_STATES``."""
    other_shapes: int = 0
    """Rows of a view that was declared otherwise, or whose records of streams were judged by other rules:
    nothing here says what they looked at.
    """
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
        otherwise = knew["applied"] is not None and knew.get("judged") != served.judged
        if knew["shape"] != served.online.shape or otherwise:
            found.other_shapes += 1
            continue
        groups[json.dumps(knew["applied"], sort_keys=True)].append(row)
    older = list(groups)[:-MOST_STATES]
    found.older += sum(len(groups.pop(applied)) for applied in older)
    found.rows = sum(map(len, groups.values()))
    try:
        now = reached(lake, served, {}).applied
    except DataError as error:
        found.problems.append(str(error))
        return found
    _replay_groups(_Tables(lake, served, now, groups), found, groups)
    return found


def _replay_groups(tables: "_Tables", found: Replayed, groups: Mapping[str, Sequence[LoggedRow]]) -> None:
    """Each row once as of what its store had applied, and once as of now where that is something else."""
    changed: list[LoggedRow] = []
    for applied, rows in groups.items():
        try:
            found.skewed += tables.skews(json.loads(applied), rows)
        except DataError as error:
            found.problems.append(f"{len(rows)} rows of versions {applied} cannot be replayed: {error}")
            continue
        changed += rows if json.loads(applied) != tables.now else []
    wrong = {(one.answer_id, one.row) for one in found.skewed}
    try:
        moved = {(one.answer_id, one.row) for one in tables.skews(tables.now, changed)} if changed else set()
    except DataError as error:
        found.problems.append(f"{len(changed)} rows cannot be held against the tables of now: {error}")
    else:
        found.late += len(moved - wrong)


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


class _Tables:
    """The tables that rows looked at, as of whatever was applied; ``now``: all that there is."""

    def __init__(
        self,
        lake: Lake,
        served: OnlineTable,
        now: Mapping[str, int],
        groups: Mapping[str, Sequence[LoggedRow]],
    ) -> None:
        self.now = now
        self._served = served
        self._rows = OnlineRows(
            lake, served, _first_day(served, [one for of in groups.values() for one in of])
        )
        self._none = OnlineRows(lake, served, date.max)
        table = served.table
        self._view = ReplayedView(
            table.view, table.declared.base, table.base.columns, table.declared.features
        )

    def skews(self, applied: Mapping[str, int] | None, rows: Sequence[LoggedRow]) -> list[Skew]:
        """What differs when the tables are those of ``applied``; None: the store knew nothing."""
        if applied is not None:
            return skews(rows, self._view, self._rows.at(applied))
        empty = {name: frame.iloc[:0] for name, frame in self._none.at(self.now).items()}
        return skews(rows, self._view, empty)


def _first_day(served: OnlineTable, rows: Sequence[LoggedRow]) -> date | None:
    """The earliest day that any of the events looks back on; None: all days count."""
    declared = served.table.declared
    if declared.event_timestamp is None or served.table.base.partitions is None or not rows:
        return None
    # A local day may begin a day before or after that of UTC.
    earliest = min(str(one.request[declared.event_timestamp])[:10] for one in rows)
    return date.fromisoformat(earliest) - timedelta(days=declared.lookback_days + 2)
