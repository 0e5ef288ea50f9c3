"""From a declared source to one conformed frame, with what is wrong in each partition.

Belongs here: reading all partitions at once or one by one, applying the declared transform, and attributing
faults to partitions. Does not belong here: reading itself (``data/sources``), judging rows
(``data/validation.py``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mlops_assets.data.content import content_version, content_versions
from mlops_assets.data.schema import ColumnType, Conformed, Misfit, conform, frame_of
from mlops_assets.data.sources import Asked, LakeAccess, SourceReader
from mlops_assets.data.validation import Finding, schema_findings
from mlops_assets.errors import DataError, SourceUnavailable

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Transform = Callable[["pd.DataFrame"], "pd.DataFrame"]


@dataclass(frozen=True)
class Source:
    """Where rows come from, and what is made of them before they are the declared columns."""

    reader: SourceReader
    transform: Transform | None = None
    probed: bool = False
    """Whether the states of partitions are kept, for a sensor that looks for changed ones."""

    @property
    def where(self) -> str:
        """What errors call it."""
        return self.reader.where


@dataclass(frozen=True)
class Loaded:
    """Rows of the asked-for partitions with exactly the declared columns, and what was wrong where.

    ``states``: as ``SourceReader.states`` told them before the rows were read, so that whatever changed
    meanwhile is read again; of a source that is not probed there are none.
    """

    frame: "pd.DataFrame"
    findings: Sequence[Finding]
    states: Mapping[str, str] = field(default_factory=dict)


def load(
    source: Source,
    columns: Mapping[str, ColumnType],
    *,
    partition_column: str | None,
    partitions: Sequence[str] | None,
    lake: LakeAccess,
    is_key: Callable[[str], bool] = lambda text: True,
) -> Loaded:
    """Reads what the partitions need; None reads unpartitioned data.

    Of a reader that reads partitions apart, whatever goes wrong with one (it cannot be read, does not go
    through the transform, has the wrong columns) is a finding of that partition. Where all are read at once,
    a transform that fails on the rows of some partitions only is a finding of theirs: the others are
    transformed without them. ``is_key`` tells whether a text is the key of any partition at all.

    Raises DataError for what cannot be attributed: rows read at once that cannot be read, a transform that
    fails on every partition, rows without a partition or of one that cannot exist; SourceUnavailable when the
    source does not answer.
    """
    if partitions is not None and partition_column is None:
        raise ValueError("partitions need a partition_column")
    if source.reader.apart and partitions is None:
        raise ValueError(f"{source.where} is read partition by partition, and there are none")
    asked = Asked(columns, source.transform is not None, partition_column, partitions)
    with source.reader.opened(asked, lake) as reader:
        opened = replace(source, reader=reader)
        states = reader.states(asked, lake) if source.probed else {}
        if reader.apart:
            loaded = _load_each(opened, asked, lake)
        else:
            loaded = _load_at_once(opened, asked, lake, is_key)
    return replace(loaded, states=states)


def _load_at_once(source: Source, asked: Asked, lake: LakeAccess, is_key: Callable[[str], bool]) -> Loaded:
    columns, partition_column, partitions = asked.columns, asked.partition_column, asked.partitions
    table = _read(source, asked, lake)
    findings: list[Finding] = []
    rows: pa.Table | pd.DataFrame = table
    if source.transform is not None:
        rows, findings = _transformed_apart(source, table, columns, partition_column, partitions)
    conformed = conform(rows, columns, computed=source.transform is not None)
    if partition_column is None or partitions is None:
        return Loaded(conformed.frame, schema_findings(conformed, [None] * len(conformed.frame)))
    if partition_column in conformed.missing:
        everywhere = [
            Finding("schema", key, "columns", f"a column {partition_column}", "it is missing")
            for key in partitions
        ]
        return Loaded(conformed.frame, everywhere)
    of_row = conformed.frame[partition_column]
    _require_keys(source, of_row, conformed.misfits.get(partition_column), is_key)
    wanted = of_row.isin(list(partitions)).to_numpy()
    selected = conformed.of(wanted)
    findings += schema_findings(selected, selected.frame[partition_column].tolist())
    if conformed.missing:
        seen = {finding.partition for finding in findings}
        findings += [
            Finding(
                "schema", key, "columns", "all declared columns", f"missing: {', '.join(conformed.missing)}"
            )
            for key in partitions
            if key not in seen
        ]
    return Loaded(selected.frame, findings)


def _require_keys(
    source: Source, of_row: "pd.Series[Any]", misfit: Misfit | None, is_key: Callable[[str], bool]
) -> None:
    """DataError when rows belong to no partition that can exist: nobody would ever ask for them."""
    column = of_row.name
    if misfit is not None:
        raise DataError(
            f"{int(misfit.rows.sum())} of {len(of_row)} rows of {source.where} have a {column} that is no "
            f"text, for example {misfit.example}: {misfit.reason}. No partition can be said to be complete."
        )
    if of_row.isna().any():
        raise DataError(
            f"{int(of_row.isna().sum())} of {len(of_row)} rows of {source.where} have no {column}, "
            "so no partition can be said to be complete."
        )
    strangers = [text for text in of_row.unique() if not is_key(text)]
    if strangers:
        rows = int(of_row.isin(strangers).sum())
        raise DataError(
            f"{rows} of {len(of_row)} rows of {source.where} have a {column} that is the key of no "
            f"partition, for example {strangers[0]!r}; a key is a day like 2024-01-31. No partition can be "
            "said to be complete."
        )


def _load_each(source: Source, asked: Asked, lake: LakeAccess) -> Loaded:
    import pandas as pd

    columns, partition_column, partitions = asked.columns, asked.partition_column, asked.partitions
    assert partition_column is not None and partitions is not None
    frames: list[pd.DataFrame] = []
    findings: list[Finding] = []
    for key in partitions:
        try:
            table = _read(source, replace(asked, partitions=[key]), lake)
            rows: Any = table
            if source.transform is not None:
                rows = _transformed(source, _raw_frame(source, table))
            conformed = conform(rows, columns, computed=source.transform is not None)
            frame, faults = _of_partition(conformed, partition_column, key)
        except SourceUnavailable:
            raise
        except DataError as error:
            findings.append(Finding("schema", key, "source file", "a whole, readable file", str(error)))
            continue
        findings.extend(faults)
        if not faults:
            frames.append(frame)
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    whole = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(columns))
    return Loaded(conform(whole, columns).frame, findings)


def _of_partition(
    conformed: Conformed, partition_column: str, key: str
) -> "tuple[pd.DataFrame, list[Finding]]":
    """One partition's file in the declared types; it may leave out the column that its name says."""
    if partition_column in conformed.missing:
        conformed = Conformed(
            frame=conformed.frame.assign(**{partition_column: key}),
            missing=tuple(name for name in conformed.missing if name != partition_column),
            misfits=conformed.misfits,
        )
    faults = schema_findings(conformed, [key] * len(conformed.frame), partition_of_file=key)
    strangers = conformed.frame[partition_column]
    strangers = strangers[strangers.ne(key)]
    if len(strangers):
        faults.append(
            Finding(
                "schema",
                key,
                partition_column,
                f"only {key}",
                f"{len(strangers)} rows of others, e.g. {strangers.iloc[0]!r}",
            )
        )
    return conformed.frame, faults


