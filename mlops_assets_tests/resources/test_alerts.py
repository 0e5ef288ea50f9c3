"""Alerts arrive signed, once, and not never: against a real HTTP server and a real file."""

import hashlib
import hmac
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlops_assets.resources.alerts import Alert, Alerts, _log
from mlops_assets.resources.alerts.webhook import WebhookChannel
from mlops_assets.testing.webhook import Webhook, webhook

ROOT = Path(__file__).resolve().parents[2]
ABORTED = Alert(
    kind="rollout_aborted",
    subject="flights_deployment",
    version="v8",
    summary="9 of 50 requests failed",
    command="mlops status",
    evidence={"errors": 9},
)
NOW = 1_700_000_000.0


def never(seconds: float) -> None:
    raise AssertionError(f"nobody waits here, not even {seconds} s")


def at(seconds: float) -> Callable[[], float]:
    return lambda: NOW + seconds


def lines(alerts: Alerts) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(alerts.log_file).read_text(encoding="utf-8").splitlines()]


def deliveries(alerts: Alerts) -> list[str]:
    return [line["delivery"] for line in lines(alerts)]


@pytest.fixture
def alerts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Alerts:
    for name in ("MLOPS_ALERT_WEBHOOK", "MLOPS_ALERT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    return Alerts(log_file=str(tmp_path / "state" / "alerts.jsonl"))


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with webhook() as found:
        monkeypatch.setenv("MLOPS_ALERT_WEBHOOK", f"{found.url}/services/a-secret-path")
        yield found


def test_without_a_webhook_the_log_has_everything(alerts: Alerts) -> None:
    assert alerts.send(ABORTED, sleep=never, clock=at(0)) == "logged; no webhook is set"
    (line,) = lines(alerts)
    assert line["at"] == NOW and line["delivery"] == "logged"
    assert line["subject"] == "flights_deployment" and line["evidence"] == {"errors": 9}
    assert line["command"] == "mlops status"


def test_slack_gets_a_text_and_machines_get_the_facts(alerts: Alerts, hook: Webhook) -> None:
    assert alerts.send(ABORTED, sleep=never) == "logged and delivered to the webhook"
    headers, body = hook.requests[0]
    told = json.loads(body)
    expected = "[rollout_aborted] flights_deployment v8: 9 of 50 requests failed\nNext: mlops status"
    assert told["text"] == expected
    assert told["alert"]["evidence"] == {"errors": 9}
    assert told["id"] == lines(alerts)[0]["id"]
    assert "X-Mlops-Signature" not in headers
    assert deliveries(alerts) == ["sending", "delivered"]


def test_the_signature_is_the_hmac_of_time_and_body(
    alerts: Alerts, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_ALERT_SECRET", "the key")
    alerts.send(ABORTED, clock=at(0.9))
    headers, body = hook.requests[0]
    assert headers["X-Mlops-Timestamp"] == "1700000000"
    expected = hmac.new(b"the key", b"1700000000." + body, hashlib.sha256).hexdigest()
    assert headers["X-Mlops-Signature"] == f"v1={expected}"


def test_the_check_in_the_documentation_takes_ours_and_refuses_all_else(
    alerts: Alerts, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/alerts.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    shown: dict[str, Any] = {}
    exec(code, shown)  # The very text that people copy.
    is_genuine = shown["is_genuine"]
    monkeypatch.setenv("MLOPS_ALERT_SECRET", "the key")
    alerts.send(ABORTED, clock=at(0))
    headers, body = hook.requests[0]
    assert is_genuine(headers, body, secret="the key", now=NOW + 299)
    assert not is_genuine(headers, body, secret="another key", now=NOW)
    assert not is_genuine(headers, body + b" ", secret="the key", now=NOW)
    assert not is_genuine(headers, body, secret="the key", now=NOW + 301)
    assert not is_genuine({**headers, "X-Mlops-Timestamp": "1700000301"}, body, secret="the key", now=NOW)
    assert not is_genuine({}, body, secret="the key", now=NOW)


def test_every_try_is_signed_anew_and_has_the_same_id(
    alerts: Alerts, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_ALERT_SECRET", "the key")
    hook.statuses = [503, 429]
    ticking, waits = iter(range(100)), []
    said = alerts.send(ABORTED, sleep=waits.append, clock=lambda: NOW + 10 * next(ticking))
    assert said == "logged and delivered to the webhook" and waits == [2.0, 4.0]
    assert len({headers["X-Mlops-Timestamp"] for headers, _ in hook.requests}) == 3
    assert len({headers["X-Mlops-Signature"] for headers, _ in hook.requests}) == 3
    assert len({json.loads(body)["id"] for _, body in hook.requests}) == 1


def test_the_same_news_is_told_once(alerts: Alerts, hook: Webhook) -> None:
    alerts.send(ABORTED, clock=at(0))
    assert alerts.send(ABORTED, clock=at(60)) == "suppressed; told 60 s ago already"
    assert alerts.send(ABORTED, clock=at(6 * 3_600 - 1)).startswith("suppressed")
    assert len(hook.requests) == 1
    assert deliveries(alerts) == ["sending", "delivered", "suppressed", "suppressed"]
    # What was suppressed in between does not put the next telling off.
    assert alerts.send(ABORTED, clock=at(6 * 3_600 + 1)) == "logged and delivered to the webhook"


@pytest.mark.parametrize(
    "other",
    [
        {"kind": "rollout_failed"},
        {"subject": "fraud_deployment"},
        {"version": "v9"},
        {"dedupe": "episode-2"},
    ],
)
def test_what_differs_in_kind_subject_version_or_dedupe_is_other_news(
    alerts: Alerts, other: dict[str, Any]
) -> None:
    facts = {name: getattr(ABORTED, name) for name in ("kind", "subject", "version", "summary", "command")}
    alerts.send(ABORTED, clock=at(0))
    assert alerts.send(Alert(**{**facts, **other}), clock=at(1)) == "logged; no webhook is set"


def test_other_words_about_the_same_are_no_news(alerts: Alerts) -> None:
    alerts.send(ABORTED, clock=at(0))
    again = Alert("rollout_aborted", "flights_deployment", "10 of 60 failed", "x", version="v8")
    assert alerts.send(again, clock=at(1)).startswith("suppressed")


def test_zero_never_suppresses(tmp_path: Path) -> None:
    alerts = Alerts(log_file=str(tmp_path / "alerts.jsonl"), repeat_after_s=0)
    assert [alerts.send(ABORTED, clock=at(0)) for _ in range(3)] == ["logged; no webhook is set"] * 3


def test_several_processes_tell_the_same_news_once(alerts: Alerts) -> None:
    code = (
        "import sys\n"
        "from mlops_assets.resources.alerts import Alert, Alerts\n"
        "alerts = Alerts(log_file=sys.argv[1])\n"
        "for number in range(40):\n"
        "    alerts.send(Alert('log_drops', f'{number}_prediction_log', 'x' * 2_000, 'y'))\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, alerts.log_file], cwd=ROOT, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in started:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said.decode()
    assert deliveries(alerts).count("logged") == 40
    assert deliveries(alerts).count("suppressed") == 80


def test_the_half_line_of_a_process_that_died_is_left_alone(alerts: Alerts) -> None:
    alerts.send(ABORTED, clock=at(0))
    with Path(alerts.log_file).open("a", encoding="utf-8") as stream:
        stream.write('{"id": "ab", "deliv')
    assert alerts.send(ABORTED, clock=at(1)).startswith("suppressed")
    last = Path(alerts.log_file).read_text(encoding="utf-8").splitlines()[-1]
    assert json.loads(last)["delivery"] == "suppressed"


def test_looking_back_is_bounded(alerts: Alerts, monkeypatch: pytest.MonkeyPatch) -> None:
    alerts.send(ABORTED, clock=at(0))
    monkeypatch.setattr(_log, "TAIL_BYTES", 2_000)
    assert alerts.send(ABORTED, clock=at(1)).startswith("suppressed")
    alerts.send(Alert("log_drops", "flights_prediction_log", "x" * 3_000, "y"), clock=at(2))
    assert alerts.send(ABORTED, clock=at(3)) == "logged; no webhook is set"


def test_a_webhook_that_is_away_gets_it_later(alerts: Alerts, hook: Webhook) -> None:
    hook.statuses = [500] * 3
    assert alerts.send(ABORTED, sleep=lambda _: None, clock=at(0)).endswith("did not take it (HTTP 500)")
    # It is going to be told: the same news does not come twice when the webhook is back.
    assert alerts.send(ABORTED, sleep=never, clock=at(30)).startswith("suppressed")
    assert alerts.redeliver(clock=at(60)) == [
        "rollout_aborted flights_deployment: logged and delivered to the webhook"
    ]
    assert alerts.redeliver(clock=at(120)) == []
    assert len(hook.requests) == 4
    assert json.loads(hook.requests[3][1]) == json.loads(hook.requests[0][1])


def test_redelivery_goes_from_the_oldest_and_ends_at_the_first_failure(alerts: Alerts, hook: Webhook) -> None:
    kinds = ["gate_rejected", "log_drops", "episode_opened"]
    hook.statuses = [500]
    said = alerts.send_all([Alert(kind, "flights_model", "s", "c") for kind in kinds], clock=at(0))
    # After the first failure nobody waits for another timeout.
    assert len(hook.requests) == 1
    assert [sentence.rsplit("(")[-1] for sentence in said] == [
        "HTTP 500)",
        "an earlier alert was not taken)",
        "an earlier alert was not taken)",
    ]
    hook.statuses = [200, 503]
    assert [line.split(" ")[0] for line in alerts.redeliver(clock=at(60))] == kinds[:2]
    assert [line.split(" ")[0] for line in alerts.redeliver(clock=at(120))] == kinds[1:]
    assert hook.kinds() == ["gate_rejected", "gate_rejected", "log_drops", "log_drops", "episode_opened"]


def test_an_alert_whose_process_died_over_it_is_delivered_after_a_while(
    alerts: Alerts, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def died(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(WebhookChannel, "deliver", died)
        with pytest.raises(KeyboardInterrupt):
            alerts.send(ABORTED, clock=at(0))
    assert deliveries(alerts) == ["sending"]
    assert alerts.redeliver(clock=at(60)) == []
    assert len(alerts.redeliver(clock=at(121))) == 1
    assert hook.kinds() == ["rollout_aborted"]


def test_old_news_is_not_delivered_any_more(alerts: Alerts, hook: Webhook) -> None:
    hook.statuses = [500] * 10
    alerts.send_all([ABORTED], clock=at(0))
    # Trying again does not make it younger.
    assert len(alerts.redeliver(clock=at(23 * 3_600))) == 1
    assert alerts.redeliver(clock=at(24 * 3_600)) == []


def test_a_refusal_is_not_tried_again_but_the_next_of_its_kind_is_told(alerts: Alerts, hook: Webhook) -> None:
    hook.statuses = [404]
    assert alerts.send(ABORTED, sleep=never, clock=at(0)).endswith("did not take it (HTTP 404)")
    assert alerts.redeliver(clock=at(1)) == []
    assert alerts.send(ABORTED, sleep=never, clock=at(2)) == "logged and delivered to the webhook"


def test_secrets_stay_out_of_log_messages_and_configuration(
    alerts: Alerts, hook: Webhook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLOPS_ALERT_SECRET", "the-signing-key")
    hook.statuses = [500]
    said = alerts.send_all([ABORTED])
    monkeypatch.setenv("MLOPS_ALERT_WEBHOOK", "http://127.0.0.1:1/services/a-secret-path")
    said += alerts.redeliver()
    shown = repr((said, caplog.text, alerts, Path(alerts.log_file).read_text(encoding="utf-8")))
    assert "a-secret-path" not in shown and "the-signing-key" not in shown
    assert "ConnectError" in shown


# -- what must not undo what an alert tells of ---------------------------------------------------------


def test_an_answer_that_nobody_can_read_is_an_answer(alerts: Alerts, hook: Webhook) -> None:
    hook.encoding = "gzip"  # The receiver took it; its body is no gzip.
    assert alerts.send(ABORTED, sleep=never) == "logged and delivered to the webhook"
    assert len(hook.requests) == 1 and deliveries(alerts) == ["sending", "delivered"]


@pytest.mark.parametrize("error", [httpx.TooManyRedirects("a-secret-path"), OSError("a-secret-path")])
def test_every_failure_of_the_client_is_a_failed_delivery(
    alerts: Alerts, hook: Webhook, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(httpx, "stream", fails)
    said = alerts.send(ABORTED, sleep=lambda _: None)
    assert said == f"logged; the webhook did not take it ({type(error).__name__})"
    assert deliveries(alerts) == ["sending", "failed"]


@pytest.fixture
def unwritable(tmp_path: Path) -> Alerts:
    """A log whose folder is a file: refused to root as well."""
    (tmp_path / "taken").write_text("")
    return Alerts(log_file=str(tmp_path / "taken" / "alerts.jsonl"))


def test_a_log_that_cannot_be_written_is_said_and_not_raised(
    unwritable: Alerts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("MLOPS_ALERT_WEBHOOK", raising=False)
    said = unwritable.send(ABORTED, sleep=never)
    assert said.startswith("failed; the log cannot be written (") and said.endswith("no webhook is set")
    assert unwritable.send_all([ABORTED, ABORTED], sleep=never) == [said, said]
    # The process's own log is all that is left.
    assert "9 of 50 requests failed" in caplog.text


def test_without_a_log_the_webhook_is_told_all_the_same(unwritable: Alerts, hook: Webhook) -> None:
    said = unwritable.send(ABORTED, sleep=never)
    assert hook.kinds() == ["rollout_aborted"]
    assert said.startswith("delivered to the webhook; the log cannot be written (")
    hook.statuses = [500] * 3
    said = unwritable.send(ABORTED, sleep=lambda _: None)
    assert said.startswith("failed; the webhook did not take it (HTTP 500); the log cannot be written (")


def test_a_log_that_is_full_after_the_delivery_is_said(
    alerts: Alerts, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, line: dict[str, Any]) -> None:
        if line["delivery"] == "delivered":
            raise OSError(28, "No space left on device")
        write(self, line)

    write = _log.AlertLog.write
    monkeypatch.setattr(_log.AlertLog, "write", full)
    said = alerts.send(ABORTED, sleep=never)
    assert said == "delivered to the webhook; the log cannot be written (No space left on device)"
    assert deliveries(alerts) == ["sending"]


def test_redelivery_without_a_log_is_said_and_not_raised(unwritable: Alerts, hook: Webhook) -> None:
    (said,) = unwritable.redeliver(sleep=never)
    assert said.startswith("failed; the log cannot be written (") and hook.requests == []
