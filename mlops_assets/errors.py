"""Every error the platform raises on purpose: facts in, sentence out.

Belongs here: exception classes that keep the facts as attributes and build one sentence that says
what is wrong, which thing, what is allowed, and the next step. Does not belong here: HTTP codes
(``serve/errors.py``) and Dagster's ``Failure`` (components turn these errors into it).
"""

from collections.abc import Iterable


class MlopsError(Exception):
    """Base of all errors raised on purpose. Catch it at a boundary, never inside the platform."""


class UnknownName(MlopsError, LookupError):
    """A name does not exist among the allowed ones."""

    def __init__(self, what: str, name: str, allowed: Iterable[str], *, next_step: str = "") -> None:
        self.what, self.name, self.allowed = what, name, sorted(allowed)
        known = ", ".join(self.allowed) or "none"
        sentence = f"Unknown {what} {name!r}. Allowed: {known}."
        super().__init__(f"{sentence} {next_step}".rstrip())


class DeclarationError(MlopsError, ValueError):
    """A YAML declaration is wrong; the message starts with ``file:line`` when it is known."""

    def __init__(self, problem: str, *, where: str = "") -> None:
        self.problem, self.where = problem, where
        super().__init__(f"{where}: {problem}" if where else problem)


class DataError(MlopsError, ValueError):
    """Source data cannot be used as it is: unreadable file, missing columns, no rows."""


class SourceUnavailable(DataError):
    """The place where source data is does not answer or lets nobody in: no partition of it can be read."""


class LostOffsets(DataError):
    """A topic has removed records before they were read. They are gone, and only a person can go on."""

    def __init__(self, topic: str, partition: int, first: int, before: int) -> None:
        self.topic, self.partition, self.first, self.before = topic, partition, first, before
        super().__init__(
            f"Topic {topic!r}, partition {partition}: the records with offsets {first} to {before - 1} "
            f"({before - first} of them) were removed before they were read. Nothing was written. To go on "
            "without them, say so in the stream's document: accepted_losses: "
            f"[{{partition: {partition}, first: {first}, before: {before}, by: NAME, reason: TEXT}}]. A "
            "longer retention of the topic, or reading it more often, keeps this from happening again."
        )


class AnotherWasFirst(DataError):
    """Another run or consumer committed the same records first: nothing of this one was written."""


class RegistryError(MlopsError):
    """The model registry lacks what was asked for, or holds something inconsistent."""


class ApprovalError(MlopsError):
    """A deployment has no valid approval: pending, rejected, or void because something changed."""


class EpisodeError(MlopsError, ValueError):
    """An episode of drift cannot take this step: none is open, one is open already, no retrain is running."""


class DeploymentError(MlopsError):
    """A Ray Serve application did not reach the declared state within its deadline."""


class ClusterUnreachable(DeploymentError):
    """Ray's dashboard or the endpoint does not answer: says nothing about the version being deployed."""


class RayRefused(ClusterUnreachable):
    """Ray's dashboard answered with an error: nothing was declared, and it says nothing about a version."""


class StackError(MlopsError):
    """The local platform cannot start or stop: a taken port, a process that died."""
