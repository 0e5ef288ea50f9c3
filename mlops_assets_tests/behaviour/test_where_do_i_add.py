"""Each row of "Where do I add …" in the README is true: one file, or one line of YAML, and it works.

Members are written into a folder of the test that joins their package.
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from dagster.components.testing import DefsFolderSandbox

from mlops_assets.asset_keys import asset_key
from mlops_assets.data import sources
from mlops_assets.data.inference import format_of, infer_rows
from mlops_assets.documents import written
from mlops_assets.evaluation import metrics as metrics_of_models
from mlops_assets.evaluation.metrics import metric_values
from mlops_assets.monitoring import detectors
from mlops_assets.monitoring.drift import Answers, DriftTest, assess_window
from mlops_assets.monitoring.reference import TrainingRows, make_reference
from mlops_assets.monitoring.windows import window_of
from mlops_assets.resources.lake import Lake
from mlops_assets.rollout.judging import metrics
from mlops_assets.rollout.judging.conditions import Analysis, Condition
from mlops_assets.rollout.judging.evidence import StepEvidence
from mlops_assets.rollout.judging.judge import measurement_of
from mlops_assets.streams import formats as record_formats
from mlops_assets.streams.formats import RECORD_FORMATS
from mlops_assets.streams.records import TopicRecord, Wanted, rows_of
from mlops_assets.testing.conformance.small_tables import small_frame, trained
from mlops_assets.training import trainers
from mlops_assets.training.package import package
from mlops_assets.training.trainers import TRAINERS
from mlops_assets_tests.contracts.test_wrong_yaml import RIGHT, errors, sandbox
from serve import formats
from serve.model import verify_golden_rows
from serve.online import stores
from serve.schema import FeatureSpec, Moments, VersionEvidence
from serve.scoring import load_package, write_package

__all__ = ["sandbox"]

ROOT = Path(__file__).parents[2]
Added = Callable[[ModuleType, str, str], None]

FORMAT = '''
import json
import numpy as np
from serve.formats import Scorer

class ConstantScorer(Scorer):
    """One score for every row."""

    name = "constant-json"
    model_file = "constant.json"
    peak_per_package_byte = 1.0

    def _load(self, payload):
        self._value = json.loads(payload)

    def score(self, matrix):
        return np.full(len(matrix), self._value)
'''
TRAINER = """
import json
from mlops_assets.training.trainers import Trainer

class MedianTrainer(Trainer):
    name = "median"
    tasks = frozenset({"binary", "regression"})
    model_format = "constant-json"
    defaults = {}

    def _fit(self, given):
        return json.dumps(float(given.target.mean())).encode(), {one.name: 0.0 for one in given.features}
"""
SOURCE = """
from pyarrow import BufferReader, json
from mlops_assets.data.sources import FileSource, SourceFormat

class JsonLinesSource(FileSource):
    name = "jsonl"
    suffixes = (".jsonl",)
    skipped_lines: int = 0

    def file_format(self):
        return JsonLines(self.skipped_lines)

class JsonLines(SourceFormat):
    def __init__(self, skipped):
        self._skipped = skipped

    def read(self, content, *, name, columns, infer=False):
        lines = content.split(b"\\n")[self._skipped :]
        return json.read_json(BufferReader(b"\\n".join(lines)))
"""
RECORDS = """
from mlops_assets.streams.formats import RecordFormat, Undecodable

class LineRecords(RecordFormat):
    name = "line"
    columns: tuple[str, ...]

    def decoder(self, folder, registered):
        def read(value):
            parts = value.decode().split(",")
            if len(parts) != len(self.columns):
                raise Undecodable(f"it has {len(parts)} values")
            return dict(zip(self.columns, parts))
        return read
"""
DETECTOR = """
from mlops_assets.monitoring.detectors import Chance, Detector

class GrowthDetector(Detector):
    name = "growth"
    decides = False

    def score(self, compared):
        return float(compared.window.sum())

    def by_chance(self, resampled):
        return Chance(1.0, 0.0, 0.0)
