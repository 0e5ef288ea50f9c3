"""Which rows are kept, which go to quarantine and why, and which partitions are good enough to write.

Belongs here: the verdict on every partition, with what was expected and what was observed. Does not
belong here: evaluating expectations (``data/expectations.py``), writing and events (``assets/``).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from mlops_assets.data.expectations import (
    Expectation,
    Mask,
    Severity,
    SuiteResult,
    check_rules,
    check_suite,
)
from mlops_assets.data.schema import Conformed

if TYPE_CHECKING:
    import pandas as pd

Concern = Literal["schema", "rows", "expectations"]
REASONS = "reasons"
"""Column of the quarantine table: the rules the row broke, separated by semicolons."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as declared, in one partition."""

    concern: Concern
    partition: str | None
    what: str
    expected: str
    observed: str
    severity: Severity = "critical"
    errored: bool = False

    def __str__(self) -> str:
        verb = "could not be evaluated" if self.errored else f"observed {self.observed}"
        return f"{self.what}: expected {self.expected}, {verb}"


@dataclass(frozen=True)
class Rules:
    """What a dataset declares about its rows. ``known_empty`` partitions may have none; all of them, where
    ``may_be_empty``.
    """

    primary_key: Sequence[str] = ()
    row_rules: Sequence[Expectation] = ()
    max_quarantine_share: float = 0.0
    suite: Sequence[Expectation] = ()
    known_empty: Collection[str] = ()
    may_be_empty: bool = False


@dataclass(frozen=True)
class Validated:
    """Kept and quarantined rows of all partitions, the counts of each, and every finding.

    ``good`` partitions have no critical finding: they may be written. Unpartitioned data is the one
    partition None. ``broken_rules`` counts rows by reason; ``suite_results`` holds what was observed for
    every expectation, met or not.
    """

    kept: "pd.DataFrame"
    quarantined: "pd.DataFrame"
    rows: Mapping[str | None, int]
    quarantined_rows: Mapping[str | None, int]
    broken_rules: Mapping[str, int]
    findings: Sequence[Finding]
    suite_results: Sequence[SuiteResult] = field(default=())
    good: Sequence[str | None] = field(default=())

    def of(self, partition: str | None) -> list[Finding]:
        """Findings of one partition."""
        return [finding for finding in self.findings if finding.partition == partition]

    def reasons(self, partition: str | None) -> list[str]:
        """Why a partition may not be written; none for a good one."""
        return [str(one) for one in self.of(partition) if one.severity == "critical" or one.errored]


def schema_findings(
    conformed: Conformed,
    partition_of_row: "Sequence[str | None]",
    *,
    partition_of_file: str | None = None,
) -> list[Finding]:
    """Missing columns and values of a wrong type, per partition that has them.

    ``partition_of_row`` names the partition of every row; a missing column is missing in all of them, and in
    ``partition_of_file`` when there are no rows.
    """
    partitions = np.asarray(partition_of_row, dtype=object)
    everywhere = list(dict.fromkeys(partition_of_row)) or [partition_of_file]
    findings = [
        Finding(
            "schema", partition, "columns", "all declared columns", f"missing: {', '.join(conformed.missing)}"
        )
        for partition in everywhere
        if conformed.missing
    ]
    for column, misfit in conformed.misfits.items():
        rows = np.flatnonzero(misfit.rows)
        affected, first, counts = np.unique(
            partitions[rows].astype(str), return_index=True, return_counts=True
        )
        named = {str(partition): partition for partition in everywhere}
        for text, row, count in zip(affected, rows[first], counts, strict=True):
            findings.append(
                Finding(
                    "schema",
                    named[str(text)],
                    f"type of {column}",
                    misfit.reason,
                    f"{count} values that do not fit, e.g. {misfit.shown(int(row))}",
                )
            )
    return findings


def validate(
    frame: "pd.DataFrame",
    rules: Rules,
    *,
    partition_column: str | None,
    partitions: Sequence[str] | None,
    earlier: Sequence[Finding] = (),
) -> Validated:
    """Judges a conformed frame. ``earlier`` findings (unreadable file, schema) count with the rest.

    Partitions with an earlier critical finding are not looked at further: rules about columns that are
    not there say nothing. Row order does not matter to what is kept.
    """
    import pandas as pd

    keys: list[str | None] = [None] if partitions is None else list(partitions)
    broken_before = {finding.partition for finding in earlier if finding.severity == "critical"}
    looked_at = [key for key in keys if key not in broken_before]
    if partition_column is not None:
        frame = frame[frame[partition_column].isin(looked_at)]
    elif broken_before:
        frame = frame.iloc[:0]
    frame = frame.reset_index(drop=True)
    of_row = pd.Series(frame[partition_column] if partition_column else None, index=frame.index, dtype=object)
    breaks, errors = _broken(frame, rules, partition_column, looked_at)
    bad = np.logical_or.reduce([*breaks.values(), np.zeros(len(frame), dtype=bool)])
    rows, bad_rows = _counts(of_row, looked_at), _counts(of_row[bad], looked_at)
    findings = list(earlier)
    for key in looked_at:
        mine = [(rule, error) for where, rule, error in errors if where == key]
        findings += _row_findings(key, rules, rows[key], bad_rows[key], mine)

    kept = frame[~bad].reset_index(drop=True)
    judged = [key for key in looked_at if rows[key] > bad_rows[key]]
    suite_results: list[SuiteResult] = []
    if judged:
        suite_results = check_suite(
            kept,
            rules.suite,
            partition_column=partition_column,
            partitions=[key for key in judged if key is not None],
        )
    findings += [_unmet(result) for result in suite_results if not result.met]
    refused = {finding.partition for finding in findings if finding.severity == "critical" or finding.errored}
    left_out = frame[pd.Series(bad, index=frame.index)].reset_index(drop=True)
    return Validated(
        kept=kept,
        quarantined=left_out.assign(**{REASONS: _reasons(breaks, bad)}),
        rows=rows,
        quarantined_rows=bad_rows,
        broken_rules={reason: int(mask.sum()) for reason, mask in breaks.items() if mask.any()},
        findings=findings,
        suite_results=suite_results,
        good=[key for key in keys if key not in refused],
    )


