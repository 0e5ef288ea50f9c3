"""What is missing is found, planned in dependency order, run through Dagster and told step by step."""

import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest

from mlops_assets.asset_keys import asset_key, name_tags
from mlops_assets.asset_names import asset_name, read_asset_name
from mlops_assets.assets.automation import AFTER_DEPLOYMENT
from mlops_assets.components.use_cases import placeholders
from mlops_assets.documents.missing import MissingDocument
from mlops_assets.errors import StackError
from mlops_assets.local_stack import materialisation
from mlops_assets.local_stack.layout import Layout
from mlops_assets.local_stack.materialisation import (
    Gap,
    PlannedRun,
    RunProgress,
    missing,
    planned_runs,
    run_all,
)
from mlops_assets.rollout.desired_state import GATEWAY_BUILDER

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-01-08")
MONTHS = dg.MonthlyPartitionsDefinition("2013-01-01", end_date="2013-03-01")
SINGLE = dg.BackfillPolicy.single_run()
LATER = datetime(2014, 1, 1, tzinfo=UTC)


def key(text):
    return dg.AssetKey(text)


def tags(text):
    return name_tags(*read_asset_name(text))


def graph_definitions(*, seen, approved=True, days=DAYS):
    @dg.asset(key=key("planes"), tags=tags("planes"))
    def planes() -> None:
        seen.append("planes")

    @dg.asset(key=key("flights"), tags=tags("flights"), partitions_def=days, backfill_policy=SINGLE)
    def flights(context: dg.AssetExecutionContext) -> None:
        seen.append(("flights", *context.partition_keys))

    @dg.asset(
        key=key("flights_features"),
        tags=tags("flights_features"),
        partitions_def=days,
        backfill_policy=SINGLE,
        deps=[planes, flights],
    )
    def features(context: dg.AssetExecutionContext) -> None:
        seen.append(("features", *context.partition_keys))

    @dg.asset(key=key("flights_model"), tags=tags("flights_model"), deps=[features])
    def model(context: dg.AssetExecutionContext) -> None:
        seen.append(("model", len(context.instance.get_materialized_partitions(features.key))))

    @dg.asset(key=key("flights_approval"), tags=tags("flights_approval"), deps=[model])
    def approval() -> None:
        if not approved:
            raise dg.Failure("flights_model waits for a person", allow_retries=False)

    @dg.asset(key=key("flights_deployment"), tags=tags("flights_deployment"), deps=[approval])
    def deployment() -> None:
        seen.append("deployed")

    return dg.Definitions(assets=[planes, flights, features, model, approval, deployment])


@pytest.fixture
def dashboard():
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def build(monkeypatch, dashboard, tmp_path):
    """Runs everything on one instance and returns what was told, by kind."""
    with dg.instance_for_test() as instance:

        def run(definitions, **options):
            monkeypatch.setattr(materialisation, "load", lambda module: definitions)
            told = []

            def emit(kind, **facts):
                told.append((kind, facts))

            run_all("any", dashboard, Layout(tmp_path), emit, **options)
            return told

        run.instance = instance
        yield run


def of_kind(told, kind):
    return [facts for each, facts in told if each == kind]


def test_daily_and_unpartitioned_assets_are_one_run_and_each_sees_its_range(build):
    seen = []

    told = build(graph_definitions(seen=seen))

    days = tuple(DAYS.get_partition_keys())
    assert set(seen) == {"planes", ("flights", *days), ("features", *days), ("model", 7), "deployed"}
    (run,) = of_kind(told, "run")
    assert (run["title"], run["partitions"]) == ("run 1 of 1", [days[0], days[-1]])
    assert of_kind(told, "done") == [{"deployed": ["flights"]}]


def test_a_lost_deployment_is_made_again_and_nothing_else(build):
    seen = []
    build(graph_definitions(seen=seen))
    seen.clear()

    # The cluster is empty and no desired state was saved: the deployment answers nowhere.
    told = build(graph_definitions(seen=seen))

    assert seen == ["deployed"]
    assert of_kind(told, "run")[0]["assets"] == ["flights_deployment"]


def test_an_approval_that_waits_for_a_person_is_no_failure_and_deploys_nothing(build):
    seen = []

    told = build(graph_definitions(seen=seen, approved=False))

    (pending,) = of_kind(told, "pending")
    assert pending["model"] == "flights"
    assert "waits for a person" in pending["reason"]
    assert "deployed" not in seen
    assert of_kind(told, "done") == [{"deployed": []}]


