"""Plots are PNGs that change with what they show, and survive what data can be like."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from mlops_assets.evaluation.compare import Comparison
from mlops_assets.evaluation.drawing import bin_edges, drawable
from mlops_assets.evaluation.plots import calibration_bins, evaluation_plots, roc_points, slices_plot
from mlops_assets.evaluation.slices import Slice
from serve.schema import Task

pytestmark = pytest.mark.usefixtures("rendered")
PNG = b"\x89PNG\r\n\x1a\n"
RANDOM = np.random.default_rng(0)
TARGET = RANDOM.integers(0, 2, 400).astype(float)
SCORES = np.round(np.clip(TARGET * 0.3 + RANDOM.random(400) * 0.7, 0, 1), 2)
CLASSES: dict[Task, tuple[str, ...]] = {
    "binary": ("no", "yes"),
    "multiclass": ("a", "b", "c"),
    "regression": (),
}


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("binary", {"roc", "calibration", "confusion"}),
        ("multiclass", {"confusion"}),
        ("regression", {"predicted_vs_actual"}),
    ],
)
def test_every_task_has_its_plots_and_the_same_bytes_for_the_same_data(task: Task, names: set[str]) -> None:
    scores = RANDOM.dirichlet(np.ones(3), 400) if task == "multiclass" else SCORES
    first, again = (evaluation_plots(task, TARGET, {"challenger": scores}, CLASSES[task]) for _ in range(2))
    assert set(first) == names and first == again
    assert all(image.startswith(PNG) and len(image) > 5_000 for image in first.values())


def test_a_champion_beside_the_challenger_is_drawn() -> None:
    alone = evaluation_plots("binary", TARGET, {"challenger": SCORES}, ("no", "yes"))
    both = evaluation_plots("binary", TARGET, {"challenger": SCORES, "champion v3": SCORES**2}, ("no", "yes"))
    assert both["roc"] != alone["roc"] and both["calibration"] != alone["calibration"]
    assert both["confusion"] == alone["confusion"]


@pytest.mark.parametrize("scores", [np.full(400, 0.2), np.zeros(400), SCORES])
@pytest.mark.parametrize("target", [np.zeros(400), np.ones(400), TARGET])
def test_one_class_and_constant_scores_are_drawn_too(target: np.ndarray, scores: np.ndarray) -> None:
    for image in evaluation_plots("binary", target, {"challenger": scores}, ("no", "yes")).values():
        assert image.startswith(PNG)


@pytest.mark.parametrize("rows", [1, 2_500])
@pytest.mark.parametrize("odd", [np.nan, np.inf, 1e308, 1e17, 5e-324])
def test_numbers_that_no_axis_has_room_for_are_drawn_too(odd: float, rows: int) -> None:
    there = np.arange(rows) % 2.0
    for target, scores in ((there, np.where(there, odd, -odd)), (np.where(there, 1e308, 0.0), there)):
        (plot,) = evaluation_plots("regression", target, {"challenger": scores}, None).values()
        assert plot.startswith(PNG)


def test_bars_have_a_width_however_close_the_numbers_are() -> None:
    assert bin_edges(0.0, 3.0, 3).tolist() == [0.0, 1.0, 2.0, 3.0]
    for low, high in ((5.0, 5.0), (0.0, 5e-324), (1e12, 1e12)):
        assert (np.diff(bin_edges(low, high, 30)) > 0).all()
    assert drawable([np.nan, np.inf, -1e300, 2.0]).tolist() == [1e12, -1e12, 2.0]


def test_the_roc_curve_is_scikit_learns() -> None:
    false_rate, true_rate, _ = roc_curve(TARGET, SCORES, drop_intermediate=False)
    ours = roc_points(TARGET, SCORES)
    np.testing.assert_allclose(ours[0], false_rate)
    np.testing.assert_allclose(ours[1], true_rate)


def test_calibration_bins_hold_all_rows_and_their_intervals_the_rate() -> None:
    predicted, observed, low, high = calibration_bins(TARGET, SCORES)
    assert len(predicted) == 10 and np.all(np.diff(predicted) >= 0)
    assert np.mean(observed) == pytest.approx(TARGET.mean())
    assert np.all((low >= 0) & (low <= observed) & (observed <= high) & (high <= 1))


def test_slices_without_an_interval_or_without_any_slice_are_drawn() -> None:
    bounded = Comparison("log_loss", 0.4, 0.5, 0.1, 0.05, 0.15, 900, 14, 0.95)
    open_ = Comparison("log_loss", 0.4, 0.5, 0.1, None, None, 90, 3, 0.95)
    shown = [slices_plot([Slice("carrier", "UA", part)], limit=0.01) for part in (bounded, open_)]
    assert shown[0] != shown[1]
    assert all(image.startswith(PNG) for image in [*shown, slices_plot([])])
