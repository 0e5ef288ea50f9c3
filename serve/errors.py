"""Every refusal of the endpoint: its HTTP status, its code, its JSON. The only place with HTTP codes.

Belongs here: error classes that take facts, and their JSON: ``{"error": {"code", "message", "details"}}``,
and on the paths of the V2 protocol ``{"error": message, "code", "details"}``, because its clients show what
stands under ``error`` and take it for a string. Does not belong here: deciding that something is wrong
(``serve/validation.py``, ``serve/security.py``, ``serve/traffic.py``).

Every code is counted under its own name in ``/metrics`` (``mlops_errors_total``).
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

Problems = list[dict[str, str]]
"""One entry per bad field: ``{"field": ..., "reason": ...}``."""

MAX_PROBLEMS = 200
"""So many are told, that a small request cannot ask for a large answer."""
MAX_TOLD = 10
"""So many are told in one sentence."""
MAX_NAME_LENGTH = 200


class ApiError(Exception):
    """An answer that is not a prediction. ``headers`` go out beside the JSON body."""

    status = 500
    code = "internal"

    def __init__(
        self, message: str, *, details: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details: Any = [] if details is None else details
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        return json.dumps(
            {"error": {"code": self.code, "message": self.message, "details": self.details}}
        ).encode()

    def sentence(self) -> str:
        """The message with what a person needs of the details, for clients that show nothing else."""
        return self.message

    def v2_body(self) -> bytes:
        """The body under the paths of the V2 protocol."""
        return json.dumps({"error": self.sentence(), "code": self.code, "details": self.details}).encode()


class MalformedBody(ApiError):
    """The body is not JSON, or not the JSON object that the endpoint takes."""

    status = 400
    code = "malformed_body"


class InvalidFields(ApiError):
    """Fields are missing, unknown, wrong-typed or out of range.

    ``details`` names every one, of very many the first ``MAX_PROBLEMS``; the message says how many there are.
    """

    status = 400
    code = "invalid_fields"

    def __init__(self, problems: Problems) -> None:
        listed = [
            {"field": cut(problem["field"]), "reason": problem["reason"]}
            for problem in problems[:MAX_PROBLEMS]
        ]
        names = ", ".join(problem["field"] for problem in listed[:5])
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        count = "1 field is" if len(problems) == 1 else f"{len(problems)} fields are"
        super().__init__(f"{count} not valid: {names}{more}.", details=listed)
        self.count = len(problems)

    def sentence(self) -> str:
        sentence = "; ".join(f"{one['field']} {one['reason']}" for one in self.details[:MAX_TOLD])
        more = f"; and {self.count - MAX_TOLD} more" if self.count > MAX_TOLD else ""
        return f"{sentence}{more}."


class CallerLeft(ApiError):
    """The caller closed the connection before its body was complete; nobody will read the answer."""

    status = 400
    code = "incomplete_body"

    def __init__(self) -> None:
        super().__init__("The connection was closed before the body was complete.")


class LateBody(ApiError):
    """The caller announced a body and did not send it."""

    status = 408
    code = "late_body"

    def __init__(self, *, timeout_s: float) -> None:
        super().__init__(
            f"The body was not complete within {timeout_s:g} s.",
            details={"timeout_s": timeout_s},
            headers={"connection": "close"},
        )


class EmptyBatch(ApiError):
    """A batch without rows."""

    status = 400
    code = "empty_batch"

    def __init__(self, field: str) -> None:
        super().__init__(
            f"{field} holds no rows; send at least one.", details=[{"field": field, "reason": "is empty"}]
        )


class UnsupportedMedia(ApiError):
    """The body is declared to be something else than the JSON that the endpoint takes, or in no UTF-8."""

    status = 415
    code = "unsupported_media_type"

    def __init__(self, sent: str) -> None:
        super().__init__(
            f"The body is declared as {cut(sent)!r}. Send JSON in UTF-8 with the header "
            "'content-type: application/json'.",
            details={"content_type": cut(sent)},
            headers={"accept": "application/json"},
        )


class UnsupportedCoding(ApiError):
    """The body has a content coding that is not taken."""

    status = 415
    code = "unsupported_media_type"

    def __init__(self, sent: str, allowed: Iterable[str]) -> None:
        known = ", ".join(allowed)
        super().__init__(
            f"The body's content encoding is {cut(sent)!r}. Send one of {known}, or none.",
            details={"content_encoding": cut(sent)},
            headers={"accept-encoding": known},
        )


class Unauthenticated(ApiError):
    """No key, or a key that is not (or no longer) in the keys file."""

    status = 401
    code = "unauthenticated"

    def __init__(self, *, presented: bool) -> None:
        problem = "This API key is not valid." if presented else "This endpoint needs an API key."
        super().__init__(
            f"{problem} Send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'.",
            headers={"www-authenticate": 'Bearer realm="mlops"'},
        )


class Forbidden(ApiError):
    """The key is valid and its role is too low."""

    status = 403
    code = "forbidden"

    def __init__(self, *, role: str, needed: str) -> None:
        super().__init__(
            f"This key has role {role!r}; this needs {needed!r} or higher.",
            details={"role": role, "needed": needed},
        )


class OtherSite(ApiError):
    """No key is needed, and a browser says that the page of another site asks: not its user."""

    status = 403
    code = "forbidden"

    def __init__(self, *, site: str) -> None:
        super().__init__(
            f"A web page of another site asks ({site}). Pages may ask with an API key alone.",
            details={"sec-fetch-site": site},
        )


class UnknownPath(ApiError):
    """Nothing answers at this path."""

    status = 404
    code = "not_found"

    def __init__(self, path: str, allowed: Iterable[str]) -> None:
        known = sorted(set(allowed))
        super().__init__(
            f"Nothing answers at {cut(path)!r}. Paths: {', '.join(known)}.", details={"paths": known}
        )


class UnknownVersion(ApiError):
    """The path names a version that has no traffic."""

    status = 404
    code = "not_found"

    def __init__(self, version: str, allowed: Iterable[str]) -> None:
        known = list(allowed)
        super().__init__(
            f"No version {cut(version)!r} has traffic. There is: {', '.join(known) or 'none'}.",
            details={"versions": known},
        )


class MethodNotAllowed(ApiError):
    """The path exists and takes another method."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, method: str, path: str, allowed: Iterable[str]) -> None:
        methods = sorted(allowed)
        super().__init__(
            f"{path!r} does not take {cut(method)}. Allowed: {', '.join(methods)}.",
            details={"allowed": methods},
            headers={"allow": ", ".join(methods)},
        )


