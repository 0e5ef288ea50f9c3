"""What a database's refusal means: one sentence per kind of refusal, and no secret in it.

Belongs here: telling refusals apart, by SQLSTATE where the driver gives it, else by its
words. Does not belong here: talking to the database (``sql.py``).

The driver's error is not chained: its text may hold what stands in the address of the database.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from mlops_assets.errors import DataError, SourceUnavailable
from mlops_assets.secrets import without


@dataclass(frozen=True)
class Refusal:
    """A kind of refusal: how it is known, and what is said of it."""

    states: tuple[str, ...]
    """Beginnings of SQLSTATE."""
    words: str
    """Expression for what drivers without a code say."""
    said: str
    unavailable: bool
    """Whether the source does not answer or lets nobody in."""


OF_STATEMENTS = (
    Refusal(
        ("42501",), r"permission denied|access denied|not authorized",
        "permission denied: the user may not read this. Grant SELECT to it", True,
    ),
    Refusal(
        ("42P01", "3F000", "42S02"), r"no such table|table .* doesn't exist",
        "there is no such table", False,
    ),
    Refusal(
        ("42703", "42S22"), r"no such column|unknown column",
        "a column is not there: declared columns, day_column and changed_at must be", False,
    ),
    Refusal(
        ("57014",), r"^interrupted$|maximum statement execution time",
        "the statement took longer than timeout_s", True,
    ),
    Refusal(
        ("57P", "08"), r"connection .*(closed|lost|terminated|reset)",
        "the connection was lost midway", True,
    ),
    Refusal(
        ("25006",), r"attempt to write a readonly database",
        "the statement writes; a source is only read", False,
    ),
    Refusal(("42",), r"syntax error|incomplete input|misuse of", "the statement is not understood", False),
    Refusal((), r"database is locked|unable to open database file", "the database cannot be opened", True),
)  # fmt: skip
OF_CONNECTIONS = (
    Refusal(
        ("28",),
        r"authentication failed|access denied|no password supplied|role .* does not exist|pg_hba\.conf",
        "it does not let this user in: wrong user or password, or not from this host", True,
    ),
    Refusal(("3D000",), r"database .* does not exist|unknown database", "there is no such database", True),
    Refusal((), r"unable to open database file", "the database cannot be opened", True),
    Refusal(
        ("08",),
        r"refused|resolve|unreachable|timed? ?out|timeout|no route|not known|is the server running",
        "the server cannot be reached. Start it, or mend the address", True,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Refusals:
    """Turns errors of a source into DataErrors; ``secrets`` are taken out of whatever is said."""

    where: str
    variable: str
    secrets: Collection[str]

    def connecting(self, error: Exception) -> DataError:
        """What went wrong before there was a connection."""
        if isinstance(error, ModuleNotFoundError):
            return self._no_driver(error.name or str(error))
        return self._told(error, OF_CONNECTIONS, "it cannot be connected to", unavailable=True)

    def stating(self, error: Exception) -> DataError:
        """What went wrong with a statement or its rows."""
        if isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated:
            return self._said("the connection was lost midway", error, unavailable=True)
        unknown = isinstance(error, sa.exc.DBAPIError) and isinstance(
            error, sa.exc.OperationalError | sa.exc.InterfaceError
        )
        return self._told(error, OF_STATEMENTS, "it cannot be read", unavailable=unknown)

    def _told(
        self, error: Exception, known: Collection[Refusal], other: str, *, unavailable: bool
    ) -> DataError:
        state = str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")
        words = self._words(error)
        for one in known:
            by_code = state.startswith(one.states) if state else False
            if by_code or (not state and re.search(one.words, words, re.IGNORECASE)):
                return self._said(one.said, error, unavailable=one.unavailable)
        return self._said(other, error, unavailable=unavailable)

    def _said(self, what: str, error: Exception, *, unavailable: bool) -> DataError:
        kind = SourceUnavailable if unavailable else DataError
        return kind(f"{self.where}: {what}. {type(error).__name__}: {self._words(error)}")

    def _no_driver(self, module: str) -> DataError:
        extra = (
            " It comes with the extra sql: pip install 'mlops-assets[sql]'." if module == "psycopg" else ""
        )
        return SourceUnavailable(
            f"{self.where}: the driver {module!r}, which the address in {self.variable} asks for, is not "
            f"installed.{extra or f' Install the package that brings {module}.'}"
        )

    def _words(self, error: Exception) -> str:
        """The driver's own words, in one line."""
        own = getattr(error, "orig", None) or error
        return without(self.secrets, " ".join(str(own).split()))
