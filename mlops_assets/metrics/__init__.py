"""Series for Prometheus about what happens beside the endpoint: one file per collector.

A new collector is one more file here; ``_base.py`` says what it must do. What a gateway counts of requests
is not here (``serve/metrics.py``).
"""

from mlops_assets.metrics._base import MetricSample, MetricsCollector, MetricSeries
from mlops_assets.metrics._exporting import COLLECTORS, EXPORTER_SERIES, exporting

__all__ = ["COLLECTORS", "EXPORTER_SERIES", "MetricSample", "MetricSeries", "MetricsCollector", "exporting"]
