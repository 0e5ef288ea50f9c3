"""A schema registry: the schemas that records were written in, by number.

Belongs here: asking it over HTTP. Does not belong here: reading records (``streams/formats/``).

Two requests of Confluent's REST API are all that reading needs, so they are made with the HTTP client there
is.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from mlops_assets import environment
from mlops_assets.errors import SourceUnavailable
from mlops_assets.streams.formats import Undecodable

ANSWER_S = 10.0
UNKNOWN = (40401, 40402, 40403)
"""Codes of the API: no such subject, version or schema. Another 404 is not the registry's."""


@lru_cache(maxsize=1024)
def registered(variable: str, number: int) -> Sequence[str]:
    """The Avro schema of that number, as text, behind the schemas that it refers to, each once; ``variable``
    holds the registry's address (a user and a password may stand in it, as in https://user:password@host).

    Raises Undecodable when the registry has no such schema or it is none of Avro, SourceUnavailable when the
    registry does not answer or lets nobody in.
    """
    found = _asked(variable, f"schemas/ids/{number}", f"schema {number}")
    # Left out, it is Avro.
    kind = found.get("schemaType", "AVRO")
    if kind != "AVRO":
        raise Undecodable(f"schema {number} of the registry is one of {kind}")
    return list(dict.fromkeys(_with_references(variable, found)))


def _with_references(variable: str, found: Mapping[str, Any]) -> Iterator[str]:
    for one in found.get("references", ()):
        subject, version = one["subject"], one["version"]
        path = f"subjects/{quote(subject, safe='')}/versions/{version}"
        yield from _with_references(variable, _asked(variable, path, f"version {version} of {subject!r}"))
    yield str(found["schema"])


def _asked(variable: str, path: str, what: str) -> Mapping[str, Any]:
    import httpx

    address = httpx.URL(environment.value_of(variable, "the address of the schema registry"))
    port = f":{address.port}" if address.port else ""
    who = f"The schema registry at {address.host}{port} (environment variable {variable})"
    try:
        answer = httpx.get(f"{str(address).rstrip('/')}/{path}", timeout=ANSWER_S)
    except httpx.HTTPError as error:
        raise SourceUnavailable(
            f"{who} does not answer: {type(error).__name__}. Start it or correct the address."
        ) from None
    said = _json(answer)
    if answer.status_code == httpx.codes.NOT_FOUND and said.get("error_code") in UNKNOWN:
        raise Undecodable(f"the registry has no {what}")
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise SourceUnavailable(
            f"{who} lets nobody in ({answer.status_code}): user and password stand in the address, as in "
            "https://user:password@host."
        )
    if answer.status_code != httpx.codes.OK or "schema" not in said:
        raise SourceUnavailable(
            f"{who} answers {answer.status_code} to the question for {what}, which is no answer of a "
            f"registry's: {said.get('message') or answer.text[:200]!r}. Correct the address, or try again."
        )
    return said


def _json(answer: Any) -> Mapping[str, Any]:
    """What an answer says; nothing where it is no JSON object."""
    try:
        said = answer.json()
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
