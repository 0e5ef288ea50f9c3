"""Dagster's webserver, for its own pages alone: other web pages in the same browser get nothing from it.

Belongs here: what is refused, and the program that starts the webserver with it. Does not belong here: the
webserver (Dagster's).

The webserver carries out what ``/graphql`` is asked, by GET as well, whoever's page asks: a picture in
anybody's page could launch runs. Browsers say which site a request comes from; programs do not, and are let
through. A page whose own name was made to lead to 127.0.0.1 is refused by that name.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

HOSTS = ("127.0.0.1", "localhost")
"""The names this machine has for itself; a forwarded port keeps them."""
OWN_SITES = ("same-origin", "none")
"""What browsers say of a page's own requests, and of an address that a person typed or a bookmark holds."""

App = Callable[[Mapping[str, Any], Any, Any], Awaitable[None]]


def refusal(method: str, path: str, headers: Mapping[str, str]) -> str | None:
    """Why a request is refused, or None. ``headers`` have lower-case names.

    A link from elsewhere to a page is followed; nothing else is done for other sites.
    """
    site = headers.get("sec-fetch-site")
    if site is None:
        origin, host = headers.get("origin"), headers.get("host")
        if origin is None or origin in (f"http://{host}", f"https://{host}"):
            return None
        return f"the page {origin} may not ask Dagster"
    link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    if site in OWN_SITES or (link and method == "GET" and not path.startswith("/graphql")):
        return None
    return f"a page of another site ({site}) may not ask Dagster"


class OwnPages:
    """The webserver's application behind ``refusal``."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            reason = refusal(scope.get("method", "GET"), scope["path"], headers)
            if reason is not None:
                await _refuse(scope["type"], reason, send)
                return
        await self._app(scope, receive, send)


async def _refuse(kind: str, reason: str, send: Any) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return
    body = f"{reason}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def guarded(app: Any) -> Any:
    """The application for this machine's own names and the webserver's own pages."""
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return TrustedHostMiddleware(OwnPages(app), allowed_hosts=list(HOSTS))


def main() -> None:
    """``dagster-webserver`` with the same arguments."""
    from dagster_webserver import cli
    from dagster_webserver.app import create_app_from_workspace_process_context as made

    def make(*arguments: Any, **options: Any) -> Any:
        return guarded(made(*arguments, **options))

    # Its middleware cannot be added to from outside.
    cli.create_app_from_workspace_process_context = make  # type: ignore[attr-defined]
    cli.cli(auto_envvar_prefix="DAGSTER_WEBSERVER")


if __name__ == "__main__":
    main()
