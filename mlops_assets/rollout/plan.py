"""A rollout as a declared plan, and what to do next. Pure: facts and a clock in, a decision and a reason out.

Belongs here: the steps, when one is done, when a rollout is given up. Does not belong here: the tests on
the evidence (``rollout/judging``), the routing that a decision becomes (``rollout/transitions.py``),
carrying it out (``deploying/executor.py``).

The words are Argo Rollouts': a step sets a weight (or mirrors traffic), an analysis measures it, and a
measurement is successful, failed or inconclusive. A failed one gives the version up once ``failure_limit``
is exceeded; one that stays inconclusive stops the rollout for a person once ``inconclusive_limit`` is.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Final, Literal

from mlops_assets.rollout.judging.conditions import Analysis
from mlops_assets.rollout.judging.judge import Judgement
from serve.schema import WEIGHT_TOTAL, Evidence, RolloutMark, Routing

RolloutPhase = Literal["progressing", "successful", "failed", "error", "inconclusive"]
"""progressing: a step is in force; successful: the version is stable; failed: given up on evidence;
error: it could not be brought up; inconclusive: stopped for a person."""

DueAction = Literal["wait", "start", "advance", "promote", "abort", "hold", "retire", "converge"]

QUALITY: Final = "quality"
"""The metric that is measured on labels, which come later than the requests."""

IN_PROGRESS = frozenset({"step", "set_weight"})
"""Actions of a mark under which a rollout goes on."""


@dataclass(frozen=True)
class CanaryStep:
    """One step: mirror ``shadow`` or set ``weight``, both in basis points; then wait for what it needs.

    ``pause`` None: none; ``manual``: until a person promotes.
    """

    weight: int
    shadow: int = 0
    min_requests: int = 0
    pause: timedelta | None = None
    manual: bool = False

    @property
    def is_shadow(self) -> bool:
        return self.shadow > 0

    def in_words(self) -> str:
        """The step in the words of the declaration."""
        what = f"shadow {self.shadow / 100:g} %" if self.is_shadow else f"weight {self.weight / 100:g} %"
        return what


@dataclass(frozen=True)
class RolloutPlan:
    """The declared rollout of a deployment.

    ``labels_within``: how long a step waits for the labels of one measurement of quality before a person is
    asked.
    """

    steps: tuple[CanaryStep, ...]
    analyses: tuple[Analysis, ...] = ()
    keep_warm: timedelta = timedelta(minutes=30)
    labels_within: timedelta = timedelta(days=14)

    @property
    def needs_labels(self) -> bool:
        return any(analysis.metric == QUALITY for analysis in self.analyses)


@dataclass(frozen=True)
class Failures:
    """Failed measurements so far under one revision; a measurement needs new samples."""

    revision: int = -1
    count: int = 0
    at_samples: int = 0


@dataclass(frozen=True)
class DueAct:
    """What to do next and why. ``step`` is the step to declare, of action advance."""

    action: DueAction
    reason: str
    phase: RolloutPhase = "progressing"
    step: int | None = None
    samples: int = 0


def problems_of(steps: Sequence[CanaryStep], analyses: Sequence[Analysis]) -> list[str]:
    """Every rule that a plan breaks, in words; [] for a valid one."""
    found = []
    weights = [step.weight for step in steps if not step.is_shadow]
    if not weights or weights[-1] != WEIGHT_TOTAL:
        found.append("the last step must be {set_weight: 100}: a rollout ends with all of the traffic")
    if any(later <= earlier for earlier, later in pairwise(weights)):
        shown = ", ".join(f"{weight / 100:g}" for weight in weights)
        found.append(f"set_weight must grow from step to step; it is {shown}")
    first_weight = next((at for at, step in enumerate(steps) if not step.is_shadow), len(steps))
    if any(step.is_shadow for step in steps[first_weight:]):
        found.append("shadow steps come before the first set_weight: they are for a version nobody relies on")
    if len(steps) == 1 and not steps[0].manual:
        if analyses:
            found.append(
                "an analysis is declared, and a plan of one step takes all of the traffic at once: declare a "
                "shadow step or a smaller set_weight before it, or there is nothing to judge"
            )
        if steps[0].min_requests or steps[0].pause is not None:
            found.append(
                "min_requests and pause of a plan's only step count for nothing: it takes all of the traffic "
                "at once"
            )
    if not any(step.is_shadow for step in steps):
        found += [
            f"{analysis} compares the answers to the same requests, which only a shadow step has: declare one"
            for analysis in analyses
            if analysis.needs_pairs
        ]
    for number, step in enumerate(steps, 1):
        last = number == len(steps) and not (len(steps) == 1 and step.manual)
        if not last and step.min_requests == 0 and step.pause is None and not step.manual:
            found.append(
                f"step {number} ({step.in_words()}) needs min_requests, a pause, or both: "
                "without one it would be over before anything was seen"
            )
        if analyses and not last and step.min_requests == 0:
            found.append(
                f"step {number} ({step.in_words()}) needs min_requests, because an analysis is declared: "
                "nothing can be judged on no requests"
            )
    return found


def samples_of(step: CanaryStep, evidence: Evidence | None, target: str) -> int:
    """Requests that a step has to judge by: mirrored ones in a shadow step, else the target's own."""
    if evidence is None:
        return 0
    if step.is_shadow:
        shadow = evidence.shadows.get(target)
        return shadow.requests if shadow else 0
    version = evidence.versions.get(target)
    return version.requests if version else 0


