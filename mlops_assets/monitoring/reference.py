"""The drift reference of a model: its training data, condensed, with calibrated thresholds.

Belongs here: the document that is stored beside a model package as ``drift_reference.json``, and making it.
Does not belong here: the formulas of the scores (``scores.py``), where thresholds come from
(``calibration.py``), judging a window with it (``drift.py``), where it is stored.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from mlops_assets.errors import DataError
from mlops_assets.monitoring.calibration import (
    CELLS,
    MIN_GROUPS,
    DayBootstrap,
    FineCells,
    NullDistribution,
    calibrate,
)
from mlops_assets.monitoring.findings import Role
from mlops_assets.monitoring.performance import PerformanceReference, performance_references
from mlops_assets.monitoring.scores import (
    BINS,
    LARGEST,
    Counts,
    category_counts,
    counts_between,
    finite_sorted,
    most_frequent,
    quantile_cuts,
    quantile_sample,
)
from serve.schema import Document, FeatureSpec, Task

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
ColumnKind = Literal["number", "category"]

CATEGORIES = 50
"""Categories with a bin of their own; the others share one bin, with values that never occurred."""
NOTED = 5_000
"""With more categories than this, new ones are no news."""
PREDICTION, PROBABILITY, LABEL = "prediction", "prediction_probability", "label"


@dataclass(frozen=True)
class HeldOut:
    """Rows that the model was not trained on: its scores, the target, and their days.

    ``scores`` as ``serve.scoring`` gives them: (n,) for binary and regression, (n, classes) for multiclass.
    ``target`` (n,): class codes or numbers, as a training set holds them. ``groups`` (n,): day numbers; None
    when rows are independent. ``baseline``: as ``evaluation.baseline.baseline_answer`` gives it of the rows
    that the model was fitted to; () where it is not known.
    """

    scores: NDArray[np.float64]
    target: NDArray[np.float64]
    groups: NDArray[np.int64] | None = None
    baseline: tuple[float, ...] = ()


class Learned(Document):
    """What one feature was in the rows that the model was fitted to: of other values it knows nothing."""

    empty: bool = Field(default=False, description="There was no value.")
    constant: float | None = Field(default=None, description="Number: the only value there was.")
    categories: tuple[str, ...] | None = Field(
        default=None, description=f"Category: every one that occurred; none noted beyond {NOTED:,}."
    )
    usual: float = Field(
        default=0.0, description="Category: share of held-out rows whose category is not among them."
    )


class ColumnReference(Document):
    """One column: its bins with counts, a sample, and the null distributions of its scores."""

    column: str
    role: Role
    kind: ColumnKind
    boolean: bool = Field(default=False, description="A category of true and false, held as 1 and 0.")
    rows: int = Field(description="Rows, including those with a missing value.")
    cuts: tuple[float, ...] = Field(default=(), description="Number: where bins end; the outer ones do not.")
    categories: tuple[str, ...] = Field(default=(), description="Category: names of the bins.")
    counts: tuple[int, ...] = Field(
        description="Rows per bin; of a category, then those of any other value; the missing are last."
    )
    sample: tuple[float, ...] = Field(
        default=(), description="Number: all values ascending, or 2,000 quantiles."
    )
    nulls: tuple[NullDistribution, ...]
    learned: Learned | None = Field(default=None, description="Feature: what the model could learn from.")

    @property
    def missing_share(self) -> float:
        """Share of rows without a value, 0 to 1."""
        return self.counts[-1] / self.rows

    @property
    def other_share(self) -> float:
        """Category: share of rows with a value that has no bin of its own, 0 to 1."""
        return self.counts[-2] / self.rows if self.kind == "category" else 0.0

    def null(self, statistic: str) -> NullDistribution | None:
        """The null distribution of that statistic; None when the column has no such statistic."""
        return next((one for one in self.nulls if one.statistic == statistic), None)


class DriftReference(Document):
    """Per column: bins with their counts, a sorted sample, thresholds by window size. See ``make_reference``.

    Of a training set with 32 features it is about 1 MB of text.
    """

    format_version: Literal[1] = 1
    task: Task
    classes: tuple[str, ...] | None
    window_days: float = Field(description="Length of the windows that the thresholds are for, in days.")
    rows: int = Field(description="Rows of the training set.")
    made_of: str = Field(description="What it was made of, in words.")
    columns: tuple[ColumnReference, ...]
    performance: tuple[PerformanceReference, ...] = ()
    baseline: tuple[float, ...] = Field(
        default=(),
        description="What the baseline says of every row: base rate, mean, or share of each class.",
    )

    def kinds(self) -> dict[str, ColumnKind]:
        """{column: "number" or "category"}, in order."""
        return {one.column: one.kind for one in self.columns}

    def column(self, name: str) -> ColumnReference | None:
        """The column of that name, or None."""
        return next((one for one in self.columns if one.column == name), None)

    def dumps(self) -> str:
        """The document as JSON text: the same reference gives the same text."""
        return self.model_dump_json()

    @classmethod
    def loads(cls, text: str) -> "DriftReference":
        """The document of that text; DataError for any other text."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the text"
            raise DataError(
                f"the text is not a drift reference: {place}: {first['msg']}. "
                "Train the model again to make one"
            ) from error


