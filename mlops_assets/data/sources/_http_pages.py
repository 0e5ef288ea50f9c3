"""How an HTTP API hands out its rows page by page: declared, never guessed from an answer. Pure.

Belongs here: which request comes after an answer, and where in an answer things are. Does not belong here:
sending requests (``_http_client.py``).
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mlops_assets.errors import DataError

AnswerPath = Annotated[str, Field(pattern=r"^[^.\s]+(\.[^.\s]+)*$")]
"""Names that lead into objects of an answer, with dots between them."""


@dataclass(frozen=True)
class Page:
    """The answer of ``url`` to a request with ``params``, its rows, and how many there were so far.

    ``shown`` is the address as errors show it.
    """

    url: str
    shown: str
    document: Any
    links: Mapping[str, str]
    params: Mapping[str, str]
    rows: Sequence[Any]
    rows_so_far: int
    total: int | None


@dataclass(frozen=True)
class Next:
    """The request after a page: a link as it stands there, or parameters of the same address."""

    link: str | None = None
    params: Mapping[str, str] | None = None


class Paging(BaseModel):
    """One way of handing out pages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def first(self) -> Mapping[str, str]:
        """Parameters of the first request."""
        return {}

    @abstractmethod
    def after(self, page: Page) -> Next | None:
        """The request after this page; None: it was the last."""


class LinkHeader(Paging):
    """The header ``Link`` with ``rel="next"``; the last page has none."""

    by: Literal["link_header"]

    def after(self, page: Page) -> Next | None:
        return Next(link=page.links["next"]) if page.links.get("next") else None


class _InAnswer(Paging):
    """Something in each answer says what comes next."""

    at: AnswerPath = Field(
        description="Where the answer says it; null, false or an empty text there ends it."
    )
    absent_at_end: bool = Field(
        default=False,
        description="The last page does not have it at all. Otherwise a page without it is an error: a "
        "misspelt name would end after one page.",
    )

    def _said(self, page: Page) -> str | None:
        found, said = look_up(page.document, self.at)
        if not found:
            if self.absent_at_end:
                return None
            raise DataError(
                f"{page.shown} says nothing at {self.at!r}: {here(page.document, self.at)}. If that is how "
                "the last page looks, declare absent_at_end: true."
            )
        if said is None or said is False or said == "":
            return None
        if isinstance(said, bool) or not isinstance(said, str | int):
            raise DataError(f"{page.shown} has {str(said)[:80]!r} at {self.at!r}, which names no page.")
        return str(said)


class NextLink(_InAnswer):
    """The address of the next page stands in the answer."""

    by: Literal["next_link"]

    def after(self, page: Page) -> Next | None:
        said = self._said(page)
        return None if said is None else Next(link=said)


class Cursor(_InAnswer):
    """A value of the answer is a parameter of the next request."""

    by: Literal["cursor"]
    parameter: str = Field(description="Parameter that takes the value.")

    def after(self, page: Page) -> Next | None:
        said = self._said(page)
        return None if said is None else Next(params={**page.params, self.parameter: said})


class _CountingUp(Paging):
    """Pages are counted, and end with an empty one, or with the last of the declared total."""

    parameter: str = Field(description="Parameter that counts.")

    def _ends(self, page: Page) -> bool:
        # A page with fewer rows than were asked for is not the last where the API has a limit of its own.
        return not page.rows or (page.total is not None and page.rows_so_far >= page.total)


class Offset(_CountingUp):
    """A parameter says how many rows to leave out."""

    by: Literal["offset"]

    def first(self) -> Mapping[str, str]:
        return {self.parameter: "0"}

    def after(self, page: Page) -> Next | None:
        counted = {**page.params, self.parameter: str(page.rows_so_far)}
        return None if self._ends(page) else Next(params=counted)


class PageNumber(_CountingUp):
    """A parameter is the number of the page."""

    by: Literal["page_number"]
    start: int = Field(default=1, description="The number of the first page.")

    def first(self) -> Mapping[str, str]:
        return {self.parameter: str(self.start)}

    def after(self, page: Page) -> Next | None:
        counted = {**page.params, self.parameter: str(int(page.params[self.parameter]) + 1)}
        return None if self._ends(page) else Next(params=counted)


Pages = Annotated[LinkHeader | NextLink | Cursor | Offset | PageNumber, Field(discriminator="by")]


def look_up(document: Any, path: str) -> tuple[bool, Any]:
    """Whether there is something at a path, and what; an empty path is the document."""
    for name in path.split(".") if path else []:
        if not isinstance(document, dict) or name not in document:
            return False, None
        document = document[name]
    return True, document


def here(document: Any, path: str) -> str:
    """What there is where a path leads nowhere."""
    for name in path.split(".") if path else []:
        if not isinstance(document, dict):
            return f"{name!r} is looked for in {what(document)}"
        if name not in document:
            return f"the object has {', '.join(map(repr, list(document)[:10])) or 'nothing'}, and no {name!r}"
        document = document[name]
    return f"there is {what(document)}"


def what(value: Any) -> str:
    """A JSON value's type, in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
