"""The answers of some windows with their labels, on disk: read once, then asked window by window.

Belongs here: reading the compacted log and labels into a database, and what performance and drift need of it:
narrow columns of one window of one version, features batch after batch. Does not belong here: writing the
compacted log (``logged_days.py``), formulas and decisions (``monitoring/``), the assets
(``performance.py``, ``drift.py``).

An answer's features are by far the most of it. They are never kept: those that performance is sliced by
become columns while the log is read, and drift counts the others as they come.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlops_assets.assets.logged_days import DAY_COLUMN, KEYS
from mlops_assets.assets.measuring import scores_of
from mlops_assets.documents.declared_table import DeclaredTable
from mlops_assets.errors import DataError
from mlops_assets.monitoring import windows
from mlops_assets.monitoring.drift import DriftTest, WindowCounts
from mlops_assets.monitoring.findings import Variant, WindowDrift
from mlops_assets.monitoring.labels import (
    AMBIGUOUS,
    ENTITY,
    HAS_KEYS,
    LABEL,
    KnownLabels,
    entity_keys,
    known_labels,
    label_codes,
)
from mlops_assets.monitoring.losses import ASKED_FOR, SHADOW, answer_losses, moments_by_revision
from mlops_assets.monitoring.reference import DriftReference
from mlops_assets.monitoring.windows import Window
from mlops_assets.resources.lake import BATCH_ROWS, Lake
from serve.schema import FeatureSpec, ModelManifest, Task

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

SHOWN = 20_000
SEED = 0
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ORDER = ", ".join(["micros", *(f'"{name}" NULLS LAST' for name in KEYS)])


@dataclass(frozen=True)
class Compacted:
    """The compacted log of a model as it was at ``version``, from ``start`` to ``end`` (exclusive)."""

    lake: Lake
    table: str
    version: int
    start: datetime
    end: datetime

    def batches(
        self,
        columns: Sequence[str],
        *,
        within: Window | None = None,
        answered_by: str | None = None,
    ) -> "Iterator[pa.Table]":
        """Its rows with ``micros``, the time in microseconds since 1970, and an ``answer_id`` each.

        ``answered_by`` is a version, whose answers as a shadow do not count.
        """
        import pandas as pd
        import pyarrow as pa
        import pyarrow.compute as pc

        start, end = (within.start, within.end) if within else (self.start, self.end)
        days = pd.date_range(start.date(), end.date(), freq="D").strftime("%Y-%m-%d")
        first, last = (pa.scalar(time.astimezone(UTC), pa.timestamp("us", tz="UTC")) for time in (start, end))
        condition = (pc.field("at") >= first) & (pc.field("at") < last)
        if answered_by is not None:
            condition &= (pc.field("version") == answered_by) & (pc.field("variant") != SHADOW)
        # A table that was last written before answers had an id has no column for it.
        held = set(self.lake.columns(self.table, version=self.version).names)
        wanted = dict.fromkeys(["at", "answer_id", "request_id", *columns])
        for rows in self.lake.batches(
            self.table,
            partitions=list(days),
            partition_column=DAY_COLUMN,
            columns=[name for name in wanted if name in held],
            condition=condition,
            version=self.version,
        ):
            own = rows.column("answer_id") if "answer_id" in held else pa.nulls(len(rows), pa.string())
            identified = pc.coalesce(own, rows.column("request_id"))
            if "answer_id" in held:
                rows = rows.drop_columns(["answer_id"])
            micros = rows.column("at").cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
            yield (
                rows.drop_columns(["at", "request_id"])
                .append_column("answer_id", identified)
                .append_column("micros", micros)
            )


def labels_of(
    lake: Lake,
    label_table: DeclaredTable,
    label: "Callable[[pd.DataFrame], pd.Series[Any]]",
    join_keys: Sequence[str],
) -> KnownLabels:
    """What is known of labels by now; nothing before their dataset was first written."""
    import pandas as pd

    keys = list(join_keys)
    if not lake.exists(label_table.name):
        return known_labels(pd.DataFrame({name: [] for name in [*keys, LABEL]}), join_keys)
    outcomes = label_table.read(lake)
    return known_labels(outcomes[keys].assign(**{LABEL: label(outcomes)}), join_keys)


@dataclass(frozen=True)
class Played:
    """A version and the part it played, with the times of its first and last answer in it."""

    version: str
    variant: Variant
    first: datetime
    last: datetime


class JoinedAnswers:
    """Answers with their labels. ``slices`` are features that become columns of ``part``."""

    def __init__(
        self,
        connection: "DuckDBPyConnection",
        log: Compacted,
        labels: KnownLabels,
        join_keys: Sequence[str],
        slices: Sequence[str] = (),
    ) -> None:
        self._connection, self._log, self._slices = connection, log, list(slices)
        self._labels = labels.values
        self._read_labels(labels)
        self._read_log(join_keys)
        (self._unlabelled,) = self._row("SELECT bool_or(place IS NULL) FROM answers")

    # -- reading -------------------------------------------------------------------------------------

    def _read_labels(self, labels: KnownLabels) -> None:
        import pyarrow as pa

        known = pa.table(
            {
                "key": pa.array(labels.keys, pa.string()),
                "label_place": pa.array(np.arange(len(labels.keys)), pa.int64()),
                AMBIGUOUS: pa.array(labels.ambiguous, pa.bool_()),
            }
        )
        self._insert("labels", known)

    def _read_log(self, join_keys: Sequence[str]) -> None:
        columns = [*KEYS, "revision", "endpoint", "score", "scores", ENTITY]
        if self._slices:
            columns.append("features")
        pointers = ", ".join(f"'{_pointer(name)}'" for name in self._slices)
        sliced = f"json_extract(features, [{pointers}])::VARCHAR[]" if self._slices else "NULL::VARCHAR[]"
        self._connection.execute(_UNJOINED)
        for rows in self._log.batches(columns):
            self._connection.register("added", _keyed(rows, join_keys))
            self._connection.execute(
                f"""
                INSERT INTO unjoined
                SELECT micros, answer_id, "row", variant, version, revision, asked_for, score, scores,
                    {sliced}, key
                FROM added
                """  # noqa: S608 - pointers are quoted
            )
            self._connection.unregister("added")
        self._connection.execute(
            f"""
            CREATE TABLE answers AS
            SELECT unjoined.* EXCLUDE (key), key IS NOT NULL AS {HAS_KEYS},
                CASE WHEN NOT {AMBIGUOUS} THEN label_place END AS place,
                coalesce({AMBIGUOUS}, false) AS {AMBIGUOUS}
            FROM unjoined LEFT JOIN labels USING (key)
            """  # noqa: S608 - the names are ours
        )
        self._connection.execute("DROP TABLE unjoined; DROP TABLE labels")

    def _insert(self, table: str, rows: "pa.Table") -> None:
        self._connection.register("added", rows)
        self._connection.execute(f"CREATE TABLE {table} AS FROM added")
        self._connection.unregister("added")

    # -- asking --------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """How many answers there are, how many of them have a label, and how many no keys."""
        found = self._row(
            f"SELECT count(*), count(place), count(*) FILTER (WHERE NOT {HAS_KEYS}) FROM answers"  # noqa: S608
        )
        return dict(zip(("answers", "labelled", "without_keys"), found, strict=True))

    def played(self) -> list[Played]:
        """Every version by the part it played; one that became stable counts its canary answers too."""
        found = self._connection.execute(
            """
            SELECT version, variant = $1 AS shadow, bool_or(variant = 'stable'), min(micros), max(micros)
            FROM answers GROUP BY ALL
            """,
            [SHADOW],
        ).fetchall()
        ordered = sorted(found, key=lambda one: (int(one[0][1:]), one[1]))
        return [
            Played(
                version, "shadow" if shadow else "champion" if stable else "canary", _time(first), _time(last)
            )
            for version, shadow, stable, first, last in ordered
        ]

    def uncovered(self, version: str, window: Window, *, shadow: bool = False) -> str | None:
        """Why a version's rows cannot stand for the window; None when they can, or when there are none."""
        condition, values = _within(window)
        asked = self._row(f"SELECT min(micros), max(micros) FROM answers WHERE {condition}", values)  # noqa: S608
        condition, values = _within(window, version, shadow=shadow)
        own = self._row(f"SELECT min(micros), max(micros) FROM answers WHERE {condition}", values)  # noqa: S608
        if own[0] is None:
            return None
        return windows.uncovered(
            window, _time(own[0]), _time(own[1]), open_for=(asked[1] - asked[0]) * MICROSECOND
        )

    def size(self, version: str, window: Window) -> int:
        """How many rows a version has in a window, those as a shadow left out."""
        condition, values = _within(window, version)
        return int(self._row(f"SELECT count(*) FROM answers WHERE {condition}", values)[0])  # noqa: S608

    def part(
        self, version: str, window: Window, *, shadow: bool = False, only: "pa.Table | None" = None
    ) -> "pd.DataFrame":
        """A version's rows in a window in order of time, as ``monitoring.labels.join_labels`` gives them,
        without their features: ``at``, ``score``, ``scores``, ``label``, ``has_keys``, ``ambiguous_label``,
        and a column of text for each slice.

        ``only``: rows with these ``KEYS``, in order of their ``drawn``.
        """
        import pandas as pd

        sliced = "".join(f", slices[{number}] AS s{number}" for number in range(1, len(self._slices) + 1))
        condition, values = _within(window, version, shadow=shadow)
        joined, order = "", _ORDER
        if only is not None:
            self._connection.register("only_these", only)
            joined, order = f"JOIN only_these USING ({', '.join(KEYS)})", "drawn"
            joined = joined.replace("row,", '"row",')
        query = f"""
            SELECT micros, score, scores, place, {HAS_KEYS}, {AMBIGUOUS}{sliced}
            FROM answers {joined} WHERE {condition} ORDER BY {order}
        """  # noqa: S608 - the names are ours
        rows = self._connection.sql(query, params=values).to_arrow_table()
        if only is not None:
            self._connection.unregister("only_these")
        frame = {
            "at": pd.Series(rows["micros"].to_numpy().view("datetime64[us]")).dt.tz_localize("UTC"),
            "score": rows["score"].to_numpy(),
            "scores": rows["scores"].to_pandas(),
            LABEL: self._label(rows["place"]),
            HAS_KEYS: rows[HAS_KEYS].to_numpy(),
            AMBIGUOUS: rows[AMBIGUOUS].to_numpy(),
        }
        for number, name in enumerate(self._slices, 1):
            # A column of the log goes before a feature of its name.
            frame.setdefault(name, _texts(rows[f"s{number}"]))
        return pd.DataFrame(frame)

    def _label(self, places: "pa.ChunkedArray[Any]") -> NDArray[Any]:
        import pandas as pd
        import pyarrow.compute as pc

        wanted = pc.fill_null(places, -1).to_numpy()
        labels = pd.Series(self._labels)
        if not self._unlabelled:
            return labels.reindex(wanted).to_numpy()
        # Integers with a missing one among them are numbers: in every window of the same answers alike.
        return labels.reindex(np.append(wanted, -1)).to_numpy()[:-1]

    def features(
        self, version: str, window: Window, specs: Sequence[FeatureSpec]
    ) -> "Iterator[tuple[pa.Table, pd.DataFrame]]":
        """The ``KEYS`` of a version's live rows in a window with their features, batch after batch."""
        for rows in self._log.batches([*KEYS, "features"], within=window, answered_by=version):
            yield rows.select(list(KEYS)), features_of(rows.column("features"), specs)

    def losses(self, task: Task, classes: Sequence[str] | None) -> dict[str, dict[str, Any]]:
        """``monitoring.losses.losses_by_revision`` of all answers."""
        import pandas as pd

        used = self._connection.sql("SELECT DISTINCT place FROM answers WHERE place IS NOT NULL")
        places = used.to_arrow_table()["place"].to_numpy()
        codes = np.full(len(self._labels), np.nan)
        codes[places] = label_codes(pd.Series(self._labels[places]), task=task, classes=classes)
        width = len(classes) if classes else self._widest() if task == "multiclass" else 0
        reader = self._connection.cursor()
        made = False
        with reader:
            query = """
                SELECT micros, answer_id, "row", revision, variant, version, score, scores, place
                FROM answers WHERE place IS NOT NULL AND NOT asked_for
            """
            for batch in reader.sql(query).to_arrow_reader(4 * BATCH_ROWS):
                frame = batch.to_pandas()
                lost = answer_losses(frame, codes[frame.pop("place").to_numpy()], task, width)
                self._connection.register("added", lost)
                self._connection.execute(
                    f"{'INSERT INTO lost' if made else 'CREATE TABLE lost AS'} FROM added"
                )
                self._connection.unregister("added")
                made = True
        return moments_by_revision(self._connection, "lost", task) if made else {}

    def _widest(self) -> int:
        return int(self._row("SELECT max(json_array_length(scores)) FROM answers")[0] or 0)

    def _row(self, query: str, values: Sequence[Any] = ()) -> tuple[Any, ...]:
        (found,) = self._connection.execute(query, list(values)).fetchall()
        return found