@dataclass(frozen=True)
class Values:
    """Values of one column as the detectors compare them.

    A number: float64 (n,), NaN where missing. A category: codes (n,) into ``names``, -1 where missing.
    """

    column: str
    role: Role
    kind: ColumnKind
    numbers: Floats | None = None
    codes: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()
    boolean: bool = False


def number_values(series: "pd.Series[Any]") -> Floats:
    """The values as float64, NaN where a value is missing or no number."""
    import pandas as pd

    if series.dtype.kind not in "fiub" or not isinstance(series.dtype, np.dtype):
        series = pd.to_numeric(series, errors="coerce")
    # A copy: the caller's frame must not be sorted with it.
    return np.array(series.to_numpy(dtype=np.float64, na_value=np.nan))


def category_values(series: "pd.Series[Any]", *, boolean: bool) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Codes (n,) and the names they stand for; -1 where a value is missing.

    A name is ``str`` of the value, as in the model's own dictionary. In a boolean column true, 1 and 1.0 are
    the same.
    """
    import pandas as pd

    positions, distinct = pd.factorize(series)
    texts = [_truth(value) if boolean else str(value) for value in distinct]
    names = tuple(dict.fromkeys(texts))
    place = {name: code for code, name in enumerate(names)}
    codes = np.array([*(place[text] for text in texts), -1], dtype=np.int64)
    return codes[positions], names


def _truth(value: object) -> str:
    if isinstance(value, str):
        return value.lower()
    return "true" if value == 1 else "false" if value == 0 else str(value)


def feature_values(column: str, kind: ColumnKind, series: "pd.Series[Any]", *, boolean: bool) -> Values:
    """One feature as the detectors compare it."""
    if kind == "number":
        return Values(column, "feature", kind, numbers=number_values(series))
    codes, names = category_values(series, boolean=boolean)
    return Values(column, "feature", kind, codes=codes, names=names, boolean=boolean)


def prediction_values(task: Task, classes: Sequence[str] | None, scores: Floats) -> Iterator[Values]:
    """The columns of predictions: one, and for multiclass the highest probability as well.

    Raises DataError when the scores do not have the shape of the task.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if task != "multiclass":
        if scores.ndim != 1:
            raise DataError(f"scores of task {task} have shape (rows,), not {scores.shape}")
        yield Values(PREDICTION, "prediction", "number", numbers=scores.copy())
        return
    if scores.ndim != 2 or scores.shape[1] != len(classes or ()):
        raise DataError(
            f"scores of task multiclass have shape (rows, {len(classes or ())}), not {scores.shape}"
        )
    known = np.asarray(~np.isnan(scores).any(axis=1))
    there = np.nan_to_num(scores, nan=0.0)
    winners = np.where(known, there.argmax(axis=1), -1).astype(np.int64)
    yield Values(PREDICTION, "prediction", "category", codes=winners, names=tuple(classes or ()))
    highest = np.where(known, there.max(axis=1), np.nan)
    yield Values(PROBABILITY, "prediction", "number", numbers=highest)


def label_values(
    task: Task, classes: Sequence[str] | None, target: Floats, *, all_rows: bool = False
) -> Values:
    """The column of labels; rows without one (NaN) are left out unless ``all_rows``.

    Raises DataError for a code that stands for no class.
    """
    target = np.asarray(target, dtype=np.float64)
    if not all_rows:
        target = target[~np.isnan(target)]
    if task == "regression":
        return Values(LABEL, "label", "number", numbers=target)
    names = tuple(classes or ())
    unknown = np.isnan(target)
    wrong = target[~unknown & ~np.isin(target, np.arange(len(names)))]
    if len(wrong):
        raise DataError(
            f"label {wrong[0]:g} is not the code of a class; codes are 0 to {len(names) - 1}: "
            f"{', '.join(names)}"
        )
    return Values(
        LABEL, "label", "category", codes=np.where(unknown, -1, target).astype(np.int64), names=names
    )


