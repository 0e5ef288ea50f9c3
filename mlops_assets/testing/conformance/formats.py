"""What every model format must do (``serve/formats/_base.py`` says it in words).

@pytest.mark.parametrize(("scorer", "model"), cases(FORMATS.members(), TRAINERS.members()))
class TestFormat(FormatConformance): ...
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from mlops_assets.testing.conformance.small_tables import SmallModel, small_model
from mlops_assets.training.trainers import Trainer
from serve.formats._base import MANY_ROWS
from serve.scoring import FORMATS, Scorer, load_package, scorer_from_bytes, write_package


def cases(formats: Iterable[type[Scorer]], trainers: Iterable[type[Trainer]]) -> list[Any]:
    """Every format with a model per task, by the first trainer that writes it.

    LookupError when no trainer does: nobody could make a model of that format.
    """
    found = []
    for scorer in formats:
        writers = [trainer for trainer in trainers if trainer.model_format == scorer.name]
        if not writers:
            raise LookupError(f"no trainer writes {scorer.name}")
        for task in sorted({task for trainer in writers for task in trainer.tasks}):
            writer = next(trainer for trainer in writers if task in trainer.tasks)
            found.append(pytest.param(scorer, (writer, task), id=f"{scorer.name}-{task}"))
    return found


class FormatConformance:
    """One format, and a model of it."""

    @pytest.fixture
    def small(self, model: Any) -> SmallModel:
        return small_model(*model)

    def test_it_is_found_by_the_name_in_the_manifest(
        self, scorer: type[Scorer], model: Any, small: SmallModel
    ) -> None:
        assert FORMATS[small.manifest.model_format] is scorer
        assert type(scorer_from_bytes(small.manifest, small.fitted.payload)) is scorer

    def test_a_row_alone_scores_as_among_many_to_the_bit(
        self, scorer: type[Scorer], model: Any, small: SmallModel
    ) -> None:
        loaded, matrix = small.scorer(), small.table.matrix
        alone = np.concatenate([loaded.score(matrix[i : i + 1]) for i in range(25)])
        np.testing.assert_array_equal(loaded.score(matrix)[:25], alone)
        np.testing.assert_array_equal(loaded.score(np.asfortranarray(matrix)), loaded.score(matrix))

    def test_the_number_of_threads_changes_no_score(
        self, scorer: type[Scorer], model: Any, small: SmallModel
    ) -> None:
        loaded, matrix = small.scorer(), small.table.matrix
        many = np.tile(matrix, (MANY_ROWS // len(matrix) + 1, 1))
        np.testing.assert_array_equal(loaded.score(many)[: len(matrix)], loaded.score(matrix))

    def test_several_threads_may_ask_at_once(
        self, scorer: type[Scorer], model: Any, small: SmallModel
    ) -> None:
        loaded, matrix = small.scorer(), small.table.matrix
        expected = loaded.score(matrix)
        with ThreadPoolExecutor(4) as pool:
            for scores in pool.map(loaded.score, [matrix] * 16):
                np.testing.assert_array_equal(scores, expected)

    def test_an_unseen_category_scores_as_a_missing_one(
        self, scorer: type[Scorer], model: Any, small: SmallModel
    ) -> None:
        row = {feature.name: 1.0 for feature in small.manifest.features}
        loaded = small.scorer()
        np.testing.assert_array_equal(
            loaded.score_rows([{**row, "colour": "mauve"}]), loaded.score_rows([{**row, "colour": None}])
        )

    def test_scores_are_probabilities_or_values(
        self, scorer: type[Scorer], model: Any, small: SmallModel
    ) -> None:
        scores = small.scorer().score(small.table.matrix)
        assert scores.dtype == np.float64
        if small.manifest.task != "regression":
            assert scores.min() >= 0 and scores.max() <= 1
        if small.manifest.task == "multiclass":
            np.testing.assert_allclose(scores.sum(axis=1), 1.0, rtol=1e-6)

    def test_a_package_reads_back_and_scores_the_same(
        self, scorer: type[Scorer], model: Any, small: SmallModel, tmp_path: Any
    ) -> None:
        write_package(str(tmp_path / "m"), small.manifest, small.fitted.payload)
        assert (tmp_path / "m" / scorer.model_file).read_bytes() == small.fitted.payload
        read = load_package(str(tmp_path / "m"))
        np.testing.assert_array_equal(
            read.score(small.table.matrix), small.scorer().score(small.table.matrix)
        )

    def test_damaged_bytes_are_an_error(self, scorer: type[Scorer], model: Any, small: SmallModel) -> None:
        with pytest.raises(Exception):  # noqa: B017, PT011 (what a library raises is its own)
            scorer(small.manifest, b"not a model")

    def test_it_says_what_memory_it_takes(self, scorer: type[Scorer], model: Any, small: SmallModel) -> None:
        assert scorer.peak_per_package_byte >= 1
        if scorer.gpu is not None:
            assert scorer.gpu.peak_per_package_byte > scorer.peak_per_package_byte
            assert 0 < scorer.gpu.tolerance < 1e-3