@dataclass(frozen=True)
class Current:
    """A judged window, and at most ``SHOWN`` of its rows, drawn by chance, to be looked at."""

    assessed: WindowDrift
    features: "pd.DataFrame"
    scores: NDArray[np.float64]
    target: NDArray[np.float64]


def window_drift(
    answers: JoinedAnswers,
    window: Window,
    reference: DriftReference,
    *,
    version: str,
    manifest: ModelManifest,
    test: DriftTest,
) -> Current:
    """``monitoring.drift.assess_window`` of a version's live answers in a window, its features counted in
    batches.
    """
    import pandas as pd
    import pyarrow as pa

    def came_of(rows: "pd.DataFrame") -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        target = label_codes(rows[LABEL], task=manifest.task, classes=manifest.classes)
        return scores_of(rows, manifest), target

    counts = WindowCounts(reference)
    rows = answers.part(version, window)
    size = len(rows)
    counts.add_answers(*came_of(rows))
    del rows
    drawn = _drawn(size)
    kept: list[pd.DataFrame] = []
    keys: list[pa.Table] = []
    seen = 0
    for own, features in answers.features(version, window, manifest.features):
        counts.add_features(features)
        first, last = np.searchsorted(drawn, [seen, seen + len(features)])
        places = drawn[first:last] - seen
        kept.append(features.iloc[places])
        keys.append(own.take(places).append_column("drawn", pa.array(np.arange(first, last))))
        seen += len(features)
    assessed = counts.assessed(window, version=version, test=test)
    if not kept:
        return Current(assessed, pd.DataFrame(), np.empty(0), np.empty(0))
    shown = answers.part(version, window, only=pa.concat_tables(keys))
    return Current(assessed, pd.concat(kept, ignore_index=True), *came_of(shown))


