"""Every channel of alerts keeps the contract, and several of them do not wait for each other."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_assets.resources import alerts as package
from mlops_assets.resources.alerts import CHANNELS, Alerts
from mlops_assets.resources.alerts.webhook import WebhookChannel
from mlops_assets.testing.conformance.channels import ALERT, ChannelConformance
from mlops_assets.testing.webhook import Webhook, webhook


class WebhookReceiver:
    """The webhook of the tests."""

    def __init__(self, hook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
        self.secrets = ("a-secret-path", "the-signing-key")
        self._hook, self._patch, self._failing = hook, monkeypatch, 0
        monkeypatch.setenv("MLOPS_ALERT_WEBHOOK", f"{hook.url}/a-secret-path")
        monkeypatch.setenv("MLOPS_ALERT_SECRET", "the-signing-key")

    def taken(self) -> list[str]:
        return [body.decode() for _, body in self._hook.requests[self._failing :]]

    def fails(self, times: int) -> None:
        self._hook.statuses, self._failing = [500] * times, times

    def refuses(self) -> None:
        self._hook.statuses = [404]

    def unset(self) -> None:
        self._patch.delenv("MLOPS_ALERT_WEBHOOK")


class TestWebhook(ChannelConformance):
    channel = WebhookChannel

    @pytest.fixture
    def receiver(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookReceiver]:
        with webhook() as hook:
            yield WebhookReceiver(hook, monkeypatch)


def test_every_channel_is_tested() -> None:
    assert {one.channel.name for one in ChannelConformance.__subclasses__()} == set(CHANNELS)


FILE = """
from pathlib import Path
from mlops_assets import environment
from mlops_assets.resources.alerts import Channel, DeliveryOutcome

FOLDER = environment.Variable("SHOP_ALERT_FOLDER", "", "Folder that gets a file per alert.")

class FolderChannel(Channel):
    name = "folder"

    def __init__(self, folder):
        self._folder = folder

    @classmethod
    def from_environment(cls):
        return cls(Path(FOLDER.read())) if FOLDER.read() else None

    def deliver(self, identity, alert, tries, sleep, clock):
        try:
            (self._folder / identity).write_text(alert.text())
        except OSError as error:
            return DeliveryOutcome("failed", type(error).__name__)
        return DeliveryOutcome("delivered")
"""


def test_a_channel_is_one_file_and_is_told_whatever_another_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "folder.py").write_text(FILE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "more")])
    monkeypatch.setenv("SHOP_ALERT_FOLDER", str(tmp_path / "told"))
    alerts = Alerts(log_file=str(tmp_path / "alerts.jsonl"))
    with webhook() as hook:
        monkeypatch.setenv("MLOPS_ALERT_WEBHOOK", hook.url)
        [said] = alerts.send_all([ALERT], clock=lambda: 0.0)
        assert said == (
            "logged; the folder did not take it (FileNotFoundError); logged and delivered to the webhook"
        )
        (tmp_path / "told").mkdir()
        assert alerts.send_all([ALERT], clock=lambda: 1.0) == ["suppressed; told 1 s ago already"]
        [said] = alerts.redeliver(clock=lambda: 2.0)
        assert said.endswith("logged and delivered to the folder")
        assert alerts.redeliver(clock=lambda: 500.0) == []
        assert len(hook.requests) == 1 and len(list((tmp_path / "told").iterdir())) == 1
    lines = [json.loads(line) for line in Path(alerts.log_file).read_text().splitlines()]
    assert [(line["delivery"], line.get("channel")) for line in lines] == [
        ("sending", None),
        ("failed", "folder"),
        ("delivered", "webhook"),
        ("suppressed", None),
        ("sending", "folder"),
        ("delivered", "folder"),
    ]


def test_the_lines_of_earlier_logs_are_those_of_the_webhook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "alerts.jsonl"
    whole = {"id": "1", "at": 0.0, "fingerprint": ALERT.fingerprint, "delivery": "sending"}
    facts = {name: getattr(ALERT, name) for name in ("kind", "subject", "summary", "command", "version")}
    lines = [{**whole, **facts, "evidence": {}, "dedupe": "3"}, {**whole, "delivery": "failed"}]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with webhook() as hook:
        monkeypatch.setenv("MLOPS_ALERT_WEBHOOK", hook.url)
        assert len(Alerts(log_file=str(log)).redeliver(clock=lambda: 1.0)) == 1
        assert Alerts(log_file=str(log)).redeliver(clock=lambda: 500.0) == []
        assert hook.kinds() == ["rollout_aborted"]
