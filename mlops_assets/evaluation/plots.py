"""What an evaluation looks like: ROC, calibration, confusion, predicted against actual, slices. Pure.

Belongs here: scores and outcomes in, PNG bytes out. Does not belong here: plots of training
(``training/plots.py``) or the style (``drawing.py``).

``models`` is {name shown: scores}, the challenger first; binary and regression scores have shape
(n,), multiclass (n, classes).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mlops_assets.evaluation.drawing import COLOURS, FAINT, INK, blank, drawable, dress, legend, png
from mlops_assets.evaluation.metrics.calibration_error import expected_calibration_error
from mlops_assets.evaluation.metrics.roc_auc import roc_auc
from mlops_assets.evaluation.slices import Slice
from serve.schema import Task

Array = NDArray[np.float64]
BINS = 10


def evaluation_plots(
    task: Task,
    target: Array,
    models: Mapping[str, Array],
    classes: Sequence[str] | None,
    threshold: float = 0.5,
) -> dict[str, bytes]:
    """Every plot of the task by name; the confusion and scatter plots show the first model."""
    first = next(iter(models.values()))
    if task == "regression":
        return {"predicted_vs_actual": predicted_vs_actual_plot(target, first)}
    predicted = (first >= threshold).astype(float) if task == "binary" else first.argmax(axis=1).astype(float)
    plots = {"confusion": confusion_plot(target, predicted, classes or ())}
    if task == "binary":
        plots = {"roc": roc_plot(target, models), "calibration": calibration_plot(target, models), **plots}
    return plots


def roc_plot(target: Array, models: Mapping[str, Array]) -> bytes:
    """ROC curves with their areas; says so when the outcomes hold one class only."""
    figure = blank(5.4, 5.0)
    axes = figure.add_subplot()
    dress(axes, "ROC", "False positive rate", "True positive rate")
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 4)), label="chance, AUC 0.500")
    for (name, scores), colour in zip(models.items(), COLOURS, strict=False):
        area = roc_auc(target, scores)
        if area is None:
            axes.text(0.5, 0.55, "one class only: no ROC curve", ha="center", color=INK)
            break
        false_rate, true_rate = roc_points(target, scores)
        axes.plot(false_rate, true_rate, color=colour, linewidth=1.9, label=f"{name}, AUC {area:.3f}")
    axes.set(xlim=(0, 1), ylim=(0, 1.005), aspect="equal")
    legend(axes, "lower right")
    return png(figure)


def roc_points(target: Array, scores: Array) -> tuple[Array, Array]:
    """False and true positive rates at every distinct score, from (0, 0) to (1, 1)."""
    order = np.argsort(-scores, kind="stable")
    last_of_ties = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum(target[order])[last_of_ties]
    misses = last_of_ties + 1 - hits
    return np.append(0.0, misses / misses[-1]), np.append(0.0, hits / hits[-1])


def calibration_plot(target: Array, models: Mapping[str, Array]) -> bytes:
    """Observed against predicted rate in bins of equal size with 95 % Wilson intervals; scores below."""
    figure = blank(5.6, 5.6)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    dress(axes, "Calibration", "", "Observed rate")
    top = 0.0
    for (name, scores), colour in zip(models.items(), COLOURS, strict=False):
        predicted, observed, low, high = calibration_bins(target, scores)
        error = expected_calibration_error(target, scores) or 0.0
        constant = bool(scores.min() == scores.max())
        axes.errorbar(
            predicted,
            observed,
            yerr=(observed - low, high - observed),
            color=colour,
            marker="o",
            markersize=4.5,
            linewidth=1.6,
            elinewidth=1,
            label=f"{name}, calibration error {error:.3f}",
        )
        if not constant:  # a single tall bar would flatten every other
            # One shape: sixty bars take as long as all the rest of the figure.
            below.hist(scores, bins=np.linspace(0, 1, 61), histtype="stepfilled", color=colour, alpha=0.55)
        top = max(top, float(predicted.max()), float(high.max()))
    end = min(1.0, top * 1.08)
    axes.plot([0, end], [0, end], color=FAINT, linewidth=1, linestyle=(0, (4, 4)), zorder=1, label="perfect")
    axes.set(xlim=(0, end), ylim=(0, end))
    legend(axes, "upper left")
    dress(below, "", "Predicted probability", "Rows", grid="none")
    return png(figure)


def calibration_bins(target: Array, scores: Array) -> tuple[Array, Array, Array, Array]:
    """Mean score, observed rate and its 95 % Wilson interval (1927) in at most ten bins of equal size.

    Constant scores, such as a baseline's, are one bin.
    """
    count_of_bins = 1 if scores.min() == scores.max() else BINS
    bins = [part for part in np.array_split(np.argsort(scores, kind="stable"), count_of_bins) if len(part)]
    count = np.array([len(part) for part in bins], dtype=np.float64)
    predicted = np.array([scores[part].mean() for part in bins])
    observed = np.array([target[part].mean() for part in bins])
    z = 1.96
    centre = (observed + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z * np.sqrt(observed * (1 - observed) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    low, high = np.clip(centre - reach, 0, observed), np.clip(centre + reach, observed, 1)
    return predicted, observed, low, high


def confusion_plot(target: Array, predicted: Array, classes: Sequence[str]) -> bytes:
    """Rows by actual (down) and predicted (across) class; the colour is the share of the actual class."""
    size = len(classes)
    table = np.zeros((size, size), dtype=np.int64)
    np.add.at(table, (target.astype(np.int64), predicted.astype(np.int64)), 1)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = max(3.6, 1.4 + 0.85 * size)
    figure = blank(side + 0.8, side)
    axes = figure.add_subplot()
    dress(axes, "Confusion", "Predicted", "Actual", grid="none")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(size), classes, rotation=0 if size <= 5 else 60)
    axes.set_yticks(range(size), classes)
    for row in range(size):
        for column in range(size):
            colour = "white" if shares[row, column] > 0.55 else INK
            words = f"{table[row, column]:,}\n{shares[row, column]:.0%}"
            axes.text(column, row, words, ha="center", va="center", fontsize=9, color=colour)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return png(figure)


def predicted_vs_actual_plot(target: Array, scores: Array) -> bytes:
    """Predicted against actual values; many rows become a density. Rows without either are left out."""
    there = ~(np.isnan(target) | np.isnan(scores))
    target, scores = drawable(target[there]), drawable(scores[there])
    figure = blank(5.4, 5.0)
    axes = figure.add_subplot()
    dress(axes, "Predicted against actual", "Predicted", "Actual")
    if not len(target):
        axes.text(0.5, 0.5, "no predictions", transform=axes.transAxes, ha="center", color=INK)
        return png(figure)
    ends = (min(target.min(), scores.min()), max(target.max(), scores.max()))
    if len(target) > 2_000:
        axes.hexbin(scores, target, gridsize=45, cmap="Blues", mincnt=1, bins="log", linewidths=0)
    else:
        axes.scatter(scores, target, s=16, color=COLOURS[0], alpha=0.65, linewidths=0)
    axes.plot(ends, ends, color=FAINT, linewidth=1, linestyle=(0, (4, 4)), label="perfect")
    legend(axes, "upper left")
    return png(figure)


def slices_plot(slices: Sequence[Slice], *, limit: float | None = None) -> bytes:
    """Improvement on every slice with its interval; ``limit`` is the largest accepted loss.

    Slices without an interval are hollow. The 40 largest are shown.
    """
    shown = [part for part in slices if part.comparison.improvement is not None]
    shown = sorted(shown, key=lambda part: -part.comparison.rows)[:40]
    shown.sort(key=lambda part: (part.column, part.value), reverse=True)
    figure = blank(6.8, 1.4 + 0.27 * max(len(shown), 3))
    axes = figure.add_subplot()
    name = shown[0].comparison.metric if shown else "metric"
    dress(axes, "Improvement by slice", f"Improvement of {name} (right is better)", "", grid="x")
    axes.axvline(0, color=FAINT, linewidth=1)
    if limit is not None:
        axes.axvline(
            -limit, color=COLOURS[4], linewidth=1, linestyle=(0, (4, 4)), label="largest accepted loss"
        )
        axes.legend(
            frameon=False,
            fontsize=8.5,
            labelcolor=INK,
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            borderaxespad=0.4,
        )
    for place, part in enumerate(shown):
        found = part.comparison
        fill = "white"
        if found.low is not None and found.high is not None:
            axes.plot([found.low, found.high], [place, place], color=COLOURS[0], linewidth=1.6)
            fill = COLOURS[0]
        axes.plot(
            [found.improvement or 0.0],
            [place],
            marker="o",
            markersize=5.5,
            markeredgecolor=COLOURS[0],
            color=fill,
            linewidth=0,
        )
    labels = [f"{part.column} = {part.value}   (n = {part.comparison.rows:,})" for part in shown]
    axes.set_yticks(range(len(shown)), labels)
    if not shown:
        axes.text(0.5, 0.5, "no slice is large enough", transform=axes.transAxes, ha="center", color=INK)
    return png(figure)
