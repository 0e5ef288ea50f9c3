"""Both parts of a training set, as arrays."""

import numpy as np
import pandas as pd

from mlops_assets.training.training_data import training_data, training_parts
from mlops_assets.training.training_set import EVALUATE, LABEL, SPLIT, TRAIN
from serve.schema import FeatureSpec

FRAME = pd.DataFrame(
    {
        "id": [4, 1, 3, 2],
        "at": pd.to_datetime(["2024-01-04", "2024-01-01", "2024-01-03", "2024-01-02"], utc=True),
        "colour": ["blue", "red", "green", "green"],
        LABEL: [1.0, 0.0, 1.0, 0.0],
        SPLIT: [EVALUATE, TRAIN, EVALUATE, TRAIN],
    }
)
COLOUR = FeatureSpec(name="colour", type="category")
HOW = {"features": [COLOUR], "classes": ("no", "yes"), "join_keys": ["id"], "event_timestamp": "at"}


def test_each_part_is_in_order_of_time_and_knows_the_categories_of_the_training_part_alone() -> None:
    train, evaluate = training_parts(FRAME, **HOW)  # type: ignore[arg-type]

    assert train.frame["id"].tolist() == [1, 2] and evaluate.frame["id"].tolist() == [3, 4]
    assert train.target.tolist() == [0.0, 0.0] and evaluate.target.tolist() == [1.0, 1.0]
    assert train.features == evaluate.features
    # blue was never trained on.
    assert np.isfinite(evaluate.matrix[0, 0]) and evaluate.matrix[1, 0] not in train.matrix[:, 0]


def test_a_part_alone_is_the_same() -> None:
    for split, part in zip((TRAIN, EVALUATE), training_parts(FRAME, **HOW), strict=True):  # type: ignore[arg-type]
        alone = training_data(FRAME, split=split, **HOW)  # type: ignore[arg-type]
        pd.testing.assert_frame_equal(alone.frame, part.frame)
        np.testing.assert_array_equal(alone.matrix, part.matrix)
        assert alone.features == part.features and alone.target.tolist() == part.target.tolist()
