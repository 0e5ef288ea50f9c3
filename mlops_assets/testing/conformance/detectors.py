"""What every detector must do (``monitoring/detectors/_base.py`` says it in words).

@pytest.mark.parametrize("detector", DETECTORS.members())
class TestDetector(DetectorConformance): ...
"""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from mlops_assets.monitoring.calibration import FineCells, NullDistribution, calibrate
from mlops_assets.monitoring.detectors import DETECTORS, Compared, Detector, Ordered
from mlops_assets.monitoring.scores import BINS, counts_between, distinct, quantile_cuts

Array = NDArray[np.float64]
REFERENCE = np.sort(np.random.default_rng(0).normal(size=1_000))
CUTS = quantile_cuts(REFERENCE, BINS)


def compared(window: Array, missing: int = 0) -> Compared:
    """A window of these values beside the reference."""
    ordered, points = np.sort(window), distinct(REFERENCE)
    return Compared(
        np.append(counts_between(REFERENCE, CUTS), 0),
        np.append(counts_between(ordered, CUTS), missing),
        Ordered(
            REFERENCE,
            np.searchsorted(ordered, points, side="left").astype(np.int64),
            np.searchsorted(ordered, points, side="right").astype(np.int64),
            len(ordered),
        ),
    )


def calibrated(detector: type[Detector], cells: int, sizes: tuple[int, ...]) -> NullDistribution:
    """What the detector is by chance between windows and a reference of rows spread evenly over cells."""
    counts = np.full((1, cells), 3_000 // cells)
    bins = np.arange(0, cells, max(1, cells // 10), dtype=np.intp)
    column = FineCells(counts, bins, present=cells, ordered=True)
    nulls = calibrate(column, days=None, seed=1, draws=400, sizes=sizes)
    return next(null for null in nulls if null.statistic == detector.name)


class DetectorConformance:
    """One detector."""

    def test_it_is_found_by_its_name(self, detector: type[Detector]) -> None:
        assert DETECTORS[detector.name] is detector

    def test_a_window_like_the_reference_scores_zero(self, detector: type[Detector]) -> None:
        assert detector().score(compared(REFERENCE)) == pytest.approx(0.0, abs=1e-12)

    @pytest.mark.parametrize("moved", [1.0, -1.0])
    def test_it_grows_with_the_distance(self, detector: type[Detector], moved: float) -> None:
        found = [detector().score(compared(REFERENCE + moved * far)) for far in (0.0, 0.1, 0.3, 1.0, 3.0)]
        scores = [score for score in found if score is not None and math.isfinite(score)]
        assert scores == sorted(scores) and len(set(scores)) == 5

    def test_one_endless_value_moves_it_by_one_row_only(self, detector: type[Detector]) -> None:
        far, near = (
            detector().score(compared(np.append(REFERENCE[:-1], value))) for value in (1e308, REFERENCE[-1])
        )
        assert far == pytest.approx(near, abs=0.01)

    def test_the_order_of_rows_and_their_batches_change_nothing(self, detector: type[Detector]) -> None:
        window = REFERENCE[::3] + 0.2
        parts = [compared(window[:100]), compared(window[100:])]
        ordered = [one.ordered for one in parts if one.ordered is not None]
        summed = Compared(
            parts[0].reference,
            parts[0].window + parts[1].window,
            Ordered(
                REFERENCE,
                ordered[0].below + ordered[1].below,
                ordered[0].up_to + ordered[1].up_to,
                len(window),
            ),
        )
        assert detector().score(summed) == detector().score(compared(window))

    def test_without_rows_it_is_not_defined(self, detector: type[Detector]) -> None:
        score = detector().score(compared(np.empty(0)))
        assert score is None or math.isnan(score)

    def test_without_an_order_it_scores_the_bins_or_says_that_it_needs_one(
        self, detector: type[Detector]
    ) -> None:
        whole = compared(REFERENCE + 0.5)
        score = detector().score(Compared(whole.reference, whole.window))
        assert score is None if detector.needs_order else score == detector().score(whole)

    def test_its_threshold_is_exceeded_by_chance_as_often_as_the_level_says(
        self, detector: type[Detector]
    ) -> None:
        rows, level, draws = 500, 0.1, 300
        limit = calibrated(detector, 1_000, (rows,)).threshold(rows, level)
        random = np.random.default_rng(2)
        cells = np.arange(1_000.0)
        bins = np.arange(100.0, 1_000.0, 100.0) - 1
        above = 0
        for _ in range(draws):
            reference, window = np.sort(random.choice(cells, 3_000)), np.sort(random.choice(cells, rows))
            points = distinct(reference)
            score = detector().score(
                Compared(
                    counts_between(reference, bins),
                    counts_between(window, bins),
                    Ordered(
                        reference,
                        np.searchsorted(window, points, side="left").astype(np.int64),
                        np.searchsorted(window, points, side="right").astype(np.int64),
                        rows,
                    ),
                )
            )
            assert score is not None
            above += score > limit
        # 0.1 +- 3 standard deviations of 300 draws, and what 400 draws know of the tail.
        assert 0.03 < above / draws < 0.18

    def test_larger_windows_are_nearer_by_chance(self, detector: type[Detector]) -> None:
        null = calibrated(detector, 100, (100, 1_000, 10_000))
        limits = [null.threshold(rows, 0.01) for rows in (100, 1_000, 10_000)]
        assert limits == sorted(limits, reverse=True) and limits[-1] > 0

    def test_a_column_that_never_varies_is_never_apart_by_chance(self, detector: type[Detector]) -> None:
        assert calibrated(detector, 1, (100,)).threshold(100, 0.01) == pytest.approx(0.0, abs=1e-12)

    def test_rows_without_a_value_count_once(self, detector: type[Detector]) -> None:
        assert detector().rows_that_count(500, 0, 0.0) == 500
        assert detector().rows_that_count(500, 250, 0.5) == 500
