"""Dagster instances for tests that begin in a prepared world.

Belongs here: an instance that begins where another one is. Does not belong here: what happens on it.
"""

import sqlite3
from typing import Any

import dagster as dg


def continued(prepared: dg.DagsterInstance) -> dg.DagsterInstance:
    """An instance in memory with the runs and events of another one in memory, which stays as it is.

    Files would do the same for ten times the time: Dagster opens a database for each event that it stores.
    """
    made = dg.DagsterInstance.ephemeral()
    for theirs, ours in (
        (prepared.run_storage, made.run_storage),
        (prepared.event_log_storage, made.event_log_storage),
    ):
        _database(theirs).backup(_database(ours))
    return made


def _database(storage: Any) -> sqlite3.Connection:
    """The connection that keeps a storage's database in memory; Dagster's version is pinned."""
    found = storage._held_conn.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)
    return found
