"""From one answer back: a real log, real materialisations in memory, a real MLflow store on SQLite."""

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from rich.console import Console

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.commands.explain import Explanation, Link, UnknownRequest, explain, print_explanation
from mlops_assets.errors import MlopsError, UnknownName
from mlops_assets.resources.inference_log import InferenceLog
from mlops_assets.resources.model_registry import ModelRegistry
from mlops_assets_tests.resources.test_mlflow import packaged, register
from serve.inference_log import Answered, PredictionLog
from serve.schema import PredictionLogArgs

SET_1, SET_2 = "set-one-0123456789", "set-two-0123456789"


@dataclass
class World:
    """A deployment whose v1 is stable and whose v2 is its canary; v3 was registered by someone else."""

    instance: dg.DagsterInstance
    registry: ModelRegistry
    log: InferenceLog
    definitions: dg.Definitions
    runs: dict[int, str]
    digests: dict[int, str]

    def explain(self, request_id: str, **arguments: Any) -> Explanation:
        return explain(
            request_id,
            instance=self.instance,
            registry=self.registry,
            log=self.log,
            definitions=self.definitions,
            **arguments,
        )


def answered(request_id: str, at: datetime | None = None, **changes: Any) -> Answered:
    made = Answered(
        (at or datetime.now(UTC)).timestamp(),
        f"own-{request_id}",
        request_id,
        "ana",
        "stable",
        "v1",
        5,
        9_000,
        "/predict",
        0.0042,
        [{"x": 1.5, "colour": "red"}],
        [0.25],
    )
    return made._replace(**changes)


def write(log: InferenceLog, deployment: str, *answers: Answered) -> None:
    gateway = PredictionLog(PredictionLogArgs(uri=log.uri), deployment=deployment, replica="a")
    for one in answers:
        assert gateway.put(one)
    gateway.close()
    assert (gateway.logged, gateway.dropped) == (sum(len(one.rows) for one in answers), 0)


def declared() -> dg.Definitions:
    @dg.asset(key=asset_key("approval", "toy"), tags=name_tags("approval", "toy"))
    def approval() -> None: ...

    @dg.asset(
        key=asset_key("deployment", "shop"),
        tags=name_tags("deployment", "shop"),
        deps=[asset_key("approval", "toy")],
    )
    def deployment() -> None: ...

    return dg.Definitions(assets=[approval, deployment])


def report(
    instance: dg.DagsterInstance,
    asset: str,
    version: str = "",
    *,
    partition: str | None = None,
    **metadata: Any,
) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            asset_key=dg.AssetKey(asset),
            partition=partition,
            metadata={
                name: dg.MetadataValue.json(value) if isinstance(value, dict) else value
                for name, value in metadata.items()
            },
            tags={"dagster/data_version": version},
        )
    )


def train(instance: dg.DagsterInstance, digest: str, version: int, training_set: str) -> str:
    """A real run that materialises ``toy_model``; its id."""

    @dg.asset(key=asset_key("model", "toy"), tags=name_tags("model", "toy"))
    def model() -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(
            data_version=dg.DataVersion(digest),
            metadata={
                "model_version": version,
                "trainer": "lightgbm",
                "why": "lowest log_loss",
                "training_set_version": training_set,
            },
        )

    return dg.materialize([model], instance=instance, tags={"mlops/launched_by": "automation"}).run_id


