"""A training set: feature rows joined with their labels and split by time. Pure.

Belongs here: the join, the label encoding, the split. Does not belong here: reading tables and
pinning their versions (``assets/training_set.py``), folds within the training part (``folds.py``).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlops_assets.data.schema import conform
from mlops_assets.errors import DataError
from mlops_assets.evaluation.jackknife import MIN_GROUPS
from serve.schema import Task

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

LABEL = "label"
SPLIT = "split"
TRAIN = "train"
EVALUATE = "evaluate"


@dataclass(frozen=True)
class TrainingSet:
    """Labelled rows in time order: entity keys, event timestamp, features, ``label``, ``split``."""

    frame: "pd.DataFrame"
    classes: tuple[str, ...] | None
    unlabelled: int
    too_old: int

    def part(self, split: str) -> "pd.DataFrame":
        """The rows of one split, index from zero."""
        return self.frame[self.frame[SPLIT] == split].reset_index(drop=True)


@dataclass(frozen=True)
class SplitRule:
    """How labelled rows become a training and an evaluation part.

    With ``event_timestamp`` the newest ``evaluation_window_days`` calendar days (UTC) of labelled rows become
    the evaluation part and everything before them, at most ``training_window_days`` back, the training part:
    never a random split, because tomorrow is not a random sample. After a change (``changed_by``) the
    evaluation part is as short as ``evaluation_days`` says. Without ``event_timestamp``, a seeded hash of the
    join keys picks ``evaluation_fraction`` of the rows, the same ones whatever their order.
    """

    event_timestamp: str | None
    evaluation_window_days: int = 14
    evaluation_fraction: float = 0.2
    training_window_days: int | None = None
    changed_by: "pd.Timestamp | None" = None
    seed: int = 0


def assemble(
    features: "pd.DataFrame",
    labels: "pd.DataFrame",
    *,
    join_keys: Sequence[str],
    task: Task,
    split: SplitRule,
    classes: Sequence[str] | None = None,
) -> TrainingSet:
    """Feature rows joined with their labels, encoded and split.

    ``labels`` holds the join keys and one column ``label``; a row without a label is left out and counted.

    Raises DataError when join keys repeat, no row is labelled, one has no event time, or a part is empty.
    """
    keys, at = list(join_keys), split.event_timestamp
    joined = with_labels(features, labels, join_keys)
    labelled = joined[joined[LABEL].notna()]
    if labelled.empty:
        raise DataError(
            f"none of {len(joined)} feature rows has a label; check join keys {keys} and the label"
        )
    if at and labelled[at].isna().any():
        raise DataError(
            f"{int(labelled[at].isna().sum())} labelled rows have no {at}, so nobody can say on which side "
            "of the split they belong; give them a time, or quarantine them"
        )
    frame = labelled.sort_values([at, *keys] if at else keys, kind="stable").reset_index(drop=True)
    target, known = encode_target(frame[LABEL], task=task, classes=classes)
    frame[LABEL] = target
    count = len(frame)
    frame = _split(frame, keys, split)
    for part in (TRAIN, EVALUATE):
        if not (frame[SPLIT] == part).any():
            raise DataError(
                f"the {part} part is empty: {len(frame)} labelled rows, evaluation window "
                f"{split.evaluation_window_days} days; materialise more partitions or shorten the window"
            )
    return TrainingSet(frame, known, unlabelled=len(joined) - len(labelled), too_old=count - len(frame))


def _split(frame: "pd.DataFrame", keys: list[str], rule: SplitRule) -> "pd.DataFrame":
    """The rows that are not too old, with the column ``split``."""
    import pandas as pd

    if rule.event_timestamp is None:
        shares = _key_shares(frame[keys], rule.seed)
        return frame.assign(**{SPLIT: np.where(shares < rule.evaluation_fraction, EVALUATE, TRAIN)})
    times = pd.to_datetime(frame[rule.event_timestamp], utc=True)
    judged_days = evaluation_days(times.max(), rule.evaluation_window_days, rule.changed_by)
    cut = times.max().floor("D") + pd.Timedelta(days=1 - judged_days)
    parts = frame.assign(**{SPLIT: np.where(times >= cut, EVALUATE, TRAIN)})
    if rule.training_window_days is None:
        return parts
    recent = (times >= cut - pd.Timedelta(days=rule.training_window_days)).to_numpy()
    return parts[recent].reset_index(drop=True)


def evaluation_days(newest: "pd.Timestamp", declared: int, changed_by: "pd.Timestamp | None") -> int:
    """How many of the newest days are judged on, at most the declared ones.

    ``newest``: time of the newest labelled row; ``changed_by``: a time by which what was learned was no
    longer true, None when nothing is known of one. After a change only rows behind it say what is true now,
    to the trainer as to the judge, and an evaluation window longer than that would leave none to learn from:
    so half of those days are judged on. Never fewer than an interval over whole days needs.
    """
    if changed_by is None:
        return declared
    since = (newest.floor("D") - changed_by.floor("D")).days + 1
    return min(declared, max(MIN_GROUPS, -(-since // 2)))


def not_trained_on(
    rows: "pd.DataFrame", trained: "pd.DataFrame", join_keys: Sequence[str], event_timestamp: str | None
) -> "pd.DataFrame":
    """The rows that a model of ``trained`` has not seen: later ones, without event time those of other keys.

    A row of an old day whose label came late is no later one.
    """
    import pandas as pd

    if event_timestamp:
        newest = pd.to_datetime(trained[event_timestamp], utc=True).max()
        kept = (pd.to_datetime(rows[event_timestamp], utc=True) > newest).to_numpy()
    else:
        keys = list(join_keys)
        kept = ~pd.MultiIndex.from_frame(rows[keys]).isin(pd.MultiIndex.from_frame(trained[keys]))
    return rows[kept].reset_index(drop=True)


def with_labels(features: "pd.DataFrame", labels: "pd.DataFrame", join_keys: Sequence[str]) -> "pd.DataFrame":
    """``features`` with the column ``label``, missing where there is none; same rows, same order.

    A missing key matches nothing. Raises DataError when keys repeat.
    """
    keys = list(join_keys)
    outcomes = labels[[*keys, LABEL]].assign(**{LABEL: _nullable(labels[LABEL])})
    complete = {
        name: frame[frame[keys].notna().all(axis=1)]
        for name, frame in (("features", features), ("labels", outcomes))
    }
    for name, frame in complete.items():
        repeated = int(frame.duplicated(keys).sum())
        if repeated:
            raise DataError(f"{name} hold {repeated} rows with a repeated key {keys}; keys must be unique")
    # pandas joins a missing key with a missing one; of the labels there are none left here.
    return features.merge(complete["labels"], on=keys, how="left", validate="many_to_one")


def training_set_schema(features: "pa.Schema", columns: Sequence[str]) -> "pa.Schema":
    """The columns of a training set: the feature table's ``columns`` as they are there, label and split."""
    import pyarrow as pa

    held = {field.name: field.type for field in features}
    return pa.schema([*((name, held[name]) for name in columns), (LABEL, pa.float64()), (SPLIT, pa.string())])


