"""Replays of small worlds in which something is known to change, or not to."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_assets.backtest.replay import (
    TRADED,
    Backtest,
    Calendar,
    Monitoring,
    Regime,
    RegimeReplay,
    ReplayedUseCase,
    regimes,
    replay,
)
from mlops_assets.backtest.report import (
    backtest_plot,
    calendar_rows,
    comparison_rows,
    conclusion,
    month_rows,
    retrain_rows,
    trade_rows,
)
from mlops_assets.backtest.trainings import History, Recipe, RowKeys, Trainings, make_history
from mlops_assets.errors import DataError, UnknownName
from mlops_assets.evaluation.gate import GatePolicy
from mlops_assets.monitoring.governor import GovernorPolicy
from mlops_assets.monitoring.labels import Watermark
from mlops_assets.monitoring.policy import AgeRule, DriftPolicy
from mlops_assets.training.candidates import Candidate
from mlops_assets.training.training_set import LABEL
from mlops_assets.training.window import DEFAULT_WINDOWS
from serve.schema import FeatureSpec

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
START = FIRST + timedelta(days=42)
TURN = FIRST + timedelta(days=77)
"""From this day on, in some worlds, what made a visitor buy keeps him from it."""
PER_DAY = 60
WARNS = DriftPolicy(age=AgeRule(action="warn"))
"""Nothing is retrained for the age of its data alone."""
MONITORING = Monitoring(
    window=timedelta(days=7),
    min_rows=100,
    watermark=Watermark(timedelta(days=2), 0.8, 100),
    policy=WARNS,
    governor=GovernorPolicy(cooldown=timedelta(days=1)),
)
RECIPE = Recipe(
    name="shop",
    features=(FeatureSpec(name="age", type="number"), FeatureSpec(name="spent", type="number")),
    candidates=(Candidate("logistic_regression"),),
    gate=GatePolicy(margin=0.02),
    selecting_metric="log_loss",
    evaluation_window_days=7,
    training_window_days=21,
)


def tables(
    *, days: int = 140, turns: bool = True, turned_to: float = -1.0, seed: int = 1
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Visits of ``days`` days and whether they bought; one in forty never says.

    ``turned_to``: what the effect of age is multiplied by from the turn on.
    """
    random = np.random.default_rng(seed)
    count = days * PER_DAY
    at = pd.Timestamp(FIRST) + pd.to_timedelta(np.sort(random.uniform(0, days * 1440, count)), unit="min")
    age, spent = random.normal(40, 10, count), random.exponential(30, count)
    sign = np.where(turns & (at >= pd.Timestamp(TURN)), turned_to, 1.0)
    chance = 1 / (1 + np.exp(-(sign * (age - 40) / 6 + (spent - 30) / 60)))
    visits = pd.DataFrame(
        {"visit": [f"v{number:06}" for number in range(count)], "at": at, "age": age, "spent": spent}
    )
    bought = pd.Series(random.random(count) < chance, dtype="boolean")
    bought[random.random(count) < 1 / 40] = pd.NA
    return visits, visits[["visit"]].assign(**{LABEL: bought})


def history_of(visits: pd.DataFrame, labels: pd.DataFrame) -> History:
    return make_history(
        visits,
        labels,
        RowKeys(["visit"], "at"),
        task="binary",
        classes=("no", "yes"),
        labels_after=timedelta(days=2),
    )


def replayed(history: History, *names: str, days: int = 140) -> Backtest:
    return replay(
        ReplayedUseCase(history, RECIPE, MONITORING),
        regimes(names),
        start=START,
        end=FIRST + timedelta(days=days),
    )


@pytest.fixture(scope="module")
def turned() -> Backtest:
    """Every regime in the world that turns."""
    return replayed(
        history_of(*tables()), "never", "monthly", "four_weekly", "weekly", "weekly_ungated", "drift"
    )


def of(found: Backtest, name: str) -> RegimeReplay:
    one = found.replay_of(name)
    assert one is not None
    return one


def day_of(text: str) -> int:
    return (datetime.fromisoformat(text) - FIRST).days


def test_rows_without_a_time_cannot_be_replayed() -> None:
    visits, labels = tables(days=20)
    with pytest.raises(DataError, match="no event_timestamp, which a backtest needs; declare one"):
        make_history(
            visits,
            labels,
            RowKeys(["visit"], None),
            task="binary",
            classes=None,
            labels_after=timedelta(days=2),
        )


