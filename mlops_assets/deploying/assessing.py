"""One look at a rollout: what the gateway measured, how it was analysed, what is due.

Belongs here: reading the evidence of the routing in force, and the labels that came back. Does not belong
here: the tests on it (``rollout/judging/``), what follows from them (``rollout/plan.py``), the act
(``executor.py``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from mlops_assets.asset_keys import asset_key
from mlops_assets.event_log.records import latest
from mlops_assets.resources.serve_client import ServeClient
from mlops_assets.resources.serving import FAILED_STATUSES
from mlops_assets.rollout.act import Recorded
from mlops_assets.rollout.judging.evidence import QualityEvidence, StepEvidence
from mlops_assets.rollout.judging.judge import Judgement, judge
from mlops_assets.rollout.plan import (
    DueAct,
    Failures,
    RolloutFacts,
    RolloutPlan,
    due_act,
    next_failures,
    samples_of,
    under_way,
)
from serve.schema import Evidence, RolloutMark, Routing, VersionEvidence


@dataclass(frozen=True)
class Assessment:
    """One look at a rollout: what the gateway measured, how it was judged, what is due."""

    due: DueAct
    routing: Routing
    evidence: Evidence | None
    judgement: Judgement | None
    failures: Failures


@dataclass(frozen=True)
class Watched:
    """What a look reads: the endpoint, the plan, and what is known of labelled answers.

    ``losses`` gives that by revision, as ``labelled_losses`` reads it; it is asked only for a plan that
    judges quality.
    """

    name: str
    plan: RolloutPlan
    client: ServeClient
    losses: Callable[[], Mapping[str, Any] | None] = lambda: None


def assess(
    watched: Watched,
    routing: Routing,
    recorded: Recorded,
    *,
    now: float,
    failures: Failures | None = None,
) -> Assessment:
    """Reads the evidence of the routing in force and decides what is due. Raises ClusterUnreachable when
    the endpoint does not answer.
    """
    plan, client = watched.plan, watched.client
    failures = failures or Failures()
    mark = under_way(routing)
    if mark is None:
        return Assessment(due_act(plan, routing, RolloutFacts(now=now)), routing, None, None, failures)
    evidence: Evidence | None = client.evidence(watched.name)
    assert evidence is not None
    if evidence.revision != routing.revision:
        # A gateway that has not taken the routing yet; its counts are of the one before.
        evidence = None
    quality = _quality(watched.losses(), routing, mark) if plan.needs_labels else None
    judgement = judge_step(plan, evidence, mark, routing.stable, quality)
    step = plan.steps[mark.step] if mark.step < len(plan.steps) else plan.steps[-1]
    samples = samples_of(step, evidence, mark.target)
    failures = next_failures(failures, judgement, routing.revision, samples)
    held = recorded.phase == "inconclusive" and recorded.revision == routing.revision
    facts = RolloutFacts(
        evidence,
        judgement,
        now=now,
        failures=failures,
        held=held,
        problem=_ray_gave_up(client, routing.routes[mark.target].application),
    )
    return Assessment(due_act(plan, routing, facts), routing, evidence, judgement, failures)


def labelled_losses(instance: dg.DagsterInstance, model: str) -> Mapping[str, Any] | None:
    """What ``<model>_performance`` last recorded of the losses of every version, by revision.

    None before the first record, e.g. of a model that has no monitor.
    """
    record = latest(instance, asset_key("performance", model))
    found = record.metadata.get("losses") if record else None
    return found if isinstance(found, Mapping) else None


def _quality(losses: Mapping[str, Any] | None, routing: Routing, mark: RolloutMark) -> QualityEvidence | None:
    """The evidence of quality under the routing in force alone: each step starts from zero."""
    from mlops_assets.monitoring.losses import quality_evidence

    return quality_evidence(losses, routing.revision, mark.target, routing.stable) if losses else None


def judge_step(
    plan: RolloutPlan,
    evidence: Evidence | None,
    mark: RolloutMark,
    stable: str,
    quality: QualityEvidence | None = None,
) -> Judgement | None:
    """The declared analyses on the newest evidence of a step; None when there is nothing to judge."""
    if evidence is None or not plan.analyses or mark.action != "step" or mark.step >= len(plan.steps):
        return None
    step = plan.steps[mark.step]
    analyses = [analysis for analysis in plan.analyses if step.is_shadow or not analysis.needs_pairs]
    return judge(
        analyses,
        StepEvidence(
            # In a shadow step it has no traffic of its own to be judged by.
            canary=VersionEvidence()
            if step.is_shadow
            else evidence.versions.get(mark.target, VersionEvidence()),
            stable=evidence.versions.get(stable, VersionEvidence()),
            shadow=evidence.shadows.get(mark.target) if step.is_shadow else None,
            quality=quality,
        ),
    )


def _ray_gave_up(client: ServeClient, application: str) -> str | None:
    known = client.target.applications().get(application)
    if known is None:
        return f"application {application} does not exist"
    if known["status"] in FAILED_STATUSES:
        return f"{application} is {known['status']}: {str(known.get('message', ''))[-500:]}"
    return None