"""
METRIC = """
from mlops_assets.evaluation.metrics import Metric

class Hits(Metric):
    name = "hits"
    tasks = frozenset({"binary"})
    greater_is_better = True
    unit = "rows"
    bounds = (0.0, float("inf"))

    def _value(self, target, scores):
        return float(((scores >= 0.5) == target).sum())
"""
ANALYSIS_METRIC = """
from mlops_assets.rollout.judging import sequences
from mlops_assets.rollout.judging.metrics import AnalysisMetric, Quantity, Subject
from mlops_assets.rollout.judging.metrics._base import PERCENT

class TimeoutRate(AnalysisMetric):
    name = "timeout_rate"
    quantities = {"value": Quantity("share of timeouts", "value <= 0.1", 0.0, 1.0)}

    def subject(self, quantity, evidence):
        timeouts = evidence.canary.errors.get("timeout", 0)
        share = sequences.Share(timeouts, evidence.canary.requests)
        return Subject(share, PERCENT, f"{timeouts} timeouts")
"""

ONLINE_STORE = """
from serve.online.stores import OnlineStore

class MemoryStore(OnlineStore):
    name = "memory"
    held = {}

    def __init__(self, uri, *, view):
        self._values = self.held.setdefault((uri, view), {})

    def read(self, keys):
        return [self._values.get(key) for key in keys]

    def scan(self, prefix):
        return iter([(key, value) for key, value in self._values.items() if key.startswith(prefix)])

    def commit(self, puts, *, head, expected, clear=False):
        self._values |= {**puts, "head": head}

    def close(self):
        pass
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Added]:
    """Adds one file to a package, as long as the test runs."""
    import sys

    made: list[str] = []

    def add(package_: ModuleType, file: str, text: str) -> None:
        folder = tmp_path / package_.__name__
        folder.mkdir(exist_ok=True)
        (folder / f"{file}.py").write_text(text, encoding="utf-8")
        monkeypatch.setattr(package_, "__path__", [*package_.__path__, str(folder)])
        made.append(f"{package_.__name__}.{file}")

    yield add
    for name in made:
        sys.modules.pop(name, None)


def changed(right: str, wrong: str) -> str:
    assert right in RIGHT
    return RIGHT.replace(right, wrong)


def a_trainer(sandbox: DefsFolderSandbox, added: Added, tmp_path: Path) -> None:
    """The same as a format of models: this trainer writes one of its own."""
    text = changed("{trainer: lightgbm}", "{trainer: median}")
    assert "Unknown trainer 'median'" in errors(sandbox, text)
    added(formats, "constant_json", FORMAT)
    added(trainers, "median", TRAINER)
    assert errors(sandbox, text) == ""
    frame, features, target = small_frame("binary")
    model = trained(TRAINERS["median"], "binary")
    said = {"name": "toy", "target": "y", "features": tuple(features), "classes": ("no", "yes")}
    made = package(model.fitted, frame, model.manifest.model_copy(update=said))
    write_package(str(tmp_path / "package"), made.manifest, made.payload)
    served = load_package(str(tmp_path / "package"))
    assert verify_golden_rows(served, version="v1") == 8
    assert served.score(model.table.matrix)[0] == pytest.approx(target.mean())