def test_repeated_keys_and_missing_labels_are_named() -> None:
    visits, labels = tables(days=20)
    with pytest.raises(DataError, match="labels hold 1 rows with a repeated key"):
        history_of(visits, pd.concat([labels, labels.head(1)]))
    with pytest.raises(DataError, match="none of 1200 rows has a label"):
        history_of(visits, labels.assign(**{LABEL: pd.NA}))


def test_a_time_without_rows_is_refused_and_the_history_named() -> None:
    history = history_of(*tables(days=60))
    with pytest.raises(DataError, match="the history goes from 2024-01-01 to 2024-02-29"):
        replay(
            ReplayedUseCase(history, RECIPE, MONITORING),
            regimes(["never"]),
            start=datetime(2025, 1, 1, tzinfo=UTC),
            end=datetime(2025, 2, 1, tzinfo=UTC),
        )


def test_a_first_model_needs_days_to_train_on_beside_those_it_is_judged_on() -> None:
    history = history_of(*tables(days=60))
    with pytest.raises(DataError, match="no first model at 2024-01-08: the train part is empty"):
        replay(
            ReplayedUseCase(history, RECIPE, MONITORING),
            regimes(["never"]),
            start=FIRST + timedelta(days=7),
            end=FIRST + timedelta(days=60),
        )


def test_an_unknown_regime_is_named_with_the_known_ones() -> None:
    with pytest.raises(
        UnknownName,
        match=r"'yearly'\. Allowed: calendar, drift, drift_0\.2, drift_0\.5, drift_1, drift_2, four_w",
    ):
        regimes(["never", "yearly"])


def test_a_day_is_known_when_its_labels_have_arrived_and_not_before() -> None:
    history = history_of(*tables(days=20))
    tenth = history.days == history.days[0] + 9
    assert not history.known(FIRST + timedelta(days=12) - timedelta(seconds=1))[tenth].any()
    assert history.known(FIRST + timedelta(days=12))[tenth].all()


def test_drift_is_seen_soon_answered_by_retraining_and_pays(turned: Backtest) -> None:
    drift = of(turned, "drift")
    assert drift.episodes[0].opened_at >= TURN.isoformat()
    # Two windows of three, the first of them whole a week after the turn, and labels that take two days.
    assert day_of(drift.episodes[0].opened_at) - 77 <= 21
    assert drift.episodes[0].delay_days is not None and drift.episodes[0].delay_days <= 21
    assert drift.count("promoted") >= 1
    never = of(turned, "never")
    assert not never.retrains and not never.episodes
    assert (drift.mean("roc_auc") or 0) > (never.mean("roc_auc") or 1) + 0.1
    share = turned.share_of_gain("drift", "log_loss")
    assert share is not None and share > 0.5


def test_an_episode_closes_when_a_candidate_passes_the_gate(turned: Backtest) -> None:
    drift = of(turned, "drift")
    assert any(episode.closed_at is not None for episode in drift.episodes)
    for episode in drift.episodes:
        attempts = [one for one in drift.retrains if one.episode == episode.number]
        assert len(attempts) == episode.attempts
        if episode.closed_at is not None:
            assert attempts[-1].outcome == "promoted" and attempts[-1].judged_at == episode.closed_at


def test_nothing_happens_in_a_world_that_stays_as_it_is() -> None:
    found = of(replayed(history_of(*tables(turns=False)), "drift"), "drift")
    assert not found.episodes and not found.retrains


def test_calendars_retrain_on_their_days(turned: Backtest) -> None:
    weekly = [datetime.fromisoformat(one.at) for one in of(turned, "weekly").retrains]
    assert len(weekly) == 13 and all(one.weekday() == 0 and one.hour == 0 for one in weekly)
    monthly = [one.at[:10] for one in of(turned, "monthly").retrains]
    assert monthly == ["2024-03-01", "2024-04-01", "2024-05-01"]
    fourth = [datetime.fromisoformat(one.at) for one in of(turned, "four_weekly").retrains]
    assert all(one in weekly for one in fourth)
    assert {later - one for one, later in pairwise(fourth)} == {timedelta(weeks=4)}


def mornings(start: datetime, end: datetime) -> list[datetime]:
    """Three o'clock on the first day of each month."""
    firsts = [datetime(2024, month, 1, 3, tzinfo=UTC) for month in range(1, 7)]
    return [one for one in firsts if start <= one < end]


