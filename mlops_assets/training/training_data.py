"""One part of a training set as the arrays that trainers and judges take. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlops_assets.training.dictionary import with_dictionaries
from mlops_assets.training.folds import Fold, shuffled, time_ordered
from mlops_assets.training.training_set import EVALUATE, LABEL, SPLIT, TRAIN
from serve.schema import FeatureSpec, Task
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
