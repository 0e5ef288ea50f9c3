"""A store that follows a stream holds what the dataset would make of exactly the records it says."""

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_assets.assets import followed_rows
from mlops_assets.assets.feature_view import feature_table
from mlops_assets.assets.followed_rows import FollowedDataset
from mlops_assets.assets.ingest import stream_table
from mlops_assets.assets.logged_days import DAY_COLUMN
from mlops_assets.assets.online_filling import Filled, fill, nothing_new
from mlops_assets.assets.online_table import OnlineTable, online_table
from mlops_assets.assets.replayed import check_result, replay
from mlops_assets.data.schema import column_schema, typed_table
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.documents.stream import StreamDeclaration
from mlops_assets.errors import AnotherWasFirst, DataError
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.online_stores import OnlineStores
from mlops_assets.streams.history import CommitFacts
from mlops_assets.streams.records import TopicRecord, rows_of
from mlops_assets.testing.redis_server import RedisServer
from mlops_assets_tests.assets.test_replayed import LOG
from mlops_assets_tests.components.test_feature_view import VIEW
from serve.online.held import HEAD, Head
from serve.online.lookup import Lookups
from serve.online.request import KeyedRow
from serve.online.stores import OnlineStore
from serve.schema import ModelManifest

DOCUMENTS = """
name: trip_events
topic: trips
bootstrap_servers: TRIPS_BROKER
value: {format: json}
columns: {id: string, leaves: timestamp, left: timestamp, origin: string, plane: string, delay: number}
event_time: leaves
---
name: trips
source: {format: stream, stream: trip_events}
partitions: {start: "2024-01-01", column: event_date}
columns: {id: string, event_date: string, leaves: timestamp, left: timestamp, origin: string, plane: string,
          delay: number}
primary_key: [id]
max_quarantine_share: 0.5
---
name: weather
source: {format: csv, path: "raw/weather-{partition}.csv"}
partitions: {start: "2024-01-01", column: day}
columns: {origin: string, day: string, known_at: timestamp, temp: number}
primary_key: [origin, known_at]
---
name: planes
source: {format: csv, path: raw/planes.csv}
columns: {plane: string, seats: integer}
---
"""
ONLINE = "  online: {request: [leaves, origin, plane], keep: 12h, from_stream: [trips]}\n"
NOW = datetime(2024, 1, 5, 9, tzinfo=UTC)
WEATHER = [
    ("EWR", "2024-01-05", "2024-01-05T07:00:00Z", 10.0),
    ("EWR", "2024-01-04", "2024-01-04T07:00:00Z", 1.0),
]


@dataclass
class World:
    """A lake with the tables that a view looks at, and the stream that comes in, without a broker."""

    lake: Lake
    stores: OnlineStores
    served: OnlineTable
    offsets: dict[int, int]

    @property
    def stream(self) -> StreamDeclaration:
        return self.served.followed["trips"].stream

    def comes(
        self,
        *documents: Mapping[str, Any] | bytes,
        complete: float | None = None,
        partition: int = 0,
        at: datetime = datetime(1970, 1, 1, tzinfo=UTC),
    ) -> None:
        """One commit of records, as a run or a consumer makes it; ``at`` is their own time."""
        begin = self.offsets.get(partition, 0)
        records = [
            TopicRecord(
                partition,
                begin + place,
                int(at.timestamp() * 1000),
                None,
                one if isinstance(one, bytes) else json.dumps(one).encode(),
            )
            for place, one in enumerate(documents)
        ]
        self.offsets[partition] = begin + len(records)
        rows = rows_of(records, self.stream.wanted(), self.stream.value.decoder(Path(), None))
        table = stream_table(self.lake, self.stream)
        reached = {partition: self.offsets[partition]}
        facts = {str(one): offset for one, offset in reached.items()}
        table.append(
            rows.table,
            reached,
            lambda opened: CommitFacts(
                opened, "t", rows.days, len(records), "r", facts, sorted(self.offsets), complete
            ),
        )

    def fill(self, *, now: datetime = NOW, **known: float) -> Filled:
        return fill(self.lake, self.store(), self.served, now=now, complete=known)

    def store(self, uri: str | None = None) -> OnlineStore:
        stores = self.stores if uri is None else OnlineStores(uri=uri)
        return stores.of(self.served.online)

    def online(self, now: datetime = NOW) -> Any:
        manifest = ModelManifest(
            name="trips",
            task="regression",
            trainer="x",
            model_format="x",
            model_file="x",
            target="y",
            features=self.served.table.declared.features,
            online=self.served.online,
        )
        return Lookups(self.stores.uri, now.timestamp).of(manifest)

    def delay(self, leaves: str = "2024-01-05T09:00:00Z", origin: str = "EWR") -> Any:
        sent = KeyedRow({"id": "x"}, {"leaves": leaves, "origin": origin, "plane": "N1"})
        return self.online().look_up([sent], lambda number: "request").rows[0]["delay_24h"]


