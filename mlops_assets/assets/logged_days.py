"""Days of the raw log as rows of the compacted one: each answer once, sorted, few in memory at once.

Belongs here: what the prediction log of a model holds. Does not belong here: reading the raw log
(``resources/inference_log.py``), reading what was written (``joined_answers.py``), events
(``prediction_log.py``).
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Any

from mlops_assets.data.content import Contents
from mlops_assets.data.schema import frame_of
from mlops_assets.resources.inference_log import InferenceLog, log_schema
from mlops_assets.resources.lake import BATCH_ROWS, RowBatches
from mlops_assets.resources.scratch import Scratch

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

DAY_COLUMN = "dt"
KEYS = ("answer_id", "row", "variant", "version")
"""What makes a logged row that row: a file that was written twice must not count twice."""


def logged_schema() -> "pa.Schema":
    """The columns of the compacted table: the log's, lists as JSON text, and the day."""
    import pyarrow as pa

    fields = [pa.field(DAY_COLUMN, pa.string())]
    for field in log_schema():
        fields.insert(-1, pa.field(field.name, pa.string()) if pa.types.is_list(field.type) else field)
    return pa.schema(fields)


class LoggedDays:
    """The rows of some days, no row twice, sorted by time; ``answer_id`` is never missing: of what was logged
    before answers had one, it is the request id.

    ``rows`` can be read again and again. What they are is known once they were read to the end:
    ``contents`` are their versions by day, ``by_day`` and ``by_version`` count them.
    """

    def __init__(self, connection: "DuckDBPyConnection") -> None:
        self._connection = connection
        self.rows = RowBatches(logged_schema(), self._batches)
        self._begin()

    def _begin(self) -> None:
        self.contents = Contents(DAY_COLUMN)
        self.by_day: Counter[str] = Counter()
        self.by_version: Counter[str] = Counter()

    def _batches(self) -> "Iterator[pa.RecordBatch]":
        self._begin()
        schema = logged_schema()
        # Duplicates are found by their keys alone: the rest of a row is not read for it.
        found = self._connection.sql(
            f"""
            SELECT logged.* EXCLUDE (place) FROM logged SEMI JOIN (
                SELECT arg_min(place, (micros, place)) AS place
                FROM logged GROUP BY {", ".join(f'"{name}"' for name in KEYS)}
            ) AS kept USING (place)
            ORDER BY micros, {", ".join(f'"{name}" NULLS LAST' for name in KEYS)}, place
            """  # noqa: S608 - the names are ours
        )
        for batch in found.to_arrow_reader(BATCH_ROWS):
            made = _compacted(batch, schema)
            frame = frame_of(made)
            self.contents.add(frame)
            self.by_day.update(frame[DAY_COLUMN].tolist())
            self.by_version.update(frame["version"].tolist())
            yield from made.to_batches()


@contextmanager
def logged_days(
    scratch: Scratch, inference_log: InferenceLog, deployment: str, days: Sequence[str]
) -> Iterator[LoggedDays]:
    """What a deployment answered on these days, on disk while the block lasts."""
    with scratch.database() as connection:
        _make_table(connection)
        for day in days:
            _load(connection, inference_log, deployment, date.fromisoformat(day))
        yield LoggedDays(connection)


def _make_table(connection: "DuckDBPyConnection") -> None:
    connection.register("nothing", _placed(log_schema().empty_table(), 0))
    connection.execute("CREATE TABLE logged AS FROM nothing")
    connection.unregister("nothing")


def _load(connection: "DuckDBPyConnection", log: InferenceLog, deployment: str, day: date) -> None:
    def take(tables: "Iterator[pa.Table]") -> None:
        connection.begin()
        try:
            (place,) = connection.execute("SELECT count(*) FROM logged").fetchall()[0]
            for table in tables:
                connection.register("added", _placed(table, place))
                connection.execute("INSERT INTO logged FROM added")
                connection.unregister("added")
                place += table.num_rows
        except BaseException:
            connection.rollback()  # The log may give the day anew.
            raise
        connection.commit()

    log.read_day(deployment, day, take)


def _placed(table: "pa.Table", first: int) -> "pa.Table":
    """With ``place``, where a row stands in the log, and its time as a number: DuckDB's own has a time zone,
    which is an extension.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    at = table.schema.get_field_index("at")
    own = table.schema.get_field_index("answer_id")
    identified = pc.coalesce(table.column("answer_id"), table.column("request_id"))
    return (
        table.set_column(own, "answer_id", identified)
        .set_column(at, "micros", table.column("at").cast(pa.int64()))
        .append_column("place", pa.array(range(first, first + table.num_rows), pa.int64()))
    )


def _compacted(batch: "pa.RecordBatch", schema: "pa.Schema") -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    at = batch.column("micros").cast(pa.timestamp("us", tz="UTC"))
    lists = batch.column("scores")
    scores = [None if value is None else json.dumps(value) for value in lists.to_pylist()]
    made: dict[str, Any] = {
        "at": at,
        "scores": pa.array(scores, pa.string()),
        DAY_COLUMN: pc.strftime(at, format="%Y-%m-%d"),
    }
    columns = [made[name] if name in made else batch.column(name) for name in schema.names]
    return pa.Table.from_arrays(
        [column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
