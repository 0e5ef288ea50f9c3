"""What every channel of alerts must do (``resources/alerts/_base.py`` says it in words).

class TestWebhook(ChannelConformance):
channel = WebhookChannel

@pytest.fixture
def receiver(self, monkeypatch): ...  # set in the environment; a Receiver
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import pytest

from mlops_assets.resources.alerts import CHANNELS, Alert, Channel, DeliveryOutcome

ALERT = Alert("rollout_aborted", "flights", "5 % of errors", "mlops status", version="v8", dedupe="3")


class Receiver(Protocol):
    """The other side of a channel."""

    secrets: Sequence[str]
    """Texts of its address and keys that nobody may read."""

    def taken(self) -> list[str]:
        """What it took, one text per delivery."""

    def fails(self, times: int) -> None:
        """It is away for so many tries."""

    def refuses(self) -> None:
        """It will not take the next one as it is."""

    def unset(self) -> None:
        """Takes the channel out of the environment."""


class ChannelConformance:
    """One channel."""

    channel: ClassVar[type[Channel]]

    @pytest.fixture
    def receiver(self) -> Any:
        raise NotImplementedError("the fixture receiver sets the channel and gives its other side")

    def deliver(self, tries: int = 1) -> tuple[DeliveryOutcome, list[float]]:
        channel, slept = self.channel.from_environment(), list[float]()
        assert channel is not None
        return channel.deliver("id1", ALERT, tries, slept.append, lambda: 1_000.0), slept

    def test_it_is_found_by_its_name(self) -> None:
        assert CHANNELS[self.channel.name] is self.channel

    def test_it_is_there_when_it_is_set(self, receiver: Receiver) -> None:
        assert self.channel.from_environment() is not None
        receiver.unset()
        assert self.channel.from_environment() is None

    def test_it_delivers_what_a_person_needs(self, receiver: Receiver) -> None:
        assert self.deliver() == (DeliveryOutcome("delivered"), [])
        [text] = receiver.taken()
        assert all(part in text for part in ("id1", "flights", "v8", "5 % of errors", "mlops status"))

    def test_it_tries_again_and_waits_between(self, receiver: Receiver) -> None:
        receiver.fails(2)
        outcome, slept = self.deliver(tries=3)
        assert outcome == DeliveryOutcome("delivered") and len(slept) == 2 and len(receiver.taken()) == 1

    def test_one_that_is_away_is_a_failure_in_words_and_not_raised(self, receiver: Receiver) -> None:
        receiver.fails(2)
        outcome, slept = self.deliver(tries=2)
        assert outcome.delivery == "failed" and outcome.problem and len(slept) == 1
        assert receiver.taken() == []

    def test_a_refusal_is_not_tried_again(self, receiver: Receiver) -> None:
        receiver.refuses()
        outcome, slept = self.deliver(tries=3)
        assert outcome.delivery == "refused" and outcome.problem and slept == []

    def test_without_tries_nobody_is_asked(self, receiver: Receiver) -> None:
        assert self.deliver(tries=0)[0].delivery == "failed" and receiver.taken() == []

    def test_its_secrets_are_in_no_outcome_and_no_log(
        self, receiver: Receiver, caplog: pytest.LogCaptureFixture
    ) -> None:
        receiver.fails(1)
        said = repr((self.deliver(), self.channel.from_environment(), caplog.text))
        assert receiver.secrets and not any(secret in said for secret in receiver.secrets)