def use_case(name, *, fails="", seen, needs=()):
    """A dataset, a model and a deployment in a group of that name; the kind ``fails`` raises."""

    def made(kind, upstream):
        @dg.asset(key=asset_key(kind, name), tags=name_tags(kind, name), group_name=name, deps=upstream)
        def asset() -> None:
            if kind == fails:
                raise ValueError(f"{name} has no rows")
            seen.append(asset_name(kind, name))

        return asset

    dataset = made("dataset", [key(each) for each in needs])
    model = made("model", [dataset])
    return dg.Definitions(assets=[dataset, model, made("deployment", [model])])


def test_a_use_case_that_fails_is_told_with_its_cause_and_stops_no_other(build):
    seen = []
    three = dg.Definitions.merge(
        use_case("apples", seen=seen),
        use_case("birches", fails="dataset", seen=seen),
        use_case("cherries", fails="model", seen=seen),
        use_case("damsons", seen=seen),
    )

    told = build(three)

    whole = [
        asset_name(kind, name)
        for name in ("apples", "damsons")
        for kind in ("dataset", "model", "deployment")
    ]
    assert sorted(seen) == sorted([*whole, "cherries"])
    assert [run["use_case"] for run in of_kind(told, "run")] == ["apples", "birches", "cherries", "damsons"]
    lost = of_kind(told, "lost")
    assert [one["use_case"] for one in lost] == ["birches", "cherries"]
    assert "birches: " in lost[0]["reason"] and "birches has no rows" in lost[0]["reason"]
    assert "cherries_model: " in lost[1]["reason"] and lost[1]["run_id"]
    assert of_kind(told, "done") == [{"deployed": ["apples", "damsons"]}]


class Cluster:
    """What a serve client and its target say of deployments that run."""

    def __init__(self, *names):
        self.names = names
        self.target = self

    def declared(self):
        return [{"name": name, "import_path": GATEWAY_BUILDER} for name in self.names]

    def problems(self, names, wait):
        return {}


def test_a_check_that_stops_a_use_case_is_told_in_its_own_words(build):
    @dg.asset(
        key=key("apples_evaluation"),
        tags=tags("apples_evaluation"),
        group_name="apples",
        check_specs=[dg.AssetCheckSpec("gate", asset=key("apples_evaluation"), blocking=True)],
    )
    def judged() -> dg.MaterializeResult:
        said = dg.AssetCheckResult(check_name="gate", passed=False, description="inconclusive: 12 rows")
        return dg.MaterializeResult(check_results=[said])

    told = build(dg.Definitions(assets=[judged]))

    (lost,) = of_kind(told, "lost")
    assert lost["reason"] == "apples_evaluation: check gate: inconclusive: 12 rows"


def test_a_second_time_only_what_failed_is_tried_again(build):
    seen = []
    running = dg.Definitions(resources={"serve_client": Cluster("apples")})
    apples = use_case("apples", seen=seen)
    build(dg.Definitions.merge(apples, use_case("birches", fails="model", seen=seen), running), again=True)
    seen.clear()

    told = build(dg.Definitions.merge(apples, use_case("birches", seen=seen), running), again=True)

    # What answers keeps answering, and what was made of the other is kept.
    assert seen == ["birches_model", "birches_deployment"]
    assert of_kind(told, "lost") == []


def test_what_needs_a_use_case_that_failed_is_told_too(build):
    seen = []
    told = build(
        dg.Definitions.merge(
            use_case("apples", needs=["zebras_model"], seen=seen),
            use_case("zebras", fails="dataset", seen=seen),
        )
    )
    assert seen == []
    assert [one["use_case"] for one in of_kind(told, "lost")] == ["zebras", "apples"]
    assert "apples needs zebras_model" in of_kind(told, "lost")[1]["reason"]


def test_use_cases_that_need_each_other_are_built_as_far_as_they_go(build):
    seen = []
    both = dg.Definitions.merge(
        use_case("apples", needs=["birches"], seen=seen), use_case("birches", seen=seen)
    )
    told = build(both)
    assert len(seen) == 6 and of_kind(told, "lost") == []
    assert [run["use_case"] for run in of_kind(told, "run")] == ["birches", "apples"]


def test_a_use_case_left_out_is_not_built_and_what_needs_it_says_so(build):
    seen = []
    both = dg.Definitions.merge(
        use_case("apples", needs=["birches"], seen=seen), use_case("birches", seen=seen)
    )
    told = build(both, skip={"birches"})
    assert seen == [] and "birches: it failed before" in of_kind(told, "lost")[0]["reason"]


def test_what_a_run_is_making_already_is_left_to_it(build):
    seen = []
    definitions = use_case("apples", seen=seen)
    build.instance.create_run_for_job(
        definitions.resolve_implicit_global_asset_job_def(),
        asset_selection={key("apples_model")},
        status=dg.DagsterRunStatus.STARTED,
    )

    told = build(definitions, again=True)

    assert seen == ["apples"]
    assert "is making it" in of_kind(told, "lost")[0]["reason"]


