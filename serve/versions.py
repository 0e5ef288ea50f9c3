"""What the gateway knows of a model version: how to ask it, how asking fails, what it takes.

Belongs here: the interface that ``serve/ray_versions.py`` implements with Serve handles, its errors,
and the contract of a version that has answered. Does not belong here: choosing between versions
(``serve/traffic.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from serve.answers import Answer, answerer
from serve.online.lookup import OnlineFeatures
from serve.schema import ModelManifest
from serve.scoring import Scorer
from serve.validation import Row, RowValidator

Scores = list[Any]
"""One entry per row: a float, or for multiclass one float per class."""


class VersionError(Exception):
    """Base of the ways in which a version does not answer. A model that raises is not among them."""


class VersionLost(VersionError):
    """The replica died during the call; another one may answer at once."""


class VersionGone(VersionError):
    """The application does not exist, or Ray has given up on it."""


class VersionOverloaded(VersionError):
    """The version's queue is full."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s or 1.0


class Version(ABC):
    """One running model version."""

    @abstractmethod
    async def info(self, *, timeout_s: float) -> dict[str, Any]:
        """``{"version", "digest", "manifest", ...}``. Raises VersionError or TimeoutError."""

    @abstractmethod
    async def score_rows(self, rows: Sequence[Row], *, timeout_s: float) -> Scores:
        """Scores of valid rows. Raises VersionError, TimeoutError, or what the model raised."""


class Versions(ABC):
    """Finds running versions."""

    @abstractmethod
    async def connect(self, application: str) -> Version:
        """The version behind an application name. Raises VersionGone when there is none."""


@dataclass
class LiveVersion:
    """A version that has answered ``info``: the only kind that gets traffic."""

    version: str
    application: str
    backend: Version
    shadow_backend: Version
    """The same version by a queue of its own: mirrored requests never stand in front of live ones."""
    info: Mapping[str, Any]
    manifest: ModelManifest
    online: OnlineFeatures | None = None
    """How its features are looked up; None: callers send them."""
    local: Scorer | None = None
    """The same model in this process (``serve/embedding.py``)."""

    @property
    def digest(self) -> str:
        return str(self.info["digest"])

    @cached_property
    def answer(self) -> Callable[[Any], Answer]:
        """From a score to the answer of the HTTP contract."""
        return answerer(self.manifest)

    @cached_property
    def validator(self) -> RowValidator:
        return RowValidator(self.manifest.features, self.manifest.entity)
