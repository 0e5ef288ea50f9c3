"""From one day on the world counts flights as late sooner, and nothing else changes."""

import pandas as pd

from demo.lateness import CHANGED_ON, LATE_MINUTES_SINCE, counted_late
from mlops_assets.defs.flights.features import LATE_MINUTES, arrived_late


def test_before_the_day_it_is_the_projects_own_label_and_from_then_on_late_sooner() -> None:
    delays = [
        None,
        float(LATE_MINUTES_SINCE),
        LATE_MINUTES_SINCE + 1.0,
        float(LATE_MINUTES),
        LATE_MINUTES + 1.0,
    ]
    before, since = "2013-03-03", CHANGED_ON.isoformat()
    flights = pd.DataFrame(
        {"flight_date": [before] * 5 + [since] * 5, "arr_delay": pd.Series(delays * 2, dtype="float64")}
    )
    late = counted_late(flights)
    assert late[:5].equals(arrived_late(flights)[:5])
    assert late[5:].tolist() == [pd.NA, False, True, True, True]


def test_the_day_is_the_first_of_a_window() -> None:
    assert CHANGED_ON.weekday() == 0
