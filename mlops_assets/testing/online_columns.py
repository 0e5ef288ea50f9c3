"""The columns of events from one state of a store, looked up by keys as a filler makes them.

Belongs here: what tests hold a gateway's look-up against. Does not belong here: anything that is tested.
"""

from collections.abc import Mapping
from typing import Any

from serve.online.evaluate import EventColumns, Parsed
from serve.online.held import HeldView, Values, join_key


class StateColumns:
    """What a view computes while a store holds ``read``, by the store's keys."""

    def __init__(self, held: HeldView, read: Mapping[str, bytes | None]) -> None:
        self._held, self._read, self._computed = held, read, EventColumns(held)
        self._parsed: dict[str, Parsed] = {}

    def of(self, event: Values) -> dict[str, Any]:
        """Every joined and aggregated column of an event, None where missing."""
        keys = [
            *(line.key(event) for line in self._held.lines),
            *(join_key(number, join, event) for number, join in enumerate(self._held.view.joins)),
        ]
        return self._computed.columns(event, [self._at(number, key) for number, key in enumerate(keys)])

    def _at(self, number: int, key: str | None) -> Parsed | None:
        if key is None:
            return None
        if key not in self._parsed:
            self._parsed[key] = self._computed.parsed((number,), self._read.get(key))
        return self._parsed[key]
