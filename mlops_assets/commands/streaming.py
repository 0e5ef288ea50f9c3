"""``mlops stream``: a process that reads a topic for as long as it runs, and commits every few seconds.

Belongs here: when it commits, when it tells Dagster, how it ends. Does not belong here: reading and
committing (``assets/ingest.py``), what is told (``assets/stream.py``), stores of the views that follow
(``following.py``).

It keeps nothing of its own: killed at any moment and started again, it goes on where the table ends. What it
cannot mend ends it with the reason, for whoever supervises it to start it again.
"""

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.assets.ingest import DeclaredStream, Ingested, ingesting
from mlops_assets.assets.stream import decodable, stream_metadata
from mlops_assets.commands.following import Followers
from mlops_assets.components.declared_streams import declared_stream
from mlops_assets.errors import DeclarationError
from mlops_assets.event_log.records import DATA_VERSION_TAG
from mlops_assets.resources.lake import Lake

REPORT_S = 30.0
"""How often Dagster is told, and the broker asked for new partitions. An event a commit would fill the event
log of a busy day with tens of thousands."""
Tell = Callable[[str], None]


def stream_of(tree: "dg.ComponentTree", name: str) -> DeclaredStream:
    """The declared stream of that name; DeclarationError for one that runs read."""
    source, where = declared_stream(tree, name)
    if source.declared.read_by != "consumer":
        raise DeclarationError(
            f"stream {name!r} is read by runs, which would get in each other's way with a consumer: say "
            "read_by: consumer in its document",
            where=where,
        )
    return source


def consume(
    source: DeclaredStream,
    lake: Lake,
    instance: dg.DagsterInstance,
    stop: threading.Event,
    tell: Tell,
    followers: Followers | None = None,
) -> None:
    """Reads the topic until ``stop`` is set; then what was read is committed and told, and it returns.

    The stores of ``followers`` are filled after each commit, and when there was nothing to commit too: they
    hold all there is, then as before.
    """
    declared = source.declared
    every_s = declared.interval.total_seconds()
    waiting: list[Ingested] = []
    clock = followers.clock.seconds if followers else time.time
    with ingesting(lake, source, f"consumer-{uuid.uuid4()}", clock) as ingest:
        tell(f"Reading topic {declared.topic} into {declared.table}; a commit every {every_s:g} s.")
        told = time.monotonic()
        try:
            while not stop.is_set():
                due = min(time.monotonic() + every_s, told + REPORT_S)
                found = ingest.commit_next(lambda *_: stop.is_set() or time.monotonic() >= due)  # noqa: B023
                if found.records:
                    waiting.append(found)
                    lag = sum(found.lag.values())
                    tell(f"{found.records} records, Delta version {found.version}, lag {lag}")
                if followers:
                    followers.fill(lake, found.complete)
                if time.monotonic() >= told + REPORT_S:
                    _report(source, instance, waiting, followers)
                    told = time.monotonic()
                    if ingest.partitions_changed():
                        ingest.assign()
        finally:
            # What is committed is told, whatever ends this.
            _report(source, instance, waiting, followers)
    tell("Ended; all that was read is committed.")


def _report(
    source: DeclaredStream,
    instance: dg.DagsterInstance,
    waiting: list[Ingested],
    followers: Followers | None,
) -> None:
    """One materialisation, with its check, of all commits since the last one, and those of stores; none
    without records.
    """
    if waiting:
        _report_stream(source, instance, waiting)
    if followers:
        followers.report(instance)


def _report_stream(source: DeclaredStream, instance: dg.DagsterInstance, waiting: list[Ingested]) -> None:
    found = together(waiting)
    key = asset_key("stream", source.declared.name)
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            key, metadata=stream_metadata(found), tags={DATA_VERSION_TAG: found.data_version}
        )
    )
    check = decodable(source.declared, found)
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=key,
            check_name=str(check.check_name),
            passed=check.passed,
            severity=check.severity,
            description=check.description,
            metadata=check.metadata,
        )
    )
    waiting.clear()


def together(commits: Sequence[Ingested]) -> Ingested:
    """Several commits as one: how far the last of them is, with the records of all."""
    return replace(
        commits[-1],
        records=sum(one.records for one in commits),
        seconds=sum(one.seconds for one in commits),
        days=sorted(set(chain.from_iterable(one.days for one in commits))),
        reasons=list(chain.from_iterable(one.reasons for one in commits)),
        # A column is missing when no commit has seen it.
        unseen=[name for name in commits[-1].unseen if all(name in one.unseen for one in commits)],
        newest=max((one.newest for one in commits if one.newest), default=None),
    )
