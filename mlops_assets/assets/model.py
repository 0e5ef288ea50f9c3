"""``<model>_model``: the winning candidate, trained as far back as its window goes, packaged and registered.

Belongs here: training the winner, writing its package with what its monitor compares windows with,
registering it. Does not belong here: training itself (``training/trainers/``), the package
(``training/package.py``), the arithmetic of a drift reference (``monitoring/reference.py``).
"""

from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.asset_keys import name_tags
from mlops_assets.assets.automation import FOLLOW_CHANGED_DATA, follow_all_but
from mlops_assets.assets.candidates import CANDIDATES_FIELDS, window_tags
from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.declared_model import DeclaredModel
from mlops_assets.assets.measuring import NEWEST_DATA, REFERENCE_FILE
from mlops_assets.assets.metadata import image, link
from mlops_assets.assets.online_examples import with_examples
from mlops_assets.assets.training_set import TRAINING_SET_FIELDS, PinnedTrainingSet, read_training_set
from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
from mlops_assets.errors import DataError
from mlops_assets.event_log.records import Record, require
from mlops_assets.resources.code_provenance import git_sha
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import CHALLENGER, ModelRegistry
from mlops_assets.training.trainers import FittedModel, trainer
from mlops_assets.training.training_set import assemble
from serve.schema import ModelManifest, OnlineView

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from mlops_assets.monitoring.reference import DriftReference
    from mlops_assets.training.candidates import Candidate
    from mlops_assets.training.package import ModelPackage

MODEL_FIELDS = {"name", "task", "candidates", "label", "threshold", "seed"}


def training_code(model: DeclaredModel) -> str:
    """Version of everything declared and coded that makes the model what it is, from join to trainer."""
    function = model.label.function
    made_by = [*([function] if function else []), assemble, *model.trainers]
    fields = TRAINING_SET_FIELDS | CANDIDATES_FIELDS | MODEL_FIELDS
    return code_version(model.declaration, made_by, fields=fields)


def model_asset(
    group: str, model: DeclaredModel, monitor: DriftMonitorDeclaration | None
) -> dg.AssetsDefinition:
    """The registered model. ``monitor``: what watches it, when something does."""
    declared, signal = model.declaration, model.key("drift_signal")

    @dg.asset(
        key=model.key("model"),
        # Staleness is not transitive: what makes the model stale must stand among its own inputs.
        deps=[model.key("candidates"), model.key("training_set"), *([signal] if monitor else [])],
        group_name=group,
        kinds={"model", "mlflow"},
        tags=name_tags("model", declared.name),
        description=declared.description
        or f"The winning candidate, trained on all rows of its training window: model {declared.name}.",
        code_version=code_version(declared, model.trainers, fields=MODEL_FIELDS),
        automation_condition=follow_all_but(signal) if monitor else FOLLOW_CHANGED_DATA,
    )
    def registered(
        context: dg.AssetExecutionContext, lake: Lake, model_registry: ModelRegistry
    ) -> dg.MaterializeResult[Any]:
        return make_model(context, lake, model_registry, model, monitor)

    return registered


def make_model(
    context: dg.AssetExecutionContext,
    lake: Lake,
    registry: ModelRegistry,
    model: DeclaredModel,
    monitor: DriftMonitorDeclaration | None,
) -> dg.MaterializeResult[Any]:
    """The step: train, package, write beside it what the monitor needs, register."""
    from mlops_assets.training.plots import importance_plot
    from serve.scoring import write_package

    name = model.declaration.name
    chosen = require(context.instance, model.key("candidates"))
    training_set = read_training_set(context.instance, lake, model)
    candidate = model.candidates[int(chosen.metadata["winner_position"])]
    training_set = training_set.within(candidate.window_days)
    record, data = training_set.record, training_set.train
    context.log.info(f"Training {candidate.name} on {len(data.target):,} rows")
    fitted = _fitted(model, candidate, training_set)
    made = _packaged(model, candidate, training_set, fitted, _online(lake, model, training_set))
    uri = lake.package_uri(name, made.digest)
    write_package(uri, made.manifest, made.payload, lake.public_storage_options())
    window = window_tags(data, candidate.window_days)
    if monitor:
        reference = drift_reference(model, monitor, training_set, made)
        lake.write_text(f"{uri}/{REFERENCE_FILE}", reference.dumps())
    version = registry.register(
        name,
        digest=made.digest,
        package_uri=uri,
        run_id=str(chosen.metadata["run_id"]),
        manifest=made.manifest,
        payload=made.payload,
        tags={**_tags(record, model), **window, "dagster_run_id": context.run.run_id},
        example=data.frame[list(made.manifest.feature_names)].head(20),
    )
    return dg.MaterializeResult(
        data_version=dg.DataVersion(made.digest),
        metadata={
            "model_version": version.version,
            "alias": CHALLENGER,
            "trainer": candidate.trainer,
            "why": chosen.metadata["why"],
            "train_rows": len(data.target),
            **window,
            "package": uri,
            "bytes": len(made.payload),
            "params": dg.MetadataValue.json(fitted.params),
            "importance": image(importance_plot(fitted.importance)),
            "training_set_version": record.data_version,
            **link("mlflow_model", registry.version_url(name, version.version)),
        },
    )