def asked_at(history: History, moments: Callable[..., list[datetime]], **governor: Any) -> RegimeReplay:
    monitoring = replace(
        MONITORING, calendar=Calendar("0 3 1 * *", moments), governor=GovernorPolicy(**governor)
    )
    use_case = ReplayedUseCase(history, RECIPE, monitoring)
    end = FIRST + timedelta(days=140)
    return of(replay(use_case, regimes(["calendar"]), start=START, end=end), "calendar")


def test_the_calendar_asks_at_its_moments_and_passes_the_gate() -> None:
    found = asked_at(history_of(*tables()), mornings)
    assert [one.at[:16] for one in found.retrains] == [
        "2024-03-01T03:00",
        "2024-04-01T03:00",
        "2024-05-01T03:00",
    ]
    assert found.count("promoted") >= 1 and not found.decisions
    # Each is an episode of its own, which ends with its one attempt and is no drift.
    assert [one.attempts for one in found.episodes] == [1, 1, 1]
    assert all(one.closed_at is not None and one.delay_days is None for one in found.episodes)
    assert all("the calendar asks: 0 3 1 * *" in one.reason for one in found.episodes)


def test_the_governor_refuses_a_calendar_within_its_limits() -> None:
    found = asked_at(history_of(*tables()), mornings, cooldown=timedelta(days=40))
    assert [one.at[:10] for one in found.retrains] == ["2024-03-01", "2024-05-01"]
    [(at, action, reason)] = found.decisions
    assert (at[:10], action) == ("2024-04-01", "refuse") and "cooldown" in reason


def test_a_calendar_that_asks_before_newer_data_has_come_is_refused() -> None:
    def twice_a_day(start: datetime, end: datetime) -> list[datetime]:
        return [start, *(start + timedelta(days=3, hours=hour) for hour in (3, 9))]

    found = asked_at(history_of(*tables()), twice_a_day, cooldown=timedelta(0), first_back_off=timedelta(0))
    assert [one.at[:16] for one in found.retrains] == ["2024-02-15T03:00"]
    first, second = (reason for _, _, reason in found.decisions)
    assert first.endswith("refused, v1 was trained on all the data there is; newer data is waited for")
    assert "was made from the same data; newer data is waited for" in second


def test_regime_calendar_needs_a_schedule_and_is_compared_where_there_is_one() -> None:
    with pytest.raises(DataError, match=r"needs a schedule: declare retrain: .* --schedule"):
        replayed(history_of(*tables(days=60)), "calendar", days=60)
    assert "calendar" not in MONITORING.default_regimes
    declared = replace(MONITORING, calendar=Calendar("0 3 1 * *", mornings))
    assert declared.default_regimes == ("never", "monthly", "weekly", "drift", "calendar")


def test_the_report_says_what_the_calendar_asked_for() -> None:
    history = history_of(*tables())
    calendar = Calendar("0 3 1 * *", mornings)
    monitoring = replace(MONITORING, calendar=calendar, governor=GovernorPolicy(cooldown=timedelta(days=40)))
    found = replay(
        ReplayedUseCase(history, RECIPE, monitoring),
        regimes(["never", "calendar"]),
        start=START,
        end=FIRST + timedelta(days=140),
    )
    rows = {row["regime"]: row for row in comparison_rows(found)}
    assert (rows["calendar"]["retrains"], rows["calendar"]["refused"]) == ("2", "1")
    assert rows["calendar"]["episodes"] == "" and rows["never"]["refused"] == ""
    assert [(row["when"], row["governor"]) for row in calendar_rows(found)] == [
        ("2024-03-01T03:00", "granted"),
        ("2024-04-01T03:00", "refused"),
        ("2024-05-01T03:00", "granted"),
    ]
    assert found.monitoring["schedule"] == "0 3 1 * *"
    assert Backtest.from_dict(found.to_dict()) == found and calendar_rows(replace(found, replays=())) == []


