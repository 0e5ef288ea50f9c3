"""The look that all plots share. Pure.

Belongs here: a blank figure in the house style, its colours, numbers that an axis has room for, a figure as
PNG. Does not belong here: what a plot shows (``evaluation/plots.py``, ``training/plots.py``).

Figures are made without pyplot: pyplot keeps every figure in a global list, and Dagster draws from
several threads.
"""

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#22303c"
FAINT = "#8a97a3"
GRID = "#e6eaee"
COLOURS = ("#1f6fb4", "#e07b2e", "#3f9b6c", "#8c5fb0", "#c24d5b", "#7a8a2f")
"""In order of importance: the first is the one to look at. Told apart by people who see no red or green."""


LARGEST = 1e12
"""Axes have no room for larger numbers; infinite ones are drawn as this."""
NO_WIDTH = 1e-100
"""Values closer together than this are drawn as one."""


def drawable(values: Any) -> NDArray[np.float64]:
    """The numbers that are there, none larger than an axis has room for."""
    there = np.asarray(values, dtype=np.float64)
    return np.clip(there[~np.isnan(there)], -LARGEST, LARGEST)


def bin_edges(low: float, high: float, bins: int) -> NDArray[np.float64]:
    """Where ``bins`` bars between two numbers begin and end; one wide around numbers that are the same."""
    edges = np.linspace(low, high, bins + 1)
    if high - low < NO_WIDTH or (np.diff(edges) <= 0).any():
        edges = np.linspace(low - 0.5, high + 0.5, bins + 1)
    return edges


def blank(width: float = 6.4, height: float = 4.4) -> "Figure":
    """An empty figure of that size in inches; axes made on it are styled by ``dress``."""
    from matplotlib.figure import Figure  # 0.5 s

    return Figure(figsize=(width, height), dpi=130, facecolor="white", layout="constrained")


def dress(axes: "Axes", title: str = "", x: str = "", y: str = "", *, grid: str = "both") -> None:
    """House style: title on the left, light grid (``both``, ``x``, ``y``, ``none``), no box."""
    axes.set_title(title, loc="left", fontsize=11.5, color=INK, fontweight="bold", pad=10)
    axes.set_xlabel(x, fontsize=9.5, color=INK)
    axes.set_ylabel(y, fontsize=9.5, color=INK)
    axes.tick_params(labelsize=8.5, colors=INK, length=0, pad=4)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(FAINT)
    axes.set_axisbelow(True)
    if grid != "none":
        axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]


def legend(axes: "Axes", place: str = "best") -> None:
    """A legend without a frame."""
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc=place)


def png(figure: "Figure") -> bytes:
    """The figure as PNG bytes, without the library version and the time: same figure, same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