def labels_of(judgement: Judgement | None) -> int:
    """Labels of the new version's answers that a judgement rests on; 0 where quality was not measured."""
    measurements = judgement.measurements if judgement else ()
    return max((found.samples for found in measurements if found.metric == QUALITY), default=0)


def next_failures(before: Failures, judgement: Judgement | None, revision: int, samples: int) -> Failures:
    """The count after one more look; looking again at the same requests and labels is no new measurement."""
    if before.revision != revision:
        before = Failures(revision)
    # Labels come long after the requests: a further one is news as much as a further request is.
    samples += labels_of(judgement)
    if judgement is None or judgement.phase != "failed" or samples <= before.at_samples:
        return before
    return Failures(revision, before.count + 1, samples)


@dataclass(frozen=True)
class RolloutFacts:
    """What is known of a rollout when somebody looks; ``now`` in Unix seconds.

    ``judgement`` is of the newest ``evidence``, None when there is none; ``held``: the rollout was stopped
    for a person under this revision; ``problem``: why the target cannot answer (Ray gave up on it).
    """

    evidence: Evidence | None = None
    judgement: Judgement | None = None
    now: float = 0.0
    failures: Failures = Failures()
    held: bool = False
    problem: str | None = None


def due_act(plan: RolloutPlan, routing: Routing, facts: RolloutFacts) -> DueAct:
    """What to do about a routing that the cluster declares."""
    evidence, problem = facts.evidence, facts.problem
    mark = under_way(routing)
    if mark is None:
        return _settled(plan, routing, routing.rollout, facts.now)
    trip = evidence.trips.get(mark.target) if evidence else None
    if trip is not None:
        return DueAct("abort", f"{mark.target} tripped: {trip.reason}", "failed")
    if problem is not None:
        return DueAct("abort", f"{mark.target} cannot answer: {problem}", "error")
    if mark.action == "set_weight":
        return DueAct("wait", f"{mark.by} set the weight of {mark.target} by hand; a person goes on")
    if mark.step >= len(plan.steps):
        return DueAct(
            "abort",
            f"step {mark.step + 1} is not declared any more: the plan has {len(plan.steps)} steps",
            "error",
        )
    return _in_step(plan, mark, facts)


