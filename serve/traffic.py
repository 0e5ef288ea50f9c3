"""Which version answers a request, and what happens when it does not.

Belongs here: the declared routing, which versions are live, choice, retry and fallback. Does not
belong here: HTTP (``serve/endpoint.py``), the hash (``serve/splitting.py``), Ray
(``serve/ray_versions.py``).

Guarantees. ``declare`` never waits, and raises only when there is no earlier good routing: a gateway
replica that raised there would be stopped, and one that waited would be out of routing. A version gets
traffic only after it answered once; until then its share goes to stable. While a new stable version
does not answer yet, the previous one goes on answering. A call whose replica died is tried once more;
after that, and for any other failure of a canary, stable answers, so that callers do not see a canary
fail. A caller error never counts as a version's failure.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError

from serve.errors import ApiError, NoModel, Overloaded, TimedOut
from serve.metrics import GatewayMetrics
from serve.schema import ModelManifest, Routing
from serve.splitting import Split
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

STABLE, CANARY = "stable", "canary"

LOOK_INTERVAL_S = 0.5
"""How often versions that do not answer yet are asked."""
PING_INTERVAL_S = 5.0
"""How often versions that do answer are asked again."""
INFO_TIMEOUT_S = 5.0

logger = logging.getLogger(__name__)


class BadScores(RuntimeError):
    """A model gave a score that is not finite, or not one per row."""


@dataclass
class RouteState:
    """What is known of one routed version: ``problem`` says why it is not (or no longer) answering."""

    application: str
    live: LiveVersion | None = None
    problem: str | None = "has not answered yet"
    asked_at: float = -math.inf

    @property
    def answers(self) -> bool:
        return self.live is not None and self.problem is None


class Traffic:
    """The state of one gateway replica. Lives on one event loop."""

    def __init__(
        self,
        versions: Versions,
        metrics: GatewayMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        wrap: Callable[[Version], Version] = lambda version: version,
    ) -> None:
        self._versions, self._metrics, self._clock, self._wrap = versions, metrics, clock, wrap
        self._split: Split | None = None
        self._acting_stable: LiveVersion | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self.routing: Routing | None = None
        self.states: dict[str, RouteState] = {}
        self.config_error: str | None = None

    # -- declared state ------------------------------------------------------------------------------

    def declare(self, raw: Any) -> None:
        """Takes a new routing. A bad one is kept out: the last good one stays, ``config_error`` says why.

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
            return
        states = {}
        for version, route in routing.routes.items():
            known = self.states.get(version)
            same = known is not None and known.application == route.application
            states[version] = known if known is not None and same else RouteState(route.application)
        self.config_error, self.routing, self._split, self.states = None, routing, Split(routing), states
        self._metrics.set_routing(routing)
        for version, state in states.items():
            self._metrics.set_answers(version, state.answers)
        self._choose_acting_stable()
        self._wake.set()

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
        """Asks every version that is due and waits for the answers."""
        self._ask_due()
        await asyncio.gather(*self._tasks.values())

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
        if self.states.get(version) is state:  # Else the routing has changed meanwhile.
            self._metrics.set_answers(version, state.answers)
            self._choose_acting_stable()

    async def _connect(self, version: str, application: str) -> LiveVersion:
        backend = await self._versions.connect(application)
        info = await backend.info(timeout_s=INFO_TIMEOUT_S)
        if info["version"] != version:
            raise VersionGone(f"answers as version {info['version']!r}, not {version!r}")
        manifest = ModelManifest.model_validate(info["manifest"])
        return LiveVersion(version, application, self._wrap(backend), info["digest"], manifest)

    def _choose_acting_stable(self) -> None:
        if self.routing is not None:
            stable = self.states[self.routing.stable].live
            self._acting_stable = stable or self._acting_stable

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

    def choose(self, unit: str) -> LiveVersion:
        """The live version for a unit. Raises NoModel when none can answer."""
        if self._split is not None:
            state = self.states[self._split.version_for(unit)]
            if state.problem is None and state.live is not None:
                return state.live
        if self._acting_stable is None:
            raise NoModel("No model version answers yet.")
        return self._acting_stable

    async def score(self, chosen: LiveVersion, rows: Sequence[Row]) -> tuple[LiveVersion, Scores]:
        """Scores of rows that are valid for ``chosen``, and the version that gave them.

        Raises Overloaded, TimedOut or NoModel; anything else is a model that failed.
        """
        try:
            return chosen, await self._attempt(chosen, rows)
        except Exception as error:
            stable = self._acting_stable
            if stable is None or stable is chosen or not _takes(stable, chosen, rows):
                raise self._refusal(chosen, error) from error
            self._metrics.count_fallback(chosen.version, type(error).__name__)
            logger.warning("Version %s failed (%r); stable answers", chosen.version, error)
        try:
            return stable, await self._attempt(stable, rows)
        except Exception as error:
            raise self._refusal(stable, error) from error

    async def _attempt(self, live: LiveVersion, rows: Sequence[Row]) -> Scores:
        assert self.routing is not None
        timeout_s = self.routing.timeout_s
        async with asyncio.timeout(timeout_s):
            try:
                scores = await live.backend.score_rows(rows, timeout_s=timeout_s)
            except VersionLost:
                self._metrics.count_retry(live.version)
                scores = await live.backend.score_rows(rows, timeout_s=timeout_s)
        _require_finite(scores, len(rows))
        return scores

    def _refusal(self, live: LiveVersion, error: Exception) -> Exception:
        if isinstance(error, VersionOverloaded):
            return Overloaded("The model has too many requests waiting.", retry_after_s=error.retry_after_s)
        if isinstance(error, TimeoutError):
            assert self.routing is not None
            return TimedOut(timeout_s=self.routing.timeout_s)
        if isinstance(error, VersionError):
            return NoModel(f"Model version {live.version} cannot be reached.")
        return error if not isinstance(error, ApiError) else RuntimeError(str(error))


def _takes(stable: LiveVersion, chosen: LiveVersion, rows: Sequence[Row]) -> bool:
    """Whether rows that are valid for one version are valid for the other."""
    if stable.manifest.features == chosen.manifest.features:
        return True
    return all(stable.validator.is_valid(row) for row in rows)


def _require_finite(scores: Scores, rows: int) -> None:
    if len(scores) != rows:
        raise BadScores(f"{len(scores)} scores for {rows} rows")
    for score in scores:
        finite = all(map(math.isfinite, score)) if isinstance(score, list) else math.isfinite(score)
        if not finite:
            raise BadScores(f"a score is {score}")
