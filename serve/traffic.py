"""Which version answers a request, and what happens when it does not.

Belongs here: the declared routing, which versions are live, choice, retry, fallback, mirroring. Does not
belong here: HTTP (``serve/endpoint.py``), the hash (``serve/splitting.py``), Ray
(``serve/ray_versions.py``), when a version has failed too often (``serve/guard.py``).

Guarantees. ``declare`` never waits, and raises only when there is no earlier good routing: a gateway
replica that raised there would be stopped, and one that waited would be out of routing. A version gets
traffic only after it answered once; until then, and once it has tripped, its share goes to stable. While
a new stable version does not answer yet, the previous one goes on answering. A call whose replica died is
tried once more; after that, and for any other failure of a canary, stable answers, so that callers do
not see a canary fail. A canary has less time than stable, for the same reason. A caller's error and a
full queue never count as a version's failure. Mirrored requests start after the caller has the answer,
wait in queues of their own, and are shed when too many are under way.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from pydantic import ValidationError

from serve.embedding import NotEmbedded
from serve.errors import ApiError, NoModel, Overloaded, TimedOut, UnknownVersion
from serve.evidence import Collector, Reason
from serve.metrics import GatewayMetrics
from serve.online.lookup import OnlineFeatures
from serve.schema import ModelManifest, Routing, Trip
from serve.scoring import Scorer
from serve.splitting import Split, bucket
from serve.validation import Row
from serve.versions import (
    LiveVersion,
    Scores,
    Version,
    VersionError,
    VersionGone,
    VersionLost,
    VersionOverloaded,
    Versions,
)

STABLE, CANARY, SHADOW = "stable", "canary", "shadow"

LOOK_INTERVAL_S = 0.5
"""How often versions that do not answer yet are asked."""
PING_INTERVAL_S = 5.0
"""How often versions that do answer are asked again."""
INFO_TIMEOUT_S = 5.0
LOCAL_ROWS = 16
"""Larger requests go to the version's application: the event loop must not stand still for long."""

logger = logging.getLogger(__name__)

Embed = Callable[[Mapping[str, Any]], Awaitable[Scorer]]


class BadScores(RuntimeError):
    """A model gave a score that is not finite, or not one per row."""

    def __init__(self, message: str, *, non_finite: bool) -> None:
        super().__init__(message)
        self.non_finite = non_finite


class Scored(NamedTuple):
    """Scores, the version that gave them, and the chosen version when that one failed."""

    live: LiveVersion
    scores: Scores
    seconds: float
    fell_back_from: str | None = None


class Mirrored(NamedTuple):
    """A shadow's answer to a mirrored request."""

    version: str
    scores: Scores
    seconds: float


@dataclass
class RouteState:
    """What is known of one routed version: ``problem`` says why it is not (or no longer) answering."""

    application: str
    live: LiveVersion | None = None
    problem: str | None = "has not answered yet"
    asked_at: float = -math.inf
    local_problem: str | None = None

    @property
    def answers(self) -> bool:
        return self.live is not None and self.problem is None


