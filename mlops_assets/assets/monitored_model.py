"""A model and the monitor that watches it, as declared: what the steps that measure take.

Belongs here: their declarations side by side, the answers with their labels for one step. Does not belong
here: what is measured on them (``performance.py``, ``drift.py``), how answers are joined
(``joined_answers.py``).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.asset_names import Kind, table_name
from mlops_assets.assets.declared_model import DeclaredModel
from mlops_assets.assets.joined_answers import Compacted, JoinedAnswers, labels_of
from mlops_assets.assets.measuring import complete_until, first_day, kept_windows
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.event_log.served_state import ServedVersion, served_version
from mlops_assets.monitoring.windows import Window
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import ModelRegistry
from mlops_assets.resources.scratch import Scratch


@dataclass(frozen=True)
class MonitoredModel:
    """``monitor`` is declared for ``model``."""

    monitor: DriftMonitorDeclaration
    model: DeclaredModel

    def key(self, kind: Kind) -> dg.AssetKey:
        """The key of an asset of this monitor."""
        return asset_key(kind, self.monitor.model)

    def served(self, instance: dg.DagsterInstance, registry: ModelRegistry) -> ServedVersion | None:
        """The version that answers, or None."""
        return served_version(instance, registry, model=self.monitor.model, deployment=self.monitor.served_by)

    def windows(self, instance: dg.DagsterInstance, now: datetime) -> list[Window]:
        """The kept windows of which every answer is in the compacted log."""
        return kept_windows(self.monitor, complete_until(instance, self.key("prediction_log"), now))

    @contextmanager
    def answers(
        self, scratch: Scratch, lake: Lake, now: datetime, slices: Sequence[str] = ()
    ) -> Iterator[JoinedAnswers]:
        """Every answer from the oldest kept window until now, with its label where it has one."""
        windows = kept_windows(self.monitor, now)
        table = table_name("prediction_log", self.monitor.model)
        log = Compacted(
            lake,
            table,
            lake.version(table),
            windows[0].start if windows else first_day(self.monitor),
            now + timedelta(days=1),
        )
        model, join_keys = self.model, self.model.view.entity.join_keys
        with scratch.database() as connection:
            # Not kept by a name: they may be many.
            yield JoinedAnswers(
                connection, log, labels_of(lake, model.outcomes, model.label.of, join_keys), join_keys, slices
            )