def test_a_regime_retrains_at_the_moments_that_it_is_given_and_shares_models() -> None:
    history, said = history_of(*tables()), []
    use_case, end = ReplayedUseCase(history, RECIPE, MONITORING), FIRST + timedelta(days=140)
    trainings = Trainings(history, RECIPE, window_days=7, report=said.append)
    days = (130, 100, 42, 150)
    given = Regime("given", "moments", moments=tuple(FIRST + timedelta(days=day) for day in days))
    found = replay(use_case, [given], start=START, end=end, trainings=trainings).replays[0]
    # Neither the start, of which the first model is, nor what is behind the end.
    assert [day_of(one.at) for one in found.retrains] == [100, 130]
    assert [trainings.made(one.digest).data_until.isoformat() for one in found.retrains] == [
        one.data_until for one in found.retrains
    ]
    assert len(said) == 3
    again = replay(use_case, [given], start=START, end=end, trainings=trainings).replays[0]
    assert again == found and len(said) == 3


def test_trainings_of_another_history_are_refused_and_models_that_were_not_made() -> None:
    history = history_of(*tables(days=60))
    trainings = Trainings(history_of(*tables(days=60)), RECIPE, window_days=7)
    use_case = ReplayedUseCase(history, RECIPE, MONITORING)
    with pytest.raises(DataError, match="of another use case: share those of one history and one recipe"):
        replay(use_case, regimes(["never"]), start=START, end=FIRST + timedelta(days=60), trainings=trainings)
    with pytest.raises(DataError, match="no model f00 among the 0 that were trained"):
        trainings.made("f00")


def test_what_the_rate_of_false_alarms_trades_is_one_table() -> None:
    """Age counts for three quarters of what it did: enough to be seen, and not at once."""
    history, said = history_of(*tables(days=200, turned_to=0.75)), []
    found = replay(
        ReplayedUseCase(history, RECIPE, MONITORING),
        regimes(["never", *TRADED]),
        start=START,
        end=FIRST + timedelta(days=160),
        report=said.append,
    )
    rows = trade_rows(found)
    assert [row["false alarms per year"] for row in rows] == ["never", "0.2", "0.5", "1", "2"]
    assert [row["retrains"] for row in rows] == [str(len(one.retrains)) for one in found.replays]
    assert rows[0]["episodes"] == "0" and all(int(row["episodes"]) >= 1 for row in rows[1:])
    delays = [int(row["median days to detect"]) for row in rows[1:]]
    assert delays == sorted(delays, reverse=True) and delays[0] > delays[-1]
    assert {row["regime"] for row in comparison_rows(found)} >= {"drift, 0.2 false alarms a year"}
    # One training serves every rate that asks on the same day after the same change.
    retrains = sum(len(one.retrains) for one in found.replays)
    assert sum(line.startswith("trained ") for line in said) < 1 + retrains
    assert trade_rows(replace(found, replays=found.replays[:1])) == []


def test_a_traded_rate_takes_the_place_of_the_declared_one_and_nothing_else() -> None:
    declared = DriftPolicy(age=AgeRule(action="open"))
    assert regimes(["drift"])[0].policy(declared) is declared
    for name, rate in TRADED.items():
        policy = regimes([name])[0].policy(declared)
        assert policy == DriftPolicy(age=AgeRule(action="open"), false_alarms_per_year=rate)


def test_only_a_regime_without_a_gate_lets_everything_answer(turned: Backtest) -> None:
    gated, free = of(turned, "weekly"), of(turned, "weekly_ungated")
    assert gated.count("promoted") < len(gated.retrains)
    assert free.count("promoted") == len(free.retrains) == len(gated.retrains)
    assert any(one.reason.startswith("not gated, the gate would say") for one in free.retrains)


def test_age_opens_episodes_only_where_the_policy_says_so() -> None:
    """Nothing drifts; the data of what answers may be 30 days old, and is 9 days old when it begins to."""
    history = history_of(*tables(turns=False))
    old = replace(MONITORING, max_data_age=timedelta(days=30), policy=DriftPolicy(age=AgeRule(action="open")))
    days: dict[str, list[int]] = {}
    for name, policy in (("warn", WARNS), ("refresh", DriftPolicy()), ("open", old.policy)):
        drift = of(
            replay(
                ReplayedUseCase(history, RECIPE, replace(old, policy=policy)),
                regimes(["drift"]),
                start=START,
                end=FIRST + timedelta(days=112),
            ),
            "drift",
        )
        days[name] = [day_of(one.opened_at) for one in drift.episodes]
        assert all(one.delay_days is not None and one.delay_days <= 1 for one in drift.of_drift)
        assert any(action == name for _, action, _ in drift.decisions)
        assert bool(drift.of_drift) == (name == "open")
    # A refresh leaves 30 days between retrains; an episode opens as soon as the data is 30 days old again.
    assert days == {"warn": [], "refresh": [63, 93], "open": [63, 84, 105]}


