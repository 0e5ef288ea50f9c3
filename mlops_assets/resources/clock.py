"""The clock of everything that is measured by data time, as a resource: it can be replayed.

Belongs here: what time it is for the data. Does not belong here: the clock file's format
(``serve/clock.py``), rollouts and their pauses, which stay on the machine's clock.
"""

from datetime import UTC, datetime

import dagster as dg
from pydantic import Field

from mlops_assets.errors import DataError
from serve.clock import ClockFileError, read_instant


class Clock(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Data time: the machine's clock, or the instant in a file that a replay moves on."""

    file: str = Field(
        default="", description="File with one ISO-8601 instant with its zone; empty: the machine's clock."
    )

    def now(self) -> datetime:
        """Now, in UTC. Raises DataError when the file holds no instant: a guess would judge wrong windows."""
        if not self.file:
            return datetime.now(UTC)
        try:
            return read_instant(self.file).astimezone(UTC)
        except ClockFileError as error:
            raise DataError(str(error)) from error

    def seconds(self) -> float:
        """Now, in Unix seconds."""
        return self.now().timestamp()