@dataclass(frozen=True)
class TrainingRows:
    """All rows (n) of a training set. ``features``: one column per spec, in any order.

    ``groups`` (n,): the day number of each row, because rows of one day vary together; None when rows are
    independent. ``fitted`` (n,): which of the rows the model was fitted to; None: not known, and then nobody
    notes what it learned from.
    """

    features: "pd.DataFrame"
    specs: Sequence[FeatureSpec]
    groups: NDArray[np.int64] | None = None
    fitted: NDArray[np.bool_] | None = None


def make_reference(
    training: TrainingRows,
    *,
    held_out: HeldOut | None,
    task: Task,
    classes: Sequence[str] | None,
    window_days: float,
    seed: int = 0,
) -> DriftReference:
    """The reference of a model: the features of its training rows, and its answers on held-out rows.

    ``held_out`` gives the columns ``prediction`` (and ``prediction_probability`` for multiclass) and
    ``label``, and the metrics that later performance is compared with; None: the reference has neither.
    ``window_days``: the length of the windows that it will be compared with.

    The same rows in the same order and the same seed give the same text. Raises DataError without rows, when
    a column is absent or has a reserved name, or when lengths do not match.
    """
    _check(training, held_out)
    columns = [
        _column(
            feature_values(spec.name, *_kind(spec)[:1], training.features[spec.name], boolean=_kind(spec)[1]),
            training.groups,
            window_days,
            seed,
        ).model_copy(update={"learned": _learned(training, spec)})
        for spec in training.specs
    ]
    performance: tuple[PerformanceReference, ...] = ()
    if held_out is not None:
        answers = [
            *prediction_values(task, classes, held_out.scores),
            label_values(task, classes, held_out.target),
        ]
        columns += [_column(values, held_out.groups, window_days, seed) for values in answers]
        performance = performance_references(
            task, held_out.target, held_out.scores, held_out.groups, held_out.baseline
        )
    return DriftReference(
        task=task,
        classes=tuple(classes) if classes is not None else None,
        window_days=window_days,
        rows=len(training.features),
        made_of=_made_of(training, held_out),
        columns=tuple(columns),
        performance=performance,
        baseline=held_out.baseline if held_out is not None else (),
    )


def _learned(training: TrainingRows, spec: FeatureSpec) -> Learned | None:
    if training.fitted is None:
        return None
    kind, boolean = _kind(spec)
    values = feature_values(spec.name, kind, training.features[spec.name], boolean=boolean)
    if values.numbers is not None:
        known = values.numbers[training.fitted]
        known = known[~np.isnan(known)]
        constant = float(known[0]) if len(known) and (known == known[0]).all() else None
        return Learned(empty=not len(known), constant=constant)
    assert values.codes is not None
    codes, held_out = values.codes[training.fitted], values.codes[~training.fitted]
    met = np.unique(codes[codes >= 0])
    if len(met) > NOTED:
        return Learned()
    usual = float((~np.isin(held_out, met) & (held_out >= 0)).mean()) if len(held_out) else 0.0
    return Learned(empty=not len(met), categories=tuple(values.names[code] for code in met), usual=usual)


def _kind(spec: FeatureSpec) -> tuple[ColumnKind, bool]:
    return ("category" if spec.type in ("category", "boolean") else "number"), spec.type == "boolean"


def _check(training: TrainingRows, held_out: HeldOut | None) -> None:
    features, names = training.features, [spec.name for spec in training.specs]
    if not len(features):
        raise DataError("the training set has no rows; a drift reference needs some")
    absent = [name for name in names if name not in features.columns]
    if absent:
        raise DataError(f"the training set lacks the features {absent}; it has {list(features.columns)}")
    lengths = {"groups": (training.groups, len(features))}
    if held_out is not None:
        reserved = [name for name in names if name in (PREDICTION, PROBABILITY, LABEL)]
        if reserved:
            raise DataError(
                f"the features {reserved} have the names of prediction and label columns; rename them"
            )
        if not len(held_out.scores):
            raise DataError(
                "the held-out rows are empty; pass held_out=None for a reference of the features alone"
            )
        if np.isnan(held_out.target).any():
            raise DataError("some held-out rows have no label; leave those rows out")
        lengths["held-out target"] = (held_out.target, len(held_out.scores))  # type: ignore[assignment]
        lengths["held-out groups"] = (held_out.groups, len(held_out.scores))
    for name, (values, expected) in lengths.items():
        if values is not None and len(values) != expected:
            raise DataError(f"{name}: {len(values)} values for {expected} rows; each row needs one")


def _made_of(training: TrainingRows, held_out: HeldOut | None) -> str:
    words = f"features: {len(training.features):,} rows of the training set, {_grouping(training.groups)}"
    if held_out is None:
        return words
    return (
        f"{words}; predictions and labels: {len(held_out.scores):,} rows the model did not train on, "
        f"{_grouping(held_out.groups)}"
    )


