"""``mlops``: the commands a person types.

Belongs here: arguments in, a call, text or an exit code out. Does not belong here: any behaviour; that
is in ``local_stack/``, ``commands/`` and the packages they use. Imports stand inside the commands, so
that each costs only what it needs.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mlops_assets.asset_names import asset_name
from mlops_assets.errors import MlopsError

if TYPE_CHECKING:
    from datetime import datetime

    from serve.schema import Task


class _Commands(click.Group):
    """Turns the platform's own errors into one readable sentence and exit code 1."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except MlopsError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands)
def main() -> None:
    """The machine-learning platform on this machine."""


@main.command("up")
@click.option("--detach", is_flag=True, help="Return once the models answer; `mlops down` stops it.")
def up_command(detach: bool) -> None:
    """Start everything, build the graph, deploy; Ctrl-C stops it all.

    A platform that is up already is completed. Exit code 3: up, but a use case failed or is missing.
    """
    from rich.console import Console

    from mlops_assets.local_stack.processes import settings_from_environment
    from mlops_assets.local_stack.up import StopRequested, up, up_detached

    start = up_detached if detach else up
    try:
        sys.exit(start(settings_from_environment(), Console()))
    except StopRequested:
        sys.exit(130)


@main.command("down")
def down_command() -> None:
    """Stop everything that `mlops up` started."""
    from mlops_assets.local_stack.down import down
    from mlops_assets.local_stack.processes import settings_from_environment

    stopped = down(settings_from_environment().layout, click.echo)
    click.echo("Stopped; no process left." if stopped else "Nothing was running.")


@main.command("new")
@click.argument("name")
@click.option("--csv", "csv_file", type=click.Path(), help="The rows, with a header line.")
@click.option("--parquet", "parquet_file", type=click.Path(), help="The rows, as Parquet.")
@click.option("--label", help="Column to predict; left out: asked for.")
@click.option(
    "--task",
    type=click.Choice(["binary", "multiclass", "regression"]),
    help="Left out: what fits the label's values.",
)
def new_command(
    name: str, csv_file: str | None, parquet_file: str | None, label: str | None, task: "Task | None"
) -> None:
    """Write the use case NAME from one file of rows: a folder that works as it stands, and why it is so."""
    from datetime import UTC, datetime
    from pathlib import Path

    from mlops_assets import environment
    from mlops_assets.commands import new
    from mlops_assets.data.inference import format_of

    given = [one for one in (csv_file, parquet_file) if one is not None]
    if len(given) != 1:
        raise click.UsageError("Give one file of rows: --csv FILE or --parquet FILE.")
    file = Path(given[0])

    def ask(columns: Sequence[str], likely: str) -> str:
        if not sys.stdin.isatty():
            return new.require_label(columns, likely)
        choice = click.Choice(columns)
        return str(click.prompt("Which column is to be predicted?", type=choice, default=likely))

    source = "parquet" if parquet_file else format_of(file)
    asked = new.NewUseCase(name, file, source, label or ask, task)
    made = new.new_use_case(asked, today=datetime.now(UTC).date(), defs=new.DEFS)
    for line in new.lines(made, environment.serve_url()):
        click.echo(line)


@main.command("status")
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def status_command(model: str | None, as_json: bool) -> None:
    """Per model what answers, what is stale and why; documents that are missing; orphaned deployments.

    Given a MODEL: of that one alone.
    """
    import json
    from dataclasses import replace

    from mlops_assets.commands.status import StatusSources, exporter_state, print_status, status_of
    from mlops_assets.defs.platform.resources import clock, model_registry, serve_client
    from mlops_assets.instance import running_instance
    from mlops_assets.local_stack.processes import settings_from_environment

    with running_instance() as instance:
        sources = StatusSources(_definitions(), instance, serve_client(), model_registry())
        status = status_of(sources, clock().now(), model=model)
    if model is None:
        status = replace(status, metrics=exporter_state(settings_from_environment().metrics_url))
    if as_json:
        click.echo(json.dumps(status.to_dict(), indent=2, default=str))
    else:
        print_status(status)