def _drawn(size: int) -> NDArray[np.int64]:
    """Places of the rows to be looked at, ascending: all of a small window."""
    if size <= SHOWN:
        return np.arange(size)
    return np.sort(np.random.default_rng(SEED).choice(size, size=SHOWN, replace=False))


def features_of(texts: "pa.ChunkedArray[Any]", specs: Sequence[FeatureSpec]) -> "pd.DataFrame":
    """The logged inputs (JSON texts of objects) as columns, one per feature of ``specs``, typed as the model
    takes them.

    A feature that a row lacks is missing; one that ``specs`` do not name is left out.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import json as pa_json

    types = {
        "number": pa.float64(),
        "integer": pa.float64(),
        "boolean": pa.bool_(),
        "category": pa.string(),
    }
    schema = pa.schema([(spec.name, types[spec.type]) for spec in specs])
    if not len(texts):
        return schema.empty_table().to_pandas()
    whole = pc.fill_null(texts.combine_chunks().cast(pa.string()), "{}")
    lines = pc.binary_join_element_wise(whole, "", "\n")
    ends = np.frombuffer(lines.buffers()[1], dtype=np.int32)
    table = pa_json.read_json(
        pa.BufferReader(lines.buffers()[2].slice(0, int(ends[len(lines)]))),
        read_options=pa_json.ReadOptions(block_size=BLOCK_BYTES),
        parse_options=pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )
    if len(table) != len(texts):
        raise DataError(f"{len(texts)} answers have {len(table)} objects of features; each must have one")
    return table.to_pandas()


BLOCK_BYTES = 4 * 1024 * 1024
"""Text that one thread parses at a time."""

_UNJOINED = """
    CREATE TABLE unjoined (
        micros BIGINT, answer_id VARCHAR, "row" INTEGER, variant VARCHAR, version VARCHAR, revision BIGINT,
        asked_for BOOLEAN, score DOUBLE, scores VARCHAR, slices VARCHAR[], key VARCHAR
    )