def test_a_verdict_names_the_champion_as_its_regime_does(turned: Backtest) -> None:
    compared = 0
    for one in turned.replays:
        answering = "v1"
        for retrain in one.retrains:
            if "of champion" in retrain.reason:
                compared += 1
                assert f"of champion {answering}:" in retrain.reason
            answering = retrain.version if retrain.outcome == "promoted" else answering
    assert compared >= len(of(turned, "weekly").retrains)


def test_what_comes_later_changes_nothing_before_it() -> None:
    """The future's labels are turned around; every decision until then is the same."""
    visits, labels = tables()
    until = FIRST + timedelta(days=112)
    later = visits["at"] >= pd.Timestamp(until - timedelta(days=2))
    changed = labels.assign(**{LABEL: labels[LABEL].where(~later, ~labels[LABEL])})

    def decided(found: Backtest) -> list[tuple[object, ...]]:
        one = of(found, "drift")
        said = [decision for decision in one.decisions if decision[0] < until.isoformat()]
        return [*said, *((r.at, r.outcome, r.reason) for r in one.retrains if r.at < until.isoformat())]

    as_it_was = decided(replayed(history_of(visits, labels), "drift", days=119))
    assert as_it_was == decided(replayed(history_of(visits, changed), "drift", days=119))
    assert any("performance" in str(one) for one in as_it_was)


def test_regimes_share_what_they_train() -> None:
    history, said = history_of(*tables(days=84)), []
    replay(
        ReplayedUseCase(history, RECIPE, MONITORING),
        regimes(["never", "weekly", "weekly_ungated"]),
        start=START,
        end=FIRST + timedelta(days=84),
        report=said.append,
    )
    trained = [line for line in said if line.startswith("trained logistic_regression")]
    assert len(trained) == 6  # the first one, and one for each Monday


def test_scores_of_any_stretch_are_those_of_the_packaged_model() -> None:
    history = history_of(*tables(days=84))
    trainings = Trainings(history, RECIPE, window_days=7)
    model = trainings.at(START)
    names = model.scorer.manifest.feature_names
    whole = model.scorer.score(model.scorer.encoder.columns({name: history.frame[name] for name in names}))
    for rows in (slice(0, 1), slice(100, 100), slice(2_000, 5_000)):
        assert (trainings.scores(model, rows) == whole[rows]).all()
    assert model.trained_until < START - timedelta(days=9)
    assert model.data_until < START - timedelta(days=2)


def test_several_candidates_compete_at_every_retrain() -> None:
    history = history_of(*tables(days=60))
    small = {"num_rounds": 5}
    both = Recipe(
        **{**vars(RECIPE), "candidates": (Candidate("lightgbm", small), *RECIPE.candidates), "folds": 2}
    )
    model = Trainings(history, both, window_days=7).at(START)
    assert model.package.manifest.trainer == "logistic_regression"


def test_a_backtest_survives_its_json(turned: Backtest) -> None:
    assert Backtest.from_dict(turned.to_dict()) == turned
    with pytest.raises(DataError, match="the values are not a backtest"):
        Backtest.from_dict({"model": "shop"})


@pytest.mark.usefixtures("rendered")
def test_the_report_says_what_was_found(turned: Backtest) -> None:
    rows = {row["regime"]: row for row in comparison_rows(turned)}
    assert rows["never"]["retrains"] == "0" and rows["weekly"]["share of weekly's gain, roc_auc"] == "100%"
    assert rows["weekly, not gated"]["promoted"] == "13"
    assert [row["month"] for row in month_rows(turned)] == ["2024-02", "2024-03", "2024-04", "2024-05"]
    assert retrain_rows(turned)[0]["opened because"].startswith("answers are worse than the baseline")
    assert "of what weekly retraining gains over never in roc_auc" in conclusion(turned)
    assert backtest_plot(turned).startswith(b"\x89PNG")


def test_a_gain_that_is_not_there_has_no_share() -> None:
    found = replayed(history_of(*tables(days=84)), "weekly", "drift", days=84)
    assert found.share_of_gain("drift", "roc_auc") is None
    assert "has a mean roc_auc of" in conclusion(found)


