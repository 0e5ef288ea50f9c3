"""One part of a training set as the arrays that trainers and judges take. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlops_assets.training.dictionary import with_dictionaries
from mlops_assets.training.folds import Fold, shuffled, time_ordered
from mlops_assets.training.training_set import LABEL, SPLIT, TRAIN
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
    ordered = frame.sort_values([*([event_timestamp] if event_timestamp else []), *join_keys], kind="stable")
    train = ordered[ordered[SPLIT] == TRAIN]
    specs = with_dictionaries(train, features)
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
