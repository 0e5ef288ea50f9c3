"""Which days are asked for again is decided from states alone."""

from mlops_assets.data.probing import RUNS_AT_ONCE, due

DAYS = [f"2024-01-{day:02}" for day in range(1, 32)]


def found(now, judged=None, asked=None, *, again=True, declared=DAYS):
    return due(now, judged or {}, asked or {}, declared=declared, again=again)


def states(**by_day):
    return {f"2024-01-{day[1:]}": state for day, state in by_day.items()}


def test_neighbours_are_one_range_and_gaps_divide():
    got = found(states(d01="a", d02="a", d03="a", d09="a"))
    assert got.ranges == [("2024-01-01", "2024-01-03"), ("2024-01-09", "2024-01-09")]
    assert got.why == "4 new"
    assert got.asked == states(d01="a", d02="a", d03="a", d09="a")


def test_what_was_judged_in_its_present_state_is_not_asked_for():
    now = states(d01="a", d02="b", d03="c")
    assert found(now, now).ranges == () and found(now, now).why == "nothing changed"
    got = found(now, states(d01="a", d02="a", d03="c", d04="x"))
    assert got.ranges == [("2024-01-02", "2024-01-02"), ("2024-01-04", "2024-01-04")]
    assert got.why == "1 changed, 1 gone"
    assert got.asked == states(d02="b", d04="")


def test_days_outside_the_partitions_are_ignored():
    now = {"2023-12-31": "a", "2024-01-31": "a", "2024-02-01": "a", "nonsense": "a"}
    assert found(now).ranges == [("2024-01-31", "2024-01-31")]


def test_a_day_without_rows_that_never_had_any_is_not_asked_for():
    assert found({}, states(d05="")).ranges == ()


def test_a_day_whose_run_broke_off_waits_until_it_may_be_tried_again_or_changes():
    now, asked = states(d01="a", d02="b"), states(d01="a", d02="a")
    assert found(now, {}, asked, again=False).ranges == [("2024-01-02", "2024-01-02")]
    assert found(now, {}, asked, again=True).ranges == [("2024-01-01", "2024-01-02")]
    waiting = found(now, {}, now, again=False)
    assert waiting.ranges == () and "2 were asked for by runs that broke off" in waiting.why


def test_scattered_days_come_in_portions_oldest_first():
    declared = [f"{year}-01-01" for year in range(1900, 1900 + 3 * RUNS_AT_ONCE)]
    now = dict.fromkeys(declared[::2], "a")
    got = found(now, declared=declared)
    assert got.ranges == [(key, key) for key in declared[::2][:RUNS_AT_ONCE]]
    assert list(got.asked) == declared[::2][:RUNS_AT_ONCE]
    assert got.why == "20 new in 20 of 30 ranges"


def test_the_token_is_that_of_days_and_states():
    one = found(states(d01="a", d02="b")).token
    assert one == found(states(d02="b", d01="a")).token
    assert one != found(states(d01="a", d02="c")).token != found(states(d01="a")).token