def test_numbers_are_replayed_as_well() -> None:
    """A regression whose outcome moves up by far: the bias is seen and retrained away."""
    visits, _ = tables()
    turned_up = visits["at"] >= pd.Timestamp(TURN)
    noise = np.random.default_rng(2).normal(0, 3, len(visits))
    paid = visits["age"] + 0.1 * visits["spent"] + np.where(turned_up, 8.0, 0.0) + noise
    history = make_history(
        visits,
        visits[["visit"]].assign(**{LABEL: paid}),
        RowKeys(["visit"], "at"),
        task="regression",
        classes=None,
        labels_after=timedelta(days=2),
    )
    recipe = Recipe(
        **{
            **vars(RECIPE),
            "candidates": (Candidate("ridge"),),
            "selecting_metric": "rmse",
            "gate": GatePolicy(margin=0.5),
        }
    )
    found = replay(
        ReplayedUseCase(history, recipe, MONITORING),
        regimes(["never", "drift"]),
        start=START,
        end=FIRST + timedelta(days=140),
    )
    drift = of(found, "drift")
    assert drift.count("promoted") >= 1
    assert (drift.mean("rmse") or 99) < (of(found, "never").mean("rmse") or 0)


def test_a_version_of_what_is_true_now_answers_within_three_weeks_of_a_change() -> None:
    """Forty weeks of one relation, which turns around eight weeks after the first model; default windows."""
    start, turn = FIRST + timedelta(weeks=40), FIRST + timedelta(weeks=48)
    random, count = np.random.default_rng(1), 52 * 336
    at = pd.Timestamp(FIRST) + pd.to_timedelta(np.arange(count) * 30, unit="min")
    age = random.normal(0, 1.5, count)
    sign = np.where(at >= pd.Timestamp(turn), -1.0, 1.0)
    visits = pd.DataFrame(
        {"visit": np.arange(count), "at": at, "age": age, "spent": random.normal(size=count)}
    )
    bought = pd.Series(random.random(count) < 1 / (1 + np.exp(-sign * age)))
    recipe = Recipe(
        name="shop",
        features=RECIPE.features,
        candidates=tuple(Candidate("logistic_regression", window_days=days) for days in DEFAULT_WINDOWS),
        gate=GatePolicy(),
        selecting_metric="log_loss",
    )
    found = replay(
        ReplayedUseCase(
            history_of(visits, visits[["visit"]].assign(**{LABEL: bought})),
            recipe,
            Monitoring(watermark=Watermark(within=timedelta(days=2))),
        ),
        regimes(["drift"]),
        start=start,
        end=turn + timedelta(weeks=4),
    )
    drift = of(found, "drift")
    promoted = next(one for one in drift.retrains if one.outcome == "promoted")
    assert timedelta(0) < datetime.fromisoformat(promoted.judged_at) - turn <= timedelta(weeks=3)
    assert "the end of the first window that showed a change" in promoted.reason
    last, before = drift.windows[-1].metrics["log_loss"], drift.windows[8].metrics["log_loss"]
    assert last is not None and before is not None and before > 1.0 > 0.69 > last


def test_another_look_is_on_what_has_become_known_since_and_needs_stronger_proof() -> None:
    trainings = Trainings(history_of(*tables(days=84)), RECIPE, window_days=7)
    champion, challenger = trainings.at(START), trainings.at(START + timedelta(days=14))
    first = trainings.verdict(challenger, champion, "champion v1")
    later = trainings.verdict(challenger, champion, "champion v1", look=3, now=START + timedelta(days=17))
    assert "at 95%" in first.reason and "from 2024-02-17 to 2024-02-23" in first.reason
    assert "at 99.17%" in later.reason and "from 2024-02-17 to 2024-02-26" in later.reason


def test_the_split_follows_a_change_and_the_verdict_counts_the_rows_behind_it() -> None:
    trainings = Trainings(history_of(*tables(days=84)), RECIPE, window_days=7)
    now = START + timedelta(days=14)
    usual, changed = trainings.at(now), trainings.at(now, (now - timedelta(days=6)).isoformat())
    assert usual.digest != changed.digest and len(changed.judged) < len(usual.judged)
    assert changed.trained_until > usual.trained_until
    reason = trainings.verdict(changed, usual, "champion v1").reason
    assert "judged on 278 rows from 2024-02-19 to 2024-02-23, 222 of them after 2024-02-20" in reason
