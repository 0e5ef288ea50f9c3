"""``<model>_evaluation``: challenger against champion and baseline, the verdict, and the gate that holds it.

Belongs here: scoring both on the newest labelled rows, recording the verdict, telling people of a rejection.
Does not belong here: the verdict (``evaluation/gate.py``), measuring and plots (``evaluation/evaluate.py``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.asset_keys import name_tags
from mlops_assets.asset_names import asset_name
from mlops_assets.assets.automation import FOLLOW_CHANGED_DATA
from mlops_assets.assets.code_version import code_version
from mlops_assets.assets.declared_model import DeclaredModel
from mlops_assets.assets.metadata import image, link, markdown_table, number
from mlops_assets.assets.training_set import PinnedTrainingSet, read_training_set
from mlops_assets.evaluation.gate import Verdict, verdict_on
from mlops_assets.event_log.records import require
from mlops_assets.resources.alerts import Alert, Alerts
from mlops_assets.resources.lake import Lake
from mlops_assets.resources.model_registry import CHAMPION, ModelRegistry, RegisteredVersion

if TYPE_CHECKING:
    from mlops_assets.evaluation.evaluate import Evaluation
    from serve.scoring import Scorer

EVALUATION_FIELDS = {"task", "gate", "metric"}
GATE = "gate"


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
        context: dg.AssetExecutionContext, lake: Lake, model_registry: ModelRegistry, alerts: Alerts
    ) -> Iterator[dg.MaterializeResult[Any]]:
        yield make_evaluation(context, lake, model_registry, alerts, model)

    return evaluation


@dataclass(frozen=True)
class _Contest:
    """Who is judged against whom; there is no champion before the first promotion."""

    challenger: RegisteredVersion
    champion: RegisteredVersion | None

    def evaluated(self, lake: Lake, model: DeclaredModel, training_set: PinnedTrainingSet) -> "Evaluation":
        """Both on the rows that were kept from training."""
        from mlops_assets.evaluation.evaluate import Champion, EvaluationRows, evaluate

        declared, data, champion = model.declaration, training_set.evaluate, self.champion
        return evaluate(
            declared.gate,
            declared.selecting_metric,
            EvaluationRows(
                data.frame,
                data.target,
                # The baseline knows what the challenger could know, and no more.
                training_set.train.within(_window_days(self.challenger)).target,
                declared.task,
                data.classes,
                model.view.event_timestamp,
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
) -> dg.MaterializeResult[Any]:
    """The step: judge, tag the version with the verdict, tell of a rejection."""
    name = model.declaration.name
    training_set = read_training_set(context.instance, lake, model)
    trained = require(context.instance, model.key("model"))
    challenger = registry.version(name, int(trained.metadata["model_version"]))
    champion = registry.by_alias(name, CHAMPION)
    found = _Contest(challenger, champion).evaluated(lake, model, training_set)
    verdict = found.verdict
    registry.set_tags(
        name, challenger.version, {"gate": verdict.outcome, "gate_reason": verdict.reason[:4_000]}
    )
    # A first model is alerted about to nobody: it replaces none, and whoever builds it sees the verdict.
    rejected = champion if verdict.outcome != "promote" else None
    told = (
        {"alert": alerts.send(_rejection(verdict, challenger, rejected, context.run.run_id))}
        if rejected
        else {}
    )
    measurements = markdown_table(_rule_rows(verdict))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(found.version(training_set.record.data_version, trained.data_version)),
        metadata={
            "outcome": verdict.outcome,
            "reason": verdict.reason,
            "model_version": challenger.version,
            "champion_version": champion.version if champion else "none",
            "evaluation_rows": len(training_set.evaluate.target),
            **{metric: value for metric, value in found.metrics.items() if value is not None},
            "measurements": dg.MetadataValue.md(measurements),
            "slices": dg.MetadataValue.md(markdown_table(found.slice_rows())),
            **{plot: image(png) for plot, png in found.plots.items()},
            **told,
            **link("mlflow_model", registry.version_url(name, challenger.version)),
        },
        check_results=[
            dg.AssetCheckResult(
                asset_key=model.key("evaluation"),
                check_name=GATE,
                passed=verdict.outcome == "promote",
                description=f"{verdict.outcome}: {verdict.reason}",
                metadata={
                    "outcome": verdict.outcome,
                    "model_version": challenger.version,
                    "model_digest": challenger.digest,
                    "measurements": dg.MetadataValue.md(measurements),
                },
            )
        ],
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
