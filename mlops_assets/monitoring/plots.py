"""What drift and performance look like: over windows, and the worst columns in one window. Pure.

Belongs here: findings in, PNG bytes out. Does not belong here: Evidently's report (``report.py``), the style
(``evaluation/drawing.py``).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from mlops_assets.evaluation.drawing import COLOURS, FAINT, INK, bin_edges, blank, drawable, dress, png
from mlops_assets.monitoring.detectors import decides
from mlops_assets.monitoring.findings import ColumnDrift, WindowDrift, WindowPerformance
from mlops_assets.monitoring.reference import ColumnReference, DriftReference

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CEILING = 20.0
"""Ratios of a score and its threshold are drawn up to this; one of infinity would flatten every other."""
FLOOR = 0.05
BARS = 12
LIMIT = COLOURS[4]


def drift_plot(windows: Sequence[WindowDrift], *, worst: int = 8) -> bytes:
    """Scores relative to their thresholds over windows (oldest first), the worst columns as lines.

    Above 1 is drift; predictions and labels are always among the lines. Windows that were not judged leave a
    gap. Says so when no window was judged.
    """
    figure = blank(8.8, 4.4)
    axes = figure.add_subplot()
    dress(axes, "Drift", "", "Score, relative to its threshold")
    judged = [window for window in windows if window.judged]
    if not judged:
        _say(axes, "no window was judged yet")
        return png(figure)
    times = [_middle(window.start, window.end) for window in windows]
    names = _worst_columns(judged, worst)
    for place, name in enumerate(names):
        values = [_ratio(window, name) for window in windows]
        first = place < len(COLOURS)
        axes.plot(
            times,  # type: ignore[arg-type]
            values,
            marker="o",
            markersize=4,
            linewidth=1.8 if first else 1.2,
            linestyle="-" if first else (0, (2, 2)),
            color=COLOURS[place % len(COLOURS)],
            label=name,
        )
    axes.axhline(1.0, color=LIMIT, linewidth=1.2, linestyle=(0, (4, 4)), label="threshold")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: "")
    _legend_beside(figure, axes)
    figure.autofmt_xdate(rotation=30)
    return png(figure)


def _worst_columns(windows: Sequence[WindowDrift], count: int) -> list[str]:
    """Answers and labels, then the features with the largest severity in any window."""
    most: dict[str, float] = {}
    always: list[str] = []
    for window in windows:
        for column in window.columns:
            if column.severity is None:
                continue
            most[column.column] = max(most.get(column.column, 0.0), column.severity)
            if column.role != "feature" and column.column not in always:
                always.append(column.column)
    ranked = sorted((name for name in most if name not in always), key=lambda name: (-most[name], name))
    return [*always, *ranked][: max(count, len(always))]


def _ratio(window: WindowDrift, name: str) -> float:
    for column in window.columns:
        if column.column == name and column.severity is not None:
            return float(np.clip(column.severity, FLOOR, CEILING))
    return float("nan")


def _middle(start: str, end: str) -> datetime:
    first, last = datetime.fromisoformat(start), datetime.fromisoformat(end)
    return first + (last - first) / 2


def distributions_plot(
    reference: DriftReference, window: WindowDrift, current: "pd.DataFrame", *, worst: int = 6
) -> bytes:
    """The worst columns of a window, reference beside current; ``current`` comes from ``measured_frame``.

    Numbers are drawn between the reference's 0.5 % and 99.5 % quantiles, values outside in the outermost
    bars. Says so when nothing can be drawn.
    """
    shown = [
        (found, column)
        for found in window.worst(len(window.columns))
        if found.column in current.columns and (column := reference.column(found.column)) is not None
    ][:worst]
    figure = blank(9.0, 1.2 + 2.5 * max(1, -(-len(shown) // 3)))
    if not shown:
        axes = figure.add_subplot()
        dress(axes, "Distributions", grid="none")
        _say(axes, window.reason or "nothing was measured")
        return png(figure)
    grid = figure.subplots(-(-len(shown) // 3), min(3, len(shown)), squeeze=False)
    places = [axes for line in grid for axes in line]
    for axes, (found, column) in zip(places, shown, strict=False):
        dress(axes, "", "", "", grid="y")
        draw = _number_bars if column.kind == "number" else _category_bars
        draw(axes, column, current)
        if not current[column.column].notna().any():
            _say(axes, "no value in this window", height=0.94)
        axes.set_title(_headline(found), loc="left", fontsize=8.5, color=LIMIT if found.drifted else INK)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    for axes in places[len(shown) :]:
        axes.set_visible(False)
    handles, labels = places[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper right", ncols=2, frameon=False, fontsize=8.5, labelcolor=INK
    )
    return png(figure)


def _headline(found: ColumnDrift) -> str:
    scores = [
        f"{one.statistic.upper()} {one.value:.2g} (limit {one.threshold:.2g})"
        for one in found.scores
        if decides(one.statistic) and one.value is not None and one.threshold is not None
    ]
    return f"{found.column}\n" + ", ".join(scores)


def _number_bars(axes: "Axes", column: ColumnReference, current: "pd.DataFrame") -> None:
    before, after = drawable(column.sample), drawable(current[column.column])
    base = before if len(before) else after
    if not len(base):
        _say(axes, "no values")
        return
    low, high = np.quantile(base, [0.005, 0.995])
    edges = bin_edges(low, high, BARS)
    width = (edges[1] - edges[0]) / 2
    for side, (held, label) in enumerate(((before, "reference"), (after, "current"))):
        counts = np.histogram(np.clip(held, edges[0], edges[-1]), bins=edges)[0]
        axes.bar(
            edges[:-1] + width * (side + 0.5),
            counts / max(len(held), 1),
            width=width * 0.94,
            color=FAINT if side == 0 else COLOURS[0],
            label=label,
        )


def _category_bars(axes: "Axes", column: ColumnReference, current: "pd.DataFrame") -> None:
    before = dict(zip(column.categories, column.counts, strict=False))
    values = current[column.column]
    after = {str(name): int(count) for name, count in values.value_counts().items()}
    changed = {
        name: before.get(name, 0) / column.rows + after.get(name, 0) / max(len(values), 1)
        for name in {*before, *after}
    }
    names = sorted(changed, key=lambda name: (-changed[name], name))[:BARS]
    spots = np.arange(len(names))
    axes.bar(
        spots - 0.2,
        [before.get(name, 0) / column.rows for name in names],
        width=0.38,
        color=FAINT,
        label="reference",
    )
    axes.bar(
        spots + 0.2,
        [after.get(name, 0) / max(len(values), 1) for name in names],
        width=0.38,
        color=COLOURS[0],
        label="current",
    )
    axes.set_xticks(spots, names, rotation=60 if len(names) > 4 else 0)


def performance_plot(windows: Sequence[WindowPerformance]) -> bytes:
    """The deciding metric over windows with its interval, one line per version and variant.

    Each version's reference is dashed in its colour. Says so when no window was judged.
    """
    figure = blank(8.8, 4.4)
    axes = figure.add_subplot()
    judged = [window for window in windows if window.status == "judged" and window.value is not None]
    metrics = list(dict.fromkeys(window.metric for window in judged))
    dress(axes, "Performance", "", metrics[-1] if metrics else "")
    if not judged:
        _say(axes, windows[-1].reason if windows else "no window was judged yet")
        return png(figure)
    lines: dict[tuple[str, str], list[WindowPerformance]] = {}
    for window in judged:
        if window.metric == metrics[-1]:
            lines.setdefault((window.version, window.variant), []).append(window)
    for place, ((version, variant), line) in enumerate(lines.items()):
        colour = COLOURS[place % len(COLOURS)]
        times = [_middle(window.start, window.end) for window in line]
        values = np.array([window.value for window in line], dtype=np.float64)
        below, above = (
            np.array([np.nan if end is None else end for end in ends], dtype=np.float64)
            for ends in ([window.low for window in line], [window.high for window in line])
        )
        axes.errorbar(
            times,  # type: ignore[arg-type]
            values,
            yerr=(np.maximum(values - below, 0), np.maximum(above - values, 0)),
            color=colour,
            marker="o" if variant == "champion" else "s",
            markersize=4.5,
            linewidth=1.8 if variant == "champion" else 1.2,
            elinewidth=1,
            label=f"{version}, {variant}",
        )
        held = [window.reference for window in line]
        if variant == "champion" and any(one is not None for one in held):
            expected = np.array([np.nan if one is None else one for one in held], dtype=np.float64)
            axes.plot(
                [datetime.fromisoformat(line[0].start), datetime.fromisoformat(line[-1].end)],  # type: ignore[arg-type]
                [expected[~np.isnan(expected)][0], expected[~np.isnan(expected)][-1]],
                color=colour,
                linewidth=1,
                linestyle=(0, (4, 4)),
                label=f"{version}, reference",
            )
    _legend_beside(figure, axes)
    figure.autofmt_xdate(rotation=30)
    return png(figure)


def _legend_beside(figure: "Figure", axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=8.5, labelcolor=INK)


def _say(axes: "Axes", words: str, *, height: float = 0.5) -> None:
    axes.text(
        0.5,
        height,
        words,
        transform=axes.transAxes,
        ha="center",
        va="center",
        color=INK,
        fontsize=9,
        wrap=True,
    )
