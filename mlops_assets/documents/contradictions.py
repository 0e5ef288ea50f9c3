"""What several documents say together that can never come true: refused at load, each with its field.

Belongs here: rules over two declarations or more. Pure. Does not belong here: rules within one document (the
validators of its declaration), references to documents that do not exist (``components/document.py``).

A document that loads must be able to do what it says. Without these rules such a mistake shows after days:
a rollout that waits for labels which nobody joins, a monitor that reads the answers of another model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from mlops_assets.asset_names import AssetName
from mlops_assets.documents.written import shortest
from mlops_assets.errors import DeclarationError, MlopsError, UnknownName
from mlops_assets.evaluation.metrics import metric
from mlops_assets.rollout.plan import QUALITY

if TYPE_CHECKING:
    from mlops_assets.documents.deployment import DeploymentDeclaration
    from mlops_assets.documents.drift_monitor import DriftMonitorDeclaration
    from mlops_assets.documents.feature_view import FeatureViewDeclaration
    from mlops_assets.documents.model import ModelDeclaration

DAY = timedelta(days=1)


class Located(Protocol):
    """A document that knows where its fields stand."""

    def where(self, *path: str | int) -> str:
        """``file:line`` of a field."""


@dataclass(frozen=True)
class Contradiction:
    """What cannot come true, in words, and the field of the document that says it."""

    path: tuple[str | int, ...]
    said: str


def refuse(component: Located, found: Sequence[Contradiction]) -> None:
    """Raises DeclarationError with file and line of each contradiction; does nothing when there is none."""
    if found:
        first, *rest = found
        others = [f"{component.where(*one.path)}: {one.said}" for one in rest]
        raise DeclarationError("\n".join([first.said, *others]), where=component.where(*first.path))


def of_model(model: "ModelDeclaration", view: "FeatureViewDeclaration") -> list[Contradiction]:
    """What a model and its feature view contradict each other about."""
    found = _unknown_features(("gate", "slices"), model.gate.slices, view)
    needs_time = {"evaluation_window_days", "training_window_days"} & model.model_fields_set
    if view.event_timestamp is None:
        found += [
            Contradiction(
                (name,),
                f"{name} counts days of event time, and feature view {view.name!r} declares no "
                "event_timestamp: declare one there, or leave it out (evaluation_fraction splits the rows)",
            )
            for name in sorted(needs_time)
            if getattr(model, name) is not None
        ]
    elif "evaluation_fraction" in model.model_fields_set:
        found.append(
            Contradiction(
                ("evaluation_fraction",),
                f"feature view {view.name!r} has an event_timestamp, so the newest evaluation_window_days "
                "are judged on and evaluation_fraction counts for nothing: leave it out",
            )
        )
    return found + _training_windows(model, view)


def _training_windows(model: "ModelDeclaration", view: "FeatureViewDeclaration") -> list[Contradiction]:
    """The contradictions of training windows that count days of no time, or never leave a row out."""
    found, bound = [], model.training_window_days
    for number, candidate in enumerate(model.candidates):
        days = [one for one in candidate.training_window or () if one is not None]
        problem = ""
        if days and view.event_timestamp is None:
            problem = (
                f"training_window counts days of event time, and feature view {view.name!r} declares no "
                "event_timestamp: declare one there, or leave it out"
            )
        elif days and bound is not None and max(days) >= bound:
            problem = (
                f"training window {max(days)}d is not shorter than training_window_days {bound}, which the "
                "whole training set goes back: write all, or a shorter one"
            )
        if problem:
            found.append(Contradiction(("candidates", number, "training_window"), problem))
    return found


def of_deployment(
    deployment: "DeploymentDeclaration",
    view: "FeatureViewDeclaration | None",
    monitor: "DriftMonitorDeclaration | None",
    others: Sequence[str] = (),
) -> list[Contradiction]:
    """What a deployment says that its model's features (None: not known) or monitor (None: none) rule out.

    ``others``: deployments of other names that deploy the same model.
    """
    found = [
        Contradiction(
            ("model",),
            f"model {deployment.model!r} is deployed by {name!r} too, and an approval is of one deployment: "
            "declare one, with more replicas where it has to answer more",
        )
        for name in others
    ]
    for number, analysis in enumerate(deployment.analysis or ()):
        why = _unmeasured_quality(deployment, monitor) if analysis.metric == QUALITY else ""
        if why:
            found.append(Contradiction(("analysis", number, "metric"), f"quality is never measured: {why}"))
    if deployment.ab is not None and deployment.ab.unit_feature is not None and view is not None:
        found += _unknown_features(("ab", "unit"), [deployment.ab.unit_feature], view, more=["unit"])
    return found


def _unmeasured_quality(
    deployment: "DeploymentDeclaration", monitor: "DriftMonitorDeclaration | None"
) -> str:
    model, name = deployment.model, deployment.name
    if monitor is None:
        return (
            f"model {model!r} has no DriftMonitorComponent, which joins labels to the answers. Judge by "
            "error_rate, latency_p95 or prediction_shift, or declare one; the shortest form:\n"
            + shortest(AssetName("drift", model), deployment=name)
        )
    if monitor.served_by != name:
        return (
            f"the DriftMonitorComponent of model {model!r} reads the answers of deployment "
            f"{monitor.served_by!r}. Let it say deployment: {name}"
        )
    return ""


def of_monitor(
    monitor: "DriftMonitorDeclaration",
    model: "ModelDeclaration",
    view: "FeatureViewDeclaration",
    deployment: "DeploymentDeclaration | None",
) -> list[Contradiction]:
    """What a monitor says that its model, the features or the deployment (None: not known) rule out."""
    found = _unknown_features(("slices",), monitor.slices, view)
    if deployment is not None:
        found += _unread(monitor, deployment)
    performance = monitor.policy.performance
    if performance.metric is not None:
        try:
            metric(performance.metric, model.task)
        except MlopsError as error:
            found.append(Contradiction(("policy", "performance", "metric"), str(error)))
    return found + _age(monitor, model, view)


def _unread(monitor: "DriftMonitorDeclaration", deployment: "DeploymentDeclaration") -> list[Contradiction]:
    at = ("deployment",) if monitor.deployment is not None else ("model",)
    if deployment.model != monitor.model:
        problem = (
            f"deployment {deployment.name!r} serves model {deployment.model!r}: its answers say nothing "
            f"about {monitor.model!r}. Name a deployment of that model, or monitor {deployment.model!r}"
        )
        return [Contradiction(at, problem)]
    if not deployment.prediction_log:
        problem = (
            f"deployment {deployment.name!r} says prediction_log: false, so there are no answers to measure. "
            "Let it log them, or remove this monitor"
        )
        return [Contradiction(at, problem)]
    return []


def _age(
    monitor: "DriftMonitorDeclaration", model: "ModelDeclaration", view: "FeatureViewDeclaration"
) -> list[Contradiction]:
    """The contradiction of data that has no age, or that is too old from the first day on."""
    if view.event_timestamp is None:
        asked = "max_data_age" in monitor.model_fields_set or monitor.policy.age.action == "open"
        at = ("max_data_age",) if "max_data_age" in monitor.model_fields_set else ("policy", "age")
        problem = (
            f"feature view {view.name!r} declares no event_timestamp, so nobody knows how old the training "
            "rows are: declare one there, or leave max_data_age and policy.age out"
        )
        return [Contradiction(at, problem)] if asked else []
    # The newest rows are kept from training: the gate judges on them.
    youngest = (model.evaluation_window_days - 1) * DAY
    if monitor.max_data_age > youngest:
        return []
    problem = (
        f"max_data_age is {monitor.max_data_age / DAY:g} days, and model {model.name!r} keeps the newest "
        f"{model.evaluation_window_days} days from training (evaluation_window_days): every model would be "
        "stale from its first day on. Declare a longer max_data_age or a shorter evaluation window"
    )
    return [Contradiction(("max_data_age",), problem)]


def _unknown_features(
    path: tuple[str | int, ...],
    names: Sequence[str],
    view: "FeatureViewDeclaration",
    *,
    more: Sequence[str] = (),
) -> list[Contradiction]:
    known = [*(feature.name for feature in view.features), *more]
    return [
        Contradiction(path, str(UnknownName("feature", name, known))) for name in names if name not in known
    ]
