"""What was lost is launched again after a pause that doubles, never twice at once, and not for ever."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mlops_assets.monitoring.relaunch import Launch, RelaunchPolicy, launched_for, next_launch, run_key

NOW = datetime(2013, 6, 3, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
POLICY = RelaunchPolicy()


def ended(*minutes_ago: float) -> list[Launch]:
    times = [NOW - minutes * MINUTE for minutes in minutes_ago]
    return [Launch("v8/approval", at - MINUTE, at) for at in times]


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"longest_back_off \(1 minute\) is shorter than first"):
        RelaunchPolicy(longest_back_off=MINUTE)
    with pytest.raises(ValidationError, match="first_back_off must not be negative"):
        RelaunchPolicy(first_back_off=-MINUTE)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        RelaunchPolicy(launches=0)


def test_what_was_never_launched_again_is_launched_at_once() -> None:
    assert next_launch([], POLICY, NOW).choice == "launch"


def test_nothing_is_launched_beside_a_launch_under_way_not_even_after_the_bound() -> None:
    under_way = Launch("v8/approval", NOW - DAY)
    for launches in ([under_way], [*ended(9, 8, 7, 6, 5, 4, 3), under_way], [under_way, *ended(90)]):
        found = next_launch(launches, POLICY, NOW)
        assert found.choice == "wait" and "is under way: one at a time" in found.reason
        assert found.next_at is None


@pytest.mark.parametrize(("count", "minutes"), [(1, 2), (2, 4), (3, 8), (4, 16), (5, 32)])
def test_the_pause_after_the_newest_end_doubles(count: int, minutes: int) -> None:
    launches = ended(*([200.0] * (count - 1)), 0)
    found = next_launch(launches, POLICY, NOW)
    assert found.choice == "wait" and found.next_at == NOW + minutes * MINUTE
    assert f"{count} of 6 launches came to nothing" in found.reason
    assert next_launch(launches, POLICY, NOW + minutes * MINUTE).choice == "launch"


def test_the_pause_is_never_longer_than_the_longest() -> None:
    unbounded = RelaunchPolicy(launches=None, longest_back_off=10 * MINUTE)
    found = next_launch(ended(*([300.0] * 50), 0), unbounded, NOW)
    assert found.choice == "wait" and found.next_at == NOW + 10 * MINUTE
    assert "51 launches came to nothing" in found.reason


def test_after_the_bound_a_person_is_asked_for_ever() -> None:
    for later in (timedelta(0), 365 * DAY):
        found = next_launch(ended(*range(60, 0, -10)), POLICY, NOW + later)
        assert found.choice == "give_up" and found.next_at is None
        assert found.reason == "6 of 6 launches came to nothing: it is not launched again by itself"


def test_an_end_that_a_wrong_clock_wrote_holds_nothing_back() -> None:
    assert next_launch(ended(-365 * 24 * 60), POLICY, NOW).choice == "launch"
    assert next_launch(ended(-1), POLICY, NOW).next_at == NOW + 3 * MINUTE


@given(
    took=st.lists(st.integers(0, 600), min_size=1, max_size=12),
    ticks=st.integers(5, 3_600),
    bound=st.integers(1, 8),
)
def test_a_loss_that_nothing_mends_costs_the_bound_and_no_two_at_once(
    took: list[int], ticks: int, bound: int
) -> None:
    policy = RelaunchPolicy(launches=bound, longest_back_off=HOUR)
    launches: list[Launch] = []
    now, last = NOW, "launch"
    for _ in range(5_000):
        launches = [
            one
            if one.ended_at or one.at + took[number % len(took)] * timedelta(seconds=1) > now
            else Launch(one.what, one.at, now)
            for number, one in enumerate(launches)
        ]
        last = (found := next_launch(launches, policy, now)).choice
        if last == "give_up":
            break
        if last == "launch":
            assert all(one.ended_at for one in launches)
            launches.append(Launch("v8/approval", now))
        assert found.reason
        now += timedelta(seconds=ticks)
    assert last == "give_up" and len(launches) == bound


def test_each_launch_has_a_run_key_of_its_own_that_says_what_it_is_for() -> None:
    keys = [run_key("v8/approval", number) for number in (1, 2, 10)]
    assert keys == ["v8/approval", "v8/approval/2", "v8/approval/10"]
    assert {launched_for(key) for key in keys} == {"v8/approval"}
    assert launched_for("episode-1.2/unread/3") == "episode-1.2/unread"
