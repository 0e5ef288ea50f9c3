"""The short form of ``python -m bench.drift --part worlds``: what counts as an alarm, both sides on one run.

River is in an environment of its own, made once into ``.venv``: some seconds, with the package index at hand.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from bench import drift
from bench.drift_worlds import (
    ALL_SIGNALS,
    SEED,
    answered,
    beginnings,
    counted,
    our_alarms,
    share,
    summary,
)
from bench.peers.detectors import Detector, Stream, cusum, peer_alarms, river_alarms


def test_an_episode_alarms_when_it_begins() -> None:
    assert beginnings([False, True, True, False, True]) == [14.0, 35.0]
    assert beginnings([True]) == [7.0]


def test_alarms_within_a_week_of_one_that_counts_are_the_same() -> None:
    assert counted([30.0, 1.0, 5.0, 7.9, 8.0, 14.9, 15.0]) == [1.0, 8.0, 15.0, 30.0]


def test_what_is_found_is_counted_from_the_change_and_what_is_false_before_it() -> None:
    found = summary("M2", "a rule", [[7.0, 63.0], [70.0], [84.5], []])
    assert (found["runs"], found["never"]) == (4, 1)
    assert found["in_first_window"].value == 1 / 4
    assert found["within_four"].value == 2 / 4
    assert found["mean_delay"].value == pytest.approx((7 + 14 + 28.5) / 3)
    assert found["median_delay"].value == 14
    assert found["false_per_year"].value == pytest.approx(365 / 56 / 4)
    assert found["runs_with_a_false_one"].value == 1 / 4


def test_a_year_without_any_alarm_still_has_a_limit() -> None:
    found = summary("M6", "a rule", [[]] * 10)
    assert "never" not in found
    # The exact limit of Poisson's distribution: 3.69 alarms in ten years of 364 days.
    assert found["false_per_year"].value == 0
    assert found["false_per_year"].high == pytest.approx(0.37, abs=0.001)


def test_shares_have_the_interval_of_wilson() -> None:
    found = share(0, 200)
    assert (found.low, found.high) == (0.0, pytest.approx(0.0188, abs=1e-4))


def test_cusum_adds_what_is_above_half_a_deviation_and_starts_anew() -> None:
    reference = np.array([-1.0, 0.0, 1.0])
    assert cusum(np.full(13, 1.5), reference) == [5, 11]
    assert cusum(np.full(100, 0.4), reference) == []


def test_a_stream_has_the_evaluated_days_before_day_0_and_ends_with_its_last_row() -> None:
    given = answered("M4", 0, weeks=1)
    stream = given.stream()
    # The fourth day lacks a row by construction.
    assert len(stream.losses) == 21 * 96 - 1
    assert stream.ends[0] == -14 + 1 / 96 and stream.ends[-1] == 7.0
    assert (np.diff(stream.ends) > 0).all()
    means, ends = stream.day_means()
    assert ends.tolist() == list(range(-13, 8))
    assert means[16] == pytest.approx(stream.losses[16 * 96 : 17 * 96].mean())
    assert means[17] == pytest.approx(stream.losses[17 * 96 : 18 * 96 - 1].mean())


def test_both_sides_find_a_model_that_is_worse_than_the_base_rate() -> None:
    given = answered("M1", 0, weeks=10)
    found = our_alarms(given) | peer_alarms([given.stream()])[0]
    assert len(found) == 13
    late = {rule: [time for time in times if 56 < time <= 70] for rule, times in found.items()}
    # Made as quiet as the others, CUSUM takes longer than that.
    assert [rule for rule, times in late.items() if not times] == ["CUSUM, tuned"]
    assert found[ALL_SIGNALS] == [63.0]


def test_adwin_does_not_count_what_became_better_where_only_rises_are_asked() -> None:
    random = np.random.default_rng(SEED)
    low, high = random.random(2_000) < 0.1, random.random(2_000) < 0.5
    ends = np.arange(1, 4_001) / 96
    rules = {
        name: Detector("ADWIN", "errors", {"delta": 1e-6}, rises_only=name == "rises")
        for name in ("rises", "both")
    }
    for first, then, rises in ((low, high, True), (high, low, False)):
        errors = np.concatenate([first, then]).astype(np.float64)
        found = river_alarms([Stream(errors, errors, ends)], rules)
        assert [time > 2_000 / 96 for time in found["both"][0]][:1] == [True]
        assert bool(found["rises"][0]) == rises


def test_what_is_kept_is_not_measured_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--part", "worlds", "--world", "M7", "--runs", "1", "--rules", "ours", "--kept", str(tmp_path)]
    drift.main([*given, "--json"])
    rows = {row["rule"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[ALL_SIGNALS]["in_first_window"]["value"] == 1.0
    (kept,) = tmp_path.iterdir()
    (alarms,) = json.loads(kept.read_text())
    kept.write_text(json.dumps([alarms | {ALL_SIGNALS: []}]))
    drift.main(given)
    told = capsys.readouterr().out
    assert "M7: the relation of input and label is turned around" in told and "–" in told
