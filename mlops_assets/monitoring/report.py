"""Evidently's report of a window against the reference, as one self-contained page.

Belongs here: making the page that people look at. Does not belong here: what decides (``drift.py``).
Evidently bins in its own way: one outlier, or missing values, and its scores say nothing.
"""

import html
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_assets.monitoring.reference import ColumnKind

if TYPE_CHECKING:
    import pandas as pd

SEED = 0
LARGEST_SHOWN = 1e100
"""Evidently squares what it draws."""
EDGES = 101
"""A column must be told apart into so many bins to be drawn; Evidently takes fewer."""
LOOK = (
    "margin:16px 24px;padding:12px 16px;border-left:4px solid #1f6fb4;background:#f2f6fa;"
    "font:14px/1.5 sans-serif;color:#22303c"
)


def evidently_html(
    reference_frame: "pd.DataFrame",
    current_frame: "pd.DataFrame",
    columns: Mapping[str, ColumnKind],
    *,
    rows: int = 20_000,
    of_rows: int | None = None,
) -> bytes:
    """The page as UTF-8 HTML that needs no network; about 4 MB.

    ``columns``: {name: "number" or "category"} (``DriftReference.kinds``). At most ``rows`` rows of each
    frame are shown, drawn with a fixed seed. ``of_rows``: how many the window has, where ``current_frame``
    holds some of them. Columns that Evidently cannot take (absent, without a value, too
    close together to draw) are left out, infinite values too; a box at the top says which, why, and what the
    scores are.
    """
    random = np.random.default_rng(SEED)
    frames = [_drawn(frame, rows, random) for frame in (reference_frame, current_frame)]
    shown: dict[str, ColumnKind] = {}
    remarks: list[str] = []
    for name, kind in columns.items():
        without = _unusable(name, frames)
        if without:
            remarks.append(f"{name} is left out: {without}.")
            continue
        too_large = 0
        for frame in frames:
            if kind == "number":
                values = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
                beyond = np.abs(values) > LARGEST_SHOWN
                too_large += int(beyond.sum())
                frame[name] = np.where(beyond, np.nan, values)
            else:
                texts = frame[name].astype(object)
                texts[frame[name].isna()] = None
                frame[name] = texts
        if too_large:
            remarks.append(f"{name}: {too_large:,} infinite values, or beyond 1e100, are left out.")
        without = _unusable(name, frames) or (_too_close(name, frames) if kind == "number" else "")
        if without:
            remarks.append(f"{name} is left out: {without}.")
        else:
            shown[name] = kind
    sizes = [
        f"{len(drawn):,} of {whole:,} rows of the {name}"
        for name, drawn, whole in zip(
            ("reference", "window"),
            frames,
            (len(reference_frame), of_rows or len(current_frame)),
            strict=True,
        )
    ]
    said = [
        f"Shown: {' and '.join(sizes)}.",
        "The numbers here are Evidently's own PSI, on bins of equal width and without missing values, beside "
        "its fixed limit of 0.1. What decides are the calibrated scores in the metadata of the asset.",
        *remarks,
    ]
    if not shown:
        said.append("No column is left that could be shown.")
        return _page("<html><head><meta charset='utf-8'></head><body></body></html>", said)
    return _page(_report(frames[0], frames[1], shown), said)


def _drawn(frame: "pd.DataFrame", rows: int, random: np.random.Generator) -> "pd.DataFrame":
    if len(frame) <= rows:
        return frame.reset_index(drop=True).copy()
    places = np.sort(random.choice(len(frame), size=rows, replace=False))
    return frame.iloc[places].reset_index(drop=True)


def _unusable(name: str, frames: "list[pd.DataFrame]") -> str:
    for frame, words in zip(frames, ("the reference", "the window"), strict=True):
        if name not in frame.columns:
            return f"{words} holds no such column"
        if not frame[name].notna().any():
            return f"{words} holds no value of it"
    return ""


def _too_close(name: str, frames: "list[pd.DataFrame]") -> str:
    """Why no histogram of the column can be drawn: its bins would have no width. Empty when one can."""
    parts = [frame[name].to_numpy(dtype=np.float64) for frame in frames]
    for values in (*parts, np.concatenate(parts)):
        low, high = np.nanmin(values), np.nanmax(values)
        # A constant is drawn one wide.
        edges = np.linspace(*((low, high) if low < high else (low - 0.5, high + 0.5)), EDGES)
        if (np.diff(edges) <= 0).any():
            return f"its values, {low:g} to {high:g}, are too close together to draw"
    return ""


def _report(reference: "pd.DataFrame", current: "pd.DataFrame", columns: Mapping[str, ColumnKind]) -> str:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    names = {kind: [name for name, one in columns.items() if one == kind] for kind in ("number", "category")}
    definition = DataDefinition(
        numerical_columns=names["number"] or None, categorical_columns=names["category"] or None
    )
    datasets: list[Any] = [
        Dataset.from_pandas(frame[list(columns)], data_definition=definition)
        for frame in (current, reference)
    ]
    with warnings.catch_warnings():
        # Of divisions inside Evidently's plots; the page is for looking at.
        warnings.simplefilter("ignore", RuntimeWarning)
        made = Report([ValueDrift(column=name, method="psi") for name in columns]).run(*datasets)
        return str(made.get_html_str(as_iframe=False))


def _page(page: str, said: list[str]) -> bytes:
    lines = "<br>".join(html.escape(line) for line in said)
    box = f'<div style="{LOOK}"><b>About this page</b><br>{lines}</div>'
    end = page.index(">", page.index("<body")) + 1
    return f"{page[:end]}{box}{page[end:]}".encode()
