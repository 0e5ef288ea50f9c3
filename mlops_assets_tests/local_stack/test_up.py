"""Bringing the platform up: one use case that fails is said, and everything else is up."""

import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from mlops_assets import cli, environment
from mlops_assets.errors import StackError
from mlops_assets.local_stack import record, up
from mlops_assets.local_stack.display import Display
from mlops_assets.local_stack.endpoint import Sample
from mlops_assets.local_stack.lacking import AGAIN, INCOMPLETE, Lack
from mlops_assets.local_stack.processes import StackSettings, settings_from_environment
from mlops_assets.local_stack.up import Built
from mlops_assets.testing.webhook import Webhook, webhook
from mlops_assets_tests.local_stack.test_materialisation import dashboard

__all__ = ["dashboard"]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StackSettings:
    monkeypatch.setenv("MLOPS_STATE_DIR", str(tmp_path / "state"))
    made = settings_from_environment()
    made.layout.prepare(dagster_yaml=environment.PROJECT_ROOT / "dagster.yaml")
    return made


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=500)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_use_case_that_kills_the_process_is_left_out_and_the_rest_is_built(
    settings: StackSettings, console: Console, dashboard: str
) -> None:
    deadly = replace(
        settings,
        definitions_module="mlops_assets_tests.local_stack.crashing",
        ray_dashboard_url=dashboard,
    )
    with Display(console) as display:
        graph = up._GraphBuilder(deadly, display)
        graph.start()
        end = time.monotonic() + 240
        while graph.deployed is None and time.monotonic() < end:
            graph.poll()
            time.sleep(0.1)

    built = graph.built()
    assert built.deployed == ["apples", "cherries"]
    (lack,) = built.lacks
    assert lack.use_case == "birches" and "was killed by signal 9" in lack.reason
    with pytest.raises(StackError, match="birches"):
        built.require_all()


class Running:
    """A platform whose parts are not started: only what is said of it counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, built: Built) -> None:
        self.answering = set(built.deployed)

        class NoProcesses:
            def __init__(self, *_: Any) -> None: ...

            def require_ports(self) -> None: ...

            def check(self) -> None:
                raise up.StopRequested("told to stop")

            def stop(self, report: Any) -> None: ...

        def sample(_: str, name: str) -> Sample:
            if name not in self.answering:
                raise StackError(f"{name} answers nothing")
            return Sample(f"http://there/{name}/predict", {"features": {}}, {"prediction": 1})

        monkeypatch.setattr(up, "Supervisor", NoProcesses)
        monkeypatch.setattr(up, "bring_up", lambda *_: built)
        monkeypatch.setattr(up.endpoint, "sample", sample)


@pytest.fixture
def failed() -> Built:
    return Built(["tea"], [Lack("spoiled", "spoiled: no rows", AGAIN)], [])


def test_in_the_foreground_it_keeps_running_and_its_exit_code_says_that_something_is_not_up(
    settings: StackSettings, console: Console, monkeypatch: pytest.MonkeyPatch, failed: Built
) -> None:
    Running(monkeypatch, failed)
    assert up.up(settings, console) == INCOMPLETE
    told = said(console)
    assert "http://there/tea/predict" in told and "NOT UP: spoiled. Everything else is." in told
    assert "Up, but for what is said above." in told and told.endswith("Stopped; no process left.\n")


def test_when_everything_is_up_the_exit_code_is_zero(
    settings: StackSettings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    Running(monkeypatch, Built(["tea"], [], []))
    assert up.up(settings, console) == 0
    assert "\nUp.\n" in said(console) and "NOT UP" not in said(console)


def test_a_deployment_that_does_not_answer_its_own_example_is_not_up(
    settings: StackSettings, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    Running(monkeypatch, Built(["coffee", "tea"], [], [])).answering.discard("coffee")
    assert up.up(settings, console) == INCOMPLETE
    assert "coffee answers nothing" in said(console) and "http://there/tea/predict" in said(console)


@pytest.fixture
def owned(settings: StackSettings) -> Iterator[record.Owner]:
    """This process owns the platform, which lacks a use case."""
    lacks = [Lack("spoiled", "no rows", AGAIN)]
    with record.held(settings.layout):
        record.write(settings.layout, "ready", ["tea"], lacks)
        found = record.owner(settings.layout)
        assert found is not None and found.lacks == tuple(lacks)
        yield found


def test_completing_a_running_platform_changes_what_is_known_of_it_and_not_whose_it_is(
    settings: StackSettings, owned: record.Owner
) -> None:
    record.update(settings.layout, owned, ["spoiled", "tea"], [])
    found = record.owner(settings.layout)
    assert found is not None and found.identity == owned.identity
    assert (found.deployments, found.lacks, found.phase) == (("spoiled", "tea"), (), "ready")


class Builder:
    """Builds nothing; says how often Dagster was asked to read the documents before it began to build."""

    asked_before: int | None = None
    hook: Webhook
    deployed: list[str] | None = None

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def start(self) -> None: ...

    def poll(self) -> None:
        Builder.asked_before = len(Builder.hook.requests)
        self.deployed = ["tea"]

    def built(self) -> Built:
        return Built(["tea"], [], [])


@pytest.mark.parametrize(
    ("status", "answer", "told"),
    [
        (200, '{"data": {"reloadWorkspace": {"__typename": "Workspace"}}}', ""),
        (200, '{"data": {"reloadWorkspace": {"__typename": "PythonError"}}}', "PythonError"),
        (500, "no", "HTTP Error 500"),
    ],
)
def test_new_documents_are_read_before_they_are_built_and_who_does_not_is_told(
    settings: StackSettings, owned: record.Owner, console: Console, monkeypatch: pytest.MonkeyPatch,
    status: int, answer: str, told: str,
) -> None:  # fmt: skip
    Running(monkeypatch, Built(["tea"], [], []))
    monkeypatch.setattr(up, "_GraphBuilder", Builder)
    monkeypatch.setattr(up, "_wait_for_answers", lambda *_: None)
    with webhook() as hook:
        hook.statuses, hook.answer, Builder.hook = [status], answer, hook
        at = replace(settings, dagster_port=int(hook.url.rpartition(":")[2]))
        assert up.complete(at, owned, console) == 0
    assert Builder.asked_before == 1 and b"reloadWorkspace" in hook.requests[0][1]
    assert ("has not read the documents anew" in said(console)) == bool(told)
    assert told in said(console)


@pytest.mark.parametrize("code", [0, INCOMPLETE])
@pytest.mark.parametrize("options", [[], ["--detach"]])
def test_the_command_ends_with_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, options: list[str], code: int
) -> None:
    monkeypatch.setattr(up, "up_detached" if options else "up", lambda *_: code)
    assert CliRunner().invoke(cli.main, ["up", *options]).exit_code == code


@pytest.mark.parametrize(
    ("done", "current", "says"),
    [
        (0, "", "0/8 starting"),
        (2, "", "2/8 between steps"),
        (8, "", "8/8 finishing"),
        (2, "tea_model", "2/8 tea_model"),
    ],
)
def test_progress_says_what_the_run_does(
    settings: StackSettings, console: Console, done: int, current: str, says: str
) -> None:
    with Display(console) as display:
        graph = up._GraphBuilder(settings, display)
        display.begin(up.GRAPH)
        graph._show({"kind": "steps", "done": done, "total": 8, "current": current})
    assert says in said(console)
