"""What every collector of metrics must do (``metrics/_base.py`` says it in words).

class TestStreams(CollectorConformance):
    @pytest.fixture
    def collector(self): ...  # one that has something to say
"""

import re
from typing import Any

import pytest

from mlops_assets.metrics import COLLECTORS, MetricsCollector
from mlops_assets.metrics._exporting import families


class CollectorConformance:
    """One collector."""

    @pytest.fixture
    def collector(self) -> Any:
        raise NotImplementedError("the fixture collector gives one that has something to say")

    def test_it_is_found_by_its_name(self, collector: MetricsCollector) -> None:
        assert COLLECTORS[collector.name] is type(collector)

    def test_it_says_each_declared_series_once_for_its_labels(self, collector: MetricsCollector) -> None:
        said = list(collector.collect())
        assert {sample.series for sample in said} == set(collector.series)
        assert all(set(sample.labels) == set(sample.series.labels) for sample in said)
        told = [(sample.series.name, *sorted(sample.labels.items())) for sample in said]
        assert len(told) == len(set(told))
        assert len(list(families(said))) == len(collector.series)

    def test_names_say_whose_they_are_and_counters_that_they_count(self, collector: MetricsCollector) -> None:
        for series in collector.series:
            assert re.fullmatch(r"mlops_[a-z_]+", series.name)
            assert series.name.endswith("_total") == (series.kind == "counter")