def a_source_format(sandbox: DefsFolderSandbox, added: Added, tmp_path: Path) -> None:
    declared = "{format: jsonl, path: raw.jsonl, skipped_lines: 1}"
    document = RIGHT.split("---")[0].replace("{format: csv, path: raw.csv}", declared)
    assert "Unknown source format 'jsonl'. Allowed: csv, http, parquet" in errors(sandbox, document)
    added(sources, "jsonl", SOURCE)
    wrong = document.replace("skipped_lines: 1", "skipped_lines: some")
    told = errors(sandbox, wrong)
    assert "defs.yaml:4" in told and "skipped_lines" in told and "valid integer" in told
    rows = '# rows\n{"row_id": 1, "price": 2.5, "sold": true}\n{"row_id": 2, "price": null, "sold": false}\n'
    (sandbox.defs_folder_path / "shop" / "raw.jsonl").write_text(rows)
    (sandbox.defs_folder_path / "shop" / "defs.yaml").write_text(document)
    lake, key = Lake(uri=str(tmp_path / "lake")), asset_key("dataset", "shop")
    with sandbox.build_all_defs() as loaded, dg.DagsterInstance.ephemeral() as instance:
        defs = dg.Definitions.merge(loaded, dg.Definitions(resources={"lake": lake}))
        job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={key})
        assert job.execute_in_process(instance=instance).success
    assert lake.read("datasets/shop").to_dict("list")["row_id"] == [1, 2]
    source = format_of(Path("shop.jsonl"))
    found = infer_rows(rows.partition("\n")[2].encode(), source=source, name="shop.jsonl")
    assert (source, found.source, found.key) == ("jsonl", "jsonl", "row_id")


def a_record_format(sandbox: DefsFolderSandbox, added: Added, tmp_path: Path) -> None:
    document = written.stream("tea", topic="tea").replace("{format: json}", "{format: line, columns: [id]}")
    assert "Unknown record format 'line'. Allowed: avro, json" in errors(sandbox, document)
    added(record_formats, "line", RECORDS)
    assert errors(sandbox, document) == ""
    decode = RECORD_FORMATS["line"].model_validate({"format": "line", "columns": ["id"]}).decoder
    found = rows_of(
        [TopicRecord(0, 0, None, None, b"7"), TopicRecord(0, 1, None, None, b"7,8")],
        Wanted("tea", {"id": "integer"}, {}),
        decode(tmp_path, lambda *_: None),
    )
    assert found.table.column("id").to_pylist() == [7, None]
    assert found.reasons == [(0, 1, "it has 2 values")]


def a_drift_detector(sandbox: DefsFolderSandbox, added: Added, tmp_path: Path) -> None:
    added(detectors, "growth", DETECTOR)
    rows = pd.DataFrame({"x": np.arange(500.0)})
    reference = make_reference(
        TrainingRows(rows, [FeatureSpec(name="x", type="number")]),
        held_out=None,
        task="binary",
        classes=("no", "yes"),
        window_days=7,
    )
    window = assess_window(
        reference,
        window_of(datetime(2013, 4, 1, tzinfo=UTC), timedelta(days=7)),
        Answers(rows[:300]),
        version="v1",
        test=DriftTest.at_level(0.01, min_rows=1),
    )
    [column] = window.columns
    score = column.score("growth")
    assert score is not None and (score.value, score.threshold) == (300.0, 1.0) and column.severity


def a_metric(sandbox: DefsFolderSandbox, added: Added, tmp_path: Path) -> None:
    text = changed("task: binary", "task: binary\n  gate: {metric: hits}")
    assert "Unknown metric 'hits'. Allowed: accuracy" in errors(sandbox, text)
    added(metrics_of_models, "hits", METRIC)
    assert errors(sandbox, text) == ""
    assert "Unknown metric of task regression 'hits'" in errors(
        sandbox, text.replace("task: binary", "task: regression")
    )
    found = metric_values("binary", np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.9, 0.2]))
    assert found["hits"] == 2.0 and found["brier"] == pytest.approx(0.22)


def a_metric_of_rollouts(sandbox: DefsFolderSandbox, added: Added, tmp_path: Path) -> None:
    text = f"""{RIGHT}\
  steps: [{{set_weight: 50, min_requests: 9}}, {{set_weight: 100}}]
  analysis: [{{metric: timeout_rate, success_condition: value <= 0.1}}]
"""
    assert "Unknown metric of an analysis 'timeout_rate'. Allowed: error_rate" in errors(sandbox, text)
    added(metrics, "timeout_rate", ANALYSIS_METRIC)
    assert errors(sandbox, text) == ""
    assert "timeout_rate has no quantity 'ratio'" in errors(sandbox, text.replace("value <=", "ratio <="))
    half, none = ({"timeout": 500}, {"timeout": 0})
    analysis = Analysis("timeout_rate", Condition.parse("value <= 0.1", metric="timeout_rate"))
    for timeouts, phase in ((half, "failed"), (none, "successful")):
        seen = VersionEvidence(requests=1_000, errors=timeouts, latency=(), outputs=Moments())
        assert measurement_of(analysis, StepEvidence(canary=seen, stable=seen)).phase == phase