def _nullable(labels: "pd.Series[Any]") -> "pd.Series[Any]":
    """Whole numbers and booleans in types that can miss a value: a float does not hold every whole number."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(labels.dtype):
        return labels.astype("boolean")
    return labels.astype("Int64") if pd.api.types.is_integer_dtype(labels.dtype) else labels


def encode_target(
    labels: "pd.Series[Any]", *, task: Task, classes: Sequence[str] | None
) -> tuple[NDArray[np.float64], tuple[str, ...] | None]:
    """Labels as floats and the class names in code order.

    Regression: the numbers, no classes. Classification: codes 0..k-1. ``classes`` fixes names and
    order (binary: negative first). A label that is the name of a class means that class; booleans and 0/1
    that are not take the two names of a binary task in that order. Without ``classes`` the sorted distinct
    labels are taken. Raises DataError naming labels outside the classes, a class count that does not fit
    the task, and labels of a regression that are no numbers.
    """
    if task == "regression":
        return _numbers(labels), None
    found = labels.unique().tolist()
    coded = task == "binary" and set(found) <= {0, 1}
    names = tuple(classes or (("false", "true") if coded else sorted(set(map(class_name, found)))))
    named = {label: class_name(label, names) for label in found}
    position = {name: float(code) for code, name in enumerate(names)}
    unknown = sorted(set(named.values()) - set(names))
    if unknown and not (coded and are_codes(names)):
        raise DataError(f"labels outside the classes: {unknown}. Allowed: {list(names)}")
    code_of = {label: float(int(label)) if unknown else position[name] for label, name in named.items()}
    codes = np.asarray(labels.map(code_of), dtype=np.float64)
    fits = len(names) == 2 if task == "binary" else len(names) >= 3
    if not fits:
        raise DataError(
            f"task {task} does not fit {len(names)} classes {list(names)}: binary has two, multiclass "
            "three or more"
        )
    return codes, names


def _numbers(labels: "pd.Series[Any]") -> NDArray[np.float64]:
    """Labels of a regression, by the rules of ``docs/types.md`` for a number."""
    import pandas as pd

    made = conform(pd.DataFrame({LABEL: labels}), {LABEL: "number"})
    if LABEL in made.misfits:
        misfit = made.misfits[LABEL]
        raise DataError(
            f"{int(misfit.rows.sum())} labels of a regression are no numbers, e.g. {misfit.example}: "
            f"{misfit.reason}"
        )
    return made.frame[LABEL].to_numpy(dtype=np.float64)


def are_codes(classes: Sequence[str]) -> bool:
    """Whether 0 and 1 stand for two classes in their order: not where one is called like the other's code."""
    return all(str(code) not in classes or list(classes).index(str(code)) == code for code in (0, 1))


def class_name(value: object, names: Sequence[str] = ()) -> str:
    """The name of a class from a label.

    ``2.0`` and ``2`` name the same class: a float column is what a missing label makes of integers. A boolean
    is "true" or "false", as one of ``names`` spells it.
    """
    if isinstance(value, (bool, np.bool_)):
        own = "true" if value else "false"
        return next((name for name in names if name.lower() == own), own)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _key_shares(keys: "pd.DataFrame", seed: int) -> NDArray[np.float64]:
    """A number in [0, 1) per row that depends on its keys and the seed only."""
    shares = [
        int.from_bytes(hashlib.blake2b(repr((seed, *row)).encode(), digest_size=8).digest(), "big")
        for row in keys.astype(str).itertuples(index=False, name=None)
    ]
    return np.asarray(shares, dtype=np.float64) / 2.0**64
