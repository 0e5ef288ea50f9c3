"""Scrapes are answered at once, by collectors that are slow and by some that fail, and cost nothing else."""

import re
import subprocess
import sys
import threading

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlops_assets import environment
from mlops_assets.errors import StackError
from mlops_assets.metrics import (
    COLLECTORS,
    EXPORTER_SERIES,
    MetricSample,
    MetricsCollector,
    MetricSeries,
    exporting,
)
from mlops_assets.metrics._exporting import Exported, Kept, families
from mlops_assets_tests.contracts.test_import_cost import HEAVY

COUNT = MetricSeries("mlops_count", "gauge", (), "how often it was asked")


class Counting(MetricsCollector):
    """Says how often it was asked. While ``free`` is not set, it does not answer."""

    name = "counting"
    series = (COUNT,)

    def __init__(self):
        self.asked = 0
        self.free = threading.Event()
        self.free.set()
        self.problem = ""

    @classmethod
    def of_platform(cls):
        return cls()

    def collect(self):
        self.asked += 1
        assert self.free.wait(60)
        if self.problem:
            raise StackError(self.problem)
        yield MetricSample(COUNT, {}, self.asked)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def counting():
    return Counting()


@pytest.fixture
def clock():
    return Clock()


def said(exported):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in exported.collect()
        for sample in family.samples
    }


def test_an_answer_is_kept_for_some_seconds(counting, clock):
    exported = Exported([Kept(counting, clock=clock)])
    assert said(exported)[("mlops_count",)] == 1
    clock.now += 4.9
    assert said(exported)[("mlops_count",)] == 1
    clock.now += 0.1
    found = said(exported)
    assert found[("mlops_count",)] == 2
    assert found[("mlops_exporter_collected_timestamp_seconds", "counting")] == 1005.0


def test_a_slow_collector_is_asked_once_and_its_former_answer_stands(counting, clock):
    kept = Kept(counting, clock=clock, patience_s=0.01)
    exported = Exported([kept])
    counting.free.clear()
    assert said(exported) == {}
    assert said(exported) == {} and counting.asked == 1
    counting.free.set()
    kept._asking.join(60)
    assert said(exported)[("mlops_count",)] == 1
    counting.free.clear()
    clock.now += 60
    late = said(exported)
    assert late[("mlops_count",)] == 1
    assert late[("mlops_exporter_collected_timestamp_seconds", "counting")] == 1000.0
    counting.free.set()


def test_a_collector_that_fails_says_so_and_costs_no_other(counting, clock, caplog):
    class Other(Counting):
        name = "other"
        series = ()

        def collect(self):
            return iter(())

    counting.problem = "no lake"
    exported = Exported([Kept(counting, clock=clock), Kept(Other(), clock=clock)])
    found = said(exported)
    assert found[("mlops_exporter_up", "counting")] == 0 and found[("mlops_exporter_up", "other")] == 1
    assert ("mlops_count",) not in found
    clock.now += 10
    said(exported)
    # It stands in the log once, with its cause.
    assert caplog.messages == ["collector counting failed"] and "no lake" in caplog.text


def test_only_a_scrape_asks_collectors(counting):
    with exporting([counting], 0, patience_s=60) as address:
        health = httpx.get(address.replace("metrics", "healthy"), trust_env=False)
        other = httpx.get(address.replace("metrics", "favicon.ico"), trust_env=False)
        assert (health.status_code, health.text, other.status_code) == (200, "ok\n", 404)
        assert counting.asked == 0
        text = httpx.get(address, trust_env=False, timeout=60).text
        port = int(address.rpartition(":")[2].partition("/")[0])
        with pytest.raises(StackError, match=rf"127\.0\.0\.1:{port}: .*in use"), exporting([], port):
            pass
    (family,) = [one for one in text_string_to_metric_families(text) if one.name == "mlops_count"]
    assert family.documentation == "how often it was asked" and family.samples[0].value == 1


def test_a_series_that_counts_is_a_counter():
    sold = MetricSeries("mlops_sold_total", "counter", ("shop",), "what was sold")
    (family,) = families([MetricSample(sold, {"shop": "a"}, 1), MetricSample(sold, {"shop": "b"}, 2)])
    assert family.type == "counter" and [one.name for one in family.samples] == ["mlops_sold_total"] * 2


def test_the_page_names_every_series_and_no_other():
    text = (environment.PROJECT_ROOT / "docs/operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(mlops_\w+)` \| `?([\w, ]*?)`? \| (.+) \|$", text, flags=re.MULTILINE)
    declared = [*EXPORTER_SERIES, *(series for one in COLLECTORS.members() for series in one.series)]
    assert rows == [(one.name, ", ".join(one.labels), one.meaning) for one in declared]


def test_an_exporter_that_nobody_scrapes_has_imported_nothing_heavy():
    heavy = (*HEAVY, "dagster")
    code = (
        "import sys, mlops_assets.cli, mlops_assets.local_stack.processes as processes;"
        "from mlops_assets.metrics import COLLECTORS, exporting;"
        "made = [one.of_platform() for one in COLLECTORS.members()];"
        "exporting(made, 0).__enter__(); processes.settings_from_environment();"
        f"print(made != [], sorted(set({heavy!r}) & {{name.split('.')[0] for name in sys.modules}}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True []"
