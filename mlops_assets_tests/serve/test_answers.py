"""What the endpoint answers to good requests: the whole ASGI application over real models in this process."""

import asyncio
import math

import pytest

from mlops_assets.testing.site import MODELS, Site, run
from mlops_assets.testing.small_models import ROW


def test_binary_answers_the_offline_probability_to_the_bit() -> None:
    async def story(site: Site) -> None:
        answer = await site.predict()
        golden = MODELS["binary"][0].golden[0].scores[0]
        assert answer.json() == {
            "request_id": answer.headers["x-request-id"],
            "answer_id": answer.headers["x-answer-id"],
            "model_version": "v1",
            "variant": "stable",
            "prediction": "late" if golden >= 0.5 else "on time",
            "probability": golden,
        }
        assert answer.headers["x-model-version"] == "v1"
        assert answer.headers["x-variant"] == "stable"

    run(story)


def test_multiclass_answers_a_label_and_every_probability() -> None:
    async def story(site: Site) -> None:
        answer = (await site.predict()).json()
        scores = MODELS["multiclass"][0].golden[0].scores
        assert answer["probability"] == dict(zip(("early", "on time", "late"), scores, strict=True))
        assert answer["prediction"] == max(answer["probability"], key=answer["probability"].__getitem__)

    run(story, Site("multiclass"))


def test_regression_answers_a_number_and_no_probability() -> None:
    async def story(site: Site) -> None:
        answer = (await site.predict()).json()
        assert answer["prediction"] == MODELS["regression"][0].golden[0].scores[0]
        assert answer["probability"] is None

    run(story, Site("regression"))


def test_the_threshold_of_the_manifest_decides_the_label() -> None:
    async def story(site: Site) -> None:
        score = MODELS["binary"][0].golden[0].scores[0]
        for threshold, label in ((score, "late"), (math.nextafter(score, 1), "on time")):
            site.v1.manifest = MODELS["binary"][0].model_copy(update={"threshold": threshold})
            site.traffic.states["v1"].live = None
            await site.traffic.settle()
            assert (await site.predict()).json()["prediction"] == label

    run(story)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_batch_answers_what_single_rows_answer(task: str) -> None:
    async def story(site: Site) -> None:
        rows = [{**ROW, "distance": float(value)} for value in range(0, 6000, 137)]
        batch = (await site.post("/batch-predict", {"instances": rows})).json()
        single = [(await site.predict(row)).json() for row in rows]
        assert batch["predictions"] == [
            {key: one[key] for key in ("prediction", "probability")} for one in single
        ]
        assert set(batch) == {"request_id", "answer_id", "model_version", "variant", "predictions"}

    run(story, Site(task))


def test_under_serve_the_request_id_header_is_left_to_serve() -> None:
    async def story(site: Site) -> None:
        site.endpoint._adds_request_id = False
        assert "x-request-id" not in (await site.predict()).headers

    run(story)


def test_concurrent_requests_share_calls_and_keep_their_own_answers() -> None:
    async def story(site: Site) -> None:
        rows = [{**ROW, "distance": value * 150.0} for value in range(40)]
        answers = await asyncio.gather(*(site.predict(row) for row in rows))
        expected = site.v1.scorer.score_rows(rows).tolist()
        assert [answer.json()["probability"] for answer in answers] == expected
        assert len(set(expected)) > 3
        assert len(site.v1.calls) < 40

    run(story)
