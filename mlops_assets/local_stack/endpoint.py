"""The deployed models as a caller meets them: are they ready, and one request that works.

Belongs here: asking an endpoint over HTTP and showing how. Does not belong here: deploying
(``assets/deployment.py``).
"""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from mlops_assets import environment
from mlops_assets.errors import StackError
from mlops_assets.resources import trusted


@dataclass(frozen=True)
class Sample:
    """A request that works, and what it was answered."""

    url: str
    body: dict[str, Any]
    answer: dict[str, Any]

    @property
    def curl(self) -> str:
        body = json.dumps(self.body, separators=(",", ":"))
        return f"curl -s {self.url} -H 'content-type: application/json' -d {shlex.quote(body)}"


def is_ready(serve_url: str, name: str) -> bool:
    """Whether the deployment says that it can answer."""
    import httpx

    try:
        answer = httpx.get(
            f"{serve_url}/{name}/ready", timeout=5.0, trust_env=False, verify=trusted.certificates()
        )
    # Not listening yet, or slow while everything starts: not ready is the answer.
    except httpx.TransportError:
        return False
    return answer.status_code == 200


def sample(serve_url: str, name: str) -> Sample:
    """Sends the example of the deployment's own OpenAPI document; StackError when it is not answered."""
    import httpx

    key = environment.API_KEY.read()
    headers = {"x-api-key": key} if key else {}
    with httpx.Client(
        base_url=serve_url, timeout=30.0, trust_env=False, headers=headers, verify=trusted.certificates()
    ) as client:
        described = client.get(f"/{name}/openapi.json")
        if described.status_code in (401, 403):
            raise StackError(
                f"{serve_url}/{name} asks for an API key. Set {environment.API_KEY.name} to one with role "
                f"operate, or {environment.API_KEYS_FILE.name}={environment.KEYS_OFF}."
            )
        document = described.raise_for_status().json()
        body = _example(document, f"{serve_url}/{name}/openapi.json")
        response = client.post(f"/{name}/predict", json=body)
    if response.status_code != 200:
        raise StackError(
            f"{serve_url}/{name}/predict answered its own example with HTTP {response.status_code}: "
            f"{response.text[:500]}"
        )
    return Sample(f"{serve_url}/{name}/predict", body, response.json())


def _example(document: dict[str, Any], where: str) -> dict[str, Any]:
    try:
        content = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
        return dict(content["example"])
    except KeyError as error:
        raise StackError(f"{where} gives no example of a request to /predict: {error} is missing.") from error
