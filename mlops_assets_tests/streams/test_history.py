"""A table that was restored is found, whatever was committed around it."""

import pytest

from mlops_assets.streams.history import CommitFacts, newest_commit, restored


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


def test_a_commit_says_its_facts():
    facts = CommitFacts(opened=3, topic_id="x", days=["2024-01-01"], rows=5, run_id="run")
    assert CommitFacts.of({"version": 4, **facts.metadata()}) == facts
    assert newest_commit([other(5), {"version": 4, **facts.metadata()}, records(3, 2)]) == facts
    assert newest_commit([CREATED]) is None
