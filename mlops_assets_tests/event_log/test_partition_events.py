"""Every partition has its own data version, whatever range a run covered, and staleness follows from it."""

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from mlops_assets.event_log.partition_events import latest_versions, report_partitions, run_partitions

DAYS = [f"2024-01-0{day}" for day in range(1, 7)]
PARTITIONS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-01-07")
UP, DOWN = dg.AssetKey("up"), dg.AssetKey("down")


class World:
    """Two assets over six days; ``content`` is what a day of the upstream one holds."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.content = dict.fromkeys(DAYS, "first")
        options = {"partitions_def": PARTITIONS, "backfill_policy": dg.BackfillPolicy.single_run()}

        def yield_versions(context, versions):
            yield dg.MaterializeResult(data_version=dg.DataVersion("|".join(versions.values())))
            if len(versions) > 1:
                report_partitions(context, context.asset_key, versions, {})

        @dg.asset(key=UP, code_version="1", **options)
        def up(context: dg.AssetExecutionContext):
            yield from yield_versions(context, {day: self.content[day] for day in run_partitions(context)})

        @dg.asset(key=DOWN, code_version="1", deps=[UP], **options)
        def down(context: dg.AssetExecutionContext):
            yield from yield_versions(
                context, {day: f"of {self.content[day]}" for day in run_partitions(context)}
            )

        self.defs = dg.Definitions(assets=[up, down])

    def run(self, assets, start=DAYS[0], end=DAYS[-1]):
        tags = {"dagster/asset_partition_range_start": start, "dagster/asset_partition_range_end": end}
        job = self.defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection=set(assets))
        assert job.execute_in_process(instance=self.instance, tags=tags).success

    def stale(self, key=DOWN):
        resolver = CachingStaleStatusResolver(
            self.instance, self.defs.resolve_asset_graph(), LoadingContextForTest(self.instance)
        )
        return {day for day in DAYS if resolver.get_status(key, day).value != "FRESH"}

    def tags(self, key, day):
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=key, asset_partitions=[day]), limit=2
        ).records
        return [record.asset_materialization.tags for record in records]


@pytest.fixture
def world(instance):
    return World(instance)


def test_the_latest_event_of_a_day_has_that_days_version(world):
    world.content[DAYS[2]] = "other"
    world.run([UP])
    expected = dict.fromkeys(DAYS, "first") | {DAYS[2]: "other"}
    assert latest_versions(world.instance, UP, DAYS) == expected


def test_the_tags_are_the_ones_dagster_writes(world):
    world.run([UP, DOWN])
    ours, dagsters = world.tags(DOWN, DAYS[3])
    assert ours.keys() == dagsters.keys()
    assert {name for name in ours if ours[name] != dagsters[name]} == {"dagster/data_version"}
    assert ours["dagster/code_version"] == "1"
    assert int(ours["dagster/input_event_pointer/up"]) > 0


@pytest.mark.parametrize(("start", "end"), [(0, 5), (1, 3), (2, 2), (5, 5)])
def test_the_same_content_again_makes_nothing_stale(world, start, end):
    world.run([UP, DOWN])
    world.run([UP], DAYS[start], DAYS[end])
    assert world.stale() == set()


@pytest.mark.parametrize(("start", "end"), [(0, 5), (1, 3), (2, 2)])
def test_a_changed_day_makes_exactly_that_day_stale(world, start, end):
    world.run([UP, DOWN])
    world.content[DAYS[2]] = "corrected"
    world.run([UP], DAYS[start], DAYS[end])
    assert world.stale() == {DAYS[2]}


@pytest.mark.parametrize(("start", "end"), [(0, 5), (2, 3), (2, 2)])
def test_rerunning_what_is_stale_makes_it_fresh_in_whatever_range(world, start, end):
    world.run([UP, DOWN])
    world.content[DAYS[2]] = "corrected"
    world.run([UP])
    world.run([DOWN], DAYS[start], DAYS[end])
    assert world.stale() == set()


def test_days_made_one_by_one_and_rewritten_as_a_range_stay_fresh(world):
    for day in DAYS:
        world.run([UP], day, day)
    for day in reversed(DAYS):
        world.run([DOWN], day, day)
    assert world.stale() == set()
    world.run([UP])
    assert world.stale() == set()


def test_a_change_that_is_taken_back_is_stale_only_in_between(world):
    world.run([UP, DOWN])
    world.content[DAYS[1]] = "mistake"
    world.run([UP])
    assert world.stale() == {DAYS[1]}
    world.content[DAYS[1]] = "first"
    world.run([UP], DAYS[0], DAYS[1])
    assert world.stale() == set()


def test_an_asset_without_partitions_in_a_range_run_has_none(instance):
    seen = {}

    @dg.asset
    def plain(context: dg.AssetExecutionContext):
        seen["plain"] = run_partitions(context)
        return dg.MaterializeResult()

    @dg.asset(partitions_def=PARTITIONS, backfill_policy=dg.BackfillPolicy.single_run())
    def daily(context: dg.AssetExecutionContext):
        seen["daily"] = run_partitions(context)
        return dg.MaterializeResult()

    tags = {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[1]}
    job = dg.Definitions(assets=[plain, daily]).resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, tags=tags).success
    assert seen == {"plain": None, "daily": DAYS[:2]}
