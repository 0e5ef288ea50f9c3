"""The port through which the platform tells people: a log file always, a webhook where one is set.

Belongs here: delivering an alert once, signing it, keeping what could not be delivered. Does not belong here:
deciding that something is worth one (``rollout/``, ``monitoring/``, the sensors).

The log is the only memory, and every process on the machine may write it: one JSON object per line, written
under a lock. An alert's line says ``sending`` until a second line with the same ``id`` says what became of
it. Only the newest ``TAIL_BYTES`` are read back, so looking costs the same however old the log is; what is
further back counts as forgotten, and is at worst told twice. How a receiver checks the signature:
docs/alerts.md.
"""

import fcntl
import hashlib
import hmac
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from mlops_assets import environment

TRIES = 3
TIMEOUT_S = 5.0
REPEAT_AFTER_S = 6 * 3_600.0
TAIL_BYTES = 2**20
LOST_AFTER_S = 120.0
"""A line that still says ``sending`` after this belongs to a process that died over it."""
KEPT_FOR_S = 24 * 3_600.0
"""An alert that no webhook took for a whole day is no news any more; it stays in the log."""
REDELIVERED_AT_ONCE = 20

TIMESTAMP_HEADER = "X-Mlops-Timestamp"
SIGNATURE_HEADER = "X-Mlops-Signature"

Kind = Literal[
    "rollout_aborted",
    "rollout_inconclusive",
    "rollout_failed",
    "rolled_back",
    "episode_opened",
    "episode_closed",
    "gate_rejected",
    "freshness_failed",
    "freshness_recovered",
    "log_drops",
    "sensor_failing",
    "document_missing",
    "orphaned_deployment",
    "retrain_failed",
    "retrain_refused",
    "approval_lost",
    "measuring_failed",
]
Delivery = Literal["sending", "delivered", "logged", "failed", "refused", "suppressed"]
"""``logged``: no webhook is set. ``failed``: to be tried again. ``refused``: the webhook will not take it as
it is (HTTP 4xx: a wrong address or signature).
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alert:
    """What happened, to which version, by what evidence, and the command to act.

    ``dedupe`` tells two happenings apart that are alike in kind, subject and version: an episode's number, a
    revision, the moment of a transition. Two alerts that are alike in all four are one piece of news.
    """

    kind: Kind
    subject: str
    summary: str
    command: str
    version: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)
    dedupe: str = ""

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of kind, subject, version and ``dedupe``."""
        told = json.dumps([self.kind, self.subject, self.version, self.dedupe])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def text(self) -> str:
        """One message for people; what Slack and its kin show."""
        about = f"{self.subject} {self.version}".rstrip()
        return f"[{self.kind}] {about}: {self.summary}\nNext: {self.command}"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """``v1=`` and the HMAC-SHA256, in hexadecimal, of ``<timestamp>.<body>`` under the secret.

    The time is part of what is signed, so a receiver that refuses old ones cannot be sent a recording.
    """
    return f"v1={hmac.new(secret.encode(), timestamp.encode() + b'.' + body, hashlib.sha256).hexdigest()}"


