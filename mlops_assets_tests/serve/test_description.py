"""How the endpoint describes itself: the OpenAPI document and the page of it."""

import pytest

from mlops_assets.testing.site import Site, run
from mlops_assets.testing.small_models import ROW, routing


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_every_example_of_the_openapi_document_works(task: str) -> None:
    async def story(site: Site) -> None:
        document = (await site.http.get("/openapi.json")).json()
        assert document["openapi"] == "3.1.0"
        assert document["servers"] == [{"url": "/flights"}]
        posts = {
            path: operations["post"] for path, operations in document["paths"].items() if "post" in operations
        }
        assert set(posts) == {
            "/predict",
            "/batch-predict",
            "/v2/models/flights/infer",
            "/v2/models/flights/versions/{version}/infer",
            "/trip",
            "/monitoring",
        }
        for path, operation in posts.items():
            example = operation["requestBody"]["content"]["application/json"]["example"]
            assert (await site.post(path.format(version="v1"), example)).status_code == 200
        gets = [path for path, operations in document["paths"].items() if "get" in operations]
        for path in gets:
            assert (await site.http.get(path.format(version="v1"))).status_code == 200, path

    run(story, Site(task), routing(v1=7_000, v2=3_000))


def test_the_openapi_document_carries_the_rules_of_the_features() -> None:
    async def story(site: Site) -> None:
        features = (await site.http.get("/openapi.json")).json()["components"]["schemas"]["Features"]
        assert features["required"] == list(ROW)
        assert features["additionalProperties"] is False
        assert features["properties"]["distance"] == {
            "type": "number",
            "description": "Miles <x>",
            "minimum": 0,
            "maximum": 6000,
        }
        assert features["properties"]["hour"]["type"] == ["integer", "null"]
        assert features["properties"]["origin"]["enum"] == ["EWR", "JFK"]

    run(story)


def test_the_docs_page_loads_nothing_and_escapes_what_it_shows() -> None:
    async def story(site: Site) -> None:
        answer = await site.http.get("/docs")
        assert answer.status_code == 200
        assert "Miles &lt;x&gt;" in answer.text and "Miles <x>" not in answer.text
        assert "http://" not in answer.text and "https://" not in answer.text and "src=" not in answer.text
        assert 'fetch("/flights/predict"' in answer.text
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")

    run(story)
