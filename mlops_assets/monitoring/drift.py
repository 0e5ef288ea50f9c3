"""One window of answers against the reference of the version that gave them.

Belongs here: which columns a window has, their scores and thresholds, whether each drifted, and a sentence
about every odd column. Does not belong here: formulas (``detectors/``), thresholds (``calibration.py``),
what follows from drift (``policy.py``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlops_assets.errors import DataError
from mlops_assets.monitoring.counting import CategoryCounts, NumberCounts
from mlops_assets.monitoring.detectors import Compared, Ordered, decides, detectors
from mlops_assets.monitoring.findings import ColumnDrift, Role, Score, WindowDrift
from mlops_assets.monitoring.reference import (
    ColumnReference,
    DriftReference,
    Values,
    feature_values,
    label_values,
    prediction_values,
)
from mlops_assets.monitoring.scores import distinct
from mlops_assets.monitoring.windows import Window

if TYPE_CHECKING:
    import pandas as pd

NAMED = 3
"""New categories that a note names."""


@dataclass(frozen=True)
class Answers:
    """The answers of one version in a window.

    ``features``: one row per answer (n), as logged; ``scores``: (n,) or (n, classes), as the model gave them;
    ``target`` (n,): class codes or numbers, NaN where no label came back yet (those rows do not count).
    ``scores`` or ``target`` None: such columns are not measured.
    """

    features: "pd.DataFrame"
    scores: NDArray[np.float64] | None = None
    target: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class DriftTest:
    """When a column has drifted.

    ``levels``: by role, the chance that a window like the reference shows drift in any column of the role; it
    is divided by the number of deciding tests of that role (Bonferroni 1936). A window under ``min_rows``
    rows is not judged, and its labels are not while fewer rows than that have one. DataError for a level that
    is not between 0 and 1.
    """

    levels: Mapping[Role, float]
    min_rows: int

    @classmethod
    def at_level(cls, level: float, min_rows: int) -> "DriftTest":
        """The same level for every role."""
        return cls({"feature": level, "prediction": level, "label": level}, min_rows)

    def __post_init__(self) -> None:
        for role, level in self.levels.items():
            if not 0 < level < 1:
                raise DataError(f"the level of {role}s is a probability between 0 and 1, not {level}")

    @property
    def rows_needed(self) -> int:
        """Rows without which nothing is judged; at least one."""
        return max(self.min_rows, 1)


def assess_window(
    reference: DriftReference, window: Window, answers: Answers, *, version: str, test: DriftTest
) -> WindowDrift:
    """Every column of the window with its scores and whether it drifted.

    Every input has a defined answer: missing, constant, infinite and absent columns are scored where a score
    is defined and explained in ``note``. Raises DataError when scores or target do not fit the rows or
    the task.
    """
    counts = WindowCounts(reference)
    counts.add_features(answers.features)
    counts.add_answers(answers.scores, answers.target)
    return counts.assessed(window, version=version, test=test)


class WindowCounts:
    """A window of any size, counted in batches: afterwards ``assessed`` gives what ``assess_window`` gives of
    all rows at once. Batches of features, and batches of scores and labels, are added independently.
    """

    def __init__(self, reference: DriftReference) -> None:
        self._reference = reference
        self._rows = 0
        self._answers: dict[str, int | None] = {"scores": None, "target": None}
        self._counted: dict[str, NumberCounts | CategoryCounts] = {}

    def add_features(self, features: "pd.DataFrame") -> None:
        """Some of the window's rows, as logged."""
        self._rows += len(features)
        for one in self._reference.columns:
            if one.role == "feature":
                self._add(one, _values(self._reference, one, features, None, None))

    def add_answers(self, scores: NDArray[np.float64] | None, target: NDArray[np.float64] | None) -> None:
        """Scores and labels of some of the window's rows; None: not measured."""
        import pandas as pd

        for name, given in (("scores", scores), ("target", target)):
            if given is not None:
                self._answers[name] = (self._answers[name] or 0) + len(given)
        # Scores of no rows have no shape to check.
        scores, target = (given if given is not None and len(given) else None for given in (scores, target))
        for one in self._reference.columns:
            if one.role != "feature":
                self._add(one, _values(self._reference, one, pd.DataFrame(), scores, target))

    def _add(self, column: ColumnReference, parts: Iterator[Values]) -> None:
        for values in parts:
            if column.column not in self._counted:
                kind = NumberCounts if column.kind == "number" else CategoryCounts
                self._counted[column.column] = kind(column)
            self._counted[column.column].add(values)

    def assessed(self, window: Window, *, version: str, test: DriftTest) -> WindowDrift:
        """As ``assess_window`` of everything that was added."""
        rows, needed = self._rows, test.rows_needed
        start, end = window.start.isoformat(), window.end.isoformat()
        for name, given in self._answers.items():
            if given is not None and given != rows:
                raise DataError(f"{name}: {given} values for {rows} answers; one per answer is needed")
        if rows < needed:
            reason = (
                "no answers"
                if not rows
                else f"{rows:,} answers, fewer than the {needed:,} that a judgement needs"
            )
            return WindowDrift(start, end, version, rows, judged=False, reason=reason)
        tests = _tests(self._reference)
        found = []
        for one in self._reference.columns:
            counts = self._counted.get(one.column)
            if counts is not None:
                found.append(_assessed(one, counts, test.levels[one.role] / tests[one.role], needed))
            elif one.role == "feature":
                found.append(_absent(one))
        return WindowDrift(
            start, end, version, rows, judged=True, reason=_reason(rows, found), columns=tuple(found)
        )


