"""A look at a rollout: labels that came back, replicas that come and go."""

from typing import Any

import dagster as dg
import pytest

from mlops_assets.monitoring.losses import losses_by_revision
from mlops_assets.testing.deployed_world import DeployedWorld, pass_shadow_step, start_v2
from mlops_assets.testing.small_models import ROW

BY_QUALITY = """
  steps:
    - {set_weight: 50, min_requests: 100}
    - {set_weight: 100}
  analysis:
    - {metric: quality, success_condition: increase <= 0.02, inconclusive_limit: 2}
"""
BY_LABELLED_PAIRS = """
  steps:
    - {shadow: 100, min_requests: 50}
    - {set_weight: 100}
  analysis:
    - {metric: quality, success_condition: increase <= 0.02}
"""


def answers_with_labels(world: DeployedWorld, requests: int, *, right: str) -> Any:
    """Answered requests with outcomes that occur as often as the version ``right`` says."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for number in range(requests):
        answer = world.http.post("/predict", json={"features": ROW, "unit": f"u{number}"}).json()
        rows.append(
            {
                "answer_id": answer["answer_id"],
                "endpoint": "/predict",
                "row": 0,
                "revision": world.last["revision"],
                "variant": answer["variant"],
                "version": answer["model_version"],
                "score": answer["probability"],
                "scores": None,
                "has_keys": True,
            }
        )
    frame = pd.DataFrame(rows)
    share = frame.loc[frame["version"] == right, "score"].iloc[0]
    # As many of one version's rows as of the other's have happened: only the scores differ.
    within = frame.groupby("version").cumcount()
    frame["label"] = [("on time", "late")[int((number * 7919) % 1000 < 1000 * share)] for number in within]
    return frame


def labels_arrive(world: DeployedWorld, joined: Any) -> None:
    losses = losses_by_revision(joined, "binary", ("on time", "late"))
    world.report("performance", f"{len(joined)} labels", {"losses": dg.MetadataValue.json(losses)})


@pytest.mark.parametrize("steps", [BY_QUALITY])
def test_a_canary_with_worse_answers_is_aborted_once_their_labels_are_back(world: DeployedWorld) -> None:
    start_v2(world)
    # Something is wrong with it that no error and no latency shows.
    world.cluster.versions["flights--v2"].alter = lambda scores: [1.0 - score for score in scores]
    joined = answers_with_labels(world, 900, right="v1")
    world.settle()
    for _ in range(3):
        waiting = world.tick()
        assert waiting.run_requests == [] and "no labels came back yet" in str(waiting.skip_reason)
    labels_arrive(world, joined.iloc[:60])
    assert world.tick().run_requests == [] and world.last["phase"] == "progressing"

    labels_arrive(world, joined)
    world.tick()

    assert (world.last["phase"], world.last["action"]) == ("failed", "abort")
    assert "mean log loss" in world.last["reason"] and "does not hold" in world.last["reason"]
    assert world.last["weights"] == {"v1": 100.0} and "v2" in world.last["withdrawn"]
    assert [alert["kind"] for alert in world.alerts()] == ["rollout_aborted"]


@pytest.mark.parametrize("steps", [BY_QUALITY])
def test_a_canary_with_better_answers_is_promoted_by_their_labels(world: DeployedWorld) -> None:
    start_v2(world)
    world.cluster.versions["flights--v2"].alter = lambda scores: [1.0 - score for score in scores]
    joined = answers_with_labels(world, 900, right="v2")
    world.settle()
    # Labels of another revision say nothing about this step.
    labels_arrive(world, joined.assign(revision=1))
    assert "no labels came back yet" in str(world.tick().skip_reason)
    labels_arrive(world, joined)
    world.cluster.versions["flights--v2"].alter = lambda scores: scores
    world.tick()
    assert world.last["step"] == "2 of 2: weight 100 %" and world.last["judgement"]["phase"] == "successful"
    world.tick()
    assert (world.last["phase"], world.last["action"], world.champion()) == (
        "successful",
        "promote",
        2,
    )


@pytest.mark.parametrize("steps", [BY_LABELLED_PAIRS])
def test_a_shadow_is_judged_by_the_labels_of_the_requests_that_both_scored(world: DeployedWorld) -> None:
    start_v2(world)
    world.send(60)
    world.settle()
    own = {"count": 400, "mean": 0.61, "m2": 40.0}
    paired = {"count": 400, "mean": 0.2, "m2": 4.0}
    losses = {"2": {"loss": "log loss", "versions": {"v1": own, "v2": own}, "differences": {"v2": paired}}}
    assert world.last["revision"] == 2
    world.report("performance", "labels", {"losses": dg.MetadataValue.json(losses)})
    world.tick()
    assert (world.last["phase"], world.last["stable"]) == ("failed", "v1")
    assert "over 400 labelled pairs log loss is 0.2000 higher than stable's" in world.last["reason"]


def test_a_canary_whose_replica_is_being_replaced_is_not_given_up(world: DeployedWorld) -> None:
    start_v2(world)
    pass_shadow_step(world)
    world.cluster.status["flights--v2"] = ("UNHEALTHY", "a replica's health check failed")
    assert world.tick().run_requests == []
    assert world.last["withdrawn"] == {}
