"""What the records of a deployment say, and what they never say."""

import pytest

from mlops_assets.testing.deployed_world import DeployedWorld, start_v2


def test_keys_and_webhooks_stay_out_of_every_record(
    world: DeployedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_API_KEY", "k-hush-hush")
    monkeypatch.setenv("MLOPS_ALERT_WEBHOOK", "http://127.0.0.1:9/hook-hush")
    start_v2(world)
    world.cluster.versions["flights--v2"].always = RuntimeError("broken")
    world.send(100)
    world.settle()
    world.tick()
    assert "did not take it" in world.last["alert"]
    everything = repr([world.records(), world.alerts(), world.tags(2), world.cluster.puts])
    assert "hush" not in everything