@main.command("approve")
@click.argument("model")
@click.option("--by", "approver", required=True, help="Who decides.")
@click.option("--reason", required=True, help="Why, in a sentence.")
@click.option("--reject", is_flag=True, help="Reject instead of approve.")
def approve_command(model: str, approver: str, reason: str, reject: bool) -> None:
    """Approve (or reject) the current version of MODEL; the deployment follows by itself."""
    from mlops_assets.commands.decisions import decide_approval
    from mlops_assets.instance import running_instance

    with running_instance() as instance:
        run_id = decide_approval(
            _definitions(),
            instance,
            model,
            approver=approver,
            reason=reason,
            decision="reject" if reject else "approve",
        )
    done, follows = ("approved", "The deployment follows by itself")
    if reject:
        done, follows = ("rejected", "It is not deployed, and its rollout is aborted if one is under way")
    click.echo(f"{asset_name('approval', model)} {done} by {approver}: {reason} (run {run_id}). {follows}.")


def _person(command: Any) -> Any:
    """The options of every decision: who, and why."""
    command = click.option("--reason", required=True, help="Why, in a sentence.")(command)
    return click.option("--by", required=True, help="Who decides.")(command)


@main.command("rollout")
@click.argument("deployment")
@_person
def rollout_command(deployment: str, by: str, reason: str) -> None:
    """Roll the approved version out from the first step, also one that was aborted before."""
    _act(deployment, action="start", by=by, reason=reason)


@main.command("promote")
@click.argument("deployment")
@_person
def promote_command(deployment: str, by: str, reason: str) -> None:
    """Give the version being rolled out all traffic now, without waiting for evidence."""
    _act(deployment, action="promote", by=by, reason=reason)


@main.command("abort")
@click.argument("deployment")
@_person
def abort_command(deployment: str, by: str, reason: str) -> None:
    """Give the version being rolled out up; stable answers everything."""
    _act(deployment, action="abort", by=by, reason=reason)


@main.command("set-weight")
@click.argument("deployment")
@click.argument("percent", type=float)
@click.option("--version", "to", default="", help="Which version; left out: the one being rolled out.")
@_person
def set_weight_command(deployment: str, percent: float, to: str, by: str, reason: str) -> None:
    """Give a version PERCENT of the traffic and hold it there until a person goes on."""
    _act(deployment, action="set_weight", by=by, reason=reason, to=to, weight=percent)


@main.command("rollback")
@click.argument("deployment")
@click.option("--to", default="", help="Version like v7; left out: the one that answered before.")
@_person
def rollback_command(deployment: str, to: str, by: str, reason: str) -> None:
    """Put traffic, alias and records back to an earlier version, together; it stays there."""
    _act(deployment, action="rollback", by=by, reason=reason, to=to)


@main.command("retire")
@click.argument("deployment")
@_person
def retire_command(deployment: str, by: str, reason: str) -> None:
    """Take DEPLOYMENT, which no document declares any more, out of service."""
    from mlops_assets.commands.decisions import retire
    from mlops_assets.defs.platform.resources import serve_client
    from mlops_assets.instance import running_instance

    client = serve_client()
    with running_instance() as instance:
        applications = client.target.declared() or client.target.saved()
        run_id = retire(_definitions(), instance, deployment, applications=applications, by=by, reason=reason)
    click.echo(
        f"{asset_name('deployment', deployment)} is retired by {by}; its data and models stay (run {run_id})."
    )


