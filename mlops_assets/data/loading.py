"""From a declared source to one conformed frame, with what is wrong in each partition.

Belongs here: reading one file or one per partition, applying the declared transform, and attributing
faults to partitions. Does not belong here: formats (``data/sources``), judging rows (``data/validation.py``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlops_assets.data.locations import PARTITION, S3, locate, read_bytes
from mlops_assets.data.schema import ColumnType, Conformed, conform
from mlops_assets.data.sources import SourceFormat
from mlops_assets.data.validation import Finding, schema_findings
from mlops_assets.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Transform = Callable[["pd.DataFrame"], "pd.DataFrame"]


@dataclass(frozen=True)
class Source:
    """Where rows come from and how they are read. ``folder`` is where relative paths start."""

    path: str
    format: SourceFormat
    folder: Path
    transform: Transform | None = None

    @property
    def per_partition(self) -> bool:
        """Whether there is one file per partition."""
        return PARTITION in self.path


@dataclass(frozen=True)
class Loaded:
    """Rows of the asked-for partitions with exactly the declared columns, and what was wrong where."""

    frame: "pd.DataFrame"
    findings: Sequence[Finding]


def load(
    source: Source,
    columns: Mapping[str, ColumnType],
    *,
    partition_column: str | None,
    partitions: Sequence[str] | None,
    s3_options: Callable[[], Mapping[str, str]],
) -> Loaded:
    """Reads what the partitions need; None reads unpartitioned data.

    With one file per partition, a file that cannot be read, does not go through the transform or has the
    wrong columns is a finding of its own partition. With one file for all, DataError is raised for what
    cannot be attributed: the file itself, a failing transform, rows without a partition.
    """
    if partitions is not None and partition_column is None:
        raise ValueError("partitions need a partition_column")
    if source.per_partition:
        if partitions is None or partition_column is None:
            raise ValueError(f"{source.path} names one file per partition, and there are none")
        return _load_each(source, columns, partition_column, partitions, s3_options)
    raw = _read(source, columns, None, s3_options)
    conformed = conform(_transformed(source, raw), columns)
    if partition_column is None or partitions is None:
        return Loaded(conformed.frame, schema_findings(conformed, [None] * len(conformed.frame)))
    if partition_column in conformed.missing:
        everywhere = [
            Finding("schema", key, "columns", f"a column {partition_column}", "it is missing")
            for key in partitions
        ]
        return Loaded(conformed.frame, everywhere)
    of_row = conformed.frame[partition_column]
    if of_row.isna().any():
        raise DataError(
            f"{int(of_row.isna().sum())} of {len(of_row)} rows of {source.path} have no {partition_column}, "
            "so no partition can be said to be complete."
        )
    wanted = of_row.isin(list(partitions)).to_numpy()
    selected = Conformed(
        frame=conformed.frame[wanted].reset_index(drop=True),
        missing=conformed.missing,
        wrong={name: mask[wanted] for name, mask in conformed.wrong.items() if mask[wanted].any()},
        examples=conformed.examples,
    )
    findings = schema_findings(selected, selected.frame[partition_column].tolist())
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


def _load_each(
    source: Source,
    columns: Mapping[str, ColumnType],
    partition_column: str,
    partitions: Sequence[str],
    s3_options: Callable[[], Mapping[str, str]],
) -> Loaded:
    import pandas as pd

    frames: list[pd.DataFrame] = []
    findings: list[Finding] = []
    options = s3_options() if source.path.startswith(S3) else {}
    for key in partitions:
        try:
            frame = _transformed(source, _read(source, columns, key, lambda: options))
        except DataError as error:
            findings.append(Finding("schema", key, "source file", "a whole, readable file", str(error)))
            continue
        if partition_column not in frame.columns:
            frame = frame.assign(**{partition_column: key})
        conformed = conform(frame, columns)
        faults = schema_findings(conformed, [key] * len(conformed.frame))
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
        findings.extend(faults)
        if not faults:
            frames.append(conformed.frame)
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    whole = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(columns))
    return Loaded(conform(whole, columns).frame, findings)


def _read(
    source: Source,
    columns: Mapping[str, ColumnType],
    partition: str | None,
    s3_options: Callable[[], Mapping[str, str]],
) -> "pd.DataFrame":
    location = locate(source.path, folder=source.folder, partition=partition)
    content = read_bytes(location, s3_options() if location.startswith(S3) else {})
    text = [name for name, kind in columns.items() if kind == "string"]
    return source.format.read(content, name=location, text_columns=text)


def _transformed(source: Source, raw: "pd.DataFrame") -> "pd.DataFrame":
    if source.transform is None:
        return raw
    name = f"{source.transform.__module__}.{source.transform.__qualname__}"
    try:
        return source.transform(raw)
    except Exception as error:  # the declaration's own code: whatever it raises is about this data
        shown = ", ".join(map(str, raw.columns))
        raise DataError(
            f"{name} failed on the raw rows of {source.path} with {type(error).__name__}: {error}. "
            f"Columns read: {shown}."
        ) from error