def measured_frame(
    reference: DriftReference,
    features: "pd.DataFrame",
    scores: NDArray[np.float64] | None = None,
    target: NDArray[np.float64] | None = None,
) -> "pd.DataFrame":
    """The measured columns as the detectors compare them: numbers as float64, categories as text.

    One column per column of the reference that the inputs hold, ``prediction`` and ``label`` among them, one
    row per row of ``features``; a missing value is NaN or None. ``plots.distributions_plot`` and
    ``report.evidently_html`` take it, of the training set as well as of a window.
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
        deciding = sum(decides(null.statistic) for null in one.nulls)
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


def _assessed(
    column: ColumnReference, counts: NumberCounts | CategoryCounts, level: float, needed: int
) -> ColumnDrift:
    if column.role == "label" and counts.rows < needed:
        return _unlabelled(column, counts.rows, needed)
    if isinstance(counts, NumberCounts):
        return _number(column, counts, level)
    return _category(column, counts, level)


def _number(column: ColumnReference, counts: NumberCounts, level: float) -> ColumnDrift:
    rows, missing = counts.rows, counts.missing
    notes = _missing_notes(column, missing / rows, counts.there == 0)
    if counts.infinite:
        notes.append(f"{counts.infinite:,} infinite values count as larger than all others")
    constant = counts.lowest is not None and counts.lowest == counts.highest
    if constant and column.sample and column.sample[0] != column.sample[-1]:
        notes.append(f"every value is {counts.lowest:g}")
    expected, sample = np.asarray(column.counts), np.asarray(column.sample)
    binned = np.append(counts.between(np.asarray(column.cuts)), missing)
    seen = Ordered(sample, *counts.around(distinct(sample)), counts.there)
    return _scored(column, Compared(expected, binned, seen), counts, level, notes)


def _category(column: ColumnReference, counts: CategoryCounts, level: float) -> ColumnDrift:
    rows, missing, other = counts.rows, int(counts.counts[-1]), int(counts.counts[-2])
    notes = _missing_notes(column, missing / rows, missing == rows)
    if other:
        notes.append(_other_note(column, counts, other / rows))
    compared = Compared(np.asarray(column.counts), counts.counts)
    return _scored(column, compared, counts, level, notes)


def _scored(
    column: ColumnReference,
    compared: Compared,
    counts: NumberCounts | CategoryCounts,
    level: float,
    notes: list[str],
) -> ColumnDrift:
    missing, scored = int(compared.window[-1]), []
    for detector in detectors(ordered=compared.ordered is not None):
        null = column.null(detector.name)
        size = detector.rows_that_count(counts.rows, missing, column.missing_share)
        threshold = None if null is None else max(null.threshold(size, level), detector.smallest)
        scored.append(Score(detector.name, detector.score(compared), threshold))
    decided = [one.exceeded for one in scored if decides(one.statistic) and one.exceeded is not None]
    unlearned = _unlearned_share(column, counts)
    if unlearned:
        notes.append(f"{unlearned:.1%} of the values are {_unknown_to_the_model(column)}")
    return ColumnDrift(
        column.column,
        column.role,
        scores=tuple(scored),
        drifted=any(decided) if decided else None,
        missing_share=missing / counts.rows,
        note="; ".join(notes),
        unlearned=unlearned,
    )


def _unlearned_share(column: ColumnReference, counts: NumberCounts | CategoryCounts) -> float | None:
    """Share of rows with a value that the model was not fitted to, beyond what is usual."""
    if column.learned is None or counts.unlearned is None:
        return None
    return max(0.0, counts.unlearned / counts.rows - column.learned.usual)


def _unknown_to_the_model(column: ColumnReference) -> str:
    assert column.learned is not None
    if column.learned.empty:
        return "of a column that the model was trained without"
    if column.learned.constant is not None:
        return f"other than {column.learned.constant:g}, the only one that the model was trained on"
    return "of categories that the model was not trained on"


def _missing_notes(column: ColumnReference, share: float, nothing: bool) -> list[str]:
    before = column.missing_share
    if nothing:
        return ["all values are missing" + (", as in the reference" if before == 1.0 else "")]
    if before == 1.0:
        return ["the reference has no values at all"]
    if abs(share - before) >= 0.1:
        return [f"{share:.0%} of the values are missing, {before:.0%} in the reference"]
    return []


def _other_note(column: ColumnReference, counts: CategoryCounts, share: float) -> str:
    names = ", ".join(counts.others[:NAMED]) + (", …" if len(counts.others) > NAMED else "")
    if column.other_share:
        return (
            f"{share:.1%} of the values are not among the reference's {len(column.categories)} most frequent "
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
        (one for one in column.scores if decides(one.statistic) and one.ratio is not None),
        key=lambda one: one.ratio or 0.0,
    )
    return f"{score.statistic.upper()} {score.value:.3f}, by chance under {score.threshold:.3f}"