def test_what_cannot_be_loaded_is_told(build):
    lost = MissingDocument("x.yaml:3", "birches", "ModelComponent b", "x.yaml:4: no", "", ("birches_model",))
    told = build(dg.Definitions.merge(use_case("apples", seen=[]), placeholders([lost])))
    (missing,) = of_kind(told, "missing")
    assert (missing["use_case"], missing["problem"]) == ("birches", "x.yaml:4: no")
    assert missing["command"] == "mend x.yaml:3, see that `dg check defs` passes, then: make up"


def test_later_days_of_a_use_case_that_answers_are_left_to_its_data(build):
    seen = []
    running = dg.Definitions(resources={"serve_client": Cluster("flights")})
    build(dg.Definitions.merge(graph_definitions(seen=seen), running), again=True)
    seen.clear()
    days = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-02-01")
    longer = graph_definitions(seen=seen, days=days)

    told = build(dg.Definitions.merge(longer, use_case("apples", seen=seen), running), again=True)

    assert [run["use_case"] for run in of_kind(told, "run")] == ["apples"]
    assert not [one for one in seen if "flights" in str(one)]


def test_only_missing_partitions_are_planned():
    seen = []
    definitions = graph_definitions(seen=seen)
    with dg.instance_for_test() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization(key("planes")))
        for day in ("2013-01-01", "2013-01-02", "2013-01-07"):
            instance.report_runless_asset_event(dg.AssetMaterialization(key("flights"), partition=day))

        gaps = missing(definitions.resolve_asset_graph(), instance, now=LATER)

    assert key("planes") not in gaps
    assert gaps[key("flights")].partitions == (
        "2013-01-03",
        "2013-01-04",
        "2013-01-05",
        "2013-01-06",
    )
    assert planned_runs({key("flights"): gaps[key("flights")]}, {key("flights"): []}) == [
        PlannedRun((key("flights"),), ("2013-01-03", "2013-01-06"))
    ]


def test_days_that_are_not_over_are_not_missing():
    graph = graph_definitions(seen=[]).resolve_asset_graph()
    with dg.instance_for_test() as instance:
        gaps = missing(graph, instance, now=datetime(2013, 1, 3, 12, tzinfo=UTC))

    assert gaps[key("flights")].partitions == ("2013-01-01", "2013-01-02")


def test_what_follows_a_deployment_is_not_missing():
    @dg.asset(key=key("flights_drift"), tags={AFTER_DEPLOYMENT: ""})
    def drift() -> None: ...

    graph = dg.Definitions(assets=[drift]).resolve_asset_graph()
    with dg.instance_for_test() as instance:
        assert missing(graph, instance, now=LATER) == {}


def test_different_partitions_are_different_runs_in_dependency_order():
    a, b, c, d = (key(name) for name in "abcd")
    daily, monthly = Gap(DAYS, ("2013-01-01", "2013-01-02")), Gap(MONTHS, ("2013-01-01",))
    gaps = {a: daily, b: Gap(None, ()), c: monthly, d: Gap(None, ())}

    runs = planned_runs(gaps, {a: [], b: [a], c: [b], d: [a, c]})

    assert [(run.assets, run.partitions) for run in runs] == [
        ((a, b), ("2013-01-01", "2013-01-02")),
        ((c, d), ("2013-01-01", "2013-01-01")),
    ]


def test_two_do_not_build_the_same_graph_at_once(tmp_path):
    layout = Layout(tmp_path)
    layout.run.mkdir()
    with (
        materialisation._alone(layout),
        pytest.raises(StackError, match="another `make up` is building"),
        materialisation._alone(layout),
    ):
        pass
    with materialisation._alone(layout):
        pass


def test_progress_is_told_from_within_a_run_and_after_one_that_failed() -> None:
    told: list[tuple[int, int, str] | None] = []

    @dg.asset
    def first(context: dg.AssetExecutionContext) -> None:
        told.append(RunProgress(context.instance, context.run.run_id).now())

    @dg.asset(deps=[first])
    def second(context: dg.AssetExecutionContext) -> None:
        progress = RunProgress(context.instance, context.run.run_id)
        told.extend([progress.now(), progress.now()])
        raise ValueError("no")

    with dg.DagsterInstance.ephemeral() as instance:
        assert RunProgress(instance, "of-no-run").now() is None
        run = dg.materialize([first, second], instance=instance, raise_on_error=False)
        assert told == [(0, 2, "first"), (1, 2, "second"), (1, 2, "second")]
        assert RunProgress(instance, run.run_id).now() == (2, 2, "")
