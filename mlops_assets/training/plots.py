"""What training looks like: the training set over time, candidates fold by fold, importance. Pure.

Belongs here: training results in, PNG bytes out. Does not belong here: plots of a judgement
(``evaluation/plots.py``) or the style (``evaluation/drawing.py``).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlops_assets.evaluation.drawing import COLOURS, FAINT, INK, bin_edges, blank, drawable, dress, png
from mlops_assets.training.training_set import EVALUATE, LABEL, SPLIT, TRAIN, TrainingSet
from serve.schema import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mlops_assets.training.candidates import CandidateResult

MOST_FEATURES = 25


def training_set_plot(made: TrainingSet, event_timestamp: str | None, task: Task) -> bytes:
    """Rows and label by day with the evaluation window marked; without time, the label by split.

    The label of a binary task is the share of positives, of a regression the mean, of a multiclass
    task the share of each class.
    """
    return _over_time(made, event_timestamp, task) if event_timestamp else _by_split(made, task)


def _over_time(made: TrainingSet, event_timestamp: str, task: Task) -> bytes:
    import pandas as pd

    frame = made.frame
    days = pd.to_datetime(frame[event_timestamp], utc=True).dt.floor("D").dt.tz_localize(None)
    by_day = frame.groupby(days)
    figure = blank(8.2, 4.6)
    label, rows = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    dress(label, "Label and rows by day", "", _label_title(made, task), grid="y")
    if task == "multiclass":
        classes = made.classes or ()
        for code, (name, colour) in enumerate(zip(classes, _colours(len(classes)), strict=True)):
            share = (frame[LABEL] == code).groupby(days).mean()
            label.plot(share.index, share, color=colour, linewidth=1.4, label=name)
    else:
        daily = by_day[LABEL].mean()
        crowded = len(daily) > 60
        faint = 0.45 if crowded else 1.0
        label.plot(daily.index, daily, color=COLOURS[0], linewidth=0.9, alpha=faint, label="by day")
        if crowded:
            week = daily.rolling(7, center=True, min_periods=3).mean()
            label.plot(week.index, week, color=COLOURS[0], linewidth=2.0, label="7 days around")
    if task == "binary":
        label.set_ylim(bottom=0)
    counts = by_day.size()
    every_day = counts.reindex(pd.date_range(counts.index.min(), counts.index.max()), fill_value=0)
    # One shape instead of a bar for each of hundreds of days.
    edges = pd.date_range(every_day.index[0], periods=len(every_day) + 1) - pd.Timedelta(hours=12)
    rows.stairs(every_day, edges, fill=True, color=FAINT, linewidth=0)
    dress(rows, "", "", "Rows", grid="y")
    start = days[frame[SPLIT] == EVALUATE].min()
    end = counts.index.max() + pd.Timedelta(days=1)
    for axes in (label, rows):
        axes.axvspan(start, end, color=COLOURS[1], alpha=0.13, linewidth=0)
    label.axvspan(start, start, color=COLOURS[1], alpha=0.4, label="evaluation window, never trained on")
    label.legend(
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=4,
        borderaxespad=0.4,
    )
    _date_axis(rows)
    return png(figure)


def _date_axis(axes: "Axes") -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=4, maxticks=12)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _by_split(made: TrainingSet, task: Task) -> bytes:
    figure = blank(6.4, 4.0)
    axes = figure.add_subplot()
    splits = {"train": TRAIN, "evaluation": EVALUATE}
    if task == "regression":
        dress(axes, "Label by split", "Label", "Share of rows", grid="y")
        every = drawable(made.frame[LABEL])
        edges = bin_edges(float(every.min()), float(every.max()), 30).tolist()
        for (name, split), colour in zip(splits.items(), COLOURS, strict=False):
            numbers = drawable(made.part(split)[LABEL])
            weights = np.full(len(numbers), 1 / len(numbers))
            words = f"{name}, n = {len(numbers):,}"
            axes.hist(
                numbers,
                bins=edges,
                weights=weights,
                histtype="stepfilled",
                color=colour,
                alpha=0.55,
                label=words,
            )
    else:
        dress(axes, "Label by split", "", "Share of rows", grid="y")
        classes = made.classes or ()
        for place, ((name, split), colour) in enumerate(zip(splits.items(), COLOURS, strict=False)):
            values = made.part(split)[LABEL]
            shares = [float((values == code).mean()) for code in range(len(classes))]
            axes.bar(
                np.arange(len(classes)) + 0.4 * (place - 0.5),
                shares,
                width=0.38,
                color=colour,
                label=f"{name}, n = {len(values):,}",
            )
        axes.set_xticks(range(len(classes)), classes)
    axes.legend(
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=2,
        borderaxespad=0.4,
    )
    return png(figure)


def _label_title(made: TrainingSet, task: Task) -> str:
    if task == "binary" and made.classes:
        return f"Share of {made.classes[1]}"
    return "Mean label" if task == "regression" else "Share of class"


def _colours(count: int) -> list[str]:
    return [COLOURS[position % len(COLOURS)] for position in range(count)]


def importance_plot(importance: Mapping[str, float], title: str = "Importance") -> bytes:
    """Features by their share of importance, the largest on top; at most 25, the others summed."""
    ranked = sorted(importance.items(), key=lambda item: (-item[1], item[0]))
    shown = ranked[:MOST_FEATURES]
    others = [value for _, value in ranked[MOST_FEATURES:]]
    if others:
        shown.append((f"{len(others)} others", sum(others)))
    figure = blank(6.4, 1.1 + 0.24 * max(len(shown), 3))
    axes = figure.add_subplot()
    dress(axes, title, "Share of the total", "", grid="x")
    places = range(len(shown) - 1, -1, -1)
    bars = axes.barh(places, [value for _, value in shown], color=COLOURS[0], height=0.68)
    axes.bar_label(bars, labels=[f"{value:.1%}" for _, value in shown], padding=4, fontsize=7.5, color=INK)
    axes.set_yticks(places, [name for name, _ in shown])
    axes.set_xlim(0, 1.12 * max((value for _, value in shown), default=1.0) or 1.0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return png(figure)


def candidates_plot(results: "Sequence[CandidateResult]", metric: str, labels: Sequence[str]) -> bytes:
    """One metric of every candidate on every fold, with its mean as a line."""
    figure = blank(6.8, 1.5 + 0.5 * max(len(results), 2))
    axes = figure.add_subplot()
    dress(axes, f"{metric} on every fold", metric, "", grid="x")
    coloured = list(zip(results, _colours(len(results)), strict=True))
    for place, (result, colour) in enumerate(reversed(coloured)):
        values = [(number, fold.metrics[metric]) for number, fold in enumerate(result.folds, 1)]
        defined = [(number, value) for number, value in values if value is not None]
        found = [value for _, value in defined]
        axes.scatter(found, [place] * len(found), s=90, color=colour, alpha=0.3, linewidths=0)
        for number, value in defined:
            axes.text(value, place, str(number), ha="center", va="center", fontsize=7, color=INK)
        mean = result.mean(metric)
        if mean is not None:
            axes.plot([mean, mean], [place - 0.3, place + 0.3], color=colour, linewidth=2.6)
            axes.annotate(
                f"{mean:.4f}",
                (mean, place + 0.3),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
                color=INK,
                fontweight="bold",
            )
    axes.set_yticks(range(len(results)), list(reversed(labels)))
    axes.set_ylim(-0.6, len(results) - 0.25)
    return png(figure)