class Alerts(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where alerts go: the log file, and the webhook in ``MLOPS_ALERT_WEBHOOK`` when it is set.

    The webhook's address and ``MLOPS_ALERT_SECRET`` are secrets: no fields (Dagster's UI shows those) and in
    no message.
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

        An alert that cannot be delivered to the webhook must not undo what it tells of, so that is said and
        logged, not raised; ``redeliver`` tries it again. A log that cannot be written is said as well: the
        webhook is told without it, but once for every call, and what it does not take is not kept.
        """
        return self._send(alert, TRIES, sleep, clock)[1]

    def send_all(
        self,
        alerts: Sequence[Alert],
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> list[str]:
        """``send`` for a caller that must not wait, as a sensor: one try each, and none after a failure.

        What is left stands in the log as failed, for ``redeliver``. At the worst one timeout passes.
        """
        said, tries = [], 1
        for alert in alerts:
            delivery, sentence = self._send(alert, tries, sleep, clock)
            said.append(sentence)
            if delivery == "failed":
                tries = 0
        return said

    def redeliver(
        self,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> list[str]:
        """Tries once more what the webhook did not take within the last day, oldest first; says each outcome.

        Includes alerts whose process died over them. Ends at the first failure: the webhook is still away,
        or the log cannot be read and written, which is said and not raised.
        """
        url = environment.ALERT_WEBHOOK.read()
        if not url:
            return []
        said = []
        for _ in range(REDELIVERED_AT_ONCE):
            now = clock()
            try:
                with self._log() as log:
                    waiting = _undelivered(log.tail(), now)
                    if waiting is not None:
                        log.write({**waiting, "at": now, "delivery": "sending"})
            except OSError as error:
                said.append(f"failed; {_unwritable(error)}")
                break
            if waiting is None:
                break
            delivery, sentence = self._post(url, waiting["id"], _alert_of(waiting), 1, sleep, clock)
            said.append(f"{waiting['kind']} {waiting['subject']}: {sentence}")
            if delivery == "failed":
                break
        return said

    def _send(
        self, alert: Alert, tries: int, sleep: Callable[[float], None], clock: Callable[[], float]
    ) -> tuple[Delivery, str]:
        url, now = environment.ALERT_WEBHOOK.read(), clock()
        line = {"id": uuid.uuid4().hex, "at": now, "fingerprint": alert.fingerprint, **asdict(alert)}
        unwritable = ""
        try:
            with self._log() as log:
                told = _last_told(log.tail(), alert.fingerprint, now, self.repeat_after_s)
                if told is not None:
                    short = {
                        name: line[name] for name in ("id", "at", "fingerprint", "kind", "subject", "version")
                    }
                    log.write({**short, "delivery": "suppressed"})
                    return "suppressed", f"suppressed; told {now - told:.0f} s ago already"
                log.write({**line, "delivery": "sending" if url else "logged"})
        except OSError as error:
            unwritable = _unwritable(error)
        logger.warning("%s", alert.text())
        if not url and unwritable:
            logger.error("The alert %s was not logged: %s", alert.kind, unwritable)
            return "failed", f"failed; {unwritable} and no webhook is set"
        if not url:
            return "logged", "logged; no webhook is set"
        return self._post(url, str(line["id"]), alert, tries, sleep, clock)

    def _post(
        self,
        url: str,
        identity: str,
        alert: Alert,
        tries: int,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> tuple[Delivery, str]:
        delivery, problem = _posted(url, identity, alert, tries, sleep, clock)
        outcome = {"id": identity, "at": clock(), "fingerprint": alert.fingerprint, "delivery": delivery}
        unwritable = ""
        try:
            with self._log() as log:
                log.write({**outcome, "problem": problem} if problem else outcome)
        except OSError as error:
            unwritable = _unwritable(error)
            logger.error(
                "The outcome of the alert %s (%s) was not logged: %s", alert.kind, delivery, unwritable
            )
        if delivery == "delivered":
            taken = f"delivered to the webhook; {unwritable}"
            return delivery, taken if unwritable else "logged and delivered to the webhook"
        logger.error("The webhook did not take the alert %s: %s", alert.kind, problem)
        refused = f"the webhook did not take it ({problem})"
        return delivery, f"{delivery}; {refused}; {unwritable}" if unwritable else f"logged; {refused}"

    @contextmanager
    def _log(self) -> Iterator["_Log"]:
        """The log file, held by this process alone."""
        path = Path(self.log_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as stream:
            # The kernel lets go of it when the process ends, however it ends.
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield _Log(stream)


class _Log:
    """An open, locked log."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def tail(self) -> list[dict[str, Any]]:
        """The newest lines, oldest first: at most ``TAIL_BYTES`` of them."""
        size = self._stream.seek(0, 2)
        start = max(0, size - TAIL_BYTES)
        self._stream.seek(start)
        lines = self._stream.read(size - start).split(b"\n")
        return [told for line in (lines[1:] if start else lines) if (told := _told(line)) is not None]

    def write(self, line: dict[str, Any]) -> None:
        size = self._stream.seek(0, 2)
        if size:
            self._stream.seek(size - 1)
            if self._stream.read(1) != b"\n":
                # A process died in the middle of a line; its rest must not swallow this one.
                self._stream.write(b"\n")
        self._stream.write(json.dumps(line, default=str).encode() + b"\n")
        self._stream.flush()


def _told(line: bytes) -> dict[str, Any] | None:
    """One line of the log; None for what is not one, as the half line of a process that died."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) and "delivery" in told and "id" in told else None


def _last_told(
    lines: Sequence[dict[str, Any]], fingerprint: str, now: float, repeat_after_s: float
) -> float | None:
    """When the same news was told, or is being told, within the time; None when it is to be told.

    An alert waiting for redelivery counts, for it is going to be told; one that was refused does not.
    """
    known = (line for line in reversed(lines) if line.get("fingerprint") == fingerprint)
    newest = next((line for line in known if line["delivery"] != "suppressed"), None)
    if newest is None or newest["delivery"] == "refused" or now - float(newest["at"]) >= repeat_after_s:
        return None
    return float(newest["at"])


def _undelivered(lines: Sequence[dict[str, Any]], now: float) -> dict[str, Any] | None:
    """The oldest alert, whole, whose newest outcome asks for another try; None when there is none."""
    whole: dict[str, dict[str, Any]] = {}
    newest: dict[str, dict[str, Any]] = {}
    first: dict[str, float] = {}
    for line in lines:
        if line["delivery"] == "suppressed":
            continue
        if "summary" in line:
            whole[line["id"]] = line
        newest[line["id"]] = line
        first.setdefault(line["id"], float(line["at"]))
    for identity, line in newest.items():
        lost = line["delivery"] == "sending" and now - float(line["at"]) > LOST_AFTER_S
        waits = line["delivery"] == "failed" or lost
        if waits and identity in whole and now - first[identity] < KEPT_FOR_S:
            return whole[identity]
    return None


def _unwritable(error: OSError) -> str:
    return f"the log cannot be written ({error.strerror or type(error).__name__})"


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


def _posted(
    url: str,
    identity: str,
    alert: Alert,
    tries: int,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> tuple[Delivery, str]:
    """What became of it, and the problem in words ("" when delivered)."""
    import httpx

    message = {"text": alert.text(), "id": identity, "alert": asdict(alert)}
    body = json.dumps(message, default=str).encode()
    secret = environment.ALERT_SECRET.read()
    problem = "an earlier alert was not taken"
    for attempt in range(tries):
        if attempt:
            sleep(2.0**attempt)
        headers = {"Content-Type": "application/json"}
        if secret:
            timestamp = str(int(clock()))
            headers |= {TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: signature(secret, timestamp, body)}
        try:
            # The body is left unread: a receiver that took the alert and says so badly took it all the same.
            with httpx.stream(
                "POST", url, content=body, headers=headers, timeout=TIMEOUT_S, trust_env=False
            ) as answer:
                status, taken = answer.status_code, answer.is_success
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # Its text may quote the address, which is a secret.
            problem = type(error).__name__
            continue
        if taken:
            return "delivered", ""
        problem = f"HTTP {status}"
        if status < 500 and status != 429:
            return "refused", problem
    return "failed", problem
