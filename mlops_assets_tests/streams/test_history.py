"""A table that was restored is found, whatever was committed around it."""

import json

import pytest

from mlops_assets.streams.history import CommitFacts, Since, newest_commit, restored, since


def records(version, opened):
    return {"version": version, "operation": "WRITE", **CommitFacts(opened, "t", [], 1, "r").metadata()}


def other(version, operation="OPTIMIZE"):
    return {"version": version, "operation": operation}


CREATED = other(0, "CREATE TABLE")


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([CREATED], None),
        ([records(1, 0), CREATED], None),
        ([other(2), records(1, 0), CREATED], None),
        ([other(2, "RESTORE"), records(1, 0), CREATED], 2),
        ([other(3), other(2, "RESTORE"), records(1, 0), CREATED], 3 - 1),
        # It came between the opening and the commit of another run.
        ([records(3, 1), other(2, "RESTORE"), records(1, 0), CREATED], 2),
        # An earlier run looked at it, so somebody has said that it is right.
        ([records(3, 2), other(2, "RESTORE"), records(1, 0), CREATED], None),
        ([other(1, "RESTORE"), CREATED], 1),
    ],
)
def test_a_restore_is_found_that_no_earlier_run_has_seen(history, expected):
    assert restored(history) == expected


def test_days_of_commits_that_say_no_zone_are_in_utc():
    said = json.loads(records(1, 0)["stream"])
    del said["timezone"]
    assert CommitFacts.of({"version": 1, "stream": json.dumps(said)}).timezone == "UTC"


def test_a_commit_says_its_facts():
    facts = CommitFacts(3, "x", ["2024-01-01"], 5, "run", reached={"0": 5}, partitions=[0, 1], complete=1.5)
    assert CommitFacts.of({"version": 4, **facts.metadata()}) == facts
    assert newest_commit([other(5), {"version": 4, **facts.metadata()}, records(3, 2)]) == facts
    assert newest_commit([CREATED]) is None


def moved(version, days, complete=None, **reached):
    facts = CommitFacts(version - 1, "t", days, 1, "r", reached=reached, partitions=[0, 1], complete=complete)
    return {"version": version, "operation": "WRITE", **facts.metadata()}


MOVED = [
    moved(5, ["d3"], **{"1": 9}),
    other(4),
    moved(3, ["d2", "d3"], 2.5, **{"0": 8, "1": 7}),
    moved(2, ["d1"], 1.5, **{"0": 5}),
]


@pytest.mark.parametrize(
    ("applied", "days"),
    [
        ({0: 8, 1: 9}, set()),
        ({0: 8, 1: 7}, {"d3"}),
        ({0: 5, 1: 0}, {"d2", "d3"}),
        ({0: 5}, {"d2", "d3"}),
    ],
)
def test_days_that_were_touched_since_some_offsets_are_those_of_later_commits(applied, days):
    assert since(MOVED, applied, whole=False) == Since(frozenset(days), None if not days else 2.5)


def test_a_history_that_does_not_reach_back_says_so():
    assert since(MOVED, {0: 1}, whole=False) is None
    assert since([*MOVED, CREATED], {}, whole=True) == Since(frozenset({"d1", "d2", "d3"}), 2.5)
    # Something was applied that no commit of the table made; and a commit that does not say what it moved.
    assert since([*MOVED, CREATED], {0: 1}, whole=True) == Since(None, 2.5)
    assert since([records(2, 1), CREATED], {0: 1}, whole=False) == Since(None, None)
