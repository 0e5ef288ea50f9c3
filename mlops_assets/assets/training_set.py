"""``<model>_training_set``: labelled rows of pinned tables, and how the steps after it read them.

Belongs here: pinning the versions of the tables, writing the joined rows, reading them back once per step.
Does not belong here: the join and the split (``training/training_set.py``), matrices
(``training/training_data.py``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.asset_keys import name_tags
from mlops_assets.asset_names import asset_name, table_name
from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.declared_model import DeclaredModel
from mlops_assets.assets.measuring import NEWEST_DATA
from mlops_assets.assets.metadata import image
from mlops_assets.data.schema import frame_of, typed_table
from mlops_assets.errors import MlopsError
from mlops_assets.event_log.episode_records import episode_log
from mlops_assets.event_log.records import Record, newest_data, require
from mlops_assets.resources.lake import Lake
from mlops_assets.training.training_data import TrainingData, training_parts
from mlops_assets.training.training_set import (
    LABEL,
    SplitRule,
    TrainingSet,
    assemble,
    not_trained_on,
    training_set_schema,
)

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

CHANGED_BY = "changed_by"
"""Metadata key of the time by which a change had shown, where the split follows one."""

# What the asset depends on: a change elsewhere in the document does not make it stale.
TRAINING_SET_FIELDS = {
    "task",
    "feature_view",
    "label",
    "classes",
    "evaluation_window_days",
    "evaluation_fraction",
    "training_window_days",
    "seed",
}


def training_set_asset(group: str, model: DeclaredModel, *, monitored: bool) -> dg.AssetsDefinition:
    """The rows that a model is trained and judged on. ``monitored``: a drift monitor asks for retrains."""
    declared, function = model.declaration, model.label.function

    @dg.asset(
        key=model.key("training_set"),
        deps=[
            model.features.key,
            model.outcomes.key,
            *([model.key("retrain_request")] if monitored else []),
        ],
        # No data and no event retrains by itself: the drift sensor does, for a grant, or a person.
        group_name=group,
        kinds={"training_set", "deltalake"},
        tags=name_tags("training_set", declared.name),
        description=f"Labelled rows of {model.view.name}, split by time into train and evaluate.",
        code_version=code_version(
            declared, [*([function] if function else []), assemble], fields=TRAINING_SET_FIELDS
        ),
    )
    def training_set(context: dg.AssetExecutionContext, lake: Lake) -> dg.MaterializeResult[Any]:
        return make_training_set(
            context, lake, model, changed_by(context.instance, model) if monitored else ""
        )

    return training_set


def changed_by(instance: dg.DagsterInstance, model: DeclaredModel) -> str:
    """The time by which the open episode's change had shown (ISO 8601); "" when none is open, or none had."""
    episode = episode_log(instance, model.declaration.name).open
    return (episode.changed_by if episode is not None else None) or ""


def make_training_set(
    context: dg.AssetExecutionContext, lake: Lake, model: DeclaredModel, changed: str = ""
) -> dg.MaterializeResult[Any]:
    """The step: both tables as they are now, joined, split and written. ``changed``: as by ``changed_by``."""
    from mlops_assets.data.content import content_version
    from mlops_assets.training.plots import training_set_plot

    name, at = model.declaration.name, model.view.event_timestamp
    newest = newest_data(context.instance, model.outcomes.key) or ""
    pinned = pinned_tables(lake, model)
    try:
        made, columns = _assembled(lake, model, pinned, changed=changed)
    except MlopsError as error:
        raise dg.Failure(f"{asset_name('training_set', name)}: {error}", allow_retries=False) from error
    held = lake.columns(model.features.name, version=pinned[model.features.name])
    rows: pa.Table = typed_table(made.frame, training_set_schema(held, columns))
    version = content_version(frame_of(rows))
    wrote = lake.write(
        table_name("training_set", name),
        rows,
        partition_column=None,
        partitions=None,
        commit={"run_id": context.run.run_id, "data_version": version},
    )
    train, evaluate = made.part("train"), made.part("evaluate")
    return dg.MaterializeResult(
        data_version=dg.DataVersion(version),
        metadata={
            "dagster/row_count": len(made.frame),
            "train_rows": len(train),
            "evaluation_rows": len(evaluate),
            "unlabelled_rows": made.unlabelled,
            "too_old_rows": made.too_old,
            "classes": dg.MetadataValue.json(list(made.classes or ())),
            "pinned_tables": dg.MetadataValue.json(pinned),
            NEWEST_DATA: newest,
            "delta_version": wrote.version,
            "dagster/uri": wrote.uri,
            **({CHANGED_BY: changed} if changed else {}),
            **_time_range("train", train, at),
            **_time_range("evaluation", evaluate, at),
            "label_over_time": image(training_set_plot(made, at, model.declaration.task)),
        },
    )


