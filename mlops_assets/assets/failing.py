"""A step that cannot do its work fails once, by its asset's name, and with its checks on record.

Belongs here: turning errors of the project into Dagster's ``Failure``. Does not belong here: what the errors
say (whoever raises them), failures that name partitions (``partition_writer.py``).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg

from mlops_assets.errors import DataError


@contextmanager
def failing(key: dg.AssetKey) -> Iterator[None]:
    """A DataError inside becomes a Failure of ``key``: the same data gives it again, so no run is retried."""
    try:
        yield
    except DataError as error:
        raise dg.Failure(f"{key.to_user_string()}: {error}", allow_retries=False) from error


def recording(checks: Sequence[dg.AssetCheckResult], steps: Iterator[Any]) -> Iterator[Any]:
    """What the steps yield; and the checks before a failure, which leaves no result that would hold them."""
    try:
        yield from steps
    except dg.Failure:
        yield from checks
        raise
