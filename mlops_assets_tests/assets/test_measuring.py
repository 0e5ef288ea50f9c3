"""From the log to what is measured: which rows are whose, also in what was logged before answers had ids."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mlops_assets.assets.measuring import DAY_COLUMN, log_frame, logged, logged_schema
from mlops_assets.data.schema import typed_table
from mlops_assets.monitoring.labels import join_labels
from mlops_assets.monitoring.performance import losses_by_revision
from mlops_assets.resources.inference_log import InferenceLog
from mlops_assets.resources.lake import Lake
from mlops_assets.testing.site import Site, run
from mlops_assets.testing.small_models import ROW, package, routing
from serve.inference_log import Answered, PredictionLog
from serve.schema import PredictionLogArgs

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = "2026-03-01"


def stored(frame: pd.DataFrame) -> pa.Table:
    """The rows as the asset writes them, without the columns that they have not: older logs have fewer."""
    return typed_table(frame, pa.schema([field for field in logged_schema() if field.name in frame.columns]))


def table_of(lake: Lake, *days: pd.DataFrame) -> pd.DataFrame:
    """The rows of a window of the compacted log, after they were written as the asset writes them."""
    lake.write(
        "prediction_logs/flights",
        stored(pd.concat(days, ignore_index=True)),
        partition_column=DAY_COLUMN,
        partitions=[DAY],
        commit={},
    )
    return logged(lake, "prediction_logs/flights", NOON - timedelta(days=1), NOON + timedelta(days=1))


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

    rows = table_of(Lake(uri=str(tmp_path / "lake")), log_frame(reader.day("flights", NOON.date()), DAY))
    assert len(rows) == 6 and rows["answer_id"].nunique() == 3
    labels = pd.DataFrame({"flight_id": [0, 1, 2], "label": [0.0, 1.0, 1.0]})
    joined = join_labels(rows, labels, ["flight_id"])
    losses = losses_by_revision(joined, "binary", site.v1.manifest.classes)["1"]
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
        frame = log_frame(reader.day("flights", NOON.date()), DAY)
        assert sorted(zip(frame["answer_id"], frame["variant"], strict=True)) == [
            ("a", "shadow"), ("a", "stable"), ("b", "stable"), ("own-b", "stable"),
        ]  # fmt: skip
        (rows,) = reader.find("flights", "a")
        assert [(row["answer_id"], row["variant"]) for row in rows] == [(None, "stable"), (None, "shadow")]
        assert sorted(len(rows) for rows in reader.find("flights", "b")) == [1, 2]
        reader.compact("flights", before=NOON + timedelta(hours=1))


def test_an_older_table_is_read_and_written_on(tmp_path: Path) -> None:
    lake = Lake(uri=str(tmp_path / "lake"))
    reader = old_log(tmp_path / "log", answered("a"), answered("b"))
    frame = log_frame(reader.day("flights", NOON.date()), DAY)
    assert sorted(table_of(lake, frame.drop(columns="answer_id"))["answer_id"]) == ["a", "b"]
    # Other days of the same table keep their rows, which have no id then.
    later = frame.assign(at=frame["at"] + pd.Timedelta(days=1), answer_id=["own-a", "own-b"], dt="2026-03-02")
    lake.write(
        "prediction_logs/flights",
        stored(later),
        partition_column=DAY_COLUMN,
        partitions=["2026-03-02"],
        commit={},
    )
    rows = logged(lake, "prediction_logs/flights", NOON - timedelta(days=1), NOON + timedelta(days=2))
    assert sorted(rows["answer_id"]) == ["a", "b", "own-a", "own-b"]
