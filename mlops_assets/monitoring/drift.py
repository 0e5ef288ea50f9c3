"""One window of answers against the reference of the version that gave them.

Belongs here: which columns a window has, their scores and thresholds, whether each drifted, and a sentence
for every odd column. Does not belong here: formulas (``scores.py``), thresholds (``calibration.py``),
what follows from drift (``policy.py``).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlops_assets.errors import DataError
from mlops_assets.monitoring.findings import DECIDING, ColumnDrift, Role, Score, Statistic, WindowDrift
from mlops_assets.monitoring.reference import (
    ColumnReference,
    DriftReference,
    Values,
    feature_values,
    into_categories,
    label_values,
    prediction_values,
)
from mlops_assets.monitoring.scores import category_counts, counts_between, finite_sorted, kl, ks, psi

if TYPE_CHECKING:
    import pandas as pd

SAID = 3
"""New categories that a note names."""


def assess_window(
    reference: DriftReference,
    *,
    start: str,
    end: str,
    version: str,
    features: "pd.DataFrame",
    scores: NDArray[np.float64] | None,
    target: NDArray[np.float64] | None,
    level: float,
    min_rows: int,
) -> WindowDrift:
    """Every column of the window with its scores and whether it drifted.

    ``features``: one row per answer (n), as logged; ``scores``: (n,) or (n, classes), as the model gave them;
    ``target`` (n,): class codes or numbers, NaN where no label came back yet (those rows do not count).
    ``scores`` or ``target`` None: such columns are not measured. ``level`` is the chance that a window like
    the reference shows drift in any column of a role; it is divided by the number of deciding tests of that
    role (Bonferroni 1936). A window under ``min_rows`` rows is not judged, and labels are not while fewer
    rows than that have one.

    Every input has a defined answer: missing, constant, infinite and absent columns are scored where a score
    is defined and explained in ``note``. Raises DataError when scores or target do not fit the rows or
    the task, or when the level is not between 0 and 1.
    """
    rows = len(features)
    if not 0 < level < 1:
        raise DataError(f"the level is a probability between 0 and 1, not {level}")
    for name, given in (("scores", scores), ("target", target)):
        if given is not None and len(given) != rows:
            raise DataError(f"{name}: {len(given)} values for {rows} answers; one per answer is needed")
    needed = max(min_rows, 1)
    if rows < needed:
        reason = (
            "no answers"
            if not rows
            else f"{rows:,} answers, fewer than the {needed:,} that a judgement needs"
        )
        return WindowDrift(start, end, version, rows, judged=False, reason=reason)
    tests = _tests(reference)
    found = []
    for one in reference.columns:
        values = next(_values(reference, one, features, scores, target), None)
        if values is None:
            if one.role == "feature":
                found.append(_absent(one))
            continue
        found.append(_assessed(one, values, level / tests[one.role], needed))
    return WindowDrift(
        start, end, version, rows, judged=True, reason=_reason(rows, found), columns=tuple(found)
    )


def measured_frame(
    reference: DriftReference,
    features: "pd.DataFrame",
    scores: NDArray[np.float64] | None = None,
    target: NDArray[np.float64] | None = None,
) -> "pd.DataFrame":
    """The columns that are measured, as they are compared: numbers as float64, categories as text.

    One column per column of the reference that the inputs hold, ``prediction`` and ``label`` among them, one
    row per row of ``features``; a missing value is NaN or None. What ``plots.distributions_plot`` and
    ``report.evidently_html`` take, of the training set as well as of a window.
    """
    import pandas as pd

    columns = {}
    for one in reference.columns:
        for values in _values(reference, one, features, scores, target, all_rows=True):
            if values.numbers is not None:
                columns[one.column] = pd.Series(values.numbers)
            else:
                assert values.codes is not None
                names = np.array([*values.names, None], dtype=object)
                columns[one.column] = pd.Series(names[values.codes], dtype=object)
    return pd.DataFrame(columns, index=pd.RangeIndex(len(features)))


def _tests(reference: DriftReference) -> dict[Role, int]:
    """How many deciding statistics each role has."""
    tests: dict[Role, int] = {}
    for one in reference.columns:
        deciding = sum(null.statistic in DECIDING for null in one.nulls)
        tests[one.role] = tests.get(one.role, 0) + deciding
    return {role: max(count, 1) for role, count in tests.items()}


def _values(
    reference: DriftReference,
    column: ColumnReference,
    features: "pd.DataFrame",
    scores: NDArray[np.float64] | None,
    target: NDArray[np.float64] | None,
    *,
    all_rows: bool = False,
) -> Iterator[Values]:
    """The window's values of that column; nothing when the inputs do not hold it."""
    if column.role == "feature":
        if column.column in features.columns:
            series = features[column.column]
            yield feature_values(column.column, column.kind, series, boolean=column.boolean)
    elif column.role == "prediction" and scores is not None:
        for values in prediction_values(reference.task, reference.classes, scores):
            if values.column == column.column:
                yield values
    elif column.role == "label" and target is not None:
        yield label_values(reference.task, reference.classes, target, all_rows=all_rows)


def _absent(column: ColumnReference) -> ColumnDrift:
    return ColumnDrift(
        column.column,
        column.role,
        scores=tuple(Score(null.statistic, None, None) for null in column.nulls),
        drifted=None,
        missing_share=1.0,
        note="the window holds no such column",
    )


