"""Metrics of models, one file each, by the name that YAML uses.

A new metric is one more file here; ``_base.py`` says what it holds.
"""

from mlops_assets.errors import UnknownName
from mlops_assets.evaluation.metrics._base import Array, LossMetric, Metric
from serve.families import Family
from serve.schema import Task

__all__ = ["METRICS", "SELECTING", "LossMetric", "Metric", "metric", "metric_values", "metrics_of"]

METRICS: Family[Metric] = Family("metric", __name__, Metric, unknown=UnknownName)

SELECTING: dict[Task, str] = {"binary": "log_loss", "multiclass": "log_loss", "regression": "rmse"}
"""The metric that selects and judges unless the declaration names another."""


def metrics_of(task: Task) -> list[Metric]:
    """Every metric of the task, in the order of their names."""
    return [found() for found in METRICS.members() if task in found.tasks]


def metric(name: str, task: Task) -> Metric:
    """The metric of that name; UnknownName lists those of the task."""
    of_task = {found.name: found for found in metrics_of(task)}
    if name not in of_task:
        raise UnknownName(f"metric of task {task}", name, of_task)
    return of_task[name]


def metric_values(task: Task, target: Array, scores: Array) -> dict[str, float | None]:
    """Every metric of the task, by name."""
    return {found.name: found.value(target, scores) for found in metrics_of(task)}
