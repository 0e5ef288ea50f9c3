"""The process that brings things from outside into the platform: days of outcomes, a colleague's model.

Belongs here: materialising the partitions of a span of days through plain Dagster, one command after the
other, so that the definitions are loaded once. Does not belong here: when a day arrives (``story.py``), what
is planted (``planted.py``).

Run as ``python -m demo.deliveries MODULE``. Each line on standard input is a command
as JSON, each line on standard output its outcome; everything else goes to standard error.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from mlops_assets.asset_keys import assets_of
from mlops_assets.asset_names import Kind
from mlops_assets.errors import MlopsError, StackError

DELIVERED_KINDS: tuple[Kind, ...] = ("dataset", "features")
"""Kinds of assets whose partitions arrive from outside, or are made at once of what did."""
LAUNCHED_BY = "outcomes arriving"


@dataclass(frozen=True)
class Delivered:
    """One run: the days it brought, and how long it took."""

    run_id: str
    first: date
    last: date
    seconds: float


class Deliveries:
    """The process, as seen from the story. Commands are carried out one after the other."""

    def __init__(self, module: str, environment: Mapping[str, str], folder: Path, log: Path) -> None:
        self._log = log
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "demo.deliveries", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                cwd=folder,
                env=dict(environment),
                start_new_session=True,
                text=True,
            )
        self._queue = ThreadPoolExecutor(max_workers=1, thread_name_prefix="deliveries")
        self._ready = self._queue.submit(self._answer)

    def bring(self, first: date, last: date) -> "Future[Delivered]":
        """Brings the outcomes of the days, both included. The future raises StackError when it failed."""
        return self._queue.submit(self._bring, first, last)

    def plant(self, model: str, breaks_without: list[str]) -> dict[str, Any]:
        """Registers a model that breaks when these features are missing; what was registered."""
        return self._queue.submit(self._ask, do="plant", model=model, without=breaks_without).result()

    def close(self) -> None:
        """Ends the process once its last command is done."""
        self._queue.shutdown(wait=True, cancel_futures=True)
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _bring(self, first: date, last: date) -> Delivered:
        told = self._ask(do="bring", first=first.isoformat(), last=last.isoformat())
        return Delivered(told["run_id"], first, last, told["seconds"])

    def _ask(self, **command: Any) -> dict[str, Any]:
        self._ready.result()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            # It says below why it ended.
            pass
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise StackError(f"the process that brings data ended without a word; log: {self._log}")
        told: dict[str, Any] = json.loads(line)
        if "problem" in told:
            raise StackError(f"{told['problem']}; log: {self._log}")
        return told


def main(arguments: list[str]) -> int:
    """Carries commands out until standard input ends."""
    from mlops_assets.local_stack.materialisation import load

    (module,) = arguments
    # Steps and libraries print as they like; the answers go where nobody else writes.
    with os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1) as sink:
        os.dup2(2, 1)

        def say(**facts: Any) -> None:
            sink.write(json.dumps(facts) + "\n")

        import dagster as dg

        with dg.DagsterInstance.get() as instance:
            definitions = load(module)
            say(kind="ready")
            for line in sys.stdin:
                command = json.loads(line)
                started = time.monotonic()
                try:
                    told = COMMANDS[command.pop("do")](definitions, instance, **command)
                except MlopsError as error:
                    say(problem=str(error))
                # The boundary of this process: whatever went wrong must reach the one who waits.
                except Exception as error:
                    say(problem=f"{type(error).__name__}: {error}")
                    raise
                else:
                    say(**told, seconds=time.monotonic() - started)
    return 0


def bring(definitions: Any, instance: Any, *, first: str, last: str) -> dict[str, Any]:
    """Materialises all partitioned datasets and features from ``first`` to ``last`` in one run."""
    import dagster as dg

    graph = definitions.resolve_asset_graph()
    keys = [
        key
        for kind in DELIVERED_KINDS
        for key in assets_of(graph, kind).values()
        if graph.get(key).partitions_def is not None
    ]
    partitions = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=keys,
        partition_key=first if first == last else None,
        run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
        tags={"mlops/launched_by": LAUNCHED_BY, **({} if first == last else partitions)},
        raise_on_error=False,
    )
    if not result.success:
        failed = [event.step_key for event in result.all_events if event.is_step_failure]
        raise StackError(
            f"the outcomes of {first} to {last} were not taken: {', '.join(map(str, failed))} failed "
            f"in run {result.run_id}"
        )
    assert isinstance(result, dg.ExecuteInProcessResult)
    return {"run_id": result.run_id}


def plant(definitions: Any, instance: Any, *, model: str, without: list[str]) -> dict[str, Any]:
    """Registers the bad model and reports it as a materialisation, as an outside trainer would."""
    from demo.planted import plant_model

    return plant_model(definitions, instance, model, without)


COMMANDS: Mapping[str, Callable[..., dict[str, Any]]] = {"bring": bring, "plant": plant}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