def served(**changes: Any) -> OnlineTable:
    stream, *datasets = list(yaml.safe_load_all(DOCUMENTS))[:4]
    tables = {one["name"]: DatasetDeclaration(**one | changes.get(one["name"], {})) for one in datasets}
    view = yaml.safe_load(VIEW + ONLINE)["attributes"]
    followed = FollowedDataset(tables["trips"], StreamDeclaration.model_validate(stream))
    return online_table(
        feature_table(FeatureViewDeclaration(**view), tables, None), None, {"trips": followed}
    )


@pytest.fixture
def world(lake: Lake, tmp_path: Path) -> World:
    import pandas as pd

    found = World(lake, OnlineStores(uri=str(tmp_path / "online")), served(), {})
    weather = pd.DataFrame(WEATHER, columns=["origin", "day", "known_at", "temp"])
    weather["known_at"] = pd.to_datetime(weather["known_at"], utc=True).dt.as_unit("us")
    planes = pd.DataFrame({"plane": ["N1", "N2"], "seats": pd.array([100, 200], "Int64")})
    for name, frame, column in (("weather", weather, "day"), ("planes", planes, None)):
        schema = column_schema(found.served.table.datasets[name].columns)
        lake.write(
            f"datasets/{name}",
            typed_table(frame, schema),
            partition_column=column,
            partitions=None,
            commit={},
        )
    return found


def trip(number: int | str, day: int, hour: int, delay: float, origin: str = "EWR") -> dict[str, Any]:
    at = f"2024-01-{day:02}T{hour:02}"
    return {
        "id": str(number),
        "leaves": f"{at}:00:00Z",
        "left": f"{at}:30:00Z",
        "origin": origin,
        "plane": "N1",
        "delay": delay,
    }


def content(store: OnlineStore) -> dict[str, bytes]:
    found = dict(store.scan(""))
    store.close()
    return found


def test_rows_are_answered_before_the_dataset_has_them_and_the_head_says_which(world: World) -> None:
    world.comes(trip(1, 4, 8, 30.0), trip(2, 4, 20, 40.0), complete=100.0)
    filled = world.fill()
    assert filled.whole and not world.lake.exists("datasets/trips")
    assert filled.head.applied == {"trips/0": 2, "weather": 0, "planes": 0}
    assert world.delay() == 40.0
    # A day that is there already, another partition of the topic, and one that nothing can be made of.
    world.comes(trip(3, 4, 21, 10.0), b"{", trip(4, 5, 1, 100.0, "JFK"), partition=1)
    filled = world.fill()
    assert not filled.whole and filled.head.applied["trips/1"] == 3
    assert world.delay() == 25.0 and world.delay(origin="JFK") == 100.0
    assert world.fill().written == 0