def _assessed(column: ColumnReference, values: Values, level: float, needed: int) -> ColumnDrift:
    if values.numbers is not None:
        return _number(column, values.numbers, level, needed)
    return _category(column, values, level, needed)


def _number(column: ColumnReference, numbers: NDArray[np.float64], level: float, needed: int) -> ColumnDrift:
    infinite = int(np.isinf(numbers).sum())
    ordered, missing = finite_sorted(numbers)
    rows = len(numbers)
    if column.role == "label" and rows < needed:
        return _unlabelled(column, rows, needed)
    notes = _missing_notes(column, missing / rows, len(ordered) == 0)
    if infinite:
        notes.append(f"{infinite:,} infinite values count as larger than all others")
    if len(ordered) and ordered[0] == ordered[-1] and column.sample and column.sample[0] != column.sample[-1]:
        notes.append(f"every value is {ordered[0]:g}")
    expected = np.asarray(column.counts)
    counts = np.append(counts_between(ordered, np.asarray(column.cuts)), missing)
    measured: dict[Statistic, float | None] = {
        "psi": float(psi(expected, counts)),
        "ks": ks(np.asarray(column.sample), ordered),
        "kl": float(kl(expected, counts)),
    }
    return _scored(column, measured, rows, missing, level, notes)


def _category(column: ColumnReference, values: Values, level: float, needed: int) -> ColumnDrift:
    codes = into_categories(values, column.categories)
    rows = len(codes)
    if column.role == "label" and rows < needed:
        return _unlabelled(column, rows, needed)
    counts = category_counts(codes, len(column.categories))
    missing = int(counts[-1])
    notes = _missing_notes(column, missing / rows, missing == rows)
    if counts[-2]:
        notes.append(_other_note(column, values, int(counts[-2]) / rows))
    expected = np.asarray(column.counts)
    measured: dict[Statistic, float | None] = {
        "psi": float(psi(expected, counts)),
        "kl": float(kl(expected, counts)),
    }
    return _scored(column, measured, rows, missing, level, notes)


def _scored(
    column: ColumnReference,
    measured: dict[Statistic, float | None],
    rows: int,
    missing: int,
    level: float,
    notes: list[str],
) -> ColumnDrift:
    scored = []
    for statistic, value in measured.items():
        null = column.null(statistic)
        size = rows
        if statistic == "ks" and column.missing_share < 1:
            # Calibrated for windows that lack as much as the reference does; what counts is what is there.
            size = round((rows - missing) / (1 - column.missing_share))
        threshold = None if null is None else null.threshold(size, level)
        scored.append(Score(statistic, value, threshold))
    decided = [one.exceeded for one in scored if one.statistic in DECIDING and one.exceeded is not None]
    return ColumnDrift(
        column.column,
        column.role,
        scores=tuple(scored),
        drifted=any(decided) if decided else None,
        missing_share=missing / rows,
        note="; ".join(notes),
    )


def _missing_notes(column: ColumnReference, share: float, nothing: bool) -> list[str]:
    before = column.missing_share
    if nothing:
        return ["all values are missing" + (", as in the reference" if before == 1.0 else "")]
    if before == 1.0:
        return ["the reference has no values at all"]
    if abs(share - before) >= 0.1:
        return [f"{share:.0%} of the values are missing, {before:.0%} in the reference"]
    return []


def _other_note(column: ColumnReference, values: Values, share: float) -> str:
    assert values.codes is not None
    known = set(column.categories)
    times = np.bincount(values.codes[values.codes >= 0], minlength=len(values.names))
    others = [name for name, count in zip(values.names, times, strict=True) if count and name not in known]
    names = ", ".join(sorted(others)[:SAID]) + (", …" if len(others) > SAID else "")
    if column.other_share:
        return (
            f"{share:.1%} of the values are none of the reference's {len(column.categories)} most frequent "
            f"({column.other_share:.1%} there)"
        )
    return f"{share:.1%} of the values never occur in the reference: {names}"


def _unlabelled(column: ColumnReference, labelled: int, needed: int) -> ColumnDrift:
    return ColumnDrift(
        column.column,
        column.role,
        scores=tuple(Score(null.statistic, None, None) for null in column.nulls),
        drifted=None,
        missing_share=0.0,
        note=f"{labelled:,} answers have a label, fewer than the {needed:,} that a judgement needs",
    )


def _reason(rows: int, columns: list[ColumnDrift]) -> str:
    drifted = sorted((one for one in columns if one.drifted), key=lambda one: -(one.severity or 0.0))
    judged = sum(one.drifted is not None for one in columns)
    if not drifted:
        return f"{rows:,} answers: none of {judged} columns drifted"
    named = ", ".join(f"{one.column} ({_most(one)})" for one in drifted[:3])
    more = f" and {len(drifted) - 3} more" if len(drifted) > 3 else ""
    return f"{rows:,} answers: {len(drifted)} of {judged} columns drifted: {named}{more}"


def _most(column: ColumnDrift) -> str:
    score = max(
        (one for one in column.scores if one.statistic in DECIDING and one.ratio is not None),
        key=lambda one: one.ratio or 0.0,
    )
    return f"{score.statistic.upper()} {score.value:.3f}, by chance under {score.threshold:.3f}"