def _act(deployment: str, **act: Any) -> None:
    from mlops_assets.commands.decisions import decide_rollout
    from mlops_assets.instance import running_instance

    with running_instance() as instance:
        record = decide_rollout(_definitions(), instance, deployment, **act)
    if record.metadata["phase"] == "error":
        raise click.ClickException(
            f"{asset_name('deployment', deployment)}: {record.metadata['reason']}. "
            f"{record.metadata['stable']} answers everything (run {record.run_id})."
        )
    weights = ", ".join(f"{version} {share:g} %" for version, share in record.metadata["weights"].items())
    click.echo(
        f"{asset_name('deployment', deployment)} is at revision {record.metadata['revision']}: {weights}. "
        f"{record.metadata['verified']} (run {record.run_id})."
    )


@main.command("close-episode")
@click.argument("model")
@_person
def close_episode_command(model: str, by: str, reason: str) -> None:
    """Close MODEL's open drift episode: nothing is retrained for it any more."""
    from mlops_assets.commands.decisions import close_episode
    from mlops_assets.defs.platform.resources import clock
    from mlops_assets.instance import running_instance

    with running_instance() as instance:
        episode = close_episode(_definitions(), instance, model, by=by, reason=reason, now=clock().now())
    click.echo(f"Episode {episode} of {model} is closed by {by}: {reason}.")


@main.command("retrain")
@click.argument("model")
@click.option("--override", is_flag=True, help="Go on beyond the governor's limits; it is recorded.")
@_person
def retrain_command(model: str, by: str, reason: str, override: bool) -> None:
    """Ask MODEL's governor for one retrain, from the training set to the deployment."""
    from mlops_assets.commands.decisions import ask_for_retrain
    from mlops_assets.instance import running_instance

    with running_instance() as instance:
        granted = ask_for_retrain(_definitions(), instance, model, by=by, reason=reason, override=override)
    click.echo(f"{granted}. The sensor drift_{model} launches it.")


@main.command("explain")
@click.argument("asked", metavar="ID")
@click.option("--deployment", default=None, help="Where to look; left out: everywhere.")
@click.option("--since", type=click.DateTime(), default=None, help="Search from this time (UTC) on.")
@click.option("--until", type=click.DateTime(), default=None, help="Search up to this time (UTC).")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def explain_command(
    asked: str,
    deployment: str | None,
    since: "datetime | None",
    until: "datetime | None",
    as_json: bool,
) -> None:
    """From one answer back: version and weights then, model, training data, runs, approval.

    ID is an answer id or a request id. Of several answers with a request id the newest is explained and the
    others are listed with their answer ids: 20 at most, of the 7 days up to it (--until: up to another time).
    """
    import json
    from datetime import UTC

    from mlops_assets import environment
    from mlops_assets.commands.explain import explain, print_explanation
    from mlops_assets.defs.platform.resources import inference_log, model_registry
    from mlops_assets.instance import running_instance

    with running_instance() as instance:
        found = explain(
            asked,
            deployment=deployment,
            instance=instance,
            registry=model_registry(),
            log=inference_log(),
            definitions=_definitions(),
            since=since.replace(tzinfo=UTC) if since else None,
            until=until.replace(tzinfo=UTC) if until else None,
            dagster_url=f"http://127.0.0.1:{environment.DAGSTER_PORT.read()}",
        )
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2, default=str))
    else:
        print_explanation(found)


