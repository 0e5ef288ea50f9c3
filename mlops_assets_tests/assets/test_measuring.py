"""From the log to what is measured: which rows are whose, also in what was logged before answers had ids."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.assets.joined_answers import Compacted, JoinedAnswers
from mlops_assets.assets.logged_days import DAY_COLUMN, logged_days
from mlops_assets.monitoring.labels import known_labels
from mlops_assets.resources.inference_log import InferenceLog
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.scratch import Scratch
from mlops_assets.testing.site import Site, run
from mlops_assets.testing.small_models import ROW, package, routing
from serve.inference_log import Answered, PredictionLog
from serve.schema import PredictionLogArgs

TABLE = "prediction_logs/flights"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = "2026-03-01"


def written(folder: Path, reader: InferenceLog, *, without: str = "") -> Lake:
    """The compacted log as the asset writes it; older ones had fewer columns."""
    lake = Lake(uri=str(folder / "lake"))
    with logged_days(Scratch(folder=str(folder / "scratch")), reader, "flights", [DAY]) as logged:
        rows = pa.Table.from_batches(list(logged.rows.make()), logged.rows.schema)
    if without:
        rows = rows.drop_columns([without])
    lake.write(TABLE, rows, partition_column=DAY_COLUMN, partitions=[DAY], commit={})
    return lake


def read(lake: Lake, end: datetime = NOON + timedelta(days=1)) -> pd.DataFrame:
    """Everything that the compacted log holds of some columns."""
    log = Compacted(lake, TABLE, lake.version(TABLE), NOON - timedelta(days=1), end)
    return pa.concat_tables(log.batches(["row", "variant", "version"])).to_pandas()


def test_three_requests_with_one_request_id_are_three_everywhere(tmp_path: Path) -> None:
    log = PredictionLog(PredictionLogArgs(uri=str(tmp_path / "log")), deployment="flights", replica="r1")
    keyed = package("binary", entity=("flight_id",))
    site = Site(log=log, wall_clock=NOON.timestamp)
    for version in (site.v1, site.v2):
        version.manifest = version.manifest.model_copy(update={"entity": keyed[0].entity})

    async def story(site: Site) -> None:
        for number in range(3):
            sent = {"features": {**ROW, "hour": number}, "entity": {"flight_id": number}}
            answer = await site.post("/predict", sent, **{"x-request-id": "nightly-job-42"})
            assert answer.status_code == 200, answer.text
            log.flush()
        await site.traffic.mirrored()
        log.close()

    first = routing(v1=10_000, v2=0)
    first["routes"]["v2"]["shadow"] = 10_000
    run(story, site, first)

    reader = InferenceLog(uri=str(tmp_path / "log"))
    assert len(reader.find("flights", "nightly-job-42")) == 3
    assert reader.compact("flights", before=NOON + timedelta(hours=1)).rows == 6
    answers = reader.find("flights", "nightly-job-42")
    assert [len(rows) for rows in answers] == [2, 2, 2]
    for rows in answers:
        assert reader.find("flights", rows[0]["answer_id"]) == [rows]

    lake = written(tmp_path, reader)
    rows = read(lake)
    assert len(rows) == 6 and rows["answer_id"].nunique() == 3
    labels = known_labels(pd.DataFrame({"flight_id": [0, 1, 2], "label": [0.0, 1.0, 1.0]}), ["flight_id"])
    log = Compacted(lake, TABLE, lake.version(TABLE), NOON - timedelta(days=1), NOON + timedelta(days=1))
    with Scratch(folder=str(tmp_path / "scratch")).database() as connection:
        joined = JoinedAnswers(connection, log, labels, ["flight_id"])
        losses = joined.losses("binary", site.v1.manifest.classes)["1"]
    assert losses["versions"]["v1"]["count"] == losses["versions"]["v2"]["count"] == 3
    assert losses["differences"]["v2"]["count"] == 3


# -- before answers had ids --------------------------------------------------------------------------


def answered(request_id: str, **changes: Any) -> Answered:
    return Answered(
        NOON.timestamp(), f"own-{request_id}", request_id, None, "stable", "v1", 1, 10_000, "/predict", 0.01,
        [{"x": 1.5}], [0.25],
    )._replace(**changes)  # fmt: skip


def old_log(folder: Path, *answers: Answered) -> InferenceLog:
    """A log whose files have no column ``answer_id``."""
    log = PredictionLog(PredictionLogArgs(uri=str(folder)), deployment="flights", replica="old")
    for one in answers:
        log.put(one)
    log.close()
    for file in folder.rglob("*.parquet"):
        pq.write_table(pq.read_table(file, partitioning=None).drop_columns(["answer_id"]), file)
    return InferenceLog(uri=str(folder))


def test_an_older_log_is_told_apart_by_request_ids_as_before(tmp_path: Path) -> None:
    shadow = answered("a", variant="shadow", version="v2")
    reader = old_log(tmp_path / "log", answered("a"), shadow, answered("b"), answered("b"))
    new = PredictionLog(PredictionLogArgs(uri=str(tmp_path / "log")), deployment="flights", replica="new")
    new.put(answered("b"))
    new.close()
    for _ in range(2):  # Before and after a compaction of old and new files together.
        frame = read(written(tmp_path, reader))
        assert sorted(zip(frame["answer_id"], frame["variant"], strict=True)) == [
            ("a", "shadow"), ("a", "stable"), ("b", "stable"), ("own-b", "stable"),
        ]  # fmt: skip
        (rows,) = reader.find("flights", "a")
        assert [(row["answer_id"], row["variant"]) for row in rows] == [(None, "stable"), (None, "shadow")]
        assert sorted(len(rows) for rows in reader.find("flights", "b")) == [1, 2]
        reader.compact("flights", before=NOON + timedelta(hours=1))


def test_an_older_table_is_read_and_written_on(tmp_path: Path) -> None:
    reader = old_log(tmp_path / "log", answered("a"), answered("b"))
    lake = written(tmp_path, reader, without="answer_id")
    assert sorted(read(lake)["answer_id"]) == ["a", "b"]
    # Other days of the same table keep their rows, which have no id then.
    later = PredictionLog(PredictionLogArgs(uri=str(tmp_path / "log")), deployment="flights", replica="new")
    for one in ("a", "b"):
        later.put(answered(one, at=(NOON + timedelta(days=1)).timestamp()))
    later.close()
    scratch = Scratch(folder=str(tmp_path / "scratch"))
    with logged_days(scratch, reader, "flights", ["2026-03-02"]) as logged:
        lake.write(TABLE, logged.rows, partition_column=DAY_COLUMN, partitions=["2026-03-02"], commit={})
    rows = read(lake, NOON + timedelta(days=2))
    assert sorted(rows["answer_id"]) == ["a", "b", "own-a", "own-b"]