def _in_step(plan: RolloutPlan, mark: RolloutMark, facts: RolloutFacts) -> DueAct:
    judgement, now = facts.judgement, facts.now
    step = plan.steps[mark.step]
    samples = samples_of(step, facts.evidence, mark.target)
    where = f"step {mark.step + 1} of {len(plan.steps)} ({step.in_words()})"

    def wait(why: str) -> DueAct:
        return DueAct("wait", f"{where}: {why}", samples=samples)

    limit = min((analysis.failure_limit for analysis in _said(plan, judgement, "failed")), default=0)
    if judgement is not None and judgement.phase == "failed" and facts.failures.count > limit:
        return DueAct("abort", f"{where}: {judgement.reason}", "failed", samples=samples)
    if facts.held:
        return wait("stopped as inconclusive; promote, abort or set a weight by hand")
    if samples < step.min_requests:
        return wait(f"{samples} of {step.min_requests} requests")
    if plan.analyses and step.min_requests:
        if judgement is None:
            return wait("no evidence to judge by")
        if judgement.phase == "inconclusive":
            for analysis in _said(plan, judgement, "inconclusive"):
                # Without labels there is nothing to be inconclusive about, whatever was asked.
                is_quality = analysis.metric == QUALITY
                measured = (labels_of(judgement) if is_quality else samples) // step.min_requests
                if measured > analysis.inconclusive_limit:
                    return DueAct(
                        "hold",
                        f"{where}: still inconclusive at measurement {measured} (limit "
                        f"{analysis.inconclusive_limit}) after {samples} requests: {judgement.reason}",
                        "inconclusive",
                        samples=samples,
                    )
            labels = labels_of(judgement)
            overdue = now - mark.declared_at > plan.labels_within.total_seconds()
            unmeasured = labels < step.min_requests and any(
                analysis.metric == QUALITY for analysis in _said(plan, judgement, "inconclusive")
            )
            if overdue and unmeasured:
                return DueAct(
                    "hold",
                    f"{where}: {labels} labels came within {plan.labels_within}, "
                    f"{step.min_requests} are one measurement of quality: {judgement.reason}",
                    "inconclusive",
                    samples=samples,
                )
            return wait(f"inconclusive after {samples} requests: {judgement.reason}")
        if judgement.phase == "failed":
            return wait(f"{facts.failures.count} failed measurements of {limit} allowed: {judgement.reason}")
    if step.manual:
        return wait("waits for a person to promote or abort")
    if step.pause is not None and now - mark.declared_at < step.pause.total_seconds():
        left = step.pause.total_seconds() - (now - mark.declared_at)
        return wait(f"pause, {left:.0f} s left")
    why = judgement.reason if judgement is not None and plan.analyses else f"{samples} requests, no analysis"
    if mark.step + 1 < len(plan.steps):
        return DueAct("advance", f"{where} passed: {why}", step=mark.step + 1, samples=samples)
    return DueAct("promote", f"{where} passed: {why}", "successful", samples=samples)


def _said(plan: RolloutPlan, judgement: Judgement | None, phase: str) -> Sequence[Analysis]:
    """The analyses whose measurement has this phase; all of them when no measurement tells."""
    measured = {
        (found.metric, found.condition)
        for found in (judgement.measurements if judgement else ())
        if found.phase == phase
    }
    named = [a for a in plan.analyses if (a.metric, a.condition) in measured]
    return named or plan.analyses


def _settled(plan: RolloutPlan, routing: Routing, mark: RolloutMark | None, now: float) -> DueAct:
    warm = [version for version in routing.routes if version != routing.stable]
    if warm and mark is not None:
        left = mark.declared_at + plan.keep_warm.total_seconds() - now
        if left <= 0:
            return DueAct("retire", f"{', '.join(warm)} was kept warm for {plan.keep_warm}", "successful")
        return DueAct("wait", f"{routing.stable} answers; {', '.join(warm)} stays warm for {left:.0f} s")
    return DueAct("wait", f"{routing.stable} answers; no rollout is under way")


def under_way(routing: Routing | None) -> RolloutMark | None:
    """The mark of the rollout that goes on under a routing; None when none does."""
    mark = routing.rollout if routing else None
    return mark if mark is not None and mark.action in IN_PROGRESS else None


def needs_start(
    routing: Routing | None, approved: str | None, withdrawn: Mapping[str, str]
) -> tuple[bool, str]:
    """Whether the approved version is to be rolled out now, and why (not)."""
    if approved is None:
        return False, "no version is approved"
    if approved in withdrawn:
        return False, f"{approved} was withdrawn: {withdrawn[approved]}"
    if routing is None:
        return True, f"nothing answers yet; {approved} is approved"
    if approved == routing.stable:
        return False, f"{approved} is stable"
    mark = under_way(routing)
    if mark is not None and mark.target == approved:
        return False, f"{approved} is being rolled out"
    return True, f"{approved} is approved, {routing.stable} is stable"


def previous_version(routing: Routing, withdrawn: Collection[str] = ()) -> str:
    """The version that answered before: stable of a rollout under way, else the one before stable; "" when
    there is none that was not withdrawn.
    """
    if under_way(routing):
        return routing.stable
    mark = routing.rollout
    warm = [version for version in routing.routes if version != routing.stable]
    candidates = [*warm, mark.previous if mark is not None and mark.previous else ""]
    return next((one for one in candidates if one and one != routing.stable and one not in withdrawn), "")
