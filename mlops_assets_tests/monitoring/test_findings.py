"""Findings: JSON there and back, what is said when nothing can be said, and what a wrong document gives."""

import json

import pytest

from mlops_assets.errors import DataError
from mlops_assets.monitoring.findings import (
    ColumnDrift,
    Role,
    Score,
    SliceLoss,
    WindowDrift,
    WindowPerformance,
)

START, END = "2013-07-01T00:00:00+00:00", "2013-07-08T00:00:00+00:00"


def column(name: str, role: Role, drifted: bool | None, *, psi: float | None = 0.1) -> ColumnDrift:
    return ColumnDrift(name, role, (Score("psi", psi, 0.2), Score("kl", 9.0, 0.1)), drifted, 0.0)


def window(*columns: ColumnDrift, judged: bool = True) -> WindowDrift:
    return WindowDrift(START, END, "v7", 500, judged, "said", columns)


def test_a_wrong_document_is_named_with_its_fields() -> None:
    with pytest.raises(DataError, match=r"no Score.*statistic, value, threshold"):
        Score.from_dict({"statistic": "psi", "worth": 1.0})


def test_a_window_of_drift_survives_json() -> None:
    found = window(column("temp", "feature", True), column("prediction", "prediction", None, psi=None))
    assert WindowDrift.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found


def test_a_window_of_performance_survives_json() -> None:
    found = WindowPerformance(
        START,
        END,
        "v7",
        "canary",
        answers=900,
        labelled=800,
        share=8 / 9,
        status="judged",
        reason="800 of 900 answers are labelled",
        metrics={"roc_auc": 0.71, "brier": None},
        metric="roc_auc",
        value=0.71,
        low=0.69,
        high=0.73,
        reference=0.74,
        loss=0.03,
        loss_low=0.01,
        slices=(SliceLoss("origin", "EWR", 300, 0.7, None, None),),
    )
    assert WindowPerformance.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found


def test_an_undefined_score_exceeds_nothing_and_is_no_zero() -> None:
    for score in (Score("psi", None, 0.2), Score("psi", 0.2, None)):
        assert score.exceeded is None
        assert score.ratio is None


@pytest.mark.parametrize(("value", "ratio"), [(0.0, 0.0), (1e-9, float("inf"))])
def test_a_threshold_of_zero_is_exceeded_by_any_change_and_by_nothing_else(
    value: float, ratio: float
) -> None:
    score = Score("psi", value, 0.0)
    assert score.exceeded is (value > 0)
    assert score.ratio == ratio


def test_drift_of_a_role_is_none_when_nothing_of_it_could_be_judged() -> None:
    assert window(column("a", "feature", None)).drifted("feature") is None
    assert window(column("a", "feature", False)).drifted("prediction") is None
    assert window(column("a", "feature", True), judged=False).drifted("feature") is None


def test_drift_of_a_role_is_that_of_any_of_its_columns() -> None:
    found = window(
        column("a", "feature", None), column("b", "feature", True), column("c", "prediction", False)
    )
    assert found.drifted("feature") is True
    assert found.drifted("prediction") is False


def test_severity_and_order_come_from_the_deciding_statistics_only() -> None:
    found = window(column("a", "feature", False, psi=0.1), column("b", "feature", True, psi=0.4))
    assert [one.column for one in found.worst(1)] == ["b"]
    assert found.columns[1].severity == 2.0
    assert column("c", "feature", None, psi=None).severity is None