class Traffic:
    """The state of one gateway replica. Lives on one event loop.

    ``embed`` None: every request goes to the version's application.
    """

    def __init__(
        self,
        versions: Versions,
        metrics: GatewayMetrics,
        collector: Collector | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wrap: Callable[[Version], Version] = lambda version: version,
        embed: Embed | None = None,
        looked_up: Callable[[ModelManifest], OnlineFeatures | None] = lambda manifest: None,
        max_shadows: int = 64,
    ) -> None:
        self._versions, self._metrics, self._clock, self._wrap = versions, metrics, clock, wrap
        self._embed, self._looked_up, self._max_shadows = embed, looked_up, max_shadows
        self.collector = collector or Collector()
        self._split: Split | None = None
        self._acting_stable: LiveVersion | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._embeddings: dict[str, asyncio.Task[None]] = {}
        self._mirroring: set[asyncio.Task[None]] = set()
        self._shadows: tuple[tuple[str, int], ...] = ()
        self._wake = asyncio.Event()
        self.routing: Routing | None = None
        self.states: dict[str, RouteState] = {}
        self.trips: dict[str, Trip] = {}
        self.config_error: str | None = None

    # -- declared state ------------------------------------------------------------------------------

    def declare(self, raw: Any) -> Routing | None:
        """Takes a new routing and gives it. A bad one is kept out: the last good one stays, the answer
        is None and ``config_error`` says why.

        Raises pydantic's ValidationError only when there is no good one yet.
        """
        try:
            routing = Routing.model_validate(raw)
        except ValidationError as error:
            self.config_error = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'routing'}: {e['msg']}" for e in error.errors()
            )
            if self.routing is None:
                raise
            logger.error("Routing refused, revision %d stays: %s", self.routing.revision, self.config_error)
            return None
        states = {}
        for version, route in routing.routes.items():
            known = self.states.get(version)
            same = known is not None and known.application == route.application
            states[version] = known if known is not None and same else RouteState(route.application)
        if self.routing is None or routing.revision != self.routing.revision:
            self.trips = {}
        self.config_error, self.routing, self._split, self.states = None, routing, Split(routing), states
        self.collector.start(routing.revision)
        self._metrics.set_routing(routing)
        for version, state in states.items():
            self._metrics.set_answers(version, state.answers)
            self._metrics.set_tripped(version, version in self.trips)
        self._shadows = tuple((v, route.shadow) for v, route in routing.routes.items() if route.shadow)
        self._choose_acting_stable()
        self._wake.set()
        return routing

    def apply_trip(self, trip: Trip) -> None:
        """From now on stable takes the version's share, and nothing is mirrored to it.

        Lasts until the routing changes. A trip of another revision, or of the stable version, is ignored.
        """
        routing = self.routing
        if routing is None or trip.revision != routing.revision or trip.version not in routing.routes:
            return
        if trip.version == routing.stable or trip.version in self.trips:
            return
        self.trips[trip.version] = trip
        self._metrics.set_tripped(trip.version, True)
        self._metrics.count_trip(trip.version)
        logger.error("Version %s gets no more traffic: %s", trip.version, trip.reason)

    # -- live versions -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Finds and watches versions until cancelled."""
        while True:
            self._ask_due()
            try:
                await asyncio.wait_for(self._wake.wait(), LOOK_INTERVAL_S)
            except TimeoutError:
                continue
            self._wake.clear()

    async def settle(self) -> None:
        """Asks every version that is due and waits for the answers, and for models being loaded here."""
        self._ask_due()
        await asyncio.gather(*self._tasks.values())
        await asyncio.gather(*self._embeddings.values())

    async def mirrored(self) -> None:
        """Waits for every mirrored request under way."""
        await asyncio.gather(*self._mirroring)

    def _ask_due(self) -> None:
        now = self._clock()
        for version, state in self.states.items():
            if version in self._tasks or (state.answers and now - state.asked_at < PING_INTERVAL_S):
                continue
            state.asked_at = now
            task = asyncio.ensure_future(self._ask(version, state))
            self._tasks[version] = task
            task.add_done_callback(partial(self._asked, version))

    def _asked(self, version: str, _: "asyncio.Task[None]") -> None:
        self._tasks.pop(version, None)

    async def _ask(self, version: str, state: RouteState) -> None:
        answered = state.answers
        try:
            if state.live is None:
                state.live = await self._connect(version, state.application)
            else:
                await state.live.backend.info(timeout_s=INFO_TIMEOUT_S)
            state.problem = None
        except VersionOverloaded:
            pass  # Too busy to say hello is alive; a version that never answered stays as it is.
        except TimeoutError:
            # Slow is judged by the calls themselves; a version that answered before keeps its traffic.
            if state.live is None:
                state.problem = f"{state.application} does not answer yet (no answer in {INFO_TIMEOUT_S:g} s)"
        except VersionError as error:
            state.problem = f"{state.application}: {error}"
        except Exception as error:  # One bad version must not stop the watch over the others.
            state.problem = f"{state.application}: {type(error).__name__}: {error}"
            logger.exception("Asking %s failed", state.application)
        if self.states.get(version) is not state:
            return  # The routing has changed meanwhile.
        if answered and not state.answers:
            self.collector.lost(version)
        self._metrics.set_answers(version, state.answers)
        self._choose_acting_stable()
        self._embed_when_proven(version, state)

    async def _connect(self, version: str, application: str) -> LiveVersion:
        backend = await self._versions.connect(application)
        info = await backend.info(timeout_s=INFO_TIMEOUT_S)
        if info["version"] != version:
            raise VersionGone(f"answers as version {info['version']!r}, not {version!r}")
        manifest = ModelManifest.model_validate(info["manifest"])
        online = self._looked_up(manifest)
        return LiveVersion(
            version, application, self._wrap(backend), self._wrap(backend), info, manifest, online
        )

    def _choose_acting_stable(self) -> None:
        if self.routing is not None:
            stable = self.states[self.routing.stable].live
            self._acting_stable = stable or self._acting_stable

    def _embed_when_proven(self, version: str, state: RouteState) -> None:
        live, routing = state.live, self.routing
        if self._embed is None or routing is None or version != routing.stable or live is None:
            return
        if live.local is not None or state.local_problem is not None or version in self._embeddings:
            return
        task = asyncio.ensure_future(self._load(self._embed, version, state, live))
        self._embeddings[version] = task
        task.add_done_callback(lambda _: self._embeddings.pop(version, None))

    async def _load(self, embed: Embed, version: str, state: RouteState, live: LiveVersion) -> None:
        try:
            live.local = await embed(live.info)
            state.local_problem = None
        except NotEmbedded as error:
            state.local_problem = str(error)
            logger.warning("Version %s is not scored in the gateway: %s", version, error)
        self._metrics.set_in_gateway(version, live.local is not None)

    async def measure_online_ages(self) -> None:
        """Sets the age of every view's store that versions look keys up in; infinite for a lost one."""
        ages: dict[str, float] = {}
        for live in [state.live for state in self.states.values()]:
            if live is not None and live.online is not None:
                found = await live.online.report_aside()
                age = math.inf if found["age_s"] is None else found["age_s"]
                ages[found["view"]] = max(age, ages.get(found["view"], 0.0))
        self._metrics.set_online_ages(ages)

    @property
    def stable(self) -> LiveVersion | None:
        """What answers as stable now: the declared one, or its predecessor until it has answered."""
        return self._acting_stable

    @property
    def is_ready(self) -> bool:
        """The declared stable version answers."""
        return self.routing is not None and self.states[self.routing.stable].answers

    # -- requests ------------------------------------------------------------------------------------

    def variant_of(self, live: LiveVersion) -> str:
        return STABLE if live is self._acting_stable else CANARY

    def weight_of(self, version: str) -> int:
        """The version's declared share in basis points; 0 for one that is not in the routing."""
        routing = self.routing
        route = routing.routes.get(version) if routing else None
        return route.weight if route else 0

    def choose(self, unit: str) -> LiveVersion:
        """The live version for a unit. Raises NoModel when none can answer."""
        if self._split is not None:
            version = self._split.version_for(unit)
            state = self.states[version]
            if state.problem is None and state.live is not None and version not in self.trips:
                return state.live
        if self._acting_stable is None:
            raise NoModel("No model version answers yet.")
        return self._acting_stable

    def asked(self, version: str) -> LiveVersion:
        """The version that a request names. Raises UnknownVersion for one that has no traffic, NoModel."""
        routing = self.routing
        if routing is None:
            raise NoModel("No model version answers yet.")
        allowed = [n for n, route in routing.routes.items() if route.weight or n == routing.stable]
        if version not in allowed:
            raise UnknownVersion(version, allowed)
        state = self.states[version]
        if state.live is None or state.problem is not None:
            raise NoModel(f"Model version {version} does not answer.")
        if version in self.trips:
            raise NoModel(f"Model version {version} was taken out of the traffic.")
        return state.live

    async def score_asked(self, live: LiveVersion, rows: Sequence[Row]) -> Scored:
        """Scores of rows by the version that the request names, and by no other.

        Who names a version is no draw of the routing: it is no evidence of any version. Raises as ``score``.
        """
        assert self.routing is not None
        timeout_s = self.routing.timeout_s
        started = self._clock()
        try:
            async with asyncio.timeout(timeout_s):
                scores = await live.backend.score_rows(rows, timeout_s=timeout_s)
            require_finite(scores, len(rows))
        except Exception as error:
            raise self._refusal(live, error) from error
        return Scored(live, scores, self._clock() - started)

    async def score(self, chosen: LiveVersion, rows: Sequence[Row]) -> Scored:
        """Scores of rows that are valid for ``chosen``, and the version that gave them.

        Raises Overloaded, TimedOut or NoModel; anything else is a model that failed.
        """
        # A version that is stable no more is judged by its own replicas again, with a canary's deadline.
        local = chosen.local if chosen is self._acting_stable else None
        if local is not None and len(rows) <= LOCAL_ROWS:
            started = self._clock()
            try:
                scores = local.score_rows(rows).tolist()
                require_finite(scores, len(rows))
            except Exception:  # Its application gets the last word, and counts.
                logger.exception("Version %s failed inside the gateway", chosen.version)
            else:
                seconds = self._clock() - started
                self.collector.answered(chosen.version, seconds, output_of(scores))
                return Scored(chosen, scores, seconds)
        try:
            return await self._attempt(chosen, rows)
        except Exception as error:
            stable = self._acting_stable
            if stable is None or stable is chosen or not _takes(stable, chosen, rows):
                raise self._refusal(chosen, error) from error
            self._metrics.count_fallback(chosen.version, type(error).__name__)
            logger.warning("Version %s failed (%r); stable answers", chosen.version, error)
        scored = await self.score(stable, rows)
        return scored._replace(fell_back_from=chosen.version)

    async def _attempt(self, live: LiveVersion, rows: Sequence[Row]) -> Scored:
        assert self.routing is not None
        timeout_s, revision = self.routing.timeout_s, self.routing.revision
        if live is not self._acting_stable:
            timeout_s = min(timeout_s, self.routing.guard.timeout_s)
        started = self._clock()
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    scores = await live.backend.score_rows(rows, timeout_s=timeout_s)
                except VersionLost:
                    self._metrics.count_retry(live.version)
                    scores = await live.backend.score_rows(rows, timeout_s=timeout_s)
            require_finite(scores, len(rows))
        except Exception as error:
            reason = failure_reason(error)
            if reason is not None:
                if self.routing.revision == revision:
                    self.collector.failed(live.version, reason, self._clock() - started)
                self._metrics.count_failure(live.version, reason)
            raise
        seconds = self._clock() - started
        # What began under the routing before says nothing about the step that has begun meanwhile.
        if self.routing.revision == revision:
            self.collector.answered(live.version, seconds, output_of(scores))
        return Scored(live, scores, seconds)

    def wider_than(self, chosen: LiveVersion) -> LiveVersion | None:
        """Stable, when it may take a body that ``chosen`` refused; None when they take the same.

        A canary that takes less than stable took must not cost callers their answer.
        """
        stable = self._acting_stable
        if stable is None or stable is chosen:
            return None
        return None if _contract(stable.manifest) == _contract(chosen.manifest) else stable

    def count_narrower(self, chosen: LiveVersion, reason: Reason = "schema") -> None:
        """A canary refused a body that stable takes, or could not compute its features: its failure."""
        self.collector.failed(chosen.version, reason, 0.0)
        self._metrics.count_failure(chosen.version, reason)
        self._metrics.count_fallback(chosen.version, reason)

    def _refusal(self, live: LiveVersion, error: Exception) -> Exception:
        if isinstance(error, VersionOverloaded):
            return Overloaded("The model has too many requests waiting.", retry_after_s=error.retry_after_s)
        if isinstance(error, TimeoutError):
            assert self.routing is not None
            return TimedOut(timeout_s=self.routing.timeout_s)
        if isinstance(error, VersionError):
            return NoModel(f"Model version {live.version} cannot be reached.")
        return error if not isinstance(error, ApiError) else RuntimeError(str(error))

    # -- shadows -------------------------------------------------------------------------------------

    def mirror(
        self,
        answer_id: str,
        answered: Scored,
        rows: Sequence[Row],
        on_answer: Callable[[Mirrored], None] = lambda mirrored: None,
    ) -> None:
        """Gives an answered request to the shadows that its id falls to. Never waits and never raises."""
        if not self._shadows or self.routing is None:
            return
        for version, share in self._shadows:
            state = self.states[version]
            if state.live is None or state.problem is not None or version in self.trips:
                continue
            if answered.live is state.live or bucket(answer_id, f"{self.routing.salt}:shadow") >= share:
                continue
            if len(self._mirroring) >= self._max_shadows:
                self.collector.shadow_shed(version)
                self._metrics.count_shadow(version, "shed")
                continue
            if not _takes(state.live, answered.live, rows):
                continue
            task = asyncio.ensure_future(self._mirror(state.live, answered, rows, on_answer))
            self._mirroring.add(task)
            task.add_done_callback(self._mirroring.discard)

    async def _mirror(
        self,
        shadow: LiveVersion,
        answered: Scored,
        rows: Sequence[Row],
        on_answer: Callable[[Mirrored], None],
    ) -> None:
        assert self.routing is not None
        revision, timeout_s = self.routing.revision, self.routing.guard.timeout_s
        started = self._clock()
        try:
            async with asyncio.timeout(timeout_s):
                scores = await shadow.shadow_backend.score_rows(rows, timeout_s=timeout_s)
            require_finite(scores, len(rows))
        except Exception as error:  # noqa: BLE001 - a shadow's failure is evidence, nothing else
            if self.routing.revision != revision:
                return
            reason = failure_reason(error)
            if reason is None:
                self.collector.shadow_shed(shadow.version)
                self._metrics.count_shadow(shadow.version, "shed")
            else:
                self.collector.shadow_failed(shadow.version, reason, self._clock() - started)
                self._metrics.count_shadow(shadow.version, "failed")
            return
        seconds = self._clock() - started
        self._metrics.count_shadow(shadow.version, "answered")
        if self.routing.revision == revision:
            self.collector.shadow_answered(
                shadow.version,
                seconds=seconds,
                live_seconds=answered.seconds,
                output=output_of(scores),
                live_output=output_of(answered.scores),
                distance=distance(scores, answered.scores),
            )
        on_answer(Mirrored(shadow.version, scores, seconds))


