"""What is missing is found, planned in dependency order, run through Dagster and told step by step."""

import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest

from mlops_assets.components.automation import AFTER_DEPLOYMENT
from mlops_assets.errors import StackError
from mlops_assets.local_stack import materialisation
from mlops_assets.local_stack.layout import Layout
from mlops_assets.local_stack.materialisation import Gap, PlannedRun, missing, planned_runs, run_all

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-01-08")
MONTHS = dg.MonthlyPartitionsDefinition("2013-01-01", end_date="2013-03-01")
SINGLE = dg.BackfillPolicy.single_run()
LATER = datetime(2014, 1, 1, tzinfo=UTC)


def key(text):
    return dg.AssetKey(text.split("/"))


def graph_definitions(*, seen, approved=True):
    @dg.asset(key=key("datasets/planes"))
    def planes() -> None:
        seen.append("planes")

    @dg.asset(key=key("datasets/flights"), partitions_def=DAYS, backfill_policy=SINGLE)
    def flights(context: dg.AssetExecutionContext) -> None:
        seen.append(("flights", *context.partition_keys))

    @dg.asset(
        key=key("features/flights"), partitions_def=DAYS, backfill_policy=SINGLE, deps=[planes, flights]
    )
    def features(context: dg.AssetExecutionContext) -> None:
        seen.append(("features", *context.partition_keys))

    @dg.asset(key=key("models/flights"), deps=[features])
    def model(context: dg.AssetExecutionContext) -> None:
        seen.append(("model", len(context.instance.get_materialized_partitions(features.key))))

    @dg.asset(key=key("approvals/flights"), deps=[model])
    def approval() -> None:
        if not approved:
            raise dg.Failure("models/flights waits for a person", allow_retries=False)

    @dg.asset(key=key("deployments/flights"), deps=[approval])
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

        def run(definitions):
            monkeypatch.setattr(materialisation, "load", lambda module: definitions)
            told = []
            run_all("any", dashboard, Layout(tmp_path), lambda kind, **facts: told.append((kind, facts)))
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
    assert of_kind(told, "run")[0]["assets"] == ["deployments/flights"]


def test_an_approval_that_waits_for_a_person_is_no_failure_and_deploys_nothing(build):
    seen = []

    told = build(graph_definitions(seen=seen, approved=False))

    (pending,) = of_kind(told, "pending")
    assert pending["model"] == "flights"
    assert "waits for a person" in pending["reason"]
    assert "deployed" not in seen
    assert of_kind(told, "done") == [{"deployed": []}]


def test_a_failed_step_is_named_with_its_cause(build):
    @dg.asset(key=key("datasets/broken"))
    def broken() -> None:
        raise ValueError("day 2013-01-02 has no rows")

    with pytest.raises(StackError, match=r"datasets__broken: .*day 2013-01-02 has no rows"):
        build(dg.Definitions(assets=[broken]))


def test_only_missing_partitions_are_planned():
    seen = []
    definitions = graph_definitions(seen=seen)
    with dg.instance_for_test() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization(key("datasets/planes")))
        for day in ("2013-01-01", "2013-01-02", "2013-01-07"):
            instance.report_runless_asset_event(
                dg.AssetMaterialization(key("datasets/flights"), partition=day)
            )

        gaps = missing(definitions.resolve_asset_graph(), instance, now=LATER)

    assert key("datasets/planes") not in gaps
    assert gaps[key("datasets/flights")].partitions == (
        "2013-01-03",
        "2013-01-04",
        "2013-01-05",
        "2013-01-06",
    )
    assert planned_runs(
        {key("datasets/flights"): gaps[key("datasets/flights")]}, {key("datasets/flights"): []}
    ) == [PlannedRun((key("datasets/flights"),), ("2013-01-03", "2013-01-06"))]


def test_days_that_are_not_over_are_not_missing():
    graph = graph_definitions(seen=[]).resolve_asset_graph()
    with dg.instance_for_test() as instance:
        gaps = missing(graph, instance, now=datetime(2013, 1, 3, 12, tzinfo=UTC))

    assert gaps[key("datasets/flights")].partitions == ("2013-01-01", "2013-01-02")


def test_what_follows_a_deployment_is_not_missing():
    @dg.asset(key=key("drift/flights"), tags={AFTER_DEPLOYMENT: ""})
    def drift() -> None: ...

    graph = dg.Definitions(assets=[drift]).resolve_asset_graph()
    with dg.instance_for_test() as instance:
        assert missing(graph, instance, now=LATER) == {}


def test_different_partitions_are_different_runs_in_dependency_order():
    a, b, c, d = (key(f"datasets/{name}") for name in "abcd")
    daily, monthly = Gap(DAYS, ("2013-01-01", "2013-01-02")), Gap(MONTHS, ("2013-01-01",))
    gaps = {a: daily, b: Gap(None, ()), c: monthly, d: Gap(None, ())}

    runs = planned_runs(gaps, {a: [], b: [a], c: [b], d: [a, c]})

    assert [(run.assets, run.partitions) for run in runs] == [
        ((a, b), ("2013-01-01", "2013-01-02")),
        ((c, d), ("2013-01-01", "2013-01-01")),
    ]
