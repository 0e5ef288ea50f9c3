"""Parameters and outputs of the V2 protocol."""

from typing import Any

from mlops_assets.testing.site import Site, reasons, run
from mlops_assets.testing.small_models import ROW, routing
from mlops_assets_tests.serve.v2 import INFER, outputs, section, tensors


@section("`parameters` of a request")
def test_the_parameters_that_mean_something_are_taken_or_refused() -> None:
    async def story(site: Site) -> None:
        for hint in ({"priority": 1}, {"timeout": 5}, {"content_type": "pd"}, {"headers": None}, None, {}):
            assert (await site.post(INFER, {**tensors(), "parameters": hint})).status_code == 200
        for name in ("sequence_id", "sequence_start", "sequence_end"):
            told = reasons(await site.post(INFER, {**tensors(), "parameters": {name: True}}))
            assert told == {f"parameters.{name}": "is not taken: answers do not depend on earlier ones"}
        assert "parameters" in reasons(await site.post(INFER, {**tensors(), "parameters": [1]}))
        told = reasons(await site.post(INFER, {**tensors(), "parameters": {"binary_data_output": "yes"}}))
        assert told == {"parameters.binary_data_output": "must be true or false, not a string"}
        for unit in ("", 5, "x" * 257):
            assert "parameters.unit" in reasons(
                await site.post(INFER, {**tensors(), "parameters": {"unit": unit}})
            )

    run(story)

    async def sticky(site: Site) -> None:
        for unit in range(20):
            named = {"parameters": {"unit": f"u{unit}"}}
            same = {
                (await site.post(INFER, {**tensors(), **named})).json()["model_version"] for _ in range(3)
            }
            same.add((await site.predict(unit=f"u{unit}")).json()["model_version"])
            assert len(same) == 1

    run(sticky, first=routing(v1=5_000, v2=5_000))

    async def cohorts(site: Site) -> None:
        for hour in range(24):
            own = {
                (await site.predict({**ROW, "hour": value})).json()["model_version"]
                for value in (hour, float(hour))
            }
            for kind, value in (("INT64", hour), ("FP64", float(hour))):
                body = tensors(2, hour={"datatype": kind, "data": [value, value]})
                own.add((await site.post(INFER, body)).json()["model_version"])
            assert len(own) == 1, hour

    run(cohorts, first={**routing(v1=5_000, v2=5_000), "unit_feature": "hour"})


@section("`parameters` of a tensor")
def test_tensors_that_are_elsewhere_are_refused() -> None:
    async def story(site: Site) -> None:
        mlserver = {"parameters": {"content_type": "np", "headers": None}}
        assert (await site.post(INFER, tensors(distance=mlserver))).status_code == 200
        shared = {"parameters": {"shared_memory_region": "a", "shared_memory_byte_size": 8}}
        told = reasons(await site.post(INFER, tensors(distance=shared)))
        assert told["inputs[0].parameters.shared_memory_region"].startswith("is not taken: tensors come with")
        assert "inputs[0].parameters" in reasons(await site.post(INFER, tensors(distance={"parameters": 5})))

    run(story)


@section("`outputs`")
def test_the_outputs_asked_for_come_in_their_order() -> None:
    async def story(site: Site) -> None:
        for names in (["probability"], ["prediction"], ["probability", "prediction"], []):
            body = {**tensors(), "outputs": [{"name": name} for name in names]}
            assert list(await outputs(site, body)) == (names or ["prediction", "probability"])
        assert list(await outputs(site, {**tensors(), "outputs": None})) == ["prediction", "probability"]
        told = reasons(await site.post(INFER, {**tensors(), "outputs": [{"name": "nonsense"}]}))
        assert told == {
            "outputs[0].name": "nonsense is no output of this model; there is: prediction, probability"
        }
        for bad, field in (
            (5, "outputs"), ([5], "outputs[0].name"), ([{}], "outputs[0].name"),
            ([{"name": "prediction"}] * 2, "outputs[1].name"),
            ([{"name": "prediction", "colour": 1}], "outputs[0].colour"),
            ([{"name": "prediction", "parameters": 1}], "outputs[0].parameters"),
        ):  # fmt: skip
            assert list(reasons(await site.post(INFER, {**tensors(), "outputs": bad}))) == [field]

    run(story)

    async def regression(site: Site) -> None:
        told = reasons(await site.post(INFER, {**tensors(), "outputs": [{"name": "probability"}]}))
        assert told["outputs[0].name"].endswith("there is: prediction")

    run(regression, Site("regression"))


@section("`parameters` of an output")
def test_outputs_elsewhere_and_as_classifications_are_refused() -> None:
    async def story(site: Site) -> None:
        def asking(**parameters: Any) -> dict[str, Any]:
            return {**tensors(), "outputs": [{"name": "prediction", "parameters": parameters}]}

        assert (await site.post(INFER, asking(binary_data=False, colour=1))).status_code == 200
        for name in ("classification", "shared_memory_region"):
            assert f"outputs[0].parameters.{name}" in reasons(await site.post(INFER, asking(**{name: 3})))
        told = reasons(await site.post(INFER, asking(binary_data=1)))
        assert told == {"outputs[0].parameters.binary_data": "must be true or false, not a number"}

    run(story)
