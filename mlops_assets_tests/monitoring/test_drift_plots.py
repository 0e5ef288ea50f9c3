"""Plots and Evidently's page: something is shown for every input, and it says what it left out."""

import struct
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from mlops_assets.monitoring.drift import Answers, DriftTest, assess_window, measured_frame
from mlops_assets.monitoring.findings import WindowDrift, WindowPerformance
from mlops_assets.monitoring.plots import distributions_plot, drift_plot, performance_plot
from mlops_assets.monitoring.reference import DriftReference, TrainingRows, make_reference
from mlops_assets.monitoring.report import evidently_html
from mlops_assets.monitoring.windows import Window
from mlops_assets_tests.monitoring.odd_columns import ODD
from serve.schema import FeatureSpec

pytestmark = pytest.mark.usefixtures("rendered")
SPECS = (
    FeatureSpec(name="amount", type="number"),
    FeatureSpec(name="empty", type="number"),
    FeatureSpec(name="shop", type="category"),
)
START = datetime(2013, 7, 1, tzinfo=UTC)


def rows(count: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "amount": random.normal(20, 5, size=count),
            "empty": random.normal(size=count),
            "shop": random.choice(["north", "south"], size=count),
        }
    )


@pytest.fixture(scope="module")
def reference() -> DriftReference:
    return make_reference(
        TrainingRows(rows(1_000, 0), SPECS), held_out=None, task="binary", classes=("a", "b"), window_days=7
    )


def window(reference: DriftReference, week: int, frame: pd.DataFrame) -> WindowDrift:
    start = START + timedelta(weeks=week)
    return assess_window(
        reference,
        Window(start, start + timedelta(weeks=1)),
        Answers(frame),
        version="v1",
        test=DriftTest.at_level(0.01, min_rows=100),
    )


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def performance(week: int, value: float | None, version: str = "v1") -> WindowPerformance:
    start = START + timedelta(weeks=week)
    ends = start.isoformat(), (start + timedelta(weeks=1)).isoformat()
    if value is None:
        return WindowPerformance(*ends, version, "champion", 10, 0, 0.0, "waiting", "no labels yet")
    return WindowPerformance(
        *ends, version, "champion", 100, 90, 0.9, "judged", "", {}, "roc_auc", value, value - 0.02, None, 0.7
    )


def test_drift_without_a_judged_window_says_so(reference: DriftReference) -> None:
    nothing = drift_plot([window(reference, 0, rows(5, 1))])
    assert size(nothing) == size(drift_plot([]))


def test_drift_over_windows_with_a_gap_and_an_infinite_ratio(reference: DriftReference) -> None:
    frames = [rows(300, 1), rows(5, 2), rows(300, 3).assign(empty=np.nan)]
    windows = [window(reference, week, frame) for week, frame in enumerate(frames)]
    first = drift_plot(windows)
    assert size(first)[0] > 900
    assert first == drift_plot(windows)
    assert first != drift_plot(windows[:1])


def test_distributions_of_odd_columns(reference: DriftReference) -> None:
    frame = rows(300, 3).assign(empty=np.nan)
    frame.loc[:9, "shop"] = "east"
    frame.loc[0, "amount"] = np.inf
    found = window(reference, 0, frame)
    assert size(distributions_plot(reference, found, measured_frame(reference, frame)))[0] > 900
    unjudged = window(reference, 0, rows(5, 1))
    assert size(distributions_plot(reference, unjudged, measured_frame(reference, rows(5, 1))))[0] > 900


def test_performance_with_and_without_anything_to_show() -> None:
    windows = [performance(0, 0.71), performance(1, None), performance(2, 0.66), performance(3, 0.72, "v2")]
    assert performance_plot(windows) != performance_plot(windows[:2])
    assert size(performance_plot([])) == size(performance_plot(windows[1:2]))


def test_evidentlys_page_leaves_out_what_it_cannot_take_and_says_so() -> None:
    before, after = rows(3_000, 0), rows(300, 1).assign(empty=np.nan)
    after.loc[0, "amount"] = np.inf
    after.loc[1, "shop"] = None
    kinds = {"amount": "number", "empty": "number", "shop": "category", "gone": "number"}
    page = evidently_html(before, after, kinds, rows=1_000).decode()  # type: ignore[arg-type]
    assert "1,000 of 3,000 rows of the reference and 300 of 300 rows of the window" in page
    assert "empty is left out: the window holds no value of it." in page
    assert "gone is left out: the reference holds no such column." in page
    assert "amount: 1 infinite values, or beyond 1e100, are left out." in page
    assert len(page) > 1_000_000
    # Nothing is fetched: the page is looked at where there is no network.
    assert 'src="http' not in page and '<link rel="stylesheet" href="http' not in page


def test_evidentlys_page_of_nothing_is_a_page() -> None:
    page = evidently_html(pd.DataFrame({"a": []}), pd.DataFrame({"a": []}), {"a": "number"}).decode()
    assert page.startswith("<html>")
    assert "No column is left" in page


@pytest.mark.parametrize("before", ["varied", "missing"])
def test_every_odd_column_is_drawn_and_reported_or_said_to_be_left_out(before: str) -> None:
    names = {f"{kind} {name}": column for kind, odd in ODD.items() for name, column in odd.items()}
    specs = [FeatureSpec(name=name, type=name.split()[0]) for name in names]  # type: ignore[arg-type]
    reference_rows = pd.DataFrame(
        {spec.name: ODD[spec.type].get(before, names[spec.name])(50) for spec in specs}
    )
    odd = make_reference(
        TrainingRows(reference_rows, specs), held_out=None, task="binary", classes=("a", "b"), window_days=7
    )
    frame = pd.DataFrame({name: column(150) for name, column in names.items()})
    found = window(odd, 0, frame)
    current = measured_frame(odd, frame)

    assert size(distributions_plot(odd, found, current, worst=len(specs)))[1] > 500
    assert size(drift_plot([found]))
    page = evidently_html(measured_frame(odd, reference_rows), current, odd.kinds()).decode()

    assert "number missing is left out" in page
    if before == "varied":
        assert "number far and close is left out: its values, 1e+17 to 1e+17, are too close together" in page
        assert "number largest: 150 infinite values, or beyond 1e100, are left out." in page
