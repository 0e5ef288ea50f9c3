"""What a store of online features is.

Belongs here: the ABC, its errors. Does not belong here: one store (a file beside this one), what the values
mean (``serve/online/held.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

Content = bytes | None
Guarantee = Literal["fence"]
"""A guarantee of the base that a store may hold less of, where it says so."""


class StoreLost(RuntimeError):
    """A store cannot be read or written now; the message names it and says what to do."""


class StoreNotSetUp(RuntimeError):
    """A package or a variable that a store needs is not here; the message says what to install or set."""


class StoreMoved(RuntimeError):
    """Another writer committed since the head was read: nothing of this commit was written."""


class OnlineStore(ABC):
    """Values of bytes by key, of one view: one writer at a time, many readers in many processes.

    Guarantees. ``read`` sees one state: nothing of a commit, or all of it. A commit writes all it was given
    or nothing, and only when the store's head still is the one it was made for; so a doubled or late
    writer is fenced, and rows never move without the head that says how far they go. What was committed
    survives the process.

    In return, whoever commits other values gives another head: readers keep what they read while the head is
    the same.
    """

    name: ClassVar[str]
    """What YAML calls the store."""
    weaker: ClassVar[Mapping[Guarantee, str]] = {}
    """Guarantees that the store cannot hold as they are said here, with what it does instead."""

    waits: ClassVar[bool] = False
    """Whether a read waits for something other than this host's files. It is then made beside the event loop,
    by one thread at a time; whoever sets it says in its charter how long a read takes at most.
    """

    @abstractmethod
    def __init__(self, uri: str, *, view: str) -> None:
        """Opens nothing yet. ``uri`` is where the stores of all views lie; ``view`` tells this one.

        A store of a server finds that by an environment variable of its own. Raises StoreNotSetUp.
        """

    @classmethod  # noqa: B027 - most stores need no package
    def check_installed(cls) -> None:
        """Raises StoreNotSetUp where a package that the store needs is not installed."""

    @abstractmethod
    def read(self, keys: Sequence[str]) -> list[Content]:
        """The values of the keys, None where there is none. Raises StoreLost."""

    @abstractmethod
    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Every key that starts with ``prefix``, with its value, as of one state. Raises StoreLost."""

    @abstractmethod
    def commit(
        self, puts: Mapping[str, Content], *, head: bytes, expected: Content, clear: bool = False
    ) -> None:
        """Writes the values and the head together; a value of None deletes its key.

        ``expected`` is the head that the values were made for, None for a store without one. ``clear``:
        whatever else the store holds goes. Raises StoreMoved when the head is another, and StoreLost.
        """

    @abstractmethod
    def close(self) -> None:
        """Lets go of what is open. Reading or writing opens it again."""
