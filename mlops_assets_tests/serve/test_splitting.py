from collections import Counter
from itertools import pairwise

import pytest

from mlops_assets_tests.serve.small_models import routing
from serve.schema import Routing
from serve.splitting import Split, bucket


def split(**weights: int) -> Split:
    return Split(Routing.model_validate(routing(**weights)))


def owned(by: Split, version: str) -> set[int]:
    return {number for number in range(10_000) if by.version_of_bucket(number) == version}


@pytest.mark.parametrize(
    "weights",
    [{"v1": 10_000}, {"v1": 0, "v2": 10_000}, {"v1": 9_999, "v2": 1}, {"v1": 5_000, "v2": 5_000},
     {"v1": 1, "v2": 3_333, "v3": 6_666}, {"v1": 0, "v2": 1, "v3": 2, "v4": 9_997}, {"v2": 10_000, "v1": 0}],
)  # fmt: skip
def test_each_version_owns_exactly_its_weight_of_the_buckets(weights: dict[str, int]) -> None:
    by = split(**weights)
    counted = Counter(by.version_of_bucket(number) for number in range(10_000))
    assert counted == Counter({version: weight for version, weight in weights.items() if weight})


def test_a_growing_canary_gives_nobody_back() -> None:
    shares = [
        owned(split(v1=10_000 - weight, v2=weight), "v2") for weight in (0, 1, 100, 1_000, 5_000, 10_000)
    ]
    assert all(smaller < larger for smaller, larger in pairwise(shares))


def test_two_canaries_grow_from_stable_only() -> None:
    before, after = split(v1=8_000, v2=1_000, v3=1_000), split(v1=5_000, v2=2_000, v3=3_000)
    assert owned(before, "v2") < owned(after, "v2")
    assert owned(before, "v3") < owned(after, "v3")


def test_a_version_without_weight_gets_no_unit() -> None:
    assert {split(v1=0, v2=10_000, v3=0).version_for(f"u{number}") for number in range(1_000)} == {"v2"}


def test_a_unit_stays_with_its_version_and_another_salt_reshuffles() -> None:
    units = [f"user-{number}" for number in range(2_000)]
    assert [bucket(unit, "a") for unit in units] == [bucket(unit, "a") for unit in units]
    assert sum(bucket(unit, "a") == bucket(unit, "b") for unit in units) < 10


def test_buckets_never_change_between_releases() -> None:
    assert [bucket(unit, "flights") for unit in ("", "u1", "Zoë", "\ud800")] == [3785, 6705, 4447, 1606]


def test_real_units_spread_as_the_weights_say() -> None:
    by = split(v1=9_000, v2=1_000)
    assert 900 < sum(by.version_for(f"user-{number}") == "v2" for number in range(10_000)) < 1_100
