"""HTTP APIs that answer with JSON.

Belongs here: what YAML may say about them, the requests for asked days, and rows from answers. Does not
belong here: sending and retrying (``_http_client.py``), what comes after a page (``_http_pages.py``).
"""

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mlops_assets.data.conversion import EXACT, ColumnType
from mlops_assets.data.locations import PARTITION
from mlops_assets.data.sources._base import Asked, LakeAccess, SourceDeclaration, SourceReader
from mlops_assets.data.sources._http_client import Answer, HttpClient, HttpClock
from mlops_assets.data.sources._http_pages import AnswerPath, Next, Page, Pages, here, look_up, what
from mlops_assets.data.sources._object_values import ColumnValues
from mlops_assets.data.sources._spans import ONE_DAY, spans
from mlops_assets.data.widening import rows_alone
from mlops_assets.errors import DataError, SourceUnavailable
from mlops_assets.secrets import VariableName, secret

if TYPE_CHECKING:
    import pyarrow as pa

RANGE = ("{first}", "{last}", "{after}")
"""First day of a range, its last one, and the one after that."""


class HttpAuth(BaseModel):
    """A secret in a header of every request."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    variable: VariableName = Field(description="Name of the environment variable that holds the secret.")
    header: str = Field(default="Authorization", description="Header that carries it.")
    scheme: str | None = Field(
        default=None, description="Word before it; left out: Bearer in Authorization, nothing elsewhere."
    )

    def headers(self, value: str) -> dict[str, str]:
        """The header with the secret."""
        scheme = self.scheme
        if scheme is None:
            scheme = "Bearer" if self.header.lower() == "authorization" else ""
        return {self.header: f"{scheme} {value}".strip()}


class HttpSource(SourceDeclaration):
    """Rows of a JSON API."""

    model_config = ConfigDict(hide_input_in_errors=True)

    name: ClassVar[str] = "http"

    url: str = Field(
        description="Where the rows are. {partition} in it or in the query asks day by day; {first}, {last} "
        "and {after} (the day after the last) ask for a range at once."
    )
    query: dict[str, str | int] = Field(default_factory=dict, description="Parameters of the request.")
    headers: dict[str, str] = Field(default_factory=dict, description="Headers that are no secret.")
    auth: HttpAuth | None = Field(default=None, description="The secret that lets in.")
    rows: AnswerPath | None = Field(
        default=None,
        description="Where in an answer the list of rows is, like data.items; left out: the answer.",
    )
    pages: Pages | None = Field(default=None, description="How pages follow; left out: one answer.")
    total: AnswerPath | None = Field(
        default=None, description="Where an answer says how many rows there are; it is held against them."
    )
    per_second: float | None = Field(default=None, gt=0, description="Requests a second, at most.")
    timeout_s: float = Field(
        default=600.0, gt=0, description="Seconds for all pages of a day, or of a range."
    )
    max_pages: int = Field(default=10_000, ge=1, description="Pages of a day, or of a range, at most.")
    max_answer_mb: float = Field(default=64.0, gt=0, description="Size of one answer, unpacked.")
    allow_plain_http: bool = Field(
        default=False, description="Ask without TLS although it is another machine."
    )

    @field_validator("headers")
    @classmethod
    def _no_secret(cls, headers: dict[str, str]) -> dict[str, str]:
        for name in headers:
            if name.lower() in ("authorization", "proxy-authorization", "cookie"):
                raise ValueError(f"{name} carries a secret: write auth, with the name of a variable")
        return headers

    @model_validator(mode="after")
    def _address(self) -> "HttpSource":
        found = re.fullmatch(r"(https?)://(\[[^\]]+\]|[^/?#:@\[\]{}\s]+)(:\d+)?(/[^?#\s]*)?", self.url)
        if found is None:
            raise ValueError(
                "url is like https://host/path: the host in full, no user, no fragment, parameters in query"
            )
        if found[1] == "http" and not self.allow_plain_http and not _is_loopback(found[2].strip("[]")):
            raise ValueError(
                "without TLS everybody on the way reads the rows and the secret: write https://, or "
                "allow_plain_http: true"
            )
        unknown = set(re.findall(r"\{[^}]*\}", self._template())) - {PARTITION, *RANGE}
        if unknown:
            raise ValueError(
                f"{sorted(unknown)[0]} stands for nothing; there are {PARTITION}, {', '.join(RANGE)}"
            )
        if self.by_day and self.by_range:
            raise ValueError(
                f"{PARTITION} asks day by day, {', '.join(RANGE)} for a range: write one of them"
            )
        return self

    def _template(self) -> str:
        return "\n".join([self.url, *map(str, self.query.values())])

    @property
    def by_day(self) -> bool:
        """Whether each day is asked for by itself."""
        return PARTITION in self._template()

    @property
    def by_range(self) -> bool:
        """Whether neighbouring days are asked for together."""
        return any(one in self._template() for one in RANGE)

    def reader(self, folder: Path) -> "HttpReader":
        return HttpReader(self)

    def problem(
        self, columns: Mapping[str, ColumnType], *, transformed: bool, partitioned: bool
    ) -> str | None:
        if (self.by_day or self.by_range) and not partitioned:
            return f"{PARTITION}, {', '.join(RANGE)} in url or query need partitions"
        return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class HttpReader(SourceReader):
    """All pages of each asked day, or of each range of neighbouring days."""

    declared: HttpSource
    clock: HttpClock = field(default_factory=HttpClock)
    client: HttpClient | None = None
    """While it is opened."""

    @property
    def where(self) -> str:
        return self.declared.url

    @property
    def apart(self) -> bool:
        return self.declared.by_day

    @contextmanager
    def opened(self, asked: Asked, lake: LakeAccess) -> Iterator[SourceReader]:
        declared = self.declared
        headers, held = dict(declared.headers), None
        if declared.auth is not None:
            value = secret(declared.auth.variable)
            self._require_secret(declared.auth.variable, value)
            held = (declared.auth.variable, value)
            headers |= declared.auth.headers(value)
        client = HttpClient(_filled(declared.url, {}), headers, held, declared, self.clock)
        try:
            yield replace(self, client=client)
        finally:
            client.close()

    def _require_secret(self, variable: str, value: str) -> None:
        if not value:
            raise SourceUnavailable(
                f"{self.where} takes a secret, and the environment variable {variable} is not set. Set it "
                "where the platform runs."
            )
        if not (value.isascii() and value.isprintable()) or value != value.strip():
            raise SourceUnavailable(
                f"The environment variable {variable} holds characters that no header can carry, perhaps a "
                "line end or a blank at its end."
            )

    def read(self, asked: Asked, lake: LakeAccess) -> "pa.Table":
        if self.client is None:
            with self.opened(asked, lake) as reader:
                return reader.read(asked, lake)
        found = _Rows()
        for known in self._series(asked.partitions):
            self.client.begin()
            self._read_series(self.client, known, found)
        return found.table(asked)

    def _series(self, partitions: Sequence[str] | None) -> list[dict[str, str]]:
        """What stands for the days, once for each series of requests."""
        if self.declared.by_day:
            return [{PARTITION: key} for key in partitions or ()]
        if not self.declared.by_range:
            return [{}]
        return [
            {
                "{first}": span.first.isoformat(),
                "{last}": (span.after - ONE_DAY).isoformat(),
                "{after}": span.after.isoformat(),
            }
            for span in spans(partitions or ())
        ]

    def _read_series(self, client: HttpClient, known: Mapping[str, str], found: "_Rows") -> None:
        declared = self.declared
        url = _filled(declared.url, known)
        params = {name: _filled(str(value), known) for name, value in declared.query.items()}
        params |= declared.pages.first() if declared.pages else {}
        asked: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
        page: Page | None = None
        while True:
            asked.add((url, tuple(sorted(params.items()))))
            page = self._page(client, client.get(url, params), params, page)
            found.add(page.rows)
            after = self._after(page)
            if after is None:
                break
            if after.link is not None:
                url, params = client.linked(page.url, after.link), {}
            else:
                params = dict(after.params or {})
            if (url, tuple(sorted(params.items()))) in asked:
                raise DataError(f"{page.shown} names a next page that was read already: it would never end.")
            if len(asked) >= declared.max_pages:
                raise DataError(
                    f"{page.shown} is page {len(asked)}, and there are more. Ask for larger pages or fewer "
                    "days, or raise max_pages."
                )
        if page.total is not None and page.total != page.rows_so_far:
            raise DataError(
                f"{page.shown} says at {declared.total!r} that there are {page.total} rows, and its pages "
                f"had {page.rows_so_far}. Rows came or went meanwhile, or pages do not follow as declared."
            )

    def _page(
        self, client: HttpClient, answer: Answer, params: Mapping[str, str], before: Page | None
    ) -> Page:
        declared, shown = self.declared, client.hidden(answer.url)
        there, rows = look_up(answer.document, declared.rows or "")
        if not there or not isinstance(rows, list):
            place = f"at {declared.rows!r}" if declared.rows else "in the answer itself"
            raise DataError(
                f"The rows of {shown} are no list {place}: {here(answer.document, declared.rows or '')}."
            )
        for position, row in enumerate(rows):
            if not isinstance(row, dict):
                raise DataError(f"Row {position} of {shown} is {what(row)}, not an object with columns.")
        if before is not None and rows and rows == before.rows:
            raise DataError(
                f"{shown} has the rows of the page before it once more: the API does not know the parameter "
                "that pages are declared by."
            )
        total = None
        if declared.total is not None:
            there, total = look_up(answer.document, declared.total)
            if not there or type(total) is not int:
                raise DataError(
                    f"{shown} says no whole number at {declared.total!r}: "
                    f"{here(answer.document, declared.total)}."
                )
        so_far = (before.rows_so_far if before else 0) + len(rows)
        return Page(answer.url, shown, answer.document, answer.links, params, rows, so_far, total)

    def _after(self, page: Page) -> Next | None:
        if self.declared.pages is not None:
            return self.declared.pages.after(page)
        if page.links.get("next"):
            raise DataError(
                f"{page.shown} has a next page (in its header Link), and no pages are declared: write "
                "pages: {by: link_header}."
            )
        return None


def _filled(text: str, known: Mapping[str, str]) -> str:
    for name, value in known.items():
        text = text.replace(name, value)
    return text


class _Rows:
    """Rows page by page, column by column."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {}
        self._count = 0

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The next rows; a column that some do not have has no value there."""
        for name in dict.fromkeys(name for row in rows for name in row):
            self._columns.setdefault(name, [None] * self._count)
        for name, values in self._columns.items():
            values.extend(_plain(row.get(name)) for row in rows)
        self._count += len(rows)

    def table(self, asked: Asked) -> "pa.Table":
        """The wanted columns; no rows have every declared one, which JSON cannot say."""
        import pyarrow as pa

        if not self._count:
            return pa.table({name: pa.nulls(0) for name in asked.columns})
        wanted = [name for name in self._columns if asked.infer or name in asked.columns]
        made = {name: _column(name, self._columns[name]) for name in wanted}
        return pa.table(made) if made else rows_alone(self._count)


def _plain(value: Any) -> Any:
    """Objects and lists as their JSON text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _column(name: str, values: list[Any]) -> "pa.ChunkedArray[Any]":
    """Values with their types; whole numbers beside others are floats where a float holds them."""
    if {int, float} <= set(map(type, values)) <= {int, float, type(None)} and all(
        abs(value) <= EXACT for value in values if type(value) is int
    ):
        values = [None if value is None else float(value) for value in values]
    column = ColumnValues(name)
    column.add(values)
    return column.whole()