def failure_reason(error: Exception) -> Reason | None:
    """The reason of a failure that a version is to blame for; None for any other (a full queue)."""
    if isinstance(error, VersionOverloaded):
        return None
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, VersionLost):
        return "lost"
    if isinstance(error, VersionError):
        return "gone"
    if isinstance(error, BadScores) and error.non_finite:
        return "non_finite"
    return "model_error"


def output_of(scores: Scores) -> float:
    """One number per request, mean over its rows: probability of the positive class, value, or (of several
    classes) the largest probability.
    """
    total = 0.0
    for score in scores:
        total += max(score) if isinstance(score, list) else score
    return total / len(scores)


def distance(scores: Scores, others: Scores) -> float:
    """Mean absolute difference over the rows; total variation distance for class probabilities.

    NaN-free by construction; versions that give different kinds of scores are as far apart as can be, 1.
    """
    total = 0.0
    for score, other in zip(scores, others, strict=True):
        if isinstance(score, list) != isinstance(other, list):
            return 1.0
        if not isinstance(score, list):
            total += abs(score - other)
        elif len(score) != len(other):
            return 1.0
        else:
            total += 0.5 * sum(map(abs, map(float.__sub__, score, other)))
    return total / len(scores)


def _takes(other: LiveVersion, chosen: LiveVersion, rows: Sequence[Row]) -> bool:
    """Whether rows that are valid for one version are valid for the other."""
    if other.manifest.features == chosen.manifest.features:
        return True
    return all(other.validator.is_valid(row) for row in rows)


def _contract(manifest: ModelManifest) -> tuple[object, ...]:
    """What bodies a version takes."""
    online = manifest.online
    return manifest.features, manifest.entity, (online.columns, online.request) if online else None


def require_finite(scores: Scores, rows: int) -> None:
    """Raises BadScores unless there is one score per row and all of them are finite."""
    if len(scores) != rows:
        raise BadScores(f"{len(scores)} scores for {rows} rows", non_finite=False)
    for score in scores:
        finite = all(map(math.isfinite, score)) if isinstance(score, list) else math.isfinite(score)
        if not finite:
            raise BadScores(f"a score is {score}", non_finite=True)
