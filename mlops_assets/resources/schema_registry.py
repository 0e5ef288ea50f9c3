"""A schema registry: the schemas that records were written in, by number.

Belongs here: asking it over HTTP. Does not belong here: reading records (``streams/formats/``).

One request of Confluent's REST API is all that reading needs, so it is made with the HTTP client there is.
"""

from functools import lru_cache

from mlops_assets import environment
from mlops_assets.errors import SourceUnavailable
from mlops_assets.streams.formats import Undecodable

ANSWER_S = 10.0


@lru_cache(maxsize=1024)
def registered(variable: str, number: int) -> str:
    """The schema of that number, as text; ``variable`` holds the registry's address (a user and a password
    may stand in it, as in https://user:password@host).

    Raises Undecodable when the registry has no such schema, SourceUnavailable when it does not answer.
    """
    import httpx

    address = httpx.URL(environment.value_of(variable, "the address of the schema registry"))
    who = f"The schema registry at {address.host}:{address.port or ''} (environment variable {variable})"
    try:
        answer = httpx.get(f"{str(address).rstrip('/')}/schemas/ids/{number}", timeout=ANSWER_S)
    except httpx.HTTPError as error:
        raise SourceUnavailable(
            f"{who} does not answer: {type(error).__name__}. Start it or correct the address."
        ) from None
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise Undecodable(f"the registry has no schema {number}")
    if answer.status_code != httpx.codes.OK:
        raise SourceUnavailable(f"{who} answers {answer.status_code} to the question for schema {number}.")
    return str(answer.json()["schema"])
