"""An API is read whole, page by page, or not at all; and its secret goes to the declared place alone."""

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from pydantic import ValidationError

from mlops_assets.data.loading import Loaded, Source, load
from mlops_assets.data.sources import Asked
from mlops_assets.data.sources._http_client import HttpClock
from mlops_assets.data.sources.http import HttpReader, HttpSource
from mlops_assets.errors import DataError, SourceUnavailable
from mlops_assets.resources.lake import Lake
from mlops_assets.testing.conformance.pushed_down import ROWS, AskedDaysConformance, Row, RowStore

LAKE = Lake(uri="unused")
COLUMNS = {"id": "integer", "name": "string"}
SECRET = "s3cr3t-value"
DAYS = ["2024-01-01", "2024-01-02", "2024-01-03"]


class Reply:
    """What the server answers: a document as JSON, or bytes as they are."""

    def __init__(self, body: Any = None, status: int = 200, cut: int = 0, **headers: str) -> None:
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status, self.cut, self.headers = status, cut, headers


class Api:
    """A server on loopback that answers as ``answer(path, parameters)`` says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[str, dict[str, str]], Any] = lambda path, query: []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                api.asked.append((parts.path, dict(parse_qsl(parts.query))))
                api.headers.append({name.lower(): value for name, value in self.headers.items()})
                reply = api.answer(*api.asked[-1])
                reply = reply if isinstance(reply, Reply) else Reply(reply)
                self.send_response(reply.status)
                self.send_header("content-length", str(len(reply.body) + reply.cut))
                for name, value in {"content-type": "application/json", **reply.headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class StoppedClock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 1_700_000_000.0, []

    def clock(self) -> HttpClock:
        return HttpClock(lambda: self.now, lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 3))
        self.now += seconds


@pytest.fixture
def api(monkeypatch) -> Iterator[Api]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = Api()
    yield server
    server.close()


@pytest.fixture
def other() -> Iterator[Api]:
    server = Api()
    yield server
    server.close()


@pytest.fixture
def time_() -> StoppedClock:
    return StoppedClock()


@pytest.fixture
def reader(api, time_, monkeypatch) -> Callable[..., HttpReader]:
    monkeypatch.setenv("SHOP_TOKEN", SECRET)

    def made(path: str = "/rows", **declared: Any) -> HttpReader:
        source = HttpSource(format="http", url=api.url + path, **declared)
        return HttpReader(source, time_.clock())

    return made


def rows_of(reader: HttpReader, columns=COLUMNS, **asked: Any) -> list[dict[str, Any]]:
    return reader.read(Asked(columns, **asked), LAKE).to_pylist()


def loaded(reader: HttpReader, partitions=DAYS, columns=COLUMNS, transform=None) -> Loaded:
    types = {**columns, "day": "string"}
    return load(Source(reader, transform), types, partition_column="day", partitions=partitions, lake=LAKE)


def items(*numbers: int) -> list[dict[str, Any]]:
    return [{"id": number, "name": f"n{number}"} for number in numbers]


def test_rows_are_where_they_are_declared_and_the_secret_goes_along(api, reader):
    api.answer = lambda path, query: {"data": {"items": items(1, 2)}}
    read = reader(rows="data.items", query={"limit": 5, "kind": "a b&c"}, auth={"variable": "SHOP_TOKEN"})
    assert rows_of(read) == items(1, 2)
    assert api.asked == [("/rows", {"limit": "5", "kind": "a b&c"})]
    assert api.headers[0]["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"header": "X-Api-Key"}, "x-api-key", SECRET),
        ({"scheme": "Token"}, "authorization", f"Token {SECRET}"),
        ({"scheme": ""}, "authorization", SECRET),
    ],
)
def test_the_secret_goes_into_the_declared_header(api, reader, auth, header, value):
    rows_of(reader(auth={"variable": "SHOP_TOKEN", **auth}, headers={"X-Version": "2"}))
    assert api.headers[0][header] == value
    assert api.headers[0]["x-version"] == "2"


class ApiStore(RowStore):
    """An API that gives the rows of the days it is asked for, two a page."""

    secret = SECRET

    def __init__(self, api: Api, clock: HttpClock) -> None:
        self.rows: list[dict[str, Any]] = []
        self._api, self._clock = api, clock
        api.answer = self._answer

    def _answer(self, path: str, query: dict[str, str]) -> Any:
        if path == "/values":
            return self.rows
        found = [row for row in self.rows if query["from"] <= row["day"] < query["to"]]
        return {"rows": found[int(query["skip"]) :][:2], "count": len(found)}

    def declared(self, **fields: Any) -> HttpSource:
        return HttpSource(
            format="http",
            url=f"{self._api.url}/sales",
            query={"from": "{first}", "to": "{after}"},
            auth={"variable": "SHOP_TOKEN"},
            rows="rows",
            pages={"by": "offset", "parameter": "skip"},
            total="count",
            **fields,
        )

    def reader(self, **fields: Any) -> HttpReader:
        return HttpReader(self.declared(**fields), self._clock)

    def put(self, rows: Sequence[Row]) -> None:
        self.rows += [dict(zip(ROWS, row, strict=True)) for row in rows]

    def remove(self, *ids: int) -> None:
        self.rows = [row for row in self.rows if row["id"] not in ids]

    def rename(self, id_: int, name: str) -> None:
        self.rows = [{**row, "name": name} if row["id"] == id_ else row for row in self.rows]

    def hold(self, kind: str, values: Sequence[Any]) -> HttpSource:
        told = [value.isoformat() if hasattr(value, "isoformat") else value for value in values]
        self.rows = [{kind: value} for value in told]
        return HttpSource(format="http", url=f"{self._api.url}/values")

    def end(self) -> None:
        self._api.close()


class TestHttp(AskedDaysConformance):
    @pytest.fixture
    def store(self, api, time_, monkeypatch):
        monkeypatch.setenv("SHOP_TOKEN", SECRET)
        return ApiStore(api, time_.clock())


# -- pages ---------------------------------------------------------------------------------------------

ALL = items(1, 2, 3, 4, 5)


def by_link_header(api: Api, path: str, query: dict[str, str]) -> Any:
    at = int(query.get("at", 0))
    more = {"link": f'<{path}?at={at + 2}>; rel="next", </>; rel="first"'} if at < 4 else {}
    return Reply(ALL[at : at + 2], **more)


def by_next_link(api: Api, path: str, query: dict[str, str]) -> Any:
    at = int(query.get("at", 0))
    return {"rows": ALL[at : at + 2], "links": {"next": f"{api.url}{path}?at={at + 2}" if at < 4 else None}}


def by_cursor(api: Api, path: str, query: dict[str, str]) -> Any:
    at = int(query.get("after", "c0")[1:])
    return {"rows": ALL[at : at + 2], "next": f"c{at + 2}" if at < 4 else ""}


def by_offset(api: Api, path: str, query: dict[str, str]) -> Any:
    at = int(query["skip"])
    return {"rows": ALL[at : at + 2], "n": len(ALL)}


def by_page(api: Api, path: str, query: dict[str, str]) -> Any:
    at = (int(query["page"]) - 1) * 2
    return {"rows": ALL[at : at + 2], "n": len(ALL)}


WAYS = [
    (by_link_header, {"by": "link_header"}, None),
    (by_next_link, {"by": "next_link", "at": "links.next"}, "rows"),
    (by_cursor, {"by": "cursor", "parameter": "after", "at": "next"}, "rows"),
    (by_offset, {"by": "offset", "parameter": "skip"}, "rows"),
    (by_page, {"by": "page_number", "parameter": "page"}, "rows"),
]


@pytest.mark.parametrize(("answer", "pages", "rows"), WAYS)
def test_all_pages_are_read(api, reader, answer, pages, rows):
    api.answer = lambda path, query: answer(api, path, query)
    assert rows_of(reader(pages=pages, rows=rows)) == ALL
    # Counted pages end with an empty one: an API may give fewer rows than it is asked for.
    assert len(api.asked) == (4 if pages["by"] in ("offset", "page_number") else 3)


@pytest.mark.parametrize(("answer", "pages", "rows"), WAYS[3:])
def test_a_declared_total_ends_counted_pages_and_is_held_against_the_rows(api, reader, answer, pages, rows):
    api.answer = lambda path, query: answer(api, path, query)
    read = reader(pages=pages, rows=rows, total="n")
    assert rows_of(read) == ALL and len(api.asked) == 3
    api.answer = lambda path, query: {**answer(api, path, query), "n": 9}
    with pytest.raises(DataError, match=r"says at 'n' that there are 9 rows, and its pages had 5"):
        rows_of(read)
    api.answer = lambda path, query: {"rows": [], "n": "5"}
    with pytest.raises(DataError, match="says no whole number at 'n': there is a text"):
        rows_of(read)


@pytest.mark.parametrize(("answer", "pages", "rows"), WAYS)
def test_pages_that_never_end_are_given_up_at_once(api, reader, answer, pages, rows):
    first: dict[str, Any] = {}

    def stuck(path: str, query: dict[str, str]) -> Any:
        return first.setdefault("page", answer(api, path, query))

    api.answer = stuck
    with pytest.raises(
        DataError, match=r"was read already: it would never end|of the page before it once more"
    ):
        rows_of(reader(pages=pages, rows=rows))
    assert len(api.asked) <= 2


def test_more_pages_than_declared_are_an_error(api, reader):
    api.answer = lambda path, query: by_cursor(api, path, query)
    with pytest.raises(DataError, match=r"is page 2, and there are more.* max_pages"):
        rows_of(reader(pages=WAYS[2][1], rows="rows", max_pages=2))


def test_a_misspelt_cursor_is_no_end(api, reader):
    api.answer = lambda path, query: by_cursor(api, path, query)
    pages = {"by": "cursor", "parameter": "after", "at": "nxet"}
    with pytest.raises(
        DataError, match=r"says nothing at 'nxet': the object has 'rows', 'next', and no 'nxet'"
    ):
        rows_of(reader(pages=pages, rows="rows"))
    api.answer = lambda path, query: {"rows": items(1)}
    assert rows_of(reader(pages={**pages, "absent_at_end": True}, rows="rows")) == items(1)


def test_a_next_page_that_is_not_declared_is_no_end(api, reader):
    api.answer = lambda path, query: by_link_header(api, path, query)
    with pytest.raises(DataError, match=r"has a next page .* no pages are declared"):
        rows_of(reader())


# -- days ----------------------------------------------------------------------------------------------


def test_each_day_is_asked_for_by_itself_and_its_fault_is_its_own(api, reader):
    def answer(path: str, query: dict[str, str]) -> Any:
        return Reply({"why": "no such day"}, 404) if path.endswith("02") else items(int(path[-1]))

    api.answer = answer
    found = loaded(reader("/days/{partition}"))
    assert found.frame["id"].tolist() == [1, 3] and found.frame["day"].tolist() == [DAYS[0], DAYS[2]]
    (finding,) = found.findings
    assert finding.partition == DAYS[1]
    assert "/days/2024-01-02 is not there: 404 Not Found" in finding.observed


def test_neighbouring_days_are_one_series(api, reader):
    api.answer = lambda path, query: [{**items(1)[0], "day": query["from"]}]
    read = reader(query={"from": "{first}", "to": "{after}", "until": "{last}"})
    found = loaded(read, [*DAYS, "2024-01-09"])
    assert [query for _, query in api.asked] == [
        {"from": "2024-01-01", "to": "2024-01-04", "until": "2024-01-03"},
        {"from": "2024-01-09", "to": "2024-01-10", "until": "2024-01-09"},
    ]
    assert found.frame["day"].tolist() == ["2024-01-01", "2024-01-09"]


@pytest.mark.parametrize("query", [{"day": "{partition}"}, {"from": "{first}"}, {}])
def test_no_rows_are_no_fault_of_the_columns(api, reader, query):
    api.answer = lambda path, query: []
    found = loaded(reader(query=query))
    assert found.findings == [] and list(found.frame.columns) == ["id", "name", "day"]


# -- values --------------------------------------------------------------------------------------------


def test_values_keep_their_types(api, reader):
    api.answer = lambda path, query: Reply(
        b'\xef\xbb\xbf[{"id": 9007199254740993, "x": 1, "on": true, "deep": {"a": [1.50, "\xc3\xbc"]}},'
        b' {"id": -1, "x": 2.5, "list": [], "text": "007"}, {"id": null, "x": null}]'
    )
    table = reader().read(Asked({}, infer=True), LAKE)
    assert table.to_pydict() == {
        "id": [9007199254740993, -1, None],
        "x": [1.0, 2.5, None],
        "on": [True, None, None],
        "deep": ['{"a": [1.5, "ü"]}', None, None],
        "list": [None, "[]", None],
        "text": [None, "007", None],
    }
    assert {name: str(table.schema.field(name).type) for name in ("id", "x", "on")} == {
        "id": "int64",
        "x": "double",
        "on": "bool",
    }


def test_values_of_several_types_in_a_column_are_found_where_they_do_not_fit(api, reader):
    def answer(path: str, query: dict[str, str]) -> Any:
        values: list[Any] = [1, "x", 2**70]
        return [{"id": value, "day": day} for value, day in zip(values, DAYS, strict=True)]

    api.answer = answer
    found = loaded(reader(), columns={"id": "integer"})
    assert found.frame["id"].tolist()[:1] == [1]
    assert [(one.partition, one.observed) for one in found.findings] == [
        (DAYS[1], "1 values that do not fit, e.g. 'x'"),
        (DAYS[2], f"1 values that do not fit, e.g. {2**70}"),
    ]


def test_a_column_that_no_row_has_is_missing(api, reader):
    api.answer = lambda path, query: [{"id": 1}]
    (finding,) = loaded(reader(query={"day": "{partition}"}), DAYS[:1]).findings
    assert "missing" in finding.observed and "name" in finding.observed


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'[{"id": NaN}]', "NaN is no number of JSON"),
        (b'[{"id": 1e999}]', "1e999 is beyond what a 64-bit float holds"),
        (b'[{"id": 1, "id": 2}]', "'id' comes twice in one object"),
        (b'[{"id": 1}, {"id"', "is not whole JSON"),
        (b"<html>maintenance", r"begins with '<html>maintenance'"),
        (b"\xff\xfe", "is not whole JSON"),
        (b"[" * 200_000, "is not whole JSON"),
        (b'{"rows": []}', "The rows of .* are no list in the answer itself: there is an object"),
        (b'[{"id": 1}, 5]', "Row 1 of .* is a number, not an object with columns"),
        (b"[null]", "Row 0 of .* is null"),
    ],
)
def test_what_is_no_table_of_rows_is_an_error_that_says_why(api, reader, body, said):
    api.answer = lambda path, query: Reply(body)
    with pytest.raises(DataError, match=said) as caught:
        rows_of(reader())
    assert f"{api.url}/rows" in str(caught.value) and not isinstance(caught.value, SourceUnavailable)


def test_rows_that_are_not_where_declared_are_an_error_that_says_what_is(api, reader):
    api.answer = lambda path, query: {"data": {"rows": []}}
    with pytest.raises(DataError, match=r"no list at 'data.items': the object has 'rows', and no 'items'"):
        rows_of(reader(rows="data.items"))


# -- faults --------------------------------------------------------------------------------------------


def failing(*replies: Reply) -> Callable[[str, dict[str, str]], Any]:
    left = list(replies)
    return lambda path, query: left.pop(0) if left else items(1)


@pytest.mark.parametrize(
    ("fault", "slept"),
    [
        (Reply(b"", 503), 0.5),
        (Reply(b"", 500), 0.5),
        (Reply(b"", 429), 0.5),
        (Reply(b"", 429, retry_after="7"), 7.0),
        (Reply(b"", 503, retry_after="7"), 7.0),
        (Reply(b"", 429, retry_after="0"), 0.5),
        (Reply(b"", 429, retry_after="soon"), 0.5),
        (Reply(b"", 429, retry_after=formatdate(1_700_000_012, usegmt=True)), 12.0),
        (Reply(b"", 429, retry_after=formatdate(1_600_000_000, usegmt=True)), 0.5),
        (Reply(b"[]", cut=9), 0.5),
    ],
)
def test_a_fault_that_passes_is_waited_out(api, reader, time_, fault, slept):
    api.answer = failing(fault)
    assert rows_of(reader()) == items(1)
    assert time_.slept == [slept] and len(api.asked) == 2


def test_faults_that_stay_end_after_five_tries_with_longer_waits(api, reader, time_):
    api.answer = lambda path, query: Reply(b"out of order", 503)
    with pytest.raises(
        SourceUnavailable, match=r"/rows failed, 5 times .*503 Service Unavailable, 'out of order'"
    ):
        rows_of(reader())
    assert time_.slept == [0.5, 1.0, 2.0, 4.0]
    api.answer = lambda path, query: Reply(b"[]", cut=9)
    with pytest.raises(SourceUnavailable, match=r"The answer of .* breaks off"):
        rows_of(reader())


def test_who_is_told_to_wait_waits_until_the_deadline_and_no_longer(api, reader, time_):
    api.answer = lambda path, query: Reply(b"", 429, retry_after="20")
    with pytest.raises(
        SourceUnavailable, match=r"too many requests after 100 s: 429 .*Retry-After: 20.*per_second"
    ):
        rows_of(reader(timeout_s=100))
    assert time_.slept == [20.0] * 5
    api.answer = lambda path, query: Reply(b"", 429, retry_after="9999")
    with pytest.raises(SourceUnavailable, match="Retry-After: 9999"):
        rows_of(reader(timeout_s=100))
    assert len(time_.slept) == 5


def test_the_rate_is_kept_over_all_days_of_a_run_and_the_deadline_is_one_days(api, reader, time_):
    api.answer = lambda path, query: items(1)
    found = loaded(reader(query={"day": "{partition}"}, per_second=0.1, timeout_s=15))
    assert len(found.frame) == 3
    assert time_.slept == [10.0, 10.0]
    pages = {"by": "page_number", "parameter": "page"}
    api.answer = lambda path, query: items(int(query["page"]))
    with pytest.raises(SourceUnavailable, match=r"was not done after 15 s, at the rate of 0\.1 a second"):
        rows_of(reader(pages=pages, per_second=0.1, timeout_s=15))


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (401, SourceUnavailable, "lets nobody in with what SHOP_TOKEN holds: 401 Unauthorized"),
        (403, SourceUnavailable, "lets nobody in with what SHOP_TOKEN holds: 403 Forbidden"),
        (404, DataError, "is not there: 404 Not Found"),
        (400, DataError, "does not take the request: 400 Bad Request"),
        (204, DataError, "does not take the request: 204 No Content"),
    ],
)
def test_a_refusal_is_told_at_once(api, reader, time_, status, kind, said):
    api.answer = lambda path, query: Reply(b"" if status == 204 else b"because", status)
    with pytest.raises(DataError, match=said) as caught:
        rows_of(reader(auth={"variable": "SHOP_TOKEN"}))
    assert type(caught.value) is kind
    assert time_.slept == [] and len(api.asked) == 1


def test_an_answer_that_is_too_large_is_not_read_to_its_end(api, reader):
    api.answer = lambda path, query: Reply(b" " * 2_000_000)
    with pytest.raises(DataError, match=r"larger than 0\.1 MB"):
        rows_of(reader(max_answer_mb=0.1))


def test_nobody_at_the_address_is_told_after_the_tries(reader, api, time_):
    api.close()
    with pytest.raises(
        SourceUnavailable,
        match=rf"{api.url}/2024-01-01 does not answer: ConnectError.* Start it, or mend `url`",
    ):
        loaded(reader("/{partition}"))
    assert time_.slept == [0.5, 1.0, 2.0, 4.0]


# -- the secret ----------------------------------------------------------------------------------------


def moved(address: str) -> Callable[[str, dict[str, str]], Any]:
    return lambda path, query: Reply(b"", 302, location=address)


@pytest.mark.parametrize("way", ["redirect", "link_header", "next_link"])
def test_another_host_is_never_asked(api, other, reader, way):
    address = f"{other.url}/rows?token={SECRET}"
    answers = {
        "redirect": moved(address),
        "link_header": lambda path, query: Reply(items(1), link=f'<{address}>; rel="next"'),
        "next_link": lambda path, query: {"rows": items(1), "next": address},
    }
    api.answer = answers[way]
    declared = (
        {} if way == "redirect" else {"pages": {"by": way, **({"at": "next"} if way == "next_link" else {})}}
    )
    rows = "rows" if way == "next_link" else None
    with pytest.raises(
        DataError, match=f"leads to {other.url}, which is not {api.url}: nothing was sent"
    ) as caught:
        rows_of(reader(auth={"variable": "SHOP_TOKEN"}, rows=rows, **declared))
    assert other.asked == [] and SECRET not in str(caught.value)


def test_a_redirect_within_the_host_is_followed_and_not_for_ever(api, reader):
    api.answer = lambda path, query: items(1) if path == "/new" else Reply(b"", 307, location="/new?x=1")
    assert rows_of(reader()) == items(1)
    assert api.asked[-1] == ("/new", {"x": "1"})
    api.answer = moved("/again")
    with pytest.raises(DataError, match="redirects again and again"):
        rows_of(reader())


def test_a_secret_that_is_not_set_or_no_header_is_told_by_the_name_of_its_variable(api, reader, monkeypatch):
    read = reader(auth={"variable": "SHOP_TOKEN"})
    monkeypatch.delenv("SHOP_TOKEN")
    with pytest.raises(SourceUnavailable, match="environment variable SHOP_TOKEN is not set"):
        loaded(read)
    monkeypatch.setenv("SHOP_TOKEN", f"{SECRET}\n")
    with pytest.raises(
        SourceUnavailable, match="SHOP_TOKEN holds characters that no header can carry"
    ) as caught:
        loaded(read)
    assert SECRET not in str(caught.value) and api.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        lambda path, query: Reply(f"no, {SECRET}".encode(), 401),
        lambda path, query: Reply(SECRET.encode(), 500),
        lambda path, query: Reply(SECRET.encode(), 429),
        lambda path, query: Reply(SECRET.encode()),
        lambda path, query: Reply(b"", 302, location=f"/{SECRET}") if path == "/rows" else Reply(b"", 404),
        lambda path, query: {"rows": items(1), "next": f"/{SECRET}"},
    ],
)
def test_no_error_shows_a_secret_that_the_api_sends_back(api, reader, answer):
    api.answer = answer
    read = reader(auth={"variable": "SHOP_TOKEN"}, rows="rows", pages={"by": "next_link", "at": "next"})
    with pytest.raises(DataError) as caught:
        rows_of(read)
    seen: BaseException | None = caught.value
    while seen is not None:
        assert SECRET not in f"{seen!r} {seen}"
        seen = seen.__cause__ or seen.__context__
    assert SECRET not in repr(read)


# -- declarations --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"url": "http://api.example.com/x"}, "without TLS everybody on the way"),
        ({"url": "https://user:word@example.com/x"}, "no user"),
        ({"url": "https://example.com/x?key=1"}, "parameters in query"),
        ({"url": "https://{partition}.example.com/x"}, "the host in full"),
        ({"url": "ftp://example.com/x"}, "url is like https"),
        ({"url": "https://example.com/{day}"}, r"\{day\} stands for nothing; there are \{partition\}"),
        ({"url": "https://example.com/{partition}", "query": {"to": "{after}"}}, "write one of them"),
        (
            {"url": "https://e.com/x", "headers": {"authorization": "Bearer x"}},
            "carries a secret: write auth",
        ),
        (
            {"url": "https://e.com/x", "auth": {"variable": "not a name"}},
            "no name of an environment variable",
        ),
        ({"url": "https://e.com/x", "pages": {"by": "guess"}}, "link_header.*next_link.*cursor"),
        ({"url": "https://e.com/x", "pages": {"by": "cursor", "at": "n"}}, "parameter"),
        ({"url": "https://e.com/x", "rows": "a..b"}, "rows"),
        ({"url": "https://e.com/x", "no_such": 1}, "Extra inputs"),
    ],
)
def test_a_wrong_declaration_is_refused(declared, said):
    with pytest.raises(ValidationError, match=re.compile(said, re.DOTALL)):
        HttpSource(format="http", **declared)


def test_what_is_written_in_place_of_a_variables_name_is_not_repeated():
    with pytest.raises(ValidationError) as caught:
        HttpSource(format="http", url="https://e.com/x", auth={"variable": f"Bearer {SECRET}"})
    assert SECRET not in str(caught.value)


def test_days_in_the_request_need_days(api):
    source = HttpSource(format="http", url="https://e.com/{partition}")
    assert "need partitions" in str(source.problem({}, transformed=False, partitioned=False))
    assert source.problem({}, transformed=False, partitioned=True) is None
    assert HttpSource(format="http", url="http://e.com/x", allow_plain_http=True).allow_plain_http
    for host in ("localhost:1", "127.0.0.1", "[::1]:8"):
        assert HttpSource(format="http", url=f"http://{host}/x").url
