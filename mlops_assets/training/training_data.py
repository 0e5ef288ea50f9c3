"""One part of a training set as the arrays that trainers and judges take. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlops_assets.training.dictionary import with_dictionaries
from mlops_assets.training.folds import Fold, newest_days, shuffled, time_ordered
from mlops_assets.training.trainers import FitInputs
from mlops_assets.training.training_set import EVALUATE, LABEL, SPLIT, TRAIN
from mlops_assets.training.window import within
from serve.schema import FeatureSpec, Task, TrainingWindow
from serve.scoring import Encoder

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TrainingData:
    """Rows in time order: the frame, its matrix (n, features) and target (n,).

    ``features`` carry the category dictionaries, which come from the training part only.
    """

    frame: "pd.DataFrame"
    matrix: NDArray[np.float64]
    target: NDArray[np.float64]
    features: tuple[FeatureSpec, ...]
    classes: tuple[str, ...] | None
    times: NDArray[np.datetime64] | None

    def folds(self, count: int, seed: int, task: Task) -> list[Fold]:
        """Time-ordered folds; seeded ones when rows have no time."""
        if self.times is not None:
            return time_ordered(self.times, count)
        return shuffled(self.target, count, seed=seed, stratified=task != "regression")

    def newest_fold(self, judged_days: int) -> Fold | None:
        """The fold that judges on the newest days; None when rows have no time, or too few days."""
        return None if self.times is None else newest_days(self.times, judged_days)

    @property
    def days(self) -> NDArray[np.int64] | None:
        """Day number of each row; None when rows have no time."""
        return None if self.times is None else self.times.astype("datetime64[D]").astype(np.int64)

    @property
    def span(self) -> tuple[str, str]:
        """First and last day, like 2024-03-01; empty texts when rows have no time."""
        if self.times is None:
            return "", ""
        first, last = (np.datetime_as_string(self.times[place], unit="D") for place in (0, -1))
        return str(first), str(last)

    def inputs(self, task: Task, params: Mapping[str, Any], seed: int) -> FitInputs:
        """What a model of these rows is made of."""
        classes = len(self.classes or ())
        return FitInputs(self.matrix, self.target, self.features, task, classes, params, seed)

    def trained_window(self, window_days: int | None) -> TrainingWindow | None:
        """What a model that was trained on these rows says of its window; None: it was all history."""
        first, last = self.span
        return TrainingWindow(days=window_days, first_day=first, last_day=last) if window_days else None

    def within(self, window_days: int | None) -> "TrainingData":
        """The rows of the newest so many days; None: all of them, the same object.

        The category dictionaries stay those of the whole part: what a request may send does not depend on
        which window won.
        """
        if window_days is None or self.days is None:
            return self
        kept = within(self.days, window_days)
        return replace(
            self,
            frame=self.frame[kept].reset_index(drop=True),
            matrix=self.matrix[kept],
            target=self.target[kept],
            times=None if self.times is None else self.times[kept],
        )


def training_data(
    frame: "pd.DataFrame",
    *,
    split: str,
    features: Sequence[FeatureSpec],
    classes: tuple[str, ...] | None,
    join_keys: Sequence[str],
    event_timestamp: str | None,
) -> TrainingData:
    """The rows of ``split``, in the order of time and keys whatever order the table gave them in."""
    ordered = _ordered(frame, join_keys, event_timestamp)
    specs = with_dictionaries(ordered[ordered[SPLIT] == TRAIN], features)
    return _part(ordered, split, specs, classes, event_timestamp)


def training_parts(
    frame: "pd.DataFrame",
    *,
    features: Sequence[FeatureSpec],
    classes: tuple[str, ...] | None,
    join_keys: Sequence[str],
    event_timestamp: str | None,
) -> tuple[TrainingData, TrainingData]:
    """The training and the evaluation part, each as ``training_data`` gives it."""
    ordered = _ordered(frame, join_keys, event_timestamp)
    specs = with_dictionaries(ordered[ordered[SPLIT] == TRAIN], features)
    train, evaluate = (_part(ordered, split, specs, classes, event_timestamp) for split in (TRAIN, EVALUATE))
    return train, evaluate


def _ordered(frame: "pd.DataFrame", join_keys: Sequence[str], event_timestamp: str | None) -> "pd.DataFrame":
    return frame.sort_values([*([event_timestamp] if event_timestamp else []), *join_keys], kind="stable")


def _part(
    ordered: "pd.DataFrame",
    split: str,
    specs: tuple[FeatureSpec, ...],
    classes: tuple[str, ...] | None,
    event_timestamp: str | None,
) -> TrainingData:
    part = ordered[ordered[SPLIT] == split].reset_index(drop=True)
    times = None
    if event_timestamp:
        times = part[event_timestamp].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    return TrainingData(
        frame=part,
        matrix=Encoder(specs).columns({spec.name: part[spec.name] for spec in specs}),
        target=part[LABEL].to_numpy(dtype=np.float64),
        features=specs,
        classes=classes,
        times=times,
    )