def _read(source: Source, asked: Asked, lake: LakeAccess) -> "pa.Table":
    try:
        return source.reader.read(asked, lake)
    except DataError:
        raise
    except Exception as error:  # whatever a reader raises is about this source, and says so
        raise DataError(f"{source.where} cannot be read: {type(error).__name__}: {error}") from error


def _raw_frame(source: Source, table: "pa.Table") -> "pd.DataFrame":
    try:
        return frame_of(table)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise DataError(
            f"The raw rows of {source.where} cannot be given to a transform: {type(error).__name__}: {error}"
        ) from error


def _transformed_apart(
    source: Source,
    table: "pa.Table",
    columns: Mapping[str, ColumnType],
    partition_column: str | None,
    partitions: Sequence[str] | None,
) -> "tuple[pd.DataFrame, list[Finding]]":
    """The transformed rows, and a finding for each partition that was left out because it fails by itself.

    The others are what the transform makes of them without those rows. Whose fault a failure is can be said
    only where the raw rows have the partition's column and keep it, and where the transform makes the same of
    a partition alone as beside others: DataError otherwise, and when every partition fails.
    """
    import pandas as pd

    try:
        return _transformed(source, _raw_frame(source, table)), []
    except DataError as error:
        if partition_column is None or partitions is None or partition_column not in table.column_names:
            raise
        failed = error
    raw = _raw_frame(source, table)
    of_row = raw[partition_column].map(
        lambda value: value.isoformat() if hasattr(value, "isoformat") else value
    )
    reasons: dict[str, str] = {}
    apart: dict[str, pd.DataFrame] = {}
    for key, rows in raw.groupby(of_row, sort=False, dropna=False):
        try:
            made = _transformed(source, rows.reset_index(drop=True))
        except DataError as error:
            reasons[str(key)] = str(error)
            continue
        if partition_column not in made.columns or not made[partition_column].astype(str).eq(str(key)).all():
            raise failed
        apart[str(key)] = made
    if not apart or not reasons:
        raise failed
    whole = _transformed(source, raw[of_row.isin(list(apart))].reset_index(drop=True))
    together = content_versions(conform(whole, columns).frame, partition_column)
    for key, made in apart.items():
        if len(made) and together.get(key) != content_version(conform(made, columns).frame):
            raise DataError(
                f"{failed} It fails on {len(reasons)} of {len(reasons) + len(apart)} days alone, but makes "
                f"something else of {key} beside other days than alone: without the failing ones, nobody can "
                "say what is right."
            ) from failed
    wanted = set(partitions)
    findings = [
        Finding("schema", key, "transform", "rows that go through it", reason)
        for key, reason in reasons.items()
        if key in wanted
    ]
    return whole, findings


def _transformed(source: Source, raw: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    assert source.transform is not None
    name = f"{source.transform.__module__}.{source.transform.__qualname__}"
    try:
        made = source.transform(raw)
    except Exception as error:  # the declaration's own code: whatever it raises is about this data
        shown = ", ".join(map(str, raw.columns))
        raise DataError(
            f"{name} failed on the raw rows of {source.where} with {type(error).__name__}: {error}. "
            f"Columns read: {shown}."
        ) from error
    if not isinstance(made, pd.DataFrame):
        raise DataError(f"{name} returned a {type(made).__name__}, not a DataFrame.")
    repeated = sorted({str(column) for column in made.columns[made.columns.duplicated()]})
    if repeated:
        raise DataError(f"{name} returned columns twice: {', '.join(repeated)}.")
    return made
