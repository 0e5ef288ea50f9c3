"""Model versions behind Ray Serve handles.

Belongs here: handle calls, and Ray's exceptions in the words of ``serve/versions.py``. Does not belong
here: what to do about a failure (``serve/traffic.py``).
"""

import asyncio
from collections.abc import Sequence
from typing import Any, NoReturn

from ray import serve
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from serve.validation import Row
from serve.versions import Scores, Version, VersionGone, VersionLost, VersionOverloaded, Versions

MODEL_DEPLOYMENT = "Model"


class RayVersions(Versions):
    """Finds version applications on the cluster this replica runs on."""

    async def connect(self, application: str) -> Version:
        try:
            # Asks the controller and blocks meanwhile.
            handle = await asyncio.to_thread(
                serve.get_deployment_handle, MODEL_DEPLOYMENT, app_name=application
            )
        except KeyError as error:
            raise VersionGone("there is no such application") from error
        return RayVersion(handle)


class RayVersion(Version):
    """One version application. Its handle works again when the application was deleted and re-created."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._info = handle.info
        self._score_rows = handle.score_rows  # An attribute of a handle is built anew at every access.

    async def info(self, *, timeout_s: float) -> dict[str, Any]:
        return await _result(self._info.remote(), timeout_s)

    async def score_rows(self, rows: Sequence[Row], *, timeout_s: float) -> Scores:
        return await _result(self._score_rows.remote(rows), timeout_s)


async def _result(response: "DeploymentResponse[Any]", timeout_s: float) -> Any:
    # A handle to an application that is still starting waits for ever.
    try:
        async with asyncio.timeout(timeout_s):
            return await response
    except TimeoutError:
        response.cancel()
        raise
    except (RayError, BackPressureError, DeploymentUnavailableError) as error:
        _translate(error)


def _translate(error: Exception) -> NoReturn:
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, BackPressureError):
        raise VersionOverloaded(str(cause), retry_after_s=cause.retry_after_s) from error
    if isinstance(cause, DeploymentUnavailableError):
        raise VersionGone("Ray has no replica of it") from error
    if isinstance(cause, ActorDiedError | ActorUnavailableError):
        raise VersionLost("its replica died") from error
    raise error
