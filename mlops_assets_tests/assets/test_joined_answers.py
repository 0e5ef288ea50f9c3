"""Answers on disk say what the same answers say as one frame, and few of them are in memory at once."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlops_assets.assets.joined_answers import (
    Compacted,
    JoinedAnswers,
    features_of,
    window_drift,
)
from mlops_assets.assets.logged_days import DAY_COLUMN, KEYS, logged_days
from mlops_assets.data.content import content_versions
from mlops_assets.data.schema import frame_of
from mlops_assets.errors import DataError
from mlops_assets.monitoring.drift import Answers, DriftTest, assess_window
from mlops_assets.monitoring.labels import Watermark, join_labels, known_labels, label_codes
from mlops_assets.monitoring.losses import losses_by_revision
from mlops_assets.monitoring.performance import PerformanceTest, window_performance
from mlops_assets.monitoring.reference import HeldOut, TrainingRows, make_reference
from mlops_assets.monitoring.windows import Window
from mlops_assets.resources import lake as lake_module
from mlops_assets.resources.inference_log import InferenceLog
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.scratch import Scratch
from serve.inference_log import Answered, PredictionLog
from serve.schema import FeatureSpec, PredictionLogArgs

START = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
DAYS = [f"{START + number * DAY:%Y-%m-%d}" for number in range(3)]
WINDOWS = [Window(START + number * DAY, START + (number + 1) * DAY) for number in range(3)]
TABLE, ASKED = "prediction_logs/shop", 60
CLASSES = ("a", "b", "c")
SPECS = (
    FeatureSpec(name="spent", type="number"),
    FeatureSpec(name="shop", type="category"),
    FeatureSpec(name="member", type="boolean"),
)


def odd_features(random: np.random.Generator, number: int) -> dict[str, Any]:
    shop: Any = ["north", 'so"uth', "ü\n", None, "7"][number % 5]
    row = {"spent": round(float(random.normal()), 3), "shop": shop, "member": bool(number % 3)}
    if number % 11 == 0:
        del row["spent"]
    return row


def entity(number: int) -> dict[str, Any] | None:
    return [{"visit": number}, {"visit": str(number)}, {"visit": number, "x": 1.5}, {"other": 1}, None][
        number % 5
    ]


def story() -> Iterator[Answered]:
    """Three days: two versions, two routings, shadows, requests of several rows, some that name a version."""
    random = np.random.default_rng(3)
    for day in range(3):
        for number in range(ASKED):
            count = 1 + number % 3
            rows = [odd_features(random, number + row) for row in range(count)]
            live = Answered(
                at=(START + day * DAY + timedelta(minutes=20 * number)).timestamp(),
                answer_id=f"{day}-{(number * 7) % ASKED:03d}",
                request_id="nightly-job",
                unit=None,
                variant="canary" if number % 4 == 0 else "stable",
                version="v10" if number % 4 == 0 else "v9",
                revision=1 + day // 2,
                weight=7_500,
                endpoint="/versions/v9/predict" if number % 13 == 0 else "/predict",
                latency_s=0.001,
                rows=rows,
                scores=random.dirichlet([1.0, 1.0, 1.0], size=count).tolist(),
                entities=[entity(day * ASKED + number + row) for row in range(count)],
            )
            yield live
            if number % 2:
                later = live.at + 0.25
                scores = random.dirichlet([1.0, 1.0, 1.0], size=count).tolist()
                yield live._replace(at=later, variant="shadow", version="v10", scores=scores)


def labels() -> pd.DataFrame:
    """Not of every visit; some twice, some contradicting each other, one of a class that nobody knows."""
    numbers = np.arange(0, 3 * ASKED, 1)
    known = pd.DataFrame({"visit": numbers.astype(float), "label": [CLASSES[n % 3] for n in numbers]})
    known = known[known["visit"] % 7 != 0]
    again = known.iloc[:20]
    contrary = known.iloc[20:26].assign(label=CLASSES[0])
    odd = pd.DataFrame({"visit": [3.0 * ASKED + 1, np.nan], "label": ["zebra", "a"]})
    return pd.concat([known, again, contrary, odd], ignore_index=True)


class Logged:
    """The story, logged twice in part, as the raw log and as the compacted one."""

    def __init__(self, folder: Path) -> None:
        for replica in ("r1", "r2"):
            args = PredictionLogArgs(uri=str(folder / "log"))
            log = PredictionLog(args, deployment="shop", replica=replica)
            for place, answered in enumerate(story()):
                if replica == "r1" or place % 5 == 0:
                    log.put(answered)
            log.close()
        self.log = InferenceLog(uri=str(folder / "log"))
        self.lake = Lake(uri=str(folder / "lake"))
        self.scratch = Scratch(folder=str(folder / "scratch"))
        with logged_days(self.scratch, self.log, "shop", DAYS) as days:
            self.days = days
            wrote = self.lake.write(TABLE, days.rows, partition_column=DAY_COLUMN, partitions=DAYS, commit={})
        self.rows_written = wrote.rows
        self.table = Compacted(self.lake, TABLE, self.lake.version(TABLE), START, START + 3 * DAY)

    def whole(self) -> pd.DataFrame:
        """Every answer with its label, as one frame."""
        rows = self.lake.read(TABLE).sort_values(["at", *KEYS], kind="stable").reset_index(drop=True)
        return join_labels(rows, labels(), ["visit"])


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    return Logged(tmp_path_factory.mktemp("logged"))


@pytest.fixture
def answers(logged: Logged) -> Iterator[JoinedAnswers]:
    with logged.scratch.database() as connection:
        yield JoinedAnswers(
            connection, logged.table, known_labels(labels(), ["visit"]), ["visit"], ["shop", "member"]
        )


def of(whole: pd.DataFrame, version: str, window: Window, *, shadow: bool) -> pd.DataFrame:
    within = (whole["at"] >= window.start) & (whole["at"] < window.end)
    own = (whole["version"] == version) & ((whole["variant"] == "shadow") == shadow)
    return whole[within & own].reset_index(drop=True)


def test_each_answer_is_written_once_sorted_and_versioned_as_it_is_read(logged: Logged) -> None:
    raw = pd.concat([logged.log.day("shop", START + n * DAY).to_pandas() for n in range(3)])
    wanted = raw.sort_values(["at", *KEYS], kind="stable").drop_duplicates(list(KEYS))
    held = logged.lake.read(TABLE)
    assert 0 < len(wanted) < len(raw)
    assert logged.rows_written == len(held) == len(wanted) == sum(logged.days.by_day.values())
    held = held.sort_values(["at", *KEYS], kind="stable").reset_index(drop=True)
    for name in (*KEYS, "at", "features", "entity", "revision", "endpoint"):
        assert held[name].tolist() == wanted[name].tolist(), name
    assert held["scores"].tolist() == [json.dumps(list(one)) for one in wanted["scores"]]
    assert logged.days.contents.versions() == content_versions(held, DAY_COLUMN)
    with logged_days(logged.scratch, logged.log, "shop", DAYS) as days:
        given = frame_of(pa.Table.from_batches(list(days.rows.make()), days.rows.schema))
    assert given["at"].is_monotonic_increasing
    assert dict(days.by_version) == held["version"].value_counts().to_dict()


def test_a_window_on_disk_is_the_window_of_one_frame(logged: Logged, answers: JoinedAnswers) -> None:
    whole = logged.whole()
    assert answers.counts() == {
        "answers": len(whole),
        "labelled": int(whole["label"].notna().sum()),
        "without_keys": int((~whole["has_keys"].astype(bool)).sum()),
    }
    played = [(one.version, one.variant) for one in answers.played()]
    assert played == [("v9", "champion"), ("v10", "canary"), ("v10", "shadow")]
    measured = 0
    for version, variant in played:
        for window in WINDOWS:
            shadow = variant == "shadow"
            wanted, part = (
                of(whole, version, window, shadow=shadow),
                answers.part(version, window, shadow=shadow),
            )
            for name in ("at", "scores", "has_keys", "ambiguous_label"):
                assert part[name].tolist() == wanted[name].tolist(), name
            pd.testing.assert_series_equal(part["label"], wanted["label"], check_names=False)
            test = PerformanceTest(
                "multiclass", CLASSES, Watermark(DAY, 0.5, 5), level=0.01, slices=["shop", "member"]
            )
            found, of_frame = (
                window_performance(
                    frame, window, version=version, variant=variant, now=START + 30 * DAY, test=test
                )
                for frame in (part, wanted)
            )
            assert found == of_frame
            measured += found.status == "judged"
    assert measured >= 6 and whole["ambiguous_label"].any()


@pytest.mark.parametrize("classes", [CLASSES, ("b", "a", "other", "c"), None])
def test_losses_on_disk_are_those_of_one_frame(
    logged: Logged, answers: JoinedAnswers, classes: tuple[str, ...] | None
) -> None:
    found = answers.losses("multiclass", classes)
    assert found == losses_by_revision(logged.whole(), "multiclass", classes)
    if classes == CLASSES:
        assert set(found) == {"1", "2"} and set(found["1"]["versions"]) == {"v9", "v10"}
        assert found["1"]["differences"]["v10"]["count"] > 10
        assert found == _by_hand(logged.whole())


def _by_hand(whole: pd.DataFrame) -> Any:
    """The same in pandas, group by group."""
    whole = whole[~whole["endpoint"].str.contains("/versions/")].reset_index(drop=True)
    codes = label_codes(whole["label"], task="multiclass", classes=CLASSES)
    scores = np.array([json.loads(text) for text in whole["scores"]])
    rows = whole.assign(loss=-np.log(scores[np.arange(len(scores)), np.nan_to_num(codes).astype(int)]))
    rows = rows[~np.isnan(codes)]
    shadow, live = rows[rows["variant"] == "shadow"], rows[rows["variant"] != "shadow"]
    pairs = shadow.merge(live, on=["revision", "answer_id", "row"], suffixes=("", "_live"))
    pairs = pairs[pairs["version"] != pairs["version_live"]]
    pairs = pairs.assign(loss=pairs["loss"] - pairs["loss_live"])

    def moments(frame: pd.DataFrame) -> Any:
        means = frame.groupby(["version", "answer_id"])["loss"].mean().reset_index()
        return {
            version: pytest.approx(
                {"count": len(own), "mean": own.mean(), "m2": ((own - own.mean()) ** 2).sum()}, rel=1e-12
            )
            for version, own in means.groupby("version")["loss"]
        }

    return {
        str(revision): {
            "loss": "log loss",
            "versions": moments(rows[rows["revision"] == revision]),
            "differences": moments(pairs[pairs["revision"] == revision]),
        }
        for revision in (1, 2)
    }


class Manifest:
    """What drift needs of a manifest."""

    task, classes, features = "multiclass", CLASSES, SPECS


def test_drift_counted_on_the_way_is_drift_of_one_frame(logged: Logged, answers: JoinedAnswers) -> None:
    random = np.random.default_rng(9)
    trained = pd.DataFrame([odd_features(random, number) for number in range(400)])
    judged = HeldOut(random.dirichlet([1, 1, 1], size=300), random.integers(0, 3, 300).astype(float), None)
    reference = make_reference(
        TrainingRows(trained, SPECS), held_out=judged, task="multiclass", classes=CLASSES, window_days=1
    )
    test = DriftTest.at_level(0.01, min_rows=20)
    for window in WINDOWS:
        rows = of(logged.whole(), "v9", window, shadow=False)
        scores = np.array([json.loads(text) for text in rows["scores"]])
        wanted = assess_window(
            reference,
            window,
            Answers(
                features_of(pa.chunked_array([pa.array(rows["features"])]), SPECS),
                scores,
                label_codes(rows["label"], task="multiclass", classes=CLASSES),
            ),
            version="v9",
            test=test,
        )
        found = window_drift(answers, window, reference, version="v9", manifest=Manifest, test=test)
        assert found.assessed == wanted and wanted.judged
        # What is shown are whole rows: features beside the scores that were given to them.
        assert len(found.features) == len(rows) == len(found.scores)
        spent = dict(zip(map(tuple, scores.tolist()), rows["features"], strict=True))
        for own, shown in zip(found.scores.tolist(), found.features["member"], strict=True):
            assert json.loads(spent[tuple(own)])["member"] == shown


def test_few_rows_are_in_memory_at_once(
    logged: Logged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Groups of a table are of a fixed number of rows, and are read one after the other."""
    monkeypatch.setattr(lake_module, "GROUP_ROWS", 32)
    lake = Lake(uri=str(tmp_path / "lake"))
    with logged_days(logged.scratch, logged.log, "shop", DAYS) as days:
        lake.write(TABLE, days.rows, partition_column=DAY_COLUMN, partitions=DAYS, commit={})
    log = Compacted(lake, TABLE, lake.version(TABLE), START, START + 3 * DAY)
    sizes = [len(rows) for rows in log.batches([*KEYS, "features"])]
    assert sum(sizes) == logged.rows_written and max(sizes) == 32 and len(sizes) > 5


def test_features_are_one_object_per_answer(answers: JoinedAnswers) -> None:
    texts = pa.chunked_array([['{"spent":1.5,"else":[1]}', "{}", '{"shop":"\\u00fc","member":true}', None]])
    found = features_of(texts, SPECS)
    assert found["spent"].tolist()[0] == 1.5 and found["shop"].tolist() == [None, None, "ü", None]
    assert len(features_of(pa.chunked_array([[]], pa.string()), SPECS)) == 0
    with pytest.raises(DataError, match="2 answers have 3 objects"):
        features_of(pa.chunked_array([["{}", "{} {}"]]), SPECS)