def test_only_days_that_records_came_for_are_judged_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.comes(trip(1, 3, 8, 1.0), trip(2, 4, 8, 2.0), trip(3, 5, 8, 3.0))
    world.fill()
    judged: list[Any] = []
    judge = followed_rows.judged_rows

    def seen(*given: Any) -> Any:
        judged.extend(given[-1])
        return judge(*given)

    monkeypatch.setattr(followed_rows, "judged_rows", seen)
    world.fill()
    assert judged == []
    world.comes(trip(4, 4, 10, 8.0), complete=1.0)
    world.comes(trip(5, 4, 11, 8.0))
    world.fill()
    assert judged == ["2024-01-04"]


def arrivals(random_: random.Random) -> Iterable[list[Mapping[str, Any] | bytes]]:
    """Commits of late, repeated, contradictory and undecodable records."""
    for _ in range(12):
        yield [
            b"nothing"
            if random_.random() < 0.1
            else trip(
                random_.randrange(25),
                random_.randrange(3, 6),
                random_.randrange(24),
                random_.randrange(5) / 7,
                random_.choice(["EWR", "JFK"]),
            )
            for _ in range(random_.randrange(1, 6))
        ]


@pytest.mark.parametrize("seed", range(2))
def test_taking_over_what_is_new_gives_the_store_that_filling_anew_gives(
    world: World, tmp_path: Path, seed: int
) -> None:
    random_ = random.Random(seed)
    for number, commit in enumerate(arrivals(random_)):
        world.comes(*commit, partition=random_.randrange(2))
        filled = world.fill()
        assert filled.whole == (number == 0)
    anew = replace(world, stores=OnlineStores(uri=str(tmp_path / "anew")))
    assert anew.fill().head.applied == filled.head.applied
    # What is too old for any event may still stand in a run that did not change since.
    held = [
        {key: value for key, value in content(one.store()).items() if key[0] == "="} for one in (world, anew)
    ]
    assert held[0] == held[1] and len(held[0]) > 10
    for origin in ("EWR", "JFK"):
        for leaves in ("2024-01-05T08:59:00Z", "2024-01-05T12:00:00Z", "2024-01-05T23:59:59Z"):
            assert world.delay(leaves, origin) == anew.delay(leaves, origin)


def test_a_store_in_redis_takes_over_what_one_in_a_file_takes_over(world: World, redis: RedisServer) -> None:
    view = world.served.online.model_copy(update={"store": "redis"})
    shared = replace(world, served=replace(world.served, online=view))
    again = [trip(1, 4, 20, 7.0), trip(4, 4, 21, 3.0)]
    for commit in ([trip(1, 4, 20, 1 / 3), trip(2, 5, 1, 2.0)], [trip(3, 4, 21, 1.0)], again):
        world.comes(*commit)
        heads = [one.fill().head for one in (world, shared)]
        assert heads[0] == heads[1]
    assert content(world.store()) == content(shared.store())
    # Of the first trip there are two versions, so neither counts.
    assert world.delay() == shared.delay() == 2.0


def test_a_day_that_the_dataset_would_not_write_has_no_rows_and_comes_back(world: World) -> None:
    world.comes(trip(1, 4, 8, 30.0), trip(2, 4, 20, 40.0))
    world.fill()
    # Two versions of one trip leave no right one: more than half of the day is in quarantine.
    world.comes(trip(2, 4, 20, 41.0), trip(1, 4, 8, 31.0))
    assert world.fill().left_out == {
        "trips": {"2024-01-04": "share of rows in quarantine: expected at most 0.5, observed 1 (4 of 4 rows)"}
    }
    assert world.delay() is None
    world.comes(*(trip(number, 4, 21, 6.0) for number in range(3, 8)))
    assert world.fill().left_out == {"trips": {}} and world.delay() == 6.0


