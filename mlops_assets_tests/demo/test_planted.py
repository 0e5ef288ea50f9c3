"""The planted model answers like the champion, and gives no number where a whole feed is missing."""

import numpy as np
import pytest

from demo.planted import spoiled
from mlops_assets.errors import StackError
from mlops_assets.training.trainers import FitInputs, trainer
from serve.schema import FeatureSpec, ModelManifest
from serve.scoring import scorer_from_bytes

NAMES = ("minute", "temp", "visib", "carrier")


def specs():
    return tuple(
        FeatureSpec(name=name, type="category", categories=("AA", "UA"))
        if name == "carrier"
        else FeatureSpec(name=name, type="number")
        for name in NAMES
    )


def matrix():
    """600 rows: in the first 60 the temperature is missing, in rows 30 to 90 the visibility."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(600, 4))
    rows[:, 3] = rng.integers(0, 2, size=600)
    rows[:60, 1] = np.nan
    rows[30:90, 2] = np.nan
    return rows


@pytest.mark.parametrize("name", ["lightgbm", "random_forest", "xgboost"])
def test_only_rows_that_lack_the_whole_feed_get_no_number_and_all_others_the_same_one(name):
    how, rows = trainer(name), matrix()
    fitted = how.fit(
        FitInputs(
            rows,
            (rows[:, 0] > 0.2).astype(float),
            features=specs(),
            task="binary",
            classes=2,
            params={},
            seed=1,
        )
    )
    manifest = ModelManifest(
        name="flights",
        task="binary",
        trainer=name,
        model_format=how.model_format,
        model_file=fitted.model_file,
        target="late",
        features=specs(),
        classes=("on_time", "late"),
    )
    good = scorer_from_bytes(manifest, fitted.payload).score(rows)

    bad = scorer_from_bytes(manifest, spoiled(fitted.payload, how.model_format, [1, 2])).score(rows)

    lacking = np.zeros(len(rows), dtype=bool)
    lacking[30:60] = True
    assert np.array_equal(np.isnan(bad), lacking)
    if name == "random_forest":
        # It averages over its trees, and there is one more now.
        assert np.all(np.isfinite(bad[~lacking]))
    else:
        assert np.array_equal(bad[~lacking], good[~lacking])


def test_a_linear_model_is_refused():
    with pytest.raises(StackError, match="only models of trees"):
        spoiled(b"{}", "linear-json", [0])


def test_a_file_of_another_format_is_refused():
    with pytest.raises(StackError, match="not LightGBM's text format"):
        spoiled(b"no trees here", "lightgbm-text", [0])
