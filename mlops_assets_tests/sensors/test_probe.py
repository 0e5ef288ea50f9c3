"""The sensor of a probed dataset asks for exactly the days that changed, and for none that was judged."""

import json
import time

import dagster as dg
import pyarrow as pa
import pytest

from mlops_assets.asset_keys import asset_key
from mlops_assets.assets.dataset import dataset_asset, quarantine_asset
from mlops_assets.data.loading import Source
from mlops_assets.data.sources import WHOLE, SourceReader
from mlops_assets.data.sources.csv_format import CsvSource
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.errors import DataError, SourceUnavailable
from mlops_assets.event_log.source_states import SOURCE_STATE
from mlops_assets.sensors.probe import ProbeCursor, probe_sensor

SALES = asset_key("dataset", "sales")
DAILY = {
    "name": "sales",
    "source": {"format": "csv", "path": "unread.csv"},
    "partitions": {"start": "2024-01-01", "end": "2024-01-11", "column": "day"},
    "columns": {"id": "integer", "day": "string"},
    "primary_key": ["id"],
}
WITHOUT_DAYS = {**DAILY, "partitions": None}


class Shelf(SourceReader):
    """Rows in memory: {day: ids}, each day in a numbered state."""

    where = "the shelf"

    def __init__(self, **days):
        self.days, self.marks, self.fault = {}, {}, None
        self.put(**days)

    def put(self, **days):
        for day, ids in days.items():
            key = f"2024-01-{day[1:]}"
            self.days[key], self.marks[key] = ids, self.marks.get(key, 0) + 1

    def read(self, asked, lake):
        if self.fault is not None:
            raise self.fault
        rows = [(key, one) for key, ids in self.days.items() for one in ids]
        return pa.table({"day": [key for key, _ in rows], "id": pa.array([one for _, one in rows])})

    def states(self, asked, lake):
        if asked.partition_column is None:
            return {WHOLE: f"{self.marks}"} if self.days else {}
        wanted = self.days if asked.partitions is None else asked.partitions
        return {key: f"{self.marks[key]}" for key in wanted if self.days.get(key)}


class Watched:
    """A dataset of a shelf, its sensor and its runs."""

    def __init__(self, shelf, lake, instance, declared=DAILY):
        declared = DatasetDeclaration.model_validate(declared)
        source = Source(shelf, probed=True)
        self.lake, self.instance, self.cursor = lake, instance, None
        self.sensor = probe_sensor(declared, source)
        self.defs = dg.Definitions(
            assets=[dataset_asset("shop", declared, source), quarantine_asset("shop", declared)],
            sensors=[self.sensor],
            resources={"lake": lake},
        )

    def look(self):
        """One tick: the ranges it asks for."""
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursor, definitions=self.defs, resources={"lake": self.lake}
        )
        told = self.sensor.evaluate_tick(context)
        self.cursor = told.cursor
        self.rest(0)
        self.requests, self.skipped = told.run_requests, told.skip_message
        return [self.days(one) for one in self.requests]

    @staticmethod
    def days(request):
        if request.partition_key:
            return (request.partition_key, request.partition_key)
        first = request.tags.get("dagster/asset_partition_range_start")
        return (first, request.tags.get("dagster/asset_partition_range_end"))

    def rest(self, until):
        self.cursor = self.cursor and json.dumps({**json.loads(self.cursor), "rest_until": until})

    def carry_out(self):
        """What was asked for, one run after the other: whether each went well."""
        job = self.defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={SALES})
        return [
            job.execute_in_process(
                instance=self.instance,
                partition_key=request.partition_key,
                tags=dict(request.tags),
                raise_on_error=False,
            ).success
            for request in self.requests
        ]

    def looked(self):
        """The ranges that a tick asks for, once their runs have ended."""
        asked = self.look()
        self.carry_out()
        return asked


@pytest.fixture
def shelf():
    return Shelf(d01=[1], d02=[2], d03=[3], d07=[7])


@pytest.fixture
def sales(shelf, lake, instance):
    return Watched(shelf, lake, instance)


def test_the_sensor_is_on_from_the_start_and_has_the_name_of_its_dataset(sales):
    assert sales.sensor.name == "probe_sales"
    assert sales.sensor.default_status is dg.DefaultSensorStatus.RUNNING


def test_new_days_are_asked_for_once_as_ranges(sales, lake):
    assert sales.look() == [("2024-01-01", "2024-01-03"), ("2024-01-07", "2024-01-07")]
    assert [one.asset_selection for one in sales.requests] == [[SALES]] * 2
    assert {one.tags["mlops/reason"] for one in sales.requests} == {"4 new"}
    assert sales.carry_out() == [True, True]
    assert sorted(lake.read("datasets/sales")["id"]) == [1, 2, 3, 7]
    assert sales.look() == [] and sales.skipped == "nothing changed"


def test_the_state_of_each_day_stands_in_its_event(sales, instance):
    sales.looked()
    for day in ("2024-01-02", "2024-01-07"):
        filters = dg.AssetRecordsFilter(SALES, asset_partitions=[day])
        event = instance.fetch_materializations(filters, limit=1).records[0].asset_materialization
        assert event.metadata[SOURCE_STATE].value == "1"


def test_only_what_changed_is_asked_for_again(sales, shelf, lake):
    sales.looked()
    shelf.put(d02=[22], d04=[4], d05=[5])
    assert sales.looked() == [("2024-01-02", "2024-01-02"), ("2024-01-04", "2024-01-05")]
    assert sorted(lake.read("datasets/sales")["id"]) == [1, 3, 4, 5, 7, 22]
    assert sales.look() == []


