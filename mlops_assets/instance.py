"""The Dagster instance that ``make up`` runs, from any shell.

Belongs here: finding DAGSTER_HOME. Does not belong here: starting anything (``local_stack/``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from mlops_assets import environment
from mlops_assets.errors import StackError


@contextmanager
def running_instance() -> Iterator[dg.DagsterInstance]:
    """The instance in DAGSTER_HOME, or the one under the state folder. StackError when there is none."""
    home = environment.DAGSTER_HOME.read()
    instance_file = Path(home) / "dagster.yaml"
    if not instance_file.exists():
        raise StackError(f"no Dagster instance at {home}. Start the platform with `make up`.")
    with dg.DagsterInstance.from_config(home) as instance:
        yield instance
