"""Two looks become transitions: each of them once, in order, with the platform's own words and numbers."""

import json

import pytest

from demo.changes import changes
from demo.readings import (
    Endpoint,
    Event,
    Reading,
    Run,
    Staleness,
    endpoint_of,
    event_of,
    run_of,
    served_stale_of,
)
from mlops_assets.monitoring.findings import ColumnDrift, Score, WindowDrift, WindowPerformance

MONDAY, NEXT_MONDAY, THIRD_MONDAY = (f"2013-{day}T00:00:00+00:00" for day in ("06-24", "07-01", "07-08"))


def event(asset, at=1.0, *, kind="materialised", data_version="", **facts):
    return Event(asset, kind, f"run-{at}", at, None, data_version, "", facts)


def told(before, after):
    return [(change.kind, change.subject) for change in changes(before, after)]


def drift_window(start, end, *, ks, rows=6_000):
    scores = (Score("psi", 0.1, 0.2), Score("ks", ks, 0.29))
    columns = (
        ColumnDrift("prediction", "prediction", scores, ks > 0.29, 0.0),
        ColumnDrift("temp", "feature", scores, True, 0.0),
        ColumnDrift("visib", "feature", scores, False, 0.0),
    )
    return WindowDrift(start, end, "v1", rows, True, "judged", columns)


def drift(*windows, at=1.0):
    return event("flights_drift", at, windows=[one.to_dict() for one in windows])


def test_what_was_there_before_is_no_change():
    there = Reading(events=(event("flights_model", model_version=1, trainer="xgboost", why="best"),))
    assert told(there, there) == []


def test_a_window_is_told_once_though_every_measurement_lists_it_again():
    first = drift(drift_window(MONDAY, NEXT_MONDAY, ks=0.32))
    second = drift(
        drift_window(MONDAY, NEXT_MONDAY, ks=0.32), drift_window(NEXT_MONDAY, THIRD_MONDAY, ks=0.1), at=2.0
    )

    found = changes(Reading(), Reading(events=(first,)))

    assert [change.kind for change in found] == ["window measured", "drift seen"]
    assert found[0].subject == "v1 24 Jun to 1 Jul"
    assert found[0].text == "6,000 answers; the prediction drifted; 1 of 2 features did"
    assert found[1].text == "prediction ks 0.320, calibrated threshold 0.290"
    assert told(Reading(events=(first,)), Reading(events=(first, second))) == [
        ("window measured", "v1 1 Jul to 8 Jul")
    ]


def test_a_window_that_waits_for_labels_is_judged_when_they_are_there():
    def performance(status, at):
        window = WindowPerformance(
            MONDAY, NEXT_MONDAY, "v1", "champion", 6_000, 5_800, 0.97, status, "", metric="skill",
            value=0.17, low=0.1, high=0.24, reference=0.2, loss=0.03, loss_low=-0.04,
        )  # fmt: skip
        return event("flights_performance", at, windows=[window.to_dict()])

    waiting, judged = performance("waiting", 1.0), performance("judged", 2.0)

    assert told(Reading(), Reading(events=(waiting,))) == []
    (change,) = changes(Reading(events=(waiting,)), Reading(events=(waiting, judged)))
    assert change.kind == "window judged"
    assert change.text == (
        "5,800 of 6,000 answers labelled: skill 0.170 [0.100, 0.240] against 0.200 when it was made, "
        "no proven loss"
    )


def episodes(**changed):
    episode = {
        "number": 3, "opened_at": MONDAY, "version": "v1", "reason": "prediction", "attempts": [],
        "closed_at": None, "closed_by": None, "close_reason": "",
    }  # fmt: skip
    return json.dumps({"episodes": [{**episode, **changed}]})


def test_an_episode_opens_as_a_materialisation_and_closes_as_an_observation():
    opened = event("flights_drift_signal", data_version="episode-3", reason="2 of 3 windows")
    outcome = event("flights_drift_signal", 2.0, kind="observed", reason="rejected", episodes=episodes())
    closed = event(
        "flights_drift_signal", 3.0, kind="observed", reason="v2 passed",
        episodes=episodes(closed_at=NEXT_MONDAY, closed_by="gate"),
    )  # fmt: skip

    assert told(Reading(), Reading(events=(opened, outcome, closed))) == [
        ("episode opened", "episode-3"),
        ("episode noted", "episode-3"),
        ("episode closed", "episode-3"),
    ]