"""


def _keyed(rows: "pa.Table", join_keys: Sequence[str]) -> "pa.Table":
    """With the joined key in place of the entity, and whether the request named its version."""
    import pyarrow.compute as pc

    keys = entity_keys(rows.column(ENTITY).combine_chunks(), join_keys)
    asked_for = pc.match_substring(rows.column("endpoint"), ASKED_FOR)
    return (
        rows.drop_columns([ENTITY, "endpoint"])
        .append_column("key", keys)
        .append_column("asked_for", asked_for)
    )


def _within(window: Window, version: str | None = None, *, shadow: bool = False) -> tuple[str, list[Any]]:
    """A condition on answers, and its values."""
    values: list[Any] = [(time - EPOCH) // MICROSECOND for time in (window.start, window.end)]
    if version is None:
        return "micros >= ? AND micros < ?", values
    sign = "=" if shadow else "<>"
    return f"micros >= ? AND micros < ? AND version = ? AND variant {sign} ?", [*values, version, SHADOW]


def _time(micros: int) -> datetime:
    return EPOCH + micros * MICROSECOND


def _pointer(name: str) -> str:
    """The JSON pointer of a member, as a piece of SQL text."""
    return f"/{name.replace('~', '~0').replace('/', '~1')}".replace("'", "''")


def _texts(values: "pa.ChunkedArray[Any]") -> "pd.Series[Any]":
    """A feature's values as Python reads them, of their JSON texts: few are different."""
    import pandas as pd

    codes, distinct = pd.factorize(values.to_pandas())
    read = np.empty(len(distinct) + 1, dtype=object)
    read[:-1] = [json.loads(text) for text in distinct]
    return pd.Series(read[codes], dtype=object)