def _broken(
    frame: "pd.DataFrame", rules: Rules, partition_column: str | None, looked_at: list[str | None]
) -> tuple[dict[str, Mask], list[tuple[str | None, Expectation, str]]]:
    """By rule the rows that break it; and of rules that cannot be evaluated the partition and the error."""
    import pandas as pd

    breaks: dict[str, Mask] = {}
    if rules.primary_key and looked_at:
        breaks["primary key is missing"] = frame[list(rules.primary_key)].isna().any(axis=1).to_numpy()
        breaks["primary key is not unique"] = _duplicates(
            # Within its partition: a verdict on a day must not depend on which other days the run covers.
            frame,
            [*rules.primary_key, *([partition_column] if partition_column else [])],
        )
    groups = np.zeros(len(frame), dtype=np.int64)
    if partition_column is not None:
        of_row = pd.Index(frame[partition_column].astype(object))
        groups = pd.Index(looked_at).get_indexer(of_row).astype(np.int64)
    errors: list[tuple[str | None, Expectation, str]] = []
    for result in check_rules(frame, rules.row_rules, groups):
        breaks[str(result.expectation)] = result.broken
        errors += [(looked_at[group], result.expectation, error) for group, error in result.errors.items()]
    return breaks, errors


def _row_findings(
    key: str | None, rules: Rules, rows: int, bad_rows: int, errors: Sequence[tuple[Expectation, str]]
) -> list[Finding]:
    """What the row rules say of a partition: that it has no rows, that a rule cannot be evaluated, that too
    many of its rows break one.
    """
    findings = []
    if rows == 0 and not rules.may_be_empty and key not in rules.known_empty:
        unless = "" if key is None else ", unless partitions say known_empty or empty_days: allow"
        findings.append(Finding("rows", key, "row count", f"at least 1{unless}", "0"))
    findings += [
        Finding("rows", key, str(rule), "a rule that can be evaluated", error, errored=True)
        for rule, error in errors
    ]
    share = bad_rows / rows if rows else 0.0
    if share > rules.max_quarantine_share:
        findings.append(
            Finding(
                "rows",
                key,
                "share of rows in quarantine",
                f"at most {rules.max_quarantine_share:g}",
                f"{share:.4g} ({bad_rows} of {rows} rows)",
            )
        )
    return findings


def _unmet(result: SuiteResult) -> Finding:
    """An expectation that a partition does not meet, or that could not be evaluated on it."""
    return Finding(
        "expectations",
        result.partition,
        result.expectation.type,
        _expected(result.expectation),
        result.error or result.observed,
        severity=result.expectation.severity,
        errored=result.error is not None,
    )


def _duplicates(frame: "pd.DataFrame", primary_key: Sequence[str]) -> Mask:
    """Rows that repeat a key. Of identical rows one stays; of different ones all go."""
    key = list(primary_key)
    repeated = frame.duplicated(key, keep=False).to_numpy()
    if not repeated.any():
        return repeated
    suspects = frame[repeated]
    copies = suspects.duplicated(keep="first").to_numpy()
    conflicting = suspects[~copies].duplicated(key, keep=False)
    broken = copies.copy()
    broken[~copies] = conflicting.to_numpy()
    result = np.zeros(len(frame), dtype=bool)
    result[np.flatnonzero(repeated)] = broken
    return result


def _counts(of_row: "pd.Series[str]", keys: Sequence[str | None]) -> dict[str | None, int]:
    if list(keys) == [None]:
        return {None: len(of_row)}
    found = of_row.value_counts()
    return {key: int(found.get(key, 0)) for key in keys}


def _reasons(breaks: Mapping[str, Mask], bad: Mask) -> list[str]:
    positions = np.flatnonzero(bad)
    return ["; ".join(reason for reason, mask in breaks.items() if mask[row]) for row in positions]


def _expected(expectation: Expectation) -> str:
    return ", ".join(f"{name} {value}" for name, value in expectation.kwargs.items()) or "it to hold"