def test_days_that_no_event_looks_back_on_leave_without_judging_the_others(world: World) -> None:
    world.comes(trip(1, 2, 8, 1.0), trip(2, 5, 8, 2.0))
    world.fill()
    assert "2024-01-02" in str(list(content(world.store())))
    world.comes(trip(3, 9, 8, 2.0))
    filled = world.fill(now=datetime(2024, 1, 9, 9, tzinfo=UTC))
    assert not filled.whole
    days = {
        json.loads(key.partition(":")[2])[0] for key in content(world.store()) if key.startswith("=trips:")
    }
    assert days == {"2024-01-05", "2024-01-09"}


def test_a_day_of_nothing_but_undecodable_records_moves_no_look_back(world: World, tmp_path: Path) -> None:
    world.comes(trip(1, 4, 8, 30.0), trip(2, 4, 20, 40.0))
    world.fill()
    # Its day is that of the record's own time, and nobody replays old events at their own time.
    world.comes(b"{", at=datetime(2024, 1, 20, tzinfo=UTC))
    later = datetime(2024, 1, 20, 9, tzinfo=UTC)
    anew = replace(world, stores=OnlineStores(uri=str(tmp_path / "anew")))
    assert world.fill(now=later).head.first == anew.fill(now=later).head.first == "2023-12-31"
    assert world.delay() == anew.delay() == 40.0


def test_other_rules_fill_the_store_anew(world: World) -> None:
    world.comes(trip(1, 4, 8, 30.0), trip(1, 4, 9, 40.0), trip(2, 4, 9, 2.0))
    assert world.fill().left_out["trips"] == {
        "2024-01-04": "share of rows in quarantine: expected at most 0.5, observed 0.6667 (2 of 3 rows)"
    }
    world.served = served(trips={"max_quarantine_share": 1.0})
    assert not nothing_new(world.lake, world.store(), world.served)
    filled = world.fill()
    assert filled.whole and world.delay() == 2.0
    assert nothing_new(world.lake, world.store(), world.served)


def test_a_writer_that_another_overtook_writes_nothing_and_never_goes_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.comes(trip(1, 4, 20, 30.0))
    world.fill()
    slow, read = world.store(), type(world.store()).read

    def overtaken(self: Any, keys: Any) -> Any:
        found = read(self, keys)
        if self is slow:
            monkeypatch.setattr(type(slow), "read", read)
            # It has read the head, and no table yet.
            world.comes(trip(2, 4, 21, 50.0))
            world.fill()
        return found

    monkeypatch.setattr(type(slow), "read", overtaken)
    with pytest.raises(AnotherWasFirst, match="written meanwhile"):
        fill(world.lake, slow, world.served, now=NOW)
    assert world.delay() == 40.0
    assert Head.of(content(world.store())[HEAD]).applied["trips/0"] == 2


def test_a_store_is_as_old_as_the_last_moment_at_which_all_had_been_read(world: World) -> None:
    noon = NOW.timestamp()
    world.comes(trip(1, 4, 8, 30.0))
    # Nobody knows how much more the topic has.
    assert world.fill().head.as_of == 0.0
    world.comes(trip(2, 4, 8, 30.0), complete=noon - 60)
    assert world.fill().head.as_of == noon - 60
    # The consumer reads on, and there is nothing new.
    assert world.fill(trip_events=noon - 5).head.as_of == noon - 5
    # A reading that reached no end says nothing; what was known stays known.
    world.comes(trip(3, 4, 8, 30.0))
    assert world.fill().head.as_of == noon - 5
    # No store is newer than its tables were looked at.
    assert world.fill(trip_events=noon + 5).head.as_of == noon
    assert world.online(NOW).report()["state"] == "fresh"
    assert world.online(datetime(2024, 1, 8, tzinfo=UTC)).report()["state"] == "stale"


def test_a_stream_that_was_never_read_is_named_with_what_reads_it(world: World) -> None:
    with pytest.raises(DataError, match=r"no table 'streams/trip_events'.*key:\"trip_events_stream\""):
        world.fill()


# -- replayed ----------------------------------------------------------------------------------------


