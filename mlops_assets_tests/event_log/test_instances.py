"""A prepared instance gives all it holds to those that continue it, and takes nothing from them."""

import dagster as dg

from mlops_assets.testing.instances import continued

KEY = dg.AssetKey("tea")


def versions(instance: dg.DagsterInstance) -> list[object]:
    found = instance.fetch_materializations(KEY, limit=10, ascending=True).records
    return [
        record.asset_materialization.metadata["n"].value for record in found if record.asset_materialization
    ]


def report(instance: dg.DagsterInstance, number: int) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(KEY, metadata={"n": number}))


def test_what_continues_an_instance_has_its_runs_and_events_and_changes_none() -> None:
    @dg.job
    def empty() -> None: ...

    with dg.DagsterInstance.ephemeral() as prepared:
        report(prepared, 1)
        run_id = empty.execute_in_process(instance=prepared).run_id
        with continued(prepared) as one, continued(prepared) as other:
            report(one, 2)
            assert (versions(one), versions(other), versions(prepared)) == ([1, 2], [1], [1])
            found = other.get_run_by_id(run_id)
            assert found is not None and found.is_success
            one.delete_run(run_id)
            assert prepared.get_run_by_id(run_id) is not None
        report(prepared, 3)
        assert versions(prepared) == [1, 3]