def an_online_store(sandbox: DefsFolderSandbox, added: Added, tmp_path: Path) -> None:
    text = changed("base: shop", "base: shop\n  online: {store: memory, request: [price]}")
    assert "Unknown online store 'memory'. Allowed: feast, redis, sqlite" in errors(sandbox, text)
    added(stores, "memory", ONLINE_STORE)
    assert errors(sandbox, text) == ""
    store = stores.STORES["memory"](str(tmp_path), view="shop-1")
    store.commit({"a": b"1"}, head=b"now", expected=None)
    assert stores.STORES["memory"](str(tmp_path), view="shop-1").read(["a", "b"]) == [b"1", None]


def by_yaml_alone(sandbox: DefsFolderSandbox, added: Added, tmp_path: Path) -> None:
    """A dataset with a rule and a check, a feature, a candidate: lines of one file, which is a use case."""
    text = changed(
        "    - {trainer: lightgbm}", "    - {trainer: lightgbm}\n    - {trainer: xgboost}"
    ).replace(
        "    - {name: price, type: number}",
        "    - {name: price, type: number}\n    - {name: sold, type: boolean}",
    )
    another = """\
---
type: mlops_assets.components.DatasetComponent
attributes:
  name: stock
  source: {format: csv, path: stock.csv}
  columns: {row_id: integer, left: integer}
  row_rules: [{type: expect_column_values_to_be_between, kwargs: {column: left, min_value: 0}}]
  suite: [{type: expect_column_values_to_not_be_null, kwargs: {column: left}}]
"""
    assert errors(sandbox, text + another) == ""


ROWS: dict[str, Callable[[DefsFolderSandbox, Added, Path], None]] = {
    "a use case": by_yaml_alone,
    "a dataset, a check, a quarantine rule": by_yaml_alone,
    "a Kafka topic": a_record_format,
    "a feature": by_yaml_alone,
    "a candidate model": by_yaml_alone,
    "a trainer (another library)": a_trainer,
    "a format of models": a_trainer,
    "a source format": a_source_format,
    "a format of a stream's records": a_record_format,
    "a drift detector": a_drift_detector,
    "a metric of models": a_metric,
    "a metric of rollouts": a_metric_of_rollouts,
    "an online store": an_online_store,
}
NOT_BY_YAML = {
    "a gate rule",
    "a channel of alerts",  # set in the environment; resources/test_channels.py adds one
    "a series for Prometheus",  # asked for by scrapes; metrics/test_exporting.py has a collector
    "a serving target",  # set in the environment; resources/serving/test_targets.py adds one
    "a kind of asset",
    "something outside (a store, a registry)",
    "an HTTP endpoint",
}
"""Rows that say where code goes which no document names by itself."""


@pytest.mark.parametrize("adds", dict.fromkeys(ROWS.values()), ids=lambda adds: adds.__name__)
def test_it_works_as_the_readme_says(
    sandbox: DefsFolderSandbox,
    added: Added,
    tmp_path: Path,
    adds: Callable[[DefsFolderSandbox, Added, Path], None],
) -> None:
    adds(sandbox, added, tmp_path)


def test_every_row_of_the_table_is_tried() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("## Where do I add …") :].split("\n\n")[1]
    rows = re.findall(r"^\| (a.*?|something.*?) \|", table, flags=re.MULTILINE)
    assert sorted(rows) == sorted({*ROWS, *NOT_BY_YAML})
