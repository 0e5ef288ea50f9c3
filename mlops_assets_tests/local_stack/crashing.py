"""A code location in which building one use case kills the process, as a crash in a library would."""

import os
import signal

import dagster as dg

from mlops_assets.asset_keys import asset_key, name_tags


def _deployment(name: str) -> dg.AssetsDefinition:
    @dg.asset(key=asset_key("deployment", name), tags=name_tags("deployment", name), group_name=name)
    def made() -> None:
        if name == "birches":
            os.kill(os.getpid(), signal.SIGKILL)

    return made


def defs() -> dg.Definitions:
    """Three use cases; the middle one is deadly."""
    return dg.Definitions(
        assets=[_deployment(name) for name in ("apples", "birches", "cherries")],
        executor=dg.in_process_executor,
    )
