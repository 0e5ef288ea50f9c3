"""The port through which the platform tells people: a log file always, and each channel that is set.

Belongs here: delivering an alert once, keeping what could not be delivered. Does not belong here: one channel
(a file beside this one), the lines of the log (``_log.py``), deciding that something is worth an alert.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from mlops_assets.resources.alerts._base import Alert, Channel, Delivery
from mlops_assets.resources.alerts._log import AlertLog, last_told, locked, undelivered, unwritable
from serve.families import Family

TRIES = 3
REPEAT_AFTER_S = 6 * 3_600.0
REDELIVERED_AT_ONCE = 20

CHANNELS: Family[Channel] = Family("channel of alerts", __package__ or "", Channel)

logger = logging.getLogger(__name__)


class Alerts(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where alerts go: the log file, and every channel that is set in the environment.

    Addresses and keys of channels are secrets: no fields (Dagster's UI shows those) and in no message.
    """

    log_file: str = Field(description="File that gets one JSON object per alert and per outcome.")
    repeat_after_s: float = Field(
        default=REPEAT_AFTER_S,
        ge=0,
        description="The same news is told once within this time; 0 tells it every time.",
    )

    def send(
        self,
        alert: Alert,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> str:
        """Delivers and says how far it came, for the record: up to three tries, 21 s at the worst.

        An alert that cannot be delivered must not undo what it tells of, so that is said and logged, not
        raised; ``redeliver`` tries it again. A log that cannot be written is said as well: channels are told
        without it, but once for every call, and what they do not take is not kept.
        """
        return self._send(alert, TRIES, set(), sleep, clock)

    def send_all(
        self,
        alerts: Sequence[Alert],
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> list[str]:
        """``send`` for a caller that must not wait, as a sensor: one try each, none after a failure.

        What is left stands in the log as failed, for ``redeliver``. At the worst each channel times out once.
        """
        failed: set[str] = set()
        return [self._send(alert, 1, failed, sleep, clock) for alert in alerts]

    def redeliver(
        self,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> list[str]:
        """Tries once more what a channel did not take within the last day, oldest first; says each outcome.

        Includes alerts whose process died over them. For each channel it ends at the first failure: it is
        still away, or the log cannot be read and written, which is said and not raised.
        """
        return [said for channel in channels() for said in self._redeliver(channel, sleep, clock)]

    def _redeliver(
        self, channel: Channel, sleep: Callable[[float], None], clock: Callable[[], float]
    ) -> Iterator[str]:
        for _ in range(REDELIVERED_AT_ONCE):
            now = clock()
            try:
                with self._log() as log:
                    waiting = undelivered(log.tail(), channel.name, now)
                    if waiting is not None:
                        log.write({**waiting, "at": now, "delivery": "sending", "channel": channel.name})
            except OSError as error:
                yield f"failed; {unwritable(error)}"
                return
            if waiting is None:
                return
            delivery, sentence = self._post(channel, waiting["id"], _alert_of(waiting), 1, sleep, clock)
            yield f"{waiting['kind']} {waiting['subject']}: {sentence}"
            if delivery == "failed":
                return

    def _send(
        self,
        alert: Alert,
        tries: int,
        failed: set[str],
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> str:
        """Says what became of it; channels that ``failed`` are not tried, and new ones are added to them."""
        found, now = channels(), clock()
        line = {"id": uuid.uuid4().hex, "at": now, "fingerprint": alert.fingerprint, **asdict(alert)}
        problem = ""
        try:
            with self._log() as log:
                told = last_told(log.tail(), alert.fingerprint, now, self.repeat_after_s)
                if told is not None:
                    short = {
                        name: line[name] for name in ("id", "at", "fingerprint", "kind", "subject", "version")
                    }
                    log.write({**short, "delivery": "suppressed"})
                    return f"suppressed; told {now - told:.0f} s ago already"
                names = {"channels": [one.name for one in found]} if found else {}
                log.write({**line, **names, "delivery": "sending" if found else "logged"})
        except OSError as error:
            problem = unwritable(error)
        logger.warning("%s", alert.text())
        if not found:
            unset = f"no {' or '.join(CHANNELS)} is set"
            if not problem:
                return f"logged; {unset}"
            logger.error("The alert %s was not logged: %s", alert.kind, problem)
            return f"failed; {problem} and {unset}"
        said = []
        for channel in found:
            allowed = 0 if channel.name in failed else tries
            delivery, sentence = self._post(channel, str(line["id"]), alert, allowed, sleep, clock)
            said.append(sentence)
            if delivery == "failed":
                failed.add(channel.name)
        return "; ".join(said)

    def _post(
        self,
        channel: Channel,
        identity: str,
        alert: Alert,
        tries: int,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> tuple[Delivery, str]:
        delivery, problem = channel.deliver(identity, alert, tries, sleep, clock)
        outcome = {"id": identity, "at": clock(), "fingerprint": alert.fingerprint}
        outcome |= {"delivery": delivery, "channel": channel.name}
        unlogged = ""
        try:
            with self._log() as log:
                log.write({**outcome, "problem": problem} if problem else outcome)
        except OSError as error:
            unlogged = unwritable(error)
            logger.error(
                "The outcome of the alert %s (%s) was not logged: %s", alert.kind, delivery, unlogged
            )
        if delivery == "delivered":
            taken = f"delivered to the {channel.name}; {unlogged}"
            return delivery, taken if unlogged else f"logged and delivered to the {channel.name}"
        logger.error("The %s did not take the alert %s: %s", channel.name, alert.kind, problem)
        refused = f"the {channel.name} did not take it ({problem})"
        return delivery, f"{delivery}; {refused}; {unlogged}" if unlogged else f"logged; {refused}"

    def _log(self) -> "AbstractContextManager[AlertLog]":
        return locked(Path(self.log_file))


def channels() -> list[Channel]:
    """Those that are set now."""
    found = (channel.from_environment() for channel in CHANNELS.members())
    return [channel for channel in found if channel is not None]


def _alert_of(line: dict[str, Any]) -> Alert:
    return Alert(
        kind=line["kind"],
        subject=line["subject"],
        summary=line["summary"],
        command=line["command"],
        version=line["version"],
        evidence=line["evidence"],
        dedupe=line["dedupe"],
    )