def approve(instance: dg.DagsterInstance, version: int, digest: str, approver: str = "ana") -> None:
    report(
        instance,
        "toy_approval",
        f"approval-{version}-{approver}",
        decision="approve",
        approver=approver,
        reason="the gate promotes it",
        mode="manual",
        model_version=version,
        bound_to={"toy_model": digest},
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    store = f"sqlite:///{folder}/mlflow.db"
    registry = ModelRegistry(tracking_uri=store, ui_url="http://mlflow")
    with dg.DagsterInstance.ephemeral() as instance:
        digests, runs = {}, {}
        report(instance, "toy_features", "f-old", partition="2026-01-01", delta_version=3)
        report(instance, "toy_features", "f-1", partition="2026-01-01", delta_version=4)
        report(instance, "toy_features", "f-2", partition="2026-01-02", delta_version=4)
        for number, version in ((1, SET_1), (2, SET_2)):
            report(instance, "toy", f"d-{number}", delta_version=6 + number)
            made = packaged(seed=number)
            register(store, folder / str(number), "toy", made)
            digests[number] = made.digest
            pinned = {"toy_features": 4, "toy": 6 + number}
            report(
                instance,
                "toy_training_set",
                version,
                train_rows=300 * number,
                pinned_tables=pinned,
                delta_version=number,
            )
            runs[number] = train(instance, made.digest, number, version)
            registry.set_tags(
                "toy",
                number,
                {
                    "training_set_version": version,
                    "pinned_tables": str(pinned),
                    "dagster_run_id": runs[number],
                },
            )
            approve(instance, number, made.digest)
        # The same content once more, by another run: not the one that the version was registered by.
        train(instance, digests[1], 1, SET_1)
        registry.client().create_model_version("toy", source="elsewhere", run_id=None)
        for revision, phase, weights in (
            (4, "successful", {"v1": 100}),
            (5, "progressing", {"v1": 90, "v2": 10}),
            (5, "inconclusive", {"v1": 90, "v2": 10}),
            (7, "aborted", {"v1": 100, "v2": 0}),
        ):
            report(
                instance,
                "shop_deployment",
                f"at-{revision}",
                revision=revision,
                phase=phase,
                weights=weights,
                reason=f"why {phase}",
            )
        log = InferenceLog(uri=str(folder / "log"))
        write(
            log,
            "shop",
            answered("both", entities=[{"flight_id": 7}]),
            answered("both", variant="shadow", version="v2", weight=1_000, latency_s=0.008, scores=[0.75]),
            answered(
                "batch", rows=[{"x": float(n)} for n in range(5)], scores=[[0.1, 0.2, 0.7]] * 5, unit=None
            ),
            answered("fallback", fell_back_from="v2", revision=6),
            answered("stranger", version="v3", variant="canary"),
            answered("unregistered", version="v9"),
            answered("odd", version="latest"),
            answered("early", at=datetime.now(UTC) - timedelta(days=2)),
            *(
                answered("job", at=datetime.now(UTC) - timedelta(minutes=ago), answer_id=f"job-{ago}")
                for ago in (1, 2, 3)
            ),
            answered(
                "job",
                at=datetime.now(UTC) - timedelta(minutes=2),
                answer_id="job-2",
                variant="shadow",
                version="v2",
            ),
        )
        write(log, "gone", answered("twice", at=datetime.now(UTC) - timedelta(hours=2)), answered("orphan"))
        write(log, "shop", answered("twice"))
        yield World(instance, registry, log, declared(), runs, digests)


def links(found: Explanation, version: str) -> dict[str, Link]:
    (lineage,) = [one for one in found.versions if one.version == version]
    return {link.what: link for link in lineage.links}


def test_an_answer_goes_back_to_everything_that_made_it(world: World) -> None:
    found = world.explain("both", dagster_url="http://dagster/")

    live, shadow = found.answers
    assert (found.deployment, found.model, found.missing) == ("shop", "toy", [])
    assert (live.variant, live.version, live.weight, live.revision, live.unit) == (
        "stable",
        "v1",
        90.0,
        5,
        "ana",
    )
    features = {"x": 1.5, "colour": "red"}
    assert live.rows == [
        {"row": 0, "entity": {"flight_id": 7}, "features": features, "score": 0.25, "scores": None}
    ]
    assert (shadow.variant, shadow.version, shadow.rows[0]["score"]) == ("shadow", "v2", 0.75)
    assert (live.latency_ms, shadow.latency_ms) == (4.2, 8.0)

    # Revision 5 was recorded twice: the first declared it, the second says how it went on.
    declared_by = live.declared_by
    assert declared_by.facts["phase"] == "progressing" and declared_by.facts["weights"] == {
        "v1": 90,
        "v2": 10,
    }
    assert [later["phase"] for later in declared_by.facts["later"]] == ["inconclusive"]
    assert declared_by.url == "http://dagster/assets/shop_deployment"

    for version, number, training_set in (("v1", 1, SET_1), ("v2", 2, SET_2)):
        back = links(found, version)
        assert list(back) == [
            "registered model",
            "MLflow run",
            "model",
            "Dagster run that trained it",
            "training set",
            "data toy",
            "data toy_features",
            "approval",
        ]
        assert back["registered model"].facts["digest"] == world.digests[number]
        assert back["registered model"].url == f"http://mlflow/#/models/toy/versions/{number}"
        assert back["MLflow run"].facts["metrics"] == {"mean_log_loss": 0.5}
        assert str(back["MLflow run"].url).endswith(f"/runs/{back['registered model'].facts['run_id']}")
        assert back["model"].facts["run_id"] == world.runs[number]
        run = back["Dagster run that trained it"]
        assert run.facts["status"] == "SUCCESS" and run.facts["tags"]["mlops/launched_by"] == "automation"
        assert run.url == f"http://dagster/runs/{world.runs[number]}"
        assert (back["training set"].facts["version"], back["training set"].facts["train_rows"]) == (
            training_set,
            300 * number,
        )
        assert back["data toy_features"].facts["data_versions"] == {"2026-01-01": "f-1", "2026-01-02": "f-2"}
        assert back["approval"].facts["approver"] == "ana"


def test_the_data_that_a_version_was_not_trained_on_is_not_given_for_it(world: World) -> None:
    for version, read in (("v1", "d-1"), ("v2", "d-2")):
        back = links(world.explain("both"), version)
        assert back["data toy"].facts["data_versions"] == {"": read}
    # v2 pinned Delta version 8; where only 7 is recorded, that is not it.
    with dg.DagsterInstance.ephemeral() as instance:
        report(instance, "toy", "d-1", delta_version=7)
        bare = World(instance, world.registry, world.log, world.definitions, {}, {})
        said = links(bare.explain("both"), "v2")
    assert not said["data toy"].found
    assert said["data toy"].said == (
        "Delta version 8 was read; none of the last 1 materialisations of toy records that version"
    )


def test_without_any_record_every_link_says_why(world: World) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        empty = ModelRegistry(tracking_uri=world.registry.tracking_uri)
        found = World(instance, empty, world.log, world.definitions, {}, {}).explain("fallback")
    assert found.answers[0].fell_back_from == "v2"
    assert "none of 0 materialisations of shop_deployment records revision 6; none is recorded" in (
        found.answers[0].declared_by.said
    )
    back = links(found, "v1")
    assert {what for what, link in back.items() if link.found} == {"registered model", "MLflow run"}
    assert "none of 0 materialisations of toy_model has data version" in back["model"].said
    assert back["Dagster run that trained it"].said.endswith("but this Dagster instance does not hold it")
    assert (
        "none of 0 materialisations of toy_training_set has data version set-one" in back["training set"].said
    )
    assert back["registered model"].url is back["MLflow run"].url is None
    assert len(found.missing) == 7


def test_a_revision_that_was_not_recorded_names_those_that_were(world: World) -> None:
    link = world.explain("fallback").answers[0].declared_by
    assert not link.found
    assert "records revision 6; recorded are 4-5, 7" in link.said


def test_a_version_that_someone_else_registered_says_what_it_lacks(world: World) -> None:
    back = links(world.explain("stranger"), "v3")
    assert back["registered model"].found
    assert "was registered without a run" in back["MLflow run"].said
    assert "carries no digest" in back["model"].said
    assert "neither the registered version nor toy_model names" in back["Dagster run that trained it"].said
    assert "no tables are recorded as pinned" in back["data"].said
    assert "approves version 3" in back["approval"].said


@pytest.mark.parametrize(
    ("request_id", "version", "reason"),
    [
        ("unregistered", "v9", "model 'toy' has no version 9"),
        ("odd", "latest", "'latest' is not v and a number"),
        ("orphan", "v1", "declare no deployment 'gone'"),
    ],
)
def test_a_version_without_a_registered_model_says_so(
    world: World, request_id: str, version: str, reason: str
) -> None:
    link = links(world.explain(request_id), version)["registered model"]
    assert not link.found and reason in link.said


def test_an_approval_after_the_answer_does_not_explain_it(world: World) -> None:
    link = links(world.explain("early"), "v1")["approval"]
    assert not link.found and "before the answer approves version 1; one was given later, at 2" in link.said


def test_an_approval_of_other_content_is_not_given(world: World) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        approve(instance, 1, "other-content")
        log = InferenceLog(uri=f"{world.log.uri}-later")
        write(log, "shop", answered("r"))
        found = World(instance, world.registry, log, world.definitions, {}, {}).explain("r")
    link = links(found, "v1")["approval"]
    assert not link.found and "is bound to content other-conten; the registered version holds" in link.said


def test_an_id_in_two_deployments_explains_the_last_answer_and_names_the_other(world: World) -> None:
    found = world.explain("twice")
    assert (found.deployment, [other.deployment for other in found.others]) == ("shop", ["gone"])
    assert world.explain("twice", deployment="gone").others == []


def test_of_several_answers_to_one_request_id_the_newest_is_explained_and_the_others_named(
    world: World,
) -> None:
    found = world.explain("job")
    assert (found.answer_id, found.request_id) == ("job-1", "job")
    assert [(other.answer_id, other.deployment, other.variant) for other in found.others] == [
        ("job-2", "shop", "stable"),
        ("job-3", "shop", "stable"),
    ]
    text = io.StringIO()
    print_explanation(found, Console(file=text, width=160))
    assert "the caller's request id: job" in text.getvalue()
    assert "mlops explain ANSWER_ID" in text.getvalue() and "job-3  2" in text.getvalue()
    # Asked by its own id, an answer is the only one, with its shadow.
    one = world.explain("job-2")
    assert (one.answer_id, one.others) == ("job-2", [])
    assert [answer.variant for answer in one.answers] == ["stable", "shadow"]


def test_an_unknown_id_says_where_it_was_looked_for(world: World) -> None:
    with pytest.raises(UnknownRequest) as caught:
        world.explain("nobody")
    said = str(caught.value)
    assert isinstance(caught.value, MlopsError) and "'nobody'" in said
    assert f"{world.log.uri}/gone (" in said and f"{world.log.uri}/shop (" in said and " UTC)" in said
    assert "at most 1 s after the answer" in said
    with pytest.raises(UnknownRequest, match="only since 2999-"):
        world.explain("both", since=datetime(2999, 1, 1, tzinfo=UTC))


def test_an_empty_log_says_that_nothing_was_logged(world: World, tmp_path: Path) -> None:
    log = InferenceLog(uri=str(tmp_path / "log"))
    nothing = World(world.instance, world.registry, log, world.definitions, {}, {})
    with pytest.raises(UnknownRequest, match=r"log \(no deployment has logged yet\)"):
        nothing.explain("both")
    with pytest.raises(UnknownRequest, match=r"log/shop \(no files\)"):
        nothing.explain("both", deployment="shop")


def test_an_unknown_deployment_names_the_known(world: World) -> None:
    with pytest.raises(UnknownName, match=r"deployment 'shopp'. Allowed: gone, shop"):
        world.explain("both", deployment="shopp")


def test_it_is_plain_json_and_readable_text(world: World) -> None:
    found = world.explain("batch")
    document = json.loads(json.dumps(found.to_dict()))
    assert document["answers"][0]["rows"][4]["scores"] == [0.1, 0.2, 0.7]
    assert document["versions"][0]["links"][0]["facts"]["digest"] == world.digests[1]
    assert "manifest" not in document["versions"][0]["links"][0]["facts"]["tags"]

    text = io.StringIO()
    for request_id in ("both", "batch", "fallback", "twice"):
        print_explanation(world.explain(request_id), Console(file=text, width=160))
    said = text.getvalue()
    assert "shadow v2  unseen by the caller" in said and "weight then 90 %, revision 5" in said
    assert 'row 0 ({"flight_id": 7}): 0.25 for' in said
    assert "and 2 rows more" in said and "no unit" in said
    assert "instead of v2, which failed" in said and "not found: none of 4 materialisations" in said
    assert "1 of these links could not be followed" in said and "1 more with this request id" in said
