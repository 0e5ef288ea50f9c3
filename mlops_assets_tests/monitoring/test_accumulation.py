"""Evidence that adds up: what it promises, what it finds, and what cannot fool it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mlops_assets.monitoring import accumulation
from mlops_assets.monitoring.accumulation import AddedUp, accumulate, limit

Floats = NDArray[np.float64]
WEEKS_A_YEAR = 365 / 7


def weeks(days: Floats) -> list[Floats]:
    return [days[first : first + 7] for first in range(0, len(days), 7)]


def evidence(before: Floats, days: Floats, at: float = 100.0) -> list[AddedUp]:
    return [total for total, _ in accumulate({"skill": (1.0, before, weeks(days))}, at)]


def test_the_bet_on_a_rank_gains_nothing_when_all_ranks_are_as_likely() -> None:
    for count, since in ((1, 0), (2, 1), (15, 0), (40, 12), (200, 84)):
        factors = np.array([accumulation._bet(count, since, rank) for rank in range(1, count + 1)])
        assert factors.mean(axis=0) == pytest.approx(1.0)
        assert (np.diff(factors, axis=0) <= 1e-12).all(), "a worse day is never less evidence"


def test_a_year_without_a_change_alarms_no_more_often_than_declared() -> None:
    random = np.random.default_rng(3)
    at = limit(WEEKS_A_YEAR, 0.5)
    alarms = sum(
        max(one.value for one in evidence(random.normal(size=14), random.normal(size=364), at)) >= at
        for _ in range(24)
    )
    # 12 are declared at most; 20 would be more than two standard deviations more.
    assert alarms < 20


def test_only_the_order_of_days_counts() -> None:
    """So the rate holds for every distribution once it holds for one."""
    random = np.random.default_rng(9)
    before, days = random.normal(size=14), random.normal(size=70)
    assert evidence(np.exp(3 * before), np.exp(3 * days)) == evidence(before, days)


def test_a_loss_that_no_week_proves_adds_up() -> None:
    random = np.random.default_rng(11)
    at = limit(WEEKS_A_YEAR, 0.5)
    found = 0
    for _ in range(50):
        days = random.normal(size=84)
        days[56:] += 1.0
        values = [one.value >= at for one in evidence(random.normal(size=14), days, at)]
        found += not any(values[:8]) and any(values)
    assert found >= 45


def test_the_newest_start_that_suffices_lies_where_the_change_was() -> None:
    random = np.random.default_rng(2)
    days = random.normal(size=84)
    days[56:] += 2.5
    path = evidence(random.normal(size=28), days)
    assert [place for place, one in enumerate(path) if one.since is not None] == [8, 9, 10, 11]
    assert path[8].since == 8


def test_an_alarm_of_old_days_does_not_come_from_new_ones() -> None:
    """What a person closed stays closed: windows that ended since have to prove the loss by themselves."""
    random = np.random.default_rng(4)
    days = np.concatenate([random.normal(size=28), random.normal(3.0, size=14), random.normal(size=42)])
    path = evidence(random.normal(size=28), days)
    assert path[5].value >= 100 and path[5].since is not None
    assert all(one.since is None or one.since <= 6 for one in path)


def test_one_terrible_day_counts_as_one_bad_day() -> None:
    random = np.random.default_rng(8)
    before, days = random.normal(size=28), random.normal(size=70)
    terrible, bad = days.copy(), days.copy()
    terrible[40], bad[40] = 1_000.0, 4.0
    assert evidence(before, terrible) == evidence(before, bad)
    assert max(one.value for one in evidence(before, terrible)) < 100


def test_days_that_are_all_the_same_prove_nothing() -> None:
    assert all(one.value <= place + 1 for place, one in enumerate(evidence(np.zeros(14), np.zeros(70))))


def test_measures_share_the_capital() -> None:
    random = np.random.default_rng(6)
    before, good, bad = random.normal(size=28), random.normal(size=56), random.normal(size=56) + 3
    both = accumulate({"a": (0.5, before, weeks(good)), "b": (0.5, before, weeks(bad))}, 50.0)
    for total, alone in both:
        assert total.value == pytest.approx(0.5 * alone["a"] + 0.5 * alone["b"])
    assert both[-1][1]["b"] > 50 > both[-1][1]["a"]


def test_measures_are_added_up_on_the_same_day() -> None:
    """The best day of each measure by itself would count evidence that was never there together."""
    before = np.linspace(0.0, 1.0, 20)
    early, late = np.array([2.0, 3.0, 0.1, 0.1]), np.array([0.5, 0.5, 2.0, 3.0])
    ((total, alone),) = accumulate({"a": (0.5, before, [early]), "b": (0.5, before, [late])}, 50.0)
    best = [accumulate({"m": (1.0, before, [days])}, 50.0)[0][0].value for days in (early, late)]
    assert total.value == pytest.approx(0.5 * alone["a"] + 0.5 * alone["b"])
    assert total.value < np.mean(best) - 1


def test_a_window_without_days_adds_nothing() -> None:
    random = np.random.default_rng(7)
    before, days = random.normal(size=28), random.normal(size=28) + 1
    gap = [*weeks(days)[:2], np.empty(0), *weeks(days)[2:]]
    with_gap = accumulate({"skill": (1.0, before, gap)}, 50.0)
    without = accumulate({"skill": (1.0, before, weeks(days))}, 50.0)
    assert [one.value for one, _ in with_gap[3:]] == pytest.approx([one.value for one, _ in without[2:]])
    assert with_gap[2][0].value <= with_gap[1][0].value


def test_there_is_no_evidence_without_days_before() -> None:
    first = evidence(np.empty(0), np.ones(7))[0]
    assert first.value == pytest.approx(1.0) and first.since is None


def test_a_bad_day_among_days_that_are_bad_by_now_is_less_surprising() -> None:
    fresh, later = accumulation._bet(40, 0, 1), accumulation._bet(40, 20, 1)
    assert (later < fresh).all() and (later > 1).all()


def test_only_the_newest_starts_are_followed() -> None:
    random = np.random.default_rng(10)
    path = accumulation._path(random.normal(size=14), weeks(random.normal(size=140)))
    assert list(path[-1][-1]) == list(range(20 - accumulation.KEPT_STARTS, 20))