def test_the_chain_is_told_in_the_order_it_was_made():
    events = (
        event("flights_retrain_request", 1.0, data_version="episode-3.1", reason="granted"),
        event("flights_training_set", 2.0, train_rows=1200, evaluation_rows=300),
        event("flights_candidates", 3.0, winner="lightgbm", why="best log loss"),
        event("flights_model", 4.0, model_version=2, trainer="lightgbm", why="best log loss"),
        event("flights_evaluation", 5.0, model_version=2, outcome="promote", reason="a gain of 0.01"),
        event("flights_approval", 6.0, model_version=2, decision="approve", approver="auto", reason="gate"),
    )
    found = changes(Reading(), Reading(events=events))
    assert [(change.kind, change.subject) for change in found] == [
        ("retrain granted", "episode-3.1"),
        ("training set made", ""),
        ("candidates compared", "lightgbm"),
        ("model made", "v2"),
        ("verdict", "v2"),
        ("approved", "v2"),
    ]
    assert found[1].text == "1,200 rows to train on, 300 rows to evaluate on"
    assert found[4].text == "promote: a gain of 0.01"


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"phase": "progressing", "action": "step", "stable": "v1", "target": "v2"}, "rollout"),
        ({"phase": "successful", "action": "promote", "stable": "v2", "target": "v2"}, "promoted"),
        ({"phase": "failed", "action": "abort", "stable": "v1", "target": "v2"}, "aborted"),
        ({"phase": "error", "action": "abort", "stable": "v1", "target": "v2"}, "aborted"),
        # The version before is taken down later: nothing was promoted by that.
        ({"phase": "successful", "action": "retire", "stable": "v2", "target": "v2"}, "rollout"),
    ],
)
def test_an_act_of_the_deployment_is_a_step_a_promotion_or_an_abort(facts, kind):
    assert told(Reading(), Reading(events=(event("flights_deployment", **facts),))) == [(kind, "v2")]


def run(status, *assets, run_id="0123456789"):
    return {run_id: Run(run_id, status, assets, "automation", 1.0, None, None)}


def test_a_run_of_the_chain_is_told_when_it_appears_and_any_run_when_it_fails():
    chain = ("flights_model", "flights_training_set")
    queued, failed = Reading(runs=run("QUEUED", *chain)), Reading(runs=run("FAILURE", *chain))

    (launched,) = changes(Reading(), queued)

    assert (launched.kind, launched.text) == (
        "run launched",
        "flights_training_set → flights_model, launched by automation",
    )
    assert told(queued, failed) == [("run failed", "01234567")]
    assert told(failed, failed) == []
    assert told(Reading(), Reading(runs=run("STARTED", "flights_drift"))) == []
    assert told(Reading(), Reading(runs=run("FAILURE", "flights_drift"))) == [("run failed", "01234567")]


def test_staleness_is_told_with_its_cause_and_its_end():
    def reading(status, *causes):
        return Reading(staleness={"flights_model": Staleness(status, causes)})

    fresh, stale = reading("FRESH"), reading("STALE", "flights_drift_signal has a new data version")

    (change,) = changes(fresh, stale)

    assert (change.kind, change.text) == ("model stale", "flights_drift_signal has a new data version")
    assert told(stale, stale) == []
    assert told(stale, fresh) == [("model fresh", "flights_model")]


def test_the_endpoint_tells_traffic_trips_and_whether_it_is_stale():
    def reading(weights, shadows=None, tripped=None, stale=()):
        return Reading(endpoint=Endpoint("v1", weights, shadows or {}, tripped or {}), served_stale=stale)

    alone = reading({"v1": 100.0})
    canary = reading({"v1": 90.0, "v2": 10.0})
    out = reading({"v1": 90.0, "v2": 10.0}, tripped={"v2": "3 non-finite outputs"}, stale=("drift",))

    (traffic,) = changes(alone, canary)
    assert (traffic.kind, traffic.subject, traffic.text) == ("traffic", "v1", "v1 90 %, v2 10 %")
    assert told(canary, out) == [("tripped", "v2"), ("served stale", "v1")]
    assert told(out, canary) == [("served fresh", "v1")]
    # Nobody has reported anything yet: that is not fresh.
    assert told(alone, Reading(endpoint=alone.endpoint, served_stale=None)) == []


def test_answers_of_graphql_and_http_are_read():
    found = event_of(
        "flights_model",
        "materialised",
        {
            "runId": "r", "timestamp": "1700000000500", "partition": None, "description": None,
            "tags": [{"key": "dagster/data_version", "value": "abc"}],
            "metadataEntries": [
                {"label": "model_version", "__typename": "IntMetadataEntry", "intRepr": "2"},
                {"label": "windows", "__typename": "JsonMetadataEntry", "jsonString": "[1]"},
                {"label": "page", "__typename": "PathMetadataEntry"},
            ],
        },
    )  # fmt: skip
    assert (found.at, found.data_version, found.description) == (1_700_000_000.5, "abc", "")
    assert found.facts == {"model_version": 2, "windows": [1], "page": None}
    made = run_of(
        {
            "runId": "r", "status": "STARTED", "assetSelection": [{"path": ["flights_model"]}],
            "tags": [{"key": "dagster/sensor_name", "value": "automation"}],
            "creationTime": 1.0, "startTime": None, "endTime": None,
        }
    )  # fmt: skip
    assert (made.assets, made.launched_by) == (("flights_model",), "automation")
    routes = {
        "v1": {"weight": 10_000, "shadow": 0, "tripped": None},
        "v2": {"weight": 0, "shadow": 10_000, "tripped": "slow"},
    }
    assert endpoint_of({"stable": "v1", "routes": routes}) == Endpoint(
        "v1", {"v1": 100.0}, {"v2": 100.0}, {"v2": "slow"}
    )


def test_served_staleness_is_read_from_the_metrics():
    text = (
        "# TYPE mlops_served_stale gauge\n"
        'mlops_served_stale{deployment="flights",cause="data"} 0.0\n'
        'mlops_served_stale{deployment="flights",cause="drift"} 1.0\n'
    )
    assert served_stale_of(text) == ("drift",)
    assert served_stale_of(text.replace(" 1.0", " 0.0")) == ()
    assert served_stale_of("mlops_requests_total 4\n") is None