@main.command("backtest")
@click.argument("model")
@click.option("--from", "since", default="", help="First day, like 2013-04-01.")
@click.option("--until", default="", help="The day after the last; left out: as far as outcomes are known.")
@click.option(
    "--regime",
    "names",
    multiple=True,
    help="never, monthly, four_weekly, weekly, weekly_ungated, calendar, drift; repeat it; left out: never, "
    "monthly, weekly, drift, and calendar where there is a schedule.",
)
@click.option(
    "--trade", is_flag=True, help="Drift at 0.2, 0.5, 1 and 2 false alarms a year: what each costs and finds."
)
@click.option("--policy", default="", help='JSON over the policy, like {"prediction": {"windows": 1}}.')
@click.option("--monitor", default="", help='JSON over the drift monitor\'s document, like {"window": "3d"}.')
@click.option("--schedule", default="", help='Cron of regime calendar, like "0 3 1 * *"; left out: declared.')
@click.option("--trainer", default="", help="Candidate to train, or all; left out: the last winner.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def backtest_command(
    model: str,
    since: str,
    until: str,
    names: tuple[str, ...],
    trade: bool,
    policy: str,
    monitor: str,
    schedule: str,
    trainer: str,
    as_json: bool,
) -> None:
    """Replay MODEL's own history: what retraining never, by calendar or on drift would have been worth."""
    import json

    from mlops_assets.commands.backtesting import (
        overrides,
        print_backtest,
        regimes_asked_for,
        run_backtest,
    )
    from mlops_assets.instance import running_instance

    config: dict[str, Any] = {
        "since": since,
        "until": until,
        "trainer": trainer,
        "monitor": overrides(policy, monitor, schedule),
        "regimes": regimes_asked_for(names, trade=trade),
    }
    with running_instance() as instance:
        found, run_id = run_backtest(_definitions(), instance, model, config)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
    else:
        print_backtest(found, run_id)


@main.command("stream")
@click.argument("name")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Serve metrics of the stream on loopback, at this port (0: an unused one).",
)
def stream_command(name: str, metrics_port: int | None) -> None:
    """Read the topic of the stream NAME until Ctrl-C or SIGTERM, with a commit every few seconds.

    For streams that say `read_by: consumer`. After each commit the stores of the views that follow the stream
    are filled. Killed or ended, it goes on where its table ends.
    """
    from contextlib import ExitStack

    from mlops_assets.commands.following import Followers, followers_of
    from mlops_assets.commands.stopping import stopped_by_signals
    from mlops_assets.commands.streaming import consume, stream_of
    from mlops_assets.components.declared_streams import project
    from mlops_assets.defs.platform.resources import clock, lake, online_stores
    from mlops_assets.instance import running_instance
    from mlops_assets.metrics import exporting
    from mlops_assets.metrics.streams import StreamCollector

    with ExitStack() as stack:
        stop = stack.enter_context(stopped_by_signals())
        instance = stack.enter_context(running_instance())
        tree = project()
        source, views = stream_of(tree, name), followers_of(tree, name, click.echo)
        followers = Followers(name, views, online_stores(), clock(), click.echo)
        if metrics_port is not None:
            collector = StreamCollector(lambda: [source], lake)
            click.echo(f"Metrics: {stack.enter_context(exporting([collector], metrics_port))}")
        consume(source, lake(), instance, stop, click.echo, followers)


@main.command("exporter")
@click.option("--port", type=click.IntRange(1, 65535), help="Left out: MLOPS_METRICS_PORT.")
def exporter_command(port: int | None) -> None:
    """Serve metrics for Prometheus on loopback until Ctrl-C or SIGTERM; `mlops up` starts one.

    Nothing is read or asked while nobody scrapes.
    """
    import logging

    from mlops_assets.commands.stopping import stopped_by_signals
    from mlops_assets.local_stack.processes import settings_from_environment
    from mlops_assets.metrics import COLLECTORS, exporting

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    collectors = [one.of_platform() for one in COLLECTORS.members()]
    number = port if port is not None else settings_from_environment().metrics_port
    with stopped_by_signals() as stop, exporting(collectors, number) as address:
        click.echo(f"Metrics: {address}")
        stop.wait()


def _definitions() -> Any:
    import logging
    import warnings

    import dagster as dg

    from mlops_assets.components import use_cases
    from mlops_assets.definitions import defs

    # `status` shows what is missing; elsewhere it would stand between a person and the answer.
    logging.getLogger(use_cases.__name__).setLevel(logging.ERROR)
    # That parts of Dagster are young is known, and its version is pinned: nobody at the prompt can act on it.
    for category in (dg.BetaWarning, dg.PreviewWarning, dg.SupersessionWarning):
        warnings.simplefilter("ignore", category)
    return defs()


if __name__ == "__main__":
    main()