class TooLarge(ApiError):
    """Body or batch beyond its limit."""

    status = 413
    code = "too_large"

    def __init__(self, what: str, *, limit: int, unit: str) -> None:
        super().__init__(
            f"The {what} is larger than {limit} {unit}. Send it in parts.",
            details={"limit": limit, "unit": unit},
        )


class RateLimited(ApiError):
    """The key has used up its requests; ``Retry-After`` says when the next one is free."""

    status = 429
    code = "rate_limited"

    def __init__(self, *, requests_per_minute: float, retry_after_s: float) -> None:
        super().__init__(
            f"More than {requests_per_minute:g} requests per minute with this key.",
            details={"requests_per_minute": requests_per_minute},
            headers={"retry-after": seconds(retry_after_s)},
        )


class NoModel(ApiError):
    """No version can answer now: none is declared, or none is up yet, or the stable one was lost."""

    status = 503
    code = "no_model"

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message, headers={"retry-after": seconds(retry_after_s)})


class StaleFeatures(ApiError):
    """What is looked up is older than the view allows, and the view refuses then."""

    status = 503
    code = "stale_features"

    def __init__(self, view: str, *, age_s: float, limit_s: float) -> None:
        super().__init__(
            f"What is looked up for {view} is {age_s:.0f} s old; the limit is {limit_s:g} s.",
            details={"view": view, "age_s": age_s, "limit_s": limit_s},
            headers={"retry-after": "1"},
        )


class NoOnlineStore(ApiError):
    """The store of online features cannot be read, and the view refuses then."""

    status = 503
    code = "no_online_store"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"retry-after": "1"})


class Overloaded(ApiError):
    """More requests at once than the endpoint or the model takes."""

    status = 503
    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message, headers={"retry-after": seconds(retry_after_s)})


class TimedOut(ApiError):
    """The model did not answer within the declared time."""

    status = 503
    code = "timed_out"

    def __init__(self, *, timeout_s: float) -> None:
        super().__init__(
            f"The model did not answer within {timeout_s:g} s.",
            details={"timeout_s": timeout_s},
            headers={"retry-after": "1"},
        )


class NoAggregator(ApiError):
    """The aggregator is away, so the gateway replicas cannot be told anything together."""

    status = 503
    code = "no_referee"

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"The gateway replicas cannot be told now: {problem}. Send it again later.",
            headers={"retry-after": "1"},
        )


class Internal(ApiError):
    """Anything else. Says the ids and nothing about the inside; the log has the rest."""

    status = 500
    code = "internal"

    def __init__(self, request_id: str, answer_id: str) -> None:
        super().__init__(
            "The request failed inside.", details={"request_id": request_id, "answer_id": answer_id}
        )


def cut(text: str) -> str:
    """What a caller sent, short enough to be given back."""
    return text if len(text) <= MAX_NAME_LENGTH else f"{text[:MAX_NAME_LENGTH]}..."


def seconds(value: float) -> str:
    """``Retry-After`` as whole seconds, at least one."""
    return str(max(1, math.ceil(value)))
