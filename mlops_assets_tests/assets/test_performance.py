"""What a record of performance keeps of the days that later records count on."""

import json
from dataclasses import replace
from typing import Any

from mlops_assets.assets.performance import earlier_days, judged_days
from mlops_assets.monitoring.findings import WindowPerformance


def window(
    day: int, *, version: str = "v1", status: str = "judged", variant: str = "champion"
) -> WindowPerformance:
    return WindowPerformance(
        f"2024-01-{day:02}T00:00:00+00:00",
        f"2024-01-{day + 1:02}T00:00:00+00:00",
        version,
        variant,  # type: ignore[arg-type]
        answers=10,
        labelled=10,
        share=1.0,
        status=status,  # type: ignore[arg-type]
        reason="",
        days={"skill": (day / 10,)},
    )


def record(days: dict[str, Any]) -> dict[str, Any]:
    """The metadata as the event log gives it back: JSON, its keys in another order."""
    return {"days": json.loads(json.dumps(days, sort_keys=True))}


def test_days_that_are_measured_no_more_stay_and_those_measured_again_are_replaced() -> None:
    first = record(judged_days({}, [window(day) for day in (1, 2, 3)]))
    again = replace(window(3), days={"skill": (9.9,)})

    second = judged_days(first, [again, window(4)])

    assert [one[8:10] for one in second["v1"]] == ["02", "03", "04", "05"]
    assert [days["skill"] for days in second["v1"].values()] == [[0.1], [0.2], [9.9], [0.4]]


def test_only_judged_windows_of_the_champion_are_kept_each_version_by_itself() -> None:
    found = [
        window(1),
        window(2, status="waiting"),
        window(1, variant="shadow", version="v2"),
        window(3, version="v3"),
    ]
    assert {version: len(days) for version, days in judged_days({}, found).items()} == {"v1": 1, "v3": 1}


def test_what_a_record_holds_is_read_back_in_order_of_time() -> None:
    kept = record(judged_days({}, [window(day) for day in (9, 10, 11)]))
    assert [one.days["skill"] for one in earlier_days(kept, "v1")] == [(0.9,), (1.0,), (1.1,)]
    assert earlier_days(kept, "v2") == [] and earlier_days({}, "v1") == []
