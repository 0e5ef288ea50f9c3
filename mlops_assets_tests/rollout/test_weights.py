import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlops_assets.rollout.weights import reassigned
from serve.schema import Route, Routing
from serve.splitting import Split

VERSIONS = ("v1", "v2", "v3", "v4")


def given_weights(current: Routing | None, stable: str = "v1", **weights: int) -> Routing:
    return Routing(
        revision=(current.revision if current else 0) + 1,
        stable=stable,
        routes={
            version: Route(application=f"flights--{version}", weight=w) for version, w in weights.items()
        },
        segments=reassigned(current, weights),
        salt="flights",
    )


def owners(routing: Routing) -> list[str]:
    split = Split(routing)
    return [split.version_of_bucket(number) for number in range(10_000)]


def test_weights_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="add up to 10000"):
        reassigned(None, {"v1": 9_999})
    with pytest.raises(ValueError, match="0 or more"):
        reassigned(None, {"v1": 10_001, "v2": -1})


def test_growing_a_canary_moves_nobody_back_and_nobody_between_canaries() -> None:
    routing = None
    seen: dict[str, set[int]] = {"v2": set(), "v3": set()}
    for v2, v3 in ((100, 0), (100, 500), (1_000, 500), (1_000, 3_000), (5_000, 5_000)):
        routing = given_weights(routing, v1=10_000 - v2 - v3, v2=v2, v3=v3)
        now = owners(routing)
        for version, before in seen.items():
            held = {number for number, owner in enumerate(now) if owner == version}
            assert before <= held
            seen[version] = held


def test_a_routing_without_segments_keeps_its_buckets_when_it_gets_some() -> None:
    routes = {"v1": Route(application="a", weight=9_000), "v2": Route(application="b", weight=1_000)}
    before = Routing(revision=1, stable="v1", routes=routes)
    after = given_weights(before, v1=9_000, v2=1_000)
    assert owners(after) == owners(before)


def test_a_version_that_left_gives_its_buckets_to_the_others() -> None:
    before = given_weights(None, v1=7_000, v2=3_000)
    after = given_weights(before, stable="v3", v3=10_000)
    assert set(owners(after)) == {"v3"}


@st.composite
def weight_changes(draw: st.DrawFn) -> list[dict[str, int]]:
    changes = []
    for _ in range(draw(st.integers(1, 5))):
        cuts = sorted(draw(st.lists(st.integers(0, 10_000), min_size=3, max_size=3)))
        shares = [high - low for low, high in zip([0, *cuts], [*cuts, 10_000], strict=True)]
        changes.append(dict(zip(VERSIONS, shares, strict=True)))
    return changes


@given(weight_changes())
def test_weights_are_exact_and_no_bucket_moves_that_need_not(changes: list[dict[str, int]]) -> None:
    routing = None
    for weights in changes:
        before = owners(routing) if routing else None
        routing = given_weights(routing, **weights)
        now = owners(routing)
        assert {version: now.count(version) for version in weights} == weights
        if before:
            moved = sum(old != new for old, new in zip(before, now, strict=True))
            assert moved == sum(max(0, before.count(version) - weights[version]) for version in weights)
