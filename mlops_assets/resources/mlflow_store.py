"""One MLflow store, reached by clients that are told its address: nothing of it is global in the process.

Belongs here: making the store, clients of it, and putting back what a library that knows MLflow's fluent
functions only has changed. Does not belong here: what is logged (``experiment_tracking.py``) or registered
(``model_registry.py``).

MLflow's fluent functions keep address, experiment, run and model in the process and in its environment: what
one model's step leaves there is what the next one finds.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets import environment

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"

_alone = threading.RLock()


def client(uri: str) -> "MlflowClient":
    """A client of the tracking store and registry at ``uri``, whatever else the process is told."""
    silence_mlflow()
    _make(uri)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def silence_mlflow() -> None:
    """Keeps MLflow from phoning home. Must run before the first import of mlflow."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"


def is_making(uri: str) -> bool:
    """Whether a process makes the tables of a SQLite store right now."""
    return _making(uri).exists()


def _making(uri: str) -> Path:
    return Path(uri.removeprefix(SQLITE)).with_suffix(".making")


def _make(uri: str) -> None:
    """Makes a SQLite store with its tables: two processes that make them at once collide."""
    if not uri.startswith(SQLITE):
        return
    path = Path(uri.removeprefix(SQLITE))
    if path.exists() and not is_making(uri):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    making = _making(uri)
    with making.open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        from mlflow import MlflowClient

        fresh = MlflowClient(tracking_uri=uri, registry_uri=uri)
        fresh.search_experiments(max_results=1)
        fresh.search_registered_models(max_results=1)
        making.unlink(missing_ok=True)


@contextmanager
def fluent_state() -> Iterator[None]:
    """MLflow's process-wide state, empty and for the caller alone; afterwards it is what it was.

    One thread at a time. A run that is active at the end is left as it is, RUNNING: end it by its id.
    """
    silence_mlflow()
    from mlflow.tracking import fluent
    from mlflow.tracking._model_registry import utils as registry
    from mlflow.tracking._tracking_service import utils as tracking

    # MLflow has no functions that forget; its version is pinned, and a test holds these names to it.
    places = ((tracking, "_tracking_uri"), (registry, "_registry_uri"), (fluent, "_active_experiment_id"))
    with _alone, environment.restored(without="MLFLOW_"):
        before = [getattr(module, name) for module, name in places]
        runs: list[Any] = fluent._active_run_stack.get()  # type: ignore[no-untyped-call]
        last = fluent._last_active_run_id.get()  # type: ignore[no-untyped-call]
        active = list(runs)
        silence_mlflow()
        for module, name in places:
            setattr(module, name, None)
        runs.clear()
        try:
            yield
        finally:
            for (module, name), value in zip(places, before, strict=True):
                setattr(module, name, value)
            runs[:] = active
            fluent._last_active_run_id.set(last)  # type: ignore[no-untyped-call]
