"""What nothing declares any more is an orphan; what somebody may still declare is none."""

import pytest

from mlops_assets.rollout.orphans import GRACE_S, Deployed, due, orphans

TEA, COFFEE, OLD = Deployed("tea", "tea"), Deployed("coffee", "drinks"), Deployed("old", "")


@pytest.mark.parametrize(
    ("declared", "unread", "found"),
    [
        (["tea", "coffee", "old"], [], []),
        (["tea"], [], ["coffee", "old"]),
        ([], [], ["coffee", "old", "tea"]),
        # A file that tells nothing may declare what came from its folder, or from nobody knows where.
        (["tea"], ["drinks"], []),
        ([], ["tea"], ["coffee"]),
        ([], ["elsewhere"], ["coffee", "tea"]),
    ],
)
def test_a_deployment_that_nothing_declares_is_an_orphan(
    declared: list[str], unread: list[str], found: list[str]
) -> None:
    assert [one.name for one in orphans([TEA, COFFEE, OLD], declared, unread)] == found


def test_an_orphan_is_due_once_it_was_one_long_enough() -> None:
    since, overdue = due({}, ["tea"], now=1_000.0)
    assert (since, overdue) == ({"tea": 1_000.0}, [])
    since, overdue = due(since, ["coffee", "tea"], now=1_000.0 + GRACE_S)
    assert (since, overdue) == ({"coffee": 1_000.0 + GRACE_S, "tea": 1_000.0}, ["tea"])
    # One that was declared in between begins anew.
    since, _ = due(since, ["coffee"], now=2_000.0)
    assert due(since, ["coffee", "tea"], now=2_000.0)[1] == []
