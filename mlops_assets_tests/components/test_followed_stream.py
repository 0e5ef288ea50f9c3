"""A view that follows a stream: what its document may say, whom it wakes, and the age of a quiet store."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster.components.testing import DefsFolderSandbox

from mlops_assets.asset_keys import asset_key
from mlops_assets.resources.clock import Clock
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.online_stores import OnlineStores
from mlops_assets.testing.kafka_broker import KafkaBroker
from mlops_assets_tests.components.test_feature_view import DATASETS as FILES
from mlops_assets_tests.components.test_feature_view import VIEW
from mlops_assets_tests.components.test_stream import topic
from mlops_assets_tests.contracts.test_wrong_yaml import errors, sandbox
from serve.online.held import HEAD, Head, Run
from serve.online.stores.sqlite import SqliteStore

__all__ = ["sandbox", "topic"]

PLANES = FILES.split("---\n")[2]
STREAM = """
type: mlops_assets.components.StreamComponent
attributes:
  name: trip_events
  topic: TOPIC
  bootstrap_servers: ORDERS_BROKER
  value: {format: json}
  columns: {id: string, leaves: timestamp, left: timestamp, origin: string, plane: string, delay: number}
  event_time: leaves
---
"""
TRIPS = """
type: mlops_assets.components.DatasetComponent
attributes:
  name: trips
  source: {format: stream, stream: trip_events}
  partitions: {start: "2024-01-01", column: event_date}
  columns: {id: string, event_date: string, leaves: timestamp, left: timestamp, origin: string,
            plane: string, delay: number}
  primary_key: [id]
  max_quarantine_share: 0.5