SENT = [
    KeyedRow({"id": "a"}, {"leaves": "2024-01-05T09:00:00Z", "origin": "EWR", "plane": "N1"}),
    KeyedRow({"id": "b"}, {"leaves": "2024-01-05T10:00:00Z", "origin": "JFK", "plane": "N2"}),
]


def answered(world: World, day: str = "2024-01-05") -> None:
    """What is ``SENT`` is answered and logged, in addition to what the log holds."""
    import pandas as pd

    looked = world.online().look_up(SENT, lambda number: f"requests[{number}]")
    held = world.lake.exists("prediction_logs/trips")
    before = world.lake.read("prediction_logs/trips") if held else pd.DataFrame()
    rows = pd.DataFrame(
        {
            "answer_id": f"answer {len(before) + number}",
            "row": 0,
            "at": pd.Timestamp(f"{day}T12:00:00Z").as_unit("us"),
            "variant": "stable",
            "entity": json.dumps(sent.entity),
            "request": json.dumps(sent.request),
            "features": json.dumps(row),
            "online": looked.knew,
            DAY_COLUMN: day,
        }
        for number, (sent, row) in enumerate(zip(SENT, looked.rows, strict=True))
    )
    frame = pd.concat([before, rows], ignore_index=True) if len(before) else rows
    schema = column_schema({**LOG, "row": "integer", "at": "timestamp"})  # type: ignore[arg-type]
    world.lake.write(
        "prediction_logs/trips",
        typed_table(frame, schema),
        partition_column=DAY_COLUMN,
        partitions=[day],
        commit={},
    )


def replayed(world: World) -> Any:
    return replay(world.lake, world.served, "trips", day_column=DAY_COLUMN, days=["2024-01-05"])


def test_answers_are_replayed_from_the_records_before_the_offsets_they_logged(world: World) -> None:
    for number, delay in enumerate((1 / 3, 0.1, 7.0)):
        world.comes(trip(number, 4, 10 + number, delay), trip(f"late {number}", 5, 1, 0.7), complete=1.0)
        world.fill()
        answered(world)
    found = replayed(world)
    assert (found.rows, found.skewed, found.problems, found.other_shapes) == (6, [], [], 0)
    # The first two saw less than there is today; nothing is known of JFK, then or now.
    assert found.late == 2
    assert check_result("trips", found).passed


def test_a_planted_bit_fails_the_check_and_is_named_with_its_key_and_both_values(world: World) -> None:
    world.comes(trip(1, 4, 20, 35.0))
    world.fill()
    held = content(world.store())
    [run] = [key for key in held if key.startswith("0:")]
    value = bytearray(held[run])
    value[-8] ^= 1  # The last bit of the one delay.
    world.store().commit({run: bytes(value)}, head=held[HEAD], expected=held[HEAD])
    answered(world)
    result = check_result("trips", replayed(world))
    assert not result.passed
    assert result.description == (
        "1 of 2 rows differ from the offline view: feature 'delay_24h' of "
        '{"id": "a"} was 35.00000000000001 in the answer and is 35.0 offline (answer answer 0, row 0)'
    )


def test_an_offset_that_moved_without_its_rows_is_caught(world: World) -> None:
    world.comes(trip(1, 4, 20, 35.0))
    world.fill()
    world.comes(trip(2, 4, 21, 45.0))
    before = content(world.store())[HEAD]
    moved = replace(Head.of(before), applied={**Head.of(before).applied, "trips/0": 2})
    world.store().commit({}, head=moved.to_bytes(), expected=before)
    answered(world)
    found = replayed(world)
    assert [(one.key, one.answered, one.offline) for one in found.skewed] == [('{"id": "a"}', 35.0, 40.0)]


def test_answers_of_other_rules_are_told_apart(world: World) -> None:
    world.comes(trip(1, 4, 20, 35.0))
    world.fill()
    answered(world)
    world.served = served(trips={"max_quarantine_share": 1.0})
    found = replayed(world)
    assert (found.rows, found.other_shapes, found.skewed) == (0, 2, [])
