"""A view that says ``online`` gets a store that holds what its datasets held, and says when that was."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.testing import DefsFolderSandbox

from mlops_assets import environment
from mlops_assets.asset_keys import asset_key
from mlops_assets.assets.feature_view import feature_table
from mlops_assets.assets.online_filling import fill
from mlops_assets.assets.online_table import OnlineTable, online_table
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.errors import DataError
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.online_stores import OnlineStores
from mlops_assets_tests.components.test_dataset import failure, materialize
from mlops_assets_tests.components.test_feature_view import DATASETS, DAYS, VIEW, write_trips
from mlops_assets_tests.contracts.test_wrong_yaml import errors, sandbox
from serve.errors import InvalidFields
from serve.online.held import HEAD, Head
from serve.online.lookup import Lookups, OnlineFeatures
from serve.online.request import KeyedRow
from serve.online.stores import feast as feast_store
from serve.online.stores import redis as redis_store
from serve.online.stores.sqlite import SqliteStore
from serve.schema import ModelManifest

__all__ = ["sandbox"]

DATASETS = DATASETS.replace("temp: number}", "temp: number}\n  primary_key: [origin, known_at]", 1)
ONLINE = VIEW + "  online: {request: [leaves, origin, plane], keep: 12h}\n"
BASE, WEATHER, PLANES, KEPT = (
    *(asset_key("dataset", name) for name in ("trips", "weather", "planes")),
    asset_key("online_features", "trips"),
)
NOW = datetime(2024, 1, 5, 9, tzinfo=UTC)


@pytest.fixture
def raw(use_case: Path) -> Path:
    for position, day in enumerate(DAYS):
        write_trips(use_case, day, delay=10.0 * position)
    return use_case


@pytest.fixture
def kept(raw: Path, load: Any, tmp_path: Path) -> dg.Definitions:
    (tmp_path / "now").write_text(NOW.isoformat())
    stores = OnlineStores(uri=str(tmp_path / "online"))
    found: dg.Definitions = load(
        DATASETS + ONLINE, online_stores=stores, clock=Clock(file=str(tmp_path / "now"))
    )
    return found


def filled(kept: dg.Definitions, instance: dg.DagsterInstance) -> Any:
    job = kept.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, asset_selection=[KEPT], raise_on_error=False)
    assert result.success, result.all_events[-1]
    return result.asset_materializations_for_node(KEPT.to_python_identifier())[0]


def tables() -> OnlineTable:
    """The documents as the component reads them."""
    documents = [one["attributes"] for one in yaml.safe_load_all(DATASETS + ONLINE)]
    datasets = {one["name"]: DatasetDeclaration(**one) for one in documents if "source" in one}
    return online_table(feature_table(FeatureViewDeclaration(**documents[-1]), datasets, None), None)


def opened(tmp_path: Path, now: datetime = NOW) -> OnlineFeatures:
    """The store as a gateway looks things up in it."""
    served = tables()
    manifest = ModelManifest(
        name="trips",
        task="regression",
        trainer="x",
        model_format="x",
        model_file="x",
        target="y",
        features=served.table.declared.features,
        online=served.online,
    )
    found = Lookups(str(tmp_path / "online"), now.timestamp).of(manifest)
    assert found is not None
    return found


def row(online: OnlineFeatures, leaves: str, **request: Any) -> dict[str, Any]:
    sent = KeyedRow({"id": "x"}, {"leaves": leaves, "origin": "EWR", "plane": "N1", **request})
    return online.look_up([sent], lambda number: "request").rows[0]


def test_the_asset_carries_what_a_person_looks_for(kept: dg.Definitions) -> None:
    node = kept.resolve_asset_graph().get(KEPT)
    assert node.group_name == "shop" and node.partitions_def is None
    assert node.parent_keys == {BASE, WEATHER, PLANES}
    assert node.tags["mlops/kind"] == "online_features"


def test_it_holds_what_the_datasets_hold_and_says_so(
    kept: dg.Definitions, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert materialize(kept, instance, DAYS[0], DAYS[4], (BASE, WEATHER, PLANES)).success
    event = filled(kept, instance)
    assert event.metadata["applied"].value == {"planes": 0, "trips": 0, "weather": 0}
    # Of the newest row known by then, at 08:30 of the fifth day, and half a day before it.
    assert event.metadata["earliest_event"].value == "2024-01-04T20:30:00+00:00"
    online = opened(tmp_path)
    found = row(online, "2024-01-05T09:00:00Z")
    assert found == {"origin": "EWR", "temp": 10.0, "seats": 100, "delay_24h": 35.0}
    assert row(online, "2024-01-05T09:00:00+00:00", origin="JFK", plane="N9") == {
        "origin": "JFK",
        "temp": None,
        "seats": None,
        "delay_24h": None,
    }
    with pytest.raises(InvalidFields, match=r"request\.leaves"):
        row(online, "2024-01-04T20:29:59Z")
    assert online.report()["state"] == "fresh" and online.report()["applied"] == {
        "planes": 0,
        "trips": 0,
        "weather": 0,
    }


def test_a_later_run_writes_what_changed_and_the_same_again_writes_nothing(
    kept: dg.Definitions, raw: Path, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert materialize(kept, instance, DAYS[0], DAYS[4], (BASE, WEATHER, PLANES)).success
    first = filled(kept, instance)
    again = filled(kept, instance)
    assert again.metadata["values_written"].value == 0
    assert again.tags["dagster/data_version"] == first.tags["dagster/data_version"]
    write_trips(raw, DAYS[3], delay=90.0)
    assert materialize(kept, instance, DAYS[3], DAYS[3], (BASE,)).success
    later = filled(kept, instance)
    assert later.metadata["applied"].value["trips"] == 1
    # Two trips, and the one run that they are in.
    assert later.metadata["values_written"].value == 3
    assert later.tags["dagster/data_version"] != first.tags["dagster/data_version"]
    assert row(opened(tmp_path), "2024-01-05T09:00:00Z")["delay_24h"] == 65.0
    (raw / "raw" / "planes.csv").write_text("plane,seats\nN2,250\n")
    (tmp_path / "now").write_text("2024-01-06T21:00:00+00:00")
    assert materialize(kept, instance, DAYS[5], DAYS[5], (BASE, WEATHER, PLANES)).success
    assert filled(kept, instance).metadata["earliest_event"].value == "2024-01-06T08:30:00+00:00"
    online = opened(tmp_path)
    assert row(online, "2024-01-06T21:00:00Z") == {
        "origin": "EWR",
        "temp": 99.0,
        "seats": None,
        "delay_24h": 50.0,
    }
    assert row(online, "2024-01-06T21:00:00Z", plane="N2")["seats"] == 250


def test_what_no_event_may_ask_for_leaves_the_store(
    kept: dg.Definitions, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert materialize(kept, instance, DAYS[0], DAYS[4], (BASE, WEATHER, PLANES)).success
    filled(kept, instance)
    file = next((tmp_path / "online").glob("*.sqlite"))
    store = SqliteStore(str(file.parent), view=file.stem)
    held = {key for key, _ in store.scan("=trips:")}
    assert len(held) == 10
    (tmp_path / "now").write_text("2024-01-15T09:00:00+00:00")
    assert materialize(kept, instance, DAYS[5], DAYS[5], (BASE, WEATHER)).success
    filled(kept, instance)
    left = {key for key, _ in store.scan("=trips:")}
    assert len(left) == 10 and held - left == {key for key in held if DAYS[0] in key}


def test_a_table_that_was_never_made_fails_by_name(
    kept: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    job = kept.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(instance=instance, asset_selection=[KEPT], raise_on_error=False)
    assert "There is no table 'datasets/trips'" in failure(result)


def test_a_run_that_another_overtook_writes_nothing(
    kept: dg.Definitions, lake: Lake, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert materialize(kept, instance, DAYS[0], DAYS[4], (BASE, WEATHER, PLANES)).success
    served = tables()
    stores = OnlineStores(uri=str(tmp_path / "online"))

    class Overtaken(SqliteStore):
        def commit(self, *given: Any, **named: Any) -> None:
            fill(lake, stores.of(served.online), served, now=NOW)
            super().commit(*given, **named)

    name = f"trips-{served.online.shape}"
    with pytest.raises(DataError, match="written meanwhile"):
        fill(lake, Overtaken(str(tmp_path / "online"), view=name), served, now=NOW)
    head = Head.of(SqliteStore(str(tmp_path / "online"), view=name).read([HEAD])[0] or b"")
    assert head.as_of == NOW.timestamp()


def test_a_function_on_one_row_stands_in_a_module_that_needs_nothing_else(
    sandbox: DefsFolderSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needy_functions.py").write_text(
        "import json\nimport pandas as pd\n\ndef frame(joined):\n    return joined\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    online = "online: {request: [leaves, origin, plane], transform: needy_functions.frame}"
    told = errors(sandbox, DATASETS + VIEW + f"  transform: needy_functions.frame\n  {online}\n")
    assert "needy_functions imports pandas" in told and "defs.yaml:4" in told
    told = errors(sandbox, DATASETS + VIEW + "  online: {request: [leaves], store: papyrus}\n")
    assert "Unknown online store 'papyrus'. Allowed: feast, redis, sqlite" in told


def test_a_store_that_needs_something_says_what_at_load_and_where_it_is_used(
    sandbox: DefsFolderSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = DATASETS + VIEW + "  online: {request: [leaves, origin, plane], store: redis}\n"
    # Definitions load where no server is, as in continuous integration.
    monkeypatch.delenv(redis_store.VARIABLE, raising=False)
    assert errors(sandbox, text) == ""
    view = tables().online.model_copy(update={"store": "redis"})
    with pytest.raises(DataError, match=f"{redis_store.VARIABLE} is not set: .* Set it where gateways"):
        OnlineStores(uri="").of(view)
    assert environment.ONLINE_REDIS_URL.name == redis_store.VARIABLE
    assert environment.ONLINE_FEAST_REPO.name == feast_store.VARIABLE
    monkeypatch.setattr(redis_store.importlib.util, "find_spec", lambda name: None)
    told = errors(sandbox, text)
    assert "pip install 'mlops-assets[redis]'" in told and "defs.yaml:4" in told