---
"""
WEATHER = (
    "    - {dataset: weather, keys: [origin], timestamp: known_at, tolerance: 3h, columns: [temp]}\n",
    "    - {name: temp, type: number, minimum: -50, maximum: 50}\n",
)
ONLINE = VIEW.replace(WEATHER[0], "").replace(WEATHER[1], "") + (
    "  online: {request: [leaves, origin, plane], keep: 12h, from_stream: [trips]}\n"
)
WHOLE = STREAM + TRIPS + PLANES + "---\n" + ONLINE
EVENTS, KEPT = asset_key("stream", "trip_events"), asset_key("online_features", "trips")
TABLE, SEATS = asset_key("dataset", "trips"), asset_key("dataset", "planes")
NOW = datetime(2024, 1, 5, 9, tzinfo=UTC)


def trip(number: int) -> dict[str, Any]:
    at = "2024-01-04T20"
    sent = {
        "id": str(number),
        "leaves": f"{at}:00:00Z",
        "left": f"{at}:30:00Z",
        "origin": "EWR",
        "delay": number,
    }
    return {"value": json.dumps(sent).encode(), "partition": 0}


@pytest.fixture
def now(tmp_path: Path) -> Path:
    (tmp_path / "now").write_text(NOW.isoformat())
    return tmp_path / "now"


@pytest.fixture
def followed(topic: str, load: Any, use_case: Path, tmp_path: Path, now: Path) -> dg.Definitions:
    return loaded(load, use_case, WHOLE.replace("TOPIC", topic), tmp_path, now)


def loaded(load: Any, use_case: Path, text: str, tmp_path: Path, now: Path) -> dg.Definitions:
    (use_case / "raw").mkdir()
    (use_case / "raw" / "planes.csv").write_text("plane,seats\nN1,100\n", encoding="utf-8")
    found: dg.Definitions = load(text, **outside(tmp_path, now))
    return found


def outside(tmp_path: Path, now: Path) -> dict[str, Any]:
    return {"online_stores": OnlineStores(uri=str(tmp_path / "online")), "clock": Clock(file=str(now))}


def materialised(defs: dg.Definitions, instance: dg.DagsterInstance, *keys: dg.AssetKey) -> Any:
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, asset_selection=list(keys))


def held(tmp_path: Path) -> tuple[Head, list[float]]:
    """The head of the store, and the delays that it has of EWR."""
    [file] = (tmp_path / "online").glob("*.sqlite")
    store = SqliteStore(str(file.parent), view=file.stem)
    head, run = store.read([HEAD, '0:["EWR"]'])
    store.close()
    return Head.of(head or b""), [float(values[0] or 0) for _, _, values in Run(run, 1).entries()]


def test_it_depends_on_the_stream_and_not_on_the_dataset(followed: dg.Definitions) -> None:
    graph = followed.resolve_asset_graph()
    assert graph.get(KEPT).parent_keys == {EVENTS, SEATS}
    assert graph.get(asset_key("features", "trips")).parent_keys == {TABLE, SEATS}


def test_each_new_version_of_the_stream_starts_one_run_of_it_and_of_nothing_else(
    followed: dg.Definitions,
    instance: dg.DagsterInstance,
    topic: str,
    kafka_broker: KafkaBroker,
    tmp_path: Path,
) -> None:
    def requested(cursor: Any = None) -> Any:
        return dg.evaluate_automation_conditions(followed, instance, cursor=cursor)

    kafka_broker.produce(topic, [trip(1)])
    materialised(followed, instance, EVENTS, SEATS)
    materialised(followed, instance, KEPT)
    quiet = requested()
    kafka_broker.produce(topic, [trip(2)])
    materialised(followed, instance, EVENTS)
    woken = requested(quiet.cursor)
    assert woken.total_requested == 1 and woken.get_num_requested(KEPT) == 1
    [event] = materialised(followed, instance, KEPT).asset_materializations_for_node(KEPT.path[0])
    assert event.metadata["applied"].value == {f"{topic}/0": 2, "planes": 0}
    assert event.metadata["dagster/row_count"].value == 3
    # The stream without news says the same version again.
    materialised(followed, instance, EVENTS)
    assert requested(woken.cursor).total_requested == 0
    head, delays = held(tmp_path)
    assert delays == [1.0, 2.0] and head.as_of == NOW.timestamp()


def test_a_quiet_topic_does_not_make_the_store_old_and_a_broker_that_is_away_does(
    followed: dg.Definitions,
    instance: dg.DagsterInstance,
    topic: str,
    kafka_broker: KafkaBroker,
    lake: Lake,
    tmp_path: Path,
    now: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [sensor] = [one for one in followed.sensors or () if one.name == "online_trips"]

    def tick() -> str:
        context = dg.build_sensor_context(
            instance=instance, resources={"lake": lake, **outside(tmp_path, now)}
        )
        return str(sensor(context).skip_reason.skip_message)

    kafka_broker.produce(topic, [trip(1)])
    materialised(followed, instance, EVENTS, SEATS)
    assert tick() == "a run has to bring what is new"
    materialised(followed, instance, KEPT)
    now.write_text("2024-01-05T10:00:00+00:00")
    assert tick() == "the store holds all there was at 2024-01-05T10:00:00+00:00"
    assert held(tmp_path)[0].as_of == datetime(2024, 1, 5, 10, tzinfo=UTC).timestamp()
    now.write_text("2024-01-05T11:00:00+00:00")
    kafka_broker.produce(topic, [trip(2)])
    assert tick() == f"topic {topic} has records that its table has not"
    materialised(followed, instance, EVENTS)
    assert tick() == "a run has to bring what is new"
    assert held(tmp_path)[0].as_of == datetime(2024, 1, 5, 10, tzinfo=UTC).timestamp()
    materialised(followed, instance, KEPT)
    monkeypatch.setenv("ORDERS_BROKER", "127.0.0.1:1")
    monkeypatch.setattr("mlops_assets.resources.kafka.ANSWER_S", 0.2)
    now.write_text("2024-01-05T12:00:00+00:00")
    with pytest.raises(Exception, match="No Kafka broker answers"):
        tick()
    assert held(tmp_path)[0].as_of == datetime(2024, 1, 5, 11, tzinfo=UTC).timestamp()


def test_a_stream_that_a_consumer_reads_wakes_nobody(
    topic: str,
    load: Any,
    use_case: Path,
    instance: dg.DagsterInstance,
    kafka_broker: KafkaBroker,
    tmp_path: Path,
    now: Path,
) -> None:
    text = WHOLE.replace("TOPIC", topic).replace(
        "event_time: leaves", "event_time: leaves\n  read_by: consumer"
    )
    defs = loaded(load, use_case, text, tmp_path, now)
    assert [one.name for one in defs.sensors or ()] == ["probe_trips"]
    kafka_broker.produce(topic, [trip(1)])
    materialised(defs, instance, EVENTS, SEATS)
    materialised(defs, instance, KEPT)
    quiet = dg.evaluate_automation_conditions(defs, instance)
    kafka_broker.produce(topic, [trip(2)])
    materialised(defs, instance, EVENTS)
    assert dg.evaluate_automation_conditions(defs, instance, cursor=quiet.cursor).total_requested == 0


OTHER = TRIPS.replace("trips", "others")
JOINED = "    - {dataset: others, keys: [id], timestamp: left, tolerance: 3h, columns: [plane], prefix: o_}\n"


def following(names: str, text: str = WHOLE) -> str:
    return text.replace("from_stream: [trips]", f"from_stream: [{names}]")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (following("planes"), "dataset 'planes' is made of csv"),
        (following("trip"), "Unknown dataset 'trip'. Allowed: planes, trips"),
        (
            OTHER + following("others"),
            "nothing of dataset 'others' is looked up, so its stream has nothing to bring. Looked up: ",
        ),
        (
            STREAM.replace("trip_events", "other_events")
            + OTHER.replace("trip_events", "other_events")
            + following("trips, others", WHOLE.replace("  lookback", f"{JOINED}  lookback")),
            "streams other_events and trip_events read one topic, 'TOPIC'",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused_by_file_and_line(
    sandbox: DefsFolderSandbox, text: str, said: str
) -> None:
    line = next(number for number, one in enumerate(text.splitlines(), 1) if "from_stream" in one)
    told = errors(sandbox, text)
    assert f"defs.yaml:{line}: {said}" in told


def test_what_can_be_followed_loads(sandbox: DefsFolderSandbox) -> None:
    assert errors(sandbox, WHOLE) == ""
