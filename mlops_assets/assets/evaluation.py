"""``<model>_evaluation``: challenger against champion and baseline, the verdict, and the gate that holds it.

Belongs here: scoring both on the newest labelled rows, recording the verdict, telling people of a rejection.
Does not belong here: the verdict (``evaluation/gate.py``), measuring and plots (``evaluation/evaluate.py``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from mlops_assets.asset_keys import name_tags
from mlops_assets.asset_names import asset_name
from mlops_assets.assets.automation import FOLLOW_CHANGED_DATA
from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.declared_model import DeclaredModel
from mlops_assets.assets.metadata import image, link, markdown_table, number
from mlops_assets.assets.training_set import (
    CHANGED_BY,
    PinnedTrainingSet,
    pinned_tables,
    read_training_set,
    unseen_rows,
)
from mlops_assets.errors import MlopsError
from mlops_assets.evaluation.gate import Verdict, verdict_on
from mlops_assets.event_log.records import require
from mlops_assets.resources.alerts import Alert, Alerts
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import CHAMPION, ModelRegistry, RegisteredVersion
from mlops_assets.training.training_set import LABEL

if TYPE_CHECKING:
    import pandas as pd

    from mlops_assets.evaluation.evaluate import Evaluation
    from serve.scoring import Scorer

EVALUATION_FIELDS = {"task", "gate", "metric"}
GATE = "gate"


class EvaluationConfig(dg.Config):
    """Which rows are judged on."""

    look: int = Field(
        default=1,
        ge=1,
        description="1: on the rows that the training set kept from training. From 2 on: once more, at this "
        "look, on every labelled row there is now that the challenger was not trained on. Each further look "
        "needs stronger proof.",
    )


def evaluation_asset(group: str, model: DeclaredModel) -> dg.AssetsDefinition:
    """The verdict on the challenger, and the check that keeps a rejected one from going on."""
    declared, key = model.declaration, model.key("evaluation")

    @dg.asset(
        key=key,
        deps=[model.key("model"), model.key("training_set")],
        group_name=group,
        kinds={"evaluation"},
        tags=name_tags("evaluation", declared.name),
        description="Challenger against champion and baseline on the newest labelled rows; the verdict.",
        code_version=code_version(declared, [verdict_on], fields=EVALUATION_FIELDS),
        automation_condition=FOLLOW_CHANGED_DATA,
        check_specs=[
            dg.AssetCheckSpec(
                GATE,
                asset=key,
                blocking=True,
                description="The gate's verdict on the challenger is promote.",
            )
        ],
    )
    def evaluation(
        context: dg.AssetExecutionContext,
        config: EvaluationConfig,
        lake: Lake,
        model_registry: ModelRegistry,
        alerts: Alerts,
    ) -> Iterator[dg.MaterializeResult[Any]]:
        yield make_evaluation(context, lake, model_registry, alerts, model, config.look)

    return evaluation


@dataclass(frozen=True)
class _Contest:
    """Who is judged against whom; there is no champion before the first promotion."""

    challenger: RegisteredVersion
    champion: RegisteredVersion | None

    def evaluated(
        self,
        lake: Lake,
        model: DeclaredModel,
        training_set: PinnedTrainingSet,
        frame: "pd.DataFrame",
        look: int,
    ) -> "Evaluation":
        """Both on labelled rows that were kept from training. ``look``: how often that is done, from 1."""
        from mlops_assets.evaluation.evaluate import Champion, EvaluationRows, evaluate

        declared, champion = model.declaration, self.champion
        return evaluate(
            declared.gate.at_look(look),
            declared.selecting_metric,
            EvaluationRows(
                frame,
                frame[LABEL].to_numpy(dtype="float64"),
                # The baseline knows what the challenger could know, and no more.
                training_set.train.within(_window_days(self.challenger)).target,
                declared.task,
                training_set.train.classes,
                model.view.event_timestamp,
                str(training_set.record.metadata.get(CHANGED_BY, "")),
            ),
            _scorer(self.challenger, lake),
            Champion(
                _scorer(champion, lake),
                f"champion v{champion.version}",
                same=champion.digest == self.challenger.digest,
                trained_until=champion.tags.get("trained_until", ""),
            )
            if champion
            else None,
        )


def make_evaluation(
    context: dg.AssetExecutionContext,
    lake: Lake,
    registry: ModelRegistry,
    alerts: Alerts,
    model: DeclaredModel,
    look: int = 1,
) -> dg.MaterializeResult[Any]:
    """The step: judge, tag the version with the verdict, tell of a rejection."""
    name = model.declaration.name
    training_set = read_training_set(context.instance, lake, model)
    trained = require(context.instance, model.key("model"))
    challenger = registry.version(name, int(trained.metadata["model_version"]))
    champion = registry.by_alias(name, CHAMPION)
    frame, pinned = _rows(lake, model, training_set, look)
    found = _Contest(challenger, champion).evaluated(lake, model, training_set, frame, look)
    verdict = found.verdict
    registry.set_tags(
        name, challenger.version, {"gate": verdict.outcome, "gate_reason": verdict.reason[:4_000]}
    )
    # A first model replaces none, and whoever builds it sees the verdict. A challenger that one more day of
    # rows leaves undecided is no news either.
    rejected = (
        champion if verdict.outcome == "reject" or (verdict.outcome != "promote" and look == 1) else None
    )
    alerted = (
        {"alert": alerts.send(_rejection(verdict, challenger, rejected, context.run.run_id))}
        if rejected
        else {}
    )
    return dg.MaterializeResult(
        data_version=dg.DataVersion(found.version(training_set.record.data_version, trained.data_version)),
        metadata={
            "outcome": verdict.outcome,
            "reason": verdict.reason,
            "model_version": challenger.version,
            "champion_version": champion.version if champion else "none",
            "look": look,
            **found.rows,
            **pinned,
            **{metric: value for metric, value in found.metrics.items() if value is not None},
            "measurements": dg.MetadataValue.md(markdown_table(_rule_rows(verdict))),
            "slices": dg.MetadataValue.md(markdown_table(found.slice_rows())),
            **{plot: image(png) for plot, png in found.plots.items()},
            **alerted,
            **link("mlflow_model", registry.version_url(name, challenger.version)),
        },
        check_results=[_gate_check(model, verdict, challenger)],
    )


def _rows(
    lake: Lake, model: DeclaredModel, training_set: PinnedTrainingSet, look: int
) -> "tuple[pd.DataFrame, dict[str, Any]]":
    """The labelled rows of a look; from the second on with the versions of the tables that they are of."""
    if look == 1:
        return training_set.evaluate.frame, {}
    pinned = pinned_tables(lake, model)
    try:
        frame = unseen_rows(lake, model, training_set, pinned)
    except MlopsError as error:
        name = asset_name("evaluation", model.declaration.name)
        raise dg.Failure(f"{name}: {error}", allow_retries=False) from error
    return frame, {"pinned_tables": dg.MetadataValue.json(pinned)}


def _gate_check(model: DeclaredModel, verdict: Verdict, challenger: RegisteredVersion) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=model.key("evaluation"),
        check_name=GATE,
        passed=verdict.outcome == "promote",
        description=f"{verdict.outcome}: {verdict.reason}",
        metadata={
            "outcome": verdict.outcome,
            "model_version": challenger.version,
            "model_digest": challenger.digest,
            "measurements": dg.MetadataValue.md(markdown_table(_rule_rows(verdict))),
        },
    )


def _rule_rows(verdict: Verdict) -> list[dict[str, str]]:
    return [
        {
            "measured": one.name,
            "value": number(one.value),
            "limit": number(one.limit),
            "passed": {True: "yes", False: "no", None: "undecided"}[one.passed],
            "in words": one.said,
        }
        for one in verdict.rules
    ]


def _window_days(version: RegisteredVersion) -> int | None:
    window = version.manifest().get("training_window")
    return int(window["days"]) if window else None


def _scorer(version: RegisteredVersion, lake: Lake) -> "Scorer":
    from serve.scoring import load_package

    return load_package(version.package_uri, lake.public_storage_options())


def _rejection(
    verdict: Verdict, challenger: RegisteredVersion, champion: RegisteredVersion, run_id: str
) -> Alert:
    """What people hear of a challenger that the gate does not let past."""
    return Alert(
        kind="gate_rejected",
        subject=asset_name("model", challenger.name),
        version=f"v{challenger.version}",
        summary=f"{verdict.outcome}: {verdict.reason}. v{champion.version} keeps answering",
        command=f"look at {asset_name('evaluation', challenger.name)} (plots, slices); an open episode tries "
        f"again with newer data, by hand: dg launch --assets "
        f"'key:\"{asset_name('training_set', challenger.name)}\"'",
        evidence={
            "outcome": verdict.outcome,
            "champion": f"v{champion.version}",
            "run_id": run_id,
            "measurements": {
                one.name: {"value": one.value, "limit": one.limit, "passed": one.passed}
                for one in verdict.rules
            },
        },
        # The same model judged on newer rows is news.
        dedupe=verdict.reason,
    )