def test_a_day_that_was_read_by_hand_is_not_asked_for(sales, shelf):
    sales.looked()
    shelf.put(d02=[22])
    sales.look()
    sales.carry_out()
    sales.cursor = None
    assert sales.look() == []


def test_a_day_whose_rows_are_gone_is_asked_for_once_and_keeps_what_it_held(sales, shelf, lake):
    sales.looked()
    shelf.put(d07=[])
    assert sales.look() == [("2024-01-07", "2024-01-07")]
    assert sales.carry_out() == [False]
    assert sorted(lake.read("datasets/sales")["id"]) == [1, 2, 3, 7]
    assert sales.look() == []


def test_a_bad_day_is_not_asked_for_until_it_changes_and_the_others_are_written(sales, shelf, instance, lake):
    shelf.put(d02=["x"])
    shelf.days["2024-01-01"] = ["1"]
    shelf.days["2024-01-03"] = ["3"]
    shelf.days["2024-01-07"] = ["7"]
    assert sales.look() == [("2024-01-01", "2024-01-03"), ("2024-01-07", "2024-01-07")]
    # All rows are read in each run; those of other days cost it nothing.
    assert sales.carry_out() == [False, True]
    assert sorted(lake.read("datasets/sales")["id"]) == [1, 3, 7]
    assert sales.look() == [] and sales.skipped == "nothing changed"
    (record,) = instance.fetch_observations(SALES, limit=9).records
    said = record.event_log_entry.asset_observation
    assert (said.partition, said.metadata[SOURCE_STATE].value) == ("2024-01-02", "2")
    assert "'x'" in said.metadata["not_written"].value
    shelf.put(d02=["2"])
    assert sales.looked() == [("2024-01-02", "2024-01-02")]
    assert sorted(lake.read("datasets/sales")["id"]) == [1, 2, 3, 7]


def test_a_state_that_comes_back_is_asked_for_again_under_another_key(sales, shelf):
    sales.looked()
    keys = set()
    for mark in (5, 1, 5, 1):
        shelf.marks["2024-01-02"] = mark
        assert sales.looked() == [("2024-01-02", "2024-01-02")]
        keys |= {one.run_key for one in sales.requests}
    assert len(keys) == 4


def test_a_tick_that_is_evaluated_twice_asks_with_the_same_key(sales):
    before = sales.cursor
    sales.look()
    keys = [one.run_key for one in sales.requests]
    sales.cursor = before
    sales.look()
    assert [one.run_key for one in sales.requests] == keys and len(set(keys)) == 2


@pytest.mark.parametrize("fault", [SourceUnavailable("it does not answer"), DataError("no such table")])
def test_days_that_nobody_judged_are_tried_again_after_a_while(sales, shelf, fault, monkeypatch):
    shelf.fault = fault
    sales.look()
    assert sales.carry_out() == [False, False]
    assert sales.look() == [] and "4 were asked for by runs that broke off" in sales.skipped
    # A day that is new does not wait for them.
    shelf.put(d09=[9])
    assert sales.look() == [("2024-01-09", "2024-01-09")]
    shelf.fault = None
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 3600)
    assert sales.looked() == [
        ("2024-01-01", "2024-01-03"),
        ("2024-01-07", "2024-01-07"),
        ("2024-01-09", "2024-01-09"),
    ]
    assert sales.look() == []


def test_nothing_is_asked_for_while_a_run_reads(sales, instance):
    job = sales.defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={SALES})
    run = instance.create_run_for_job(
        job, asset_selection=frozenset({SALES}), status=dg.DagsterRunStatus.STARTED
    )
    assert sales.look() == [] and run.run_id in sales.skipped


def test_a_source_that_does_not_answer_fails_the_tick(sales, shelf):
    def states(asked, lake):
        raise SourceUnavailable("the shelf does not answer")

    shelf.states = states
    with pytest.raises(SourceUnavailable, match="the shelf does not answer"):
        sales.look()


def test_a_look_that_took_long_is_followed_by_a_rest(sales):
    sales.look()
    sales.rest(time.time() + 100)
    assert sales.look() == [] and "the next look is in" in sales.skipped


def test_a_dataset_without_days_is_asked_for_as_a_whole(shelf, lake, instance):
    sales = Watched(shelf, lake, instance, WITHOUT_DAYS)
    assert sales.look() == [(None, None)]
    assert sales.carry_out() == [True]
    assert sales.look() == []
    shelf.put(d02=[3])
    assert sales.looked() == [(None, None)]
    assert sales.look() == []
    shelf.put(d02=["y"])
    for day in ("2024-01-01", "2024-01-03", "2024-01-07"):
        shelf.days[day] = ["1"]
    assert sales.looked() == [(None, None)]
    assert sales.look() == []


def test_a_cursor_is_read_as_it_was_written():
    cursor = ProbeCursor(read=3, judged={"a": "b"}, asked={"c": "d"}, asks=2, rest_until=1.5)
    assert ProbeCursor.of(json.dumps(cursor.__dict__)) == cursor and ProbeCursor.of(None) == ProbeCursor()


def test_a_folder_of_files_is_probed(tmp_path, lake, instance):
    def put(name, number):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"id\n{number}\n")

    for number in (1, 2):
        put(f"2024-01-0{number}/1.csv", number)
    source = CsvSource(format="csv", path="{partition}/*.csv", probe=True)
    watched = Watched(source.reader(tmp_path), lake, instance)
    assert watched.looked() == [("2024-01-01", "2024-01-02")]
    assert watched.looked() == []
    put("2024-01-02/2.csv", 22)
    put("2024-01-02/_SUCCESS", 0)
    put("2024-01-01/_SUCCESS", 0)
    assert watched.looked() == [("2024-01-02", "2024-01-02")]
    assert sorted(lake.read("datasets/sales")["id"]) == [1, 2, 22]