def pinned_tables(lake: Lake, model: DeclaredModel) -> dict[str, int]:
    """The versions of the tables of features and labels as they are now."""
    return {table: lake.version(table) for table in (model.features.name, model.outcomes.name)}


def _assembled(
    lake: Lake,
    model: DeclaredModel,
    pinned: Mapping[str, int],
    *,
    changed: str = "",
    classes: Sequence[str] | None = None,
) -> tuple[TrainingSet, list[str]]:
    """The joined and split rows, and the columns of the features among them. ``classes``: where known."""
    import pandas as pd

    declared, view = model.declaration, model.view
    features = model.features.read(lake, columns=model.features.columns, version=pinned[model.features.name])
    outcomes = model.outcomes.read(lake, version=pinned[model.outcomes.name])
    split = SplitRule(
        event_timestamp=view.event_timestamp,
        evaluation_window_days=declared.evaluation_window_days,
        evaluation_fraction=declared.evaluation_fraction,
        training_window_days=declared.training_window_days,
        changed_by=pd.Timestamp(changed) if changed else None,
        seed=declared.seed,
    )
    made = assemble(
        features,
        outcomes[list(view.entity.join_keys)].assign(**{LABEL: model.label.of(outcomes)}),
        join_keys=view.entity.join_keys,
        task=declared.task,
        classes=classes or declared.classes,
        split=split,
    )
    return made, list(features.columns)


def _time_range(name: str, frame: "pd.DataFrame", event_timestamp: str | None) -> dict[str, str]:
    if event_timestamp is None or frame.empty:
        return {}
    times = frame[event_timestamp]
    return {f"{name}_from": times.min().isoformat(), f"{name}_until": times.max().isoformat()}


@dataclass(frozen=True)
class PinnedTrainingSet:
    """A training set as it was written, with its record: read once by a step and passed on."""

    record: Record
    train: TrainingData
    evaluate: TrainingData

    def within(self, window_days: int | None) -> "PinnedTrainingSet":
        """The same with the training part as far back as a candidate's window goes."""
        return replace(self, train=self.train.within(window_days))


def read_training_set(instance: dg.DagsterInstance, lake: Lake, model: DeclaredModel) -> PinnedTrainingSet:
    """The newest training set of a model; a Failure that says how to make one when there is none."""
    record = require(instance, model.key("training_set"))
    classes = record.metadata["classes"]
    train, evaluate = training_parts(
        lake.read(
            table_name("training_set", model.declaration.name), version=int(record.metadata["delta_version"])
        ),
        features=model.view.features,
        classes=tuple(classes) if classes else None,
        join_keys=model.view.entity.join_keys,
        event_timestamp=model.view.event_timestamp,
    )
    return PinnedTrainingSet(record, train, evaluate)


def unseen_rows(
    lake: Lake, model: DeclaredModel, training_set: PinnedTrainingSet, pinned: Mapping[str, int]
) -> "pd.DataFrame":
    """Labelled rows of the tables at those versions that no model of the training set was trained on.

    Encoded as the training set is. DataError for a label that it did not know.
    """
    made, _ = _assembled(lake, model, pinned, classes=training_set.train.classes)
    view = model.view
    return not_trained_on(made.frame, training_set.train.frame, view.entity.join_keys, view.event_timestamp)