def _grouping(groups: NDArray[np.int64] | None) -> str:
    if groups is None:
        return "taken as independent"
    days = len(np.unique(groups))
    if days < MIN_GROUPS:
        return f"of {days} days, too few to tell how days differ: taken as independent"
    return f"of {days} days that vary as wholes"


def _column(
    values: Values, groups: NDArray[np.int64] | None, window_days: float, seed: int
) -> ColumnReference:
    line, days = np.zeros(_size(values), dtype=np.int64), None
    if groups is not None:
        numbers, lines = np.unique(groups, return_inverse=True)
        if len(numbers) >= MIN_GROUPS:
            line, days = lines, DayBootstrap(numbers, max(round(window_days), 1))
    # Each column has its own seed, so a new feature leaves the thresholds of the others as they are.
    own = seed + zlib.crc32(values.column.encode())
    if values.kind == "number":
        return _number(values, line, days, own)
    return _category(values, line, days, own)


def _size(values: Values) -> int:
    held = values.numbers if values.kind == "number" else values.codes
    assert held is not None
    return len(held)


def _number(values: Values, line: NDArray[np.int64], days: DayBootstrap | None, seed: int) -> ColumnReference:
    assert values.numbers is not None
    ordered, missing = finite_sorted(values.numbers)
    cuts = quantile_cuts(ordered, BINS)
    fine = np.union1d(quantile_cuts(ordered, CELLS), cuts)
    cell = np.searchsorted(fine, np.clip(values.numbers, -LARGEST, LARGEST), side="left")
    cell[np.isnan(values.numbers)] = len(fine) + 1
    cells = _by_line(cell, line, len(fine) + 2)
    # The bin of a cut begins in the cell after it; the missing have the last cell and bin to themselves.
    bins = np.concatenate([[0], np.searchsorted(fine, cuts) + 1, [len(fine) + 1]]).astype(np.intp)
    return ColumnReference(
        column=values.column,
        role=values.role,
        kind="number",
        rows=len(values.numbers),
        cuts=tuple(cuts.tolist()),
        counts=(*counts_between(ordered, cuts).tolist(), missing),
        sample=tuple(quantile_sample(ordered).tolist()),
        nulls=calibrate(
            FineCells(cells, bins, len(fine) + 1, _rough(ordered, fine), ordered=bool(len(ordered))),
            days=days,
            seed=seed,
        ),
    )


def _rough(ordered: Floats, fine: Floats) -> float:
    """The largest share of rows in a cell that holds more than one value."""
    if not len(ordered):
        return 0.0
    ends = np.concatenate([np.searchsorted(ordered, fine, side="right"), [len(ordered)]])
    starts = np.concatenate([[0], ends[:-1]])
    inside = np.flatnonzero(ends > starts)
    mixed = inside[ordered[starts[inside]] != ordered[ends[inside] - 1]]
    return float((ends[mixed] - starts[mixed]).max() / len(ordered)) if len(mixed) else 0.0


def _category(
    values: Values, line: NDArray[np.int64], days: DayBootstrap | None, seed: int
) -> ColumnReference:
    assert values.codes is not None
    there = np.bincount(values.codes[values.codes >= 0], minlength=len(values.names))
    if values.role == "feature":
        kept = [name for name, count in zip(values.names, there.tolist(), strict=True) if count]
        categories = most_frequent(kept, there[there > 0], CATEGORIES)
    else:
        # Every class has a bin, also one that never occurred.
        categories = values.names
    codes = into_categories(values, categories)
    size = len(categories) + 2
    cell = np.where(codes < 0, size - 1, codes)
    return ColumnReference(
        column=values.column,
        role=values.role,
        kind="category",
        boolean=values.boolean,
        rows=len(codes),
        categories=categories,
        counts=tuple(category_counts(codes, len(categories)).tolist()),
        nulls=calibrate(
            FineCells(_by_line(cell, line, size), np.arange(size, dtype=np.intp)),
            days=days,
            seed=seed,
        ),
    )


def into_categories(values: Values, categories: Sequence[str]) -> NDArray[np.int64]:
    """Codes (n,) into ``categories``; their number for any other value, -1 for a missing one."""
    assert values.codes is not None
    place = {name: code for code, name in enumerate(categories)}
    known = np.array([*(place.get(name, len(categories)) for name in values.names), -1], dtype=np.int64)
    return known[values.codes]


def _by_line(cell: NDArray[np.intp], line: NDArray[np.int64], size: int) -> Counts:
    """Rows per line (a day, or one line for all) and cell."""
    flat = np.bincount(line * size + cell, minlength=(int(line.max()) + 1) * size)
    return flat.reshape(-1, size).astype(np.int64)