def _fitted(model: DeclaredModel, candidate: "Candidate", training_set: PinnedTrainingSet) -> FittedModel:
    declared = model.declaration
    inputs = training_set.train.inputs(declared.task, candidate.params, declared.seed)
    return trainer(candidate.trainer).fit(inputs)


def _packaged(
    model: DeclaredModel,
    candidate: "Candidate",
    training_set: PinnedTrainingSet,
    fitted: FittedModel,
    online: OnlineView | None,
) -> "ModelPackage":
    from mlops_assets.training.package import package

    declared, data, how = model.declaration, training_set.train, trainer(candidate.trainer)
    manifest = ModelManifest(
        name=declared.name,
        task=declared.task,
        trainer=how.name,
        model_format=how.model_format,
        model_file=how.model_file,
        target=declared.label.column or str(declared.label.function).rsplit(".", 1)[-1],
        features=data.features,
        classes=data.classes,
        threshold=declared.threshold,
        training_set_version=training_set.record.data_version,
        entity=tuple(model.view.entity.join_keys),
        training_window=data.trained_window(candidate.window_days),
        online=online,
    )
    return package(fitted, data.frame, manifest)


def _online(lake: Lake, model: DeclaredModel, training_set: PinnedTrainingSet) -> OnlineView | None:
    """How replicas compute the model's features, with examples of the last day that it was trained on."""
    if model.online is None:
        return None
    try:
        return with_examples(lake, model.online, until=training_set.train.span[1])
    except DataError as error:
        raise dg.Failure(f"{model.key('model').to_user_string()}: {error}", allow_retries=False) from error


def _tags(record: Record, model: DeclaredModel) -> dict[str, str]:
    return {
        "training_set_version": record.data_version,
        "pinned_tables": str(record.metadata["pinned_tables"]),
        "trained_until": str(record.metadata.get("train_until", "")),
        "git_sha": git_sha(),
        "training_code": training_code(model),
        NEWEST_DATA: str(record.metadata.get(NEWEST_DATA, "")),
        "training_set_delta": str(record.metadata["delta_version"]),
    }


def drift_reference(
    model: DeclaredModel,
    monitor: DriftMonitorDeclaration,
    training_set: PinnedTrainingSet,
    made: "ModelPackage",
) -> "DriftReference":
    """What the monitor compares windows of the packaged model with, thresholds included.

    ``training_set``: its training part as far back as the model was trained.
    """
    import numpy as np
    import pandas as pd

    from mlops_assets.evaluation.baseline import baseline_answer
    from mlops_assets.monitoring.reference import HeldOut, TrainingRows, make_reference
    from serve.scoring import scorer_from_bytes

    declared, at = model.declaration, model.view.event_timestamp
    unseen = training_set.evaluate
    scorer = scorer_from_bytes(made.manifest, made.payload)
    names = made.manifest.feature_names
    # Rows the model was trained on get sharper scores than any later row will.
    scores = scorer.score(scorer.encoder.columns({name: unseen.frame[name] for name in names}))

    def days(frame: "pd.DataFrame") -> "NDArray[np.int64] | None":
        return frame[at].dt.floor("D").astype("int64").to_numpy() if at else None

    everything = pd.concat([training_set.train.frame, unseen.frame], ignore_index=True)
    fitted = np.arange(len(everything)) < len(training_set.train.frame)
    baseline = baseline_answer(declared.task, training_set.train.target, len(made.manifest.classes or ()))
    return make_reference(
        TrainingRows(everything, made.manifest.features, days(everything), fitted),
        held_out=HeldOut(scores, unseen.target, days(unseen.frame), baseline),
        task=declared.task,
        classes=made.manifest.classes,
        window_days=monitor.window.total_seconds() / 86_400,
        seed=declared.seed,
    )
