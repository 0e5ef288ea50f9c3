"""Simulated rollouts with a look after every single request, and a naive repeated z-test on the same looks.

Belongs here: the worlds and what each way of judging says of them. Does not belong here: the judging
(``rollout/judging/``), the tables of a benchmark (``bench/judging.py``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlops_assets.rollout.judging.conditions import DEFAULT_ANALYSES, Analysis, Condition
from mlops_assets.rollout.judging.evidence import QualityEvidence, StepEvidence
from mlops_assets.rollout.judging.judge import Judgement, judge
from mlops_assets.rollout.judging.sequences import (
    CASH,
    MEAN_MINIMUM,
    TAIL,
    combined,
    log_normal_above,
    log_share_above,
    log_share_below,
    log_share_difference_above,
)
from serve.schema import LATENCY_BOUNDS_S, Moments, VersionEvidence

Floats = NDArray[np.float64]


Flags = NDArray[np.bool_]


SEED = 11


LONGEST = 5_000
"""Requests of the canary after which a simulated step ends."""


ERRORS, LATENCY = DEFAULT_ANALYSES


SLOW_BUCKET, FAST_BUCKET = LATENCY_BOUNDS_S.index(0.75), LATENCY_BOUNDS_S.index(0.01)


Z_TEST_FROM = 30


@dataclass(frozen=True)
class Looks:
    """Cumulative counts of one simulated step, at every request of either version."""

    errors: Floats
    slow: Floats
    requests: Floats
    stable_errors: Floats
    stable_requests: Floats


def looks(
    generator: np.random.Generator, share: float, errors: float, stable_errors: float, slow: float
) -> Looks:
    """One step: each request goes to the canary with probability ``share``, until it has had LONGEST."""
    total = int(LONGEST / share * 1.05) + 500
    to_canary = generator.random(total) < share
    failed = generator.random(total) < np.where(to_canary, errors, stable_errors)
    late = to_canary & (generator.random(total) < slow)
    canary = np.cumsum(to_canary, dtype=np.float64)
    end = int(np.searchsorted(canary, LONGEST)) + 1
    return Looks(
        np.cumsum(failed & to_canary, dtype=np.float64)[:end],
        np.cumsum(late, dtype=np.float64)[:end],
        canary[:end],
        np.cumsum(failed & ~to_canary, dtype=np.float64)[:end],
        np.cumsum(~to_canary, dtype=np.float64)[:end],
    )


def first_difference(
    limit: float, own: tuple[Floats, Floats], other: tuple[Floats, Floats], level: float, where: Flags
) -> int | None:
    """First look among ``where`` at which "own share - other share <= limit" is refused at the level."""
    enough = -math.log(level)
    candidates = np.flatnonzero(where & (_most(limit, *own, *other) >= enough))
    size = 64
    while len(candidates):
        chosen, candidates, size = candidates[:size], candidates[size:], min(size * 2, 1_024)
        counts = [values[chosen] for values in (*own, *other)]
        near = chosen[_at_most(limit, *counts) >= enough]
        few = 4
        while len(near):
            counts = [values[near[:few]] for values in (*own, *other)]
            refused = log_share_difference_above(limit, *counts) >= enough
            if refused.any():
                return int(near[np.argmax(refused)])
            near, few = near[few:], few * 2
    return None


def _at_most(limit: float, *counts: Floats) -> Floats:
    """An upper bound of the log e-value, which is the least over all shares of the other: what it is at
    those shares that are worst at the middle one of the looks.
    """
    parts = np.linspace(0.0, 1.0, 65)[1:-1]
    middle = len(counts[0]) // 2
    one = [values[middle : middle + 1] for values in counts]
    worst = int(np.argmin(_at(limit, parts, *one)))
    near = parts[max(worst - 1, 0) : worst + 2, None]
    return _at(limit, near, *counts).min(axis=0)


def _at(
    limit: float, part: Floats, hits: Floats, trials: Floats, other_hits: Floats, other_trials: Floats
) -> Floats:
    own, other = hits / np.maximum(trials, 1.0), other_hits / np.maximum(other_trials, 1.0)
    start = np.maximum(other, -limit)
    end = np.maximum(start, own - limit)
    point = np.clip(start + part * (end - start), 0.0, min(1.0, 1.0 - limit))
    first = log_share_above(point + limit, hits, trials)
    return combined(first, log_share_below(point, other_hits, other_trials), dependent=False)


def _most(limit: float, hits: Floats, trials: Floats, other_hits: Floats, other_trials: Floats) -> Floats:
    """An upper bound of the log e-value: the likelihood ratio that a mixture cannot exceed."""
    own, other = hits / np.maximum(trials, 1.0), other_hits / np.maximum(other_trials, 1.0)
    most = np.where((trials > 0) & (own - limit > np.maximum(other, 0.0)), np.inf, -np.inf)
    if limit < 0:
        most = np.where((other < -limit) & (other_trials > 0), np.inf, most)
    for part in (0.25, 0.5, 0.75):
        start, end = np.maximum(other, -limit), np.maximum(np.maximum(other, -limit), own - limit)
        point = start + part * (end - start)
        bound = _bet(trials, own, point + limit) + _bet(other_trials, other, point)
        most = np.minimum(most, bound)
    return most


def _bet(trials: Floats, observed: Floats, null: Floats) -> Floats:
    null = np.clip(null, 1e-12, 1 - 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        hit = np.where(observed > 0, observed * np.log(observed / null), 0.0)
        missed = np.where(observed < 1, (1 - observed) * np.log((1 - observed) / (1 - null)), 0.0)
    return np.logaddexp(math.log(CASH), math.log1p(-CASH) + trials * (hit + missed))


def first_z_test(
    limit: float, own: tuple[Floats, Floats], other: tuple[Floats, Floats], level: float
) -> int | None:
    """First look at which a z-test for two shares, made for one look, finds own - other above the limit."""
    (hits, trials), (other_hits, other_trials) = own, other
    ready = (trials >= Z_TEST_FROM) & (other_trials >= Z_TEST_FROM)
    share, other_share = hits / np.maximum(trials, 1), other_hits / np.maximum(other_trials, 1)
    variance = share * (1 - share) / np.maximum(trials, 1) + other_share * (1 - other_share) / np.maximum(
        other_trials, 1
    )
    from scipy.stats import norm

    refused = ready & (share - other_share - limit > norm.isf(level) * np.sqrt(variance)) & (variance > 0)
    return int(np.argmax(refused)) if refused.any() else None


@dataclass(frozen=True)
class Ends:
    """Looks at which a step was decided; None: never."""

    failed: int | None
    successful: int | None
    z_test: int | None


def ends(seen: Looks, limit: float) -> Ends:
    """When the default analyses, with the given limit on errors, first fail and first all succeed."""
    among = len(DEFAULT_ANALYSES)
    own, other = (seen.errors, seen.requests), (seen.stable_errors, seen.stable_requests)
    everywhere = np.ones(len(seen.requests), dtype=np.bool_)
    errors_fail = first_difference(limit, own, other, ERRORS.level / among, everywhere)
    # The canary's latency changes with its own requests only.
    own_looks, at_look = np.unique(seen.requests, return_index=True)
    slow = seen.slow[at_look]
    back = (seen.requests - own_looks[0]).astype(np.int64)
    too_slow = (log_share_above(TAIL, slow, own_looks) >= -math.log(LATENCY.level / among))[back]
    latency_fails = int(np.argmax(too_slow)) if too_slow.any() else None
    fails = [at for at in (errors_fail, latency_fails) if at is not None]
    fast = (log_share_below(TAIL, slow, own_looks) >= -math.log(LATENCY.level))[back]
    return Ends(
        min(fails) if fails else None,
        first_difference(-limit, other, own, ERRORS.level, fast),
        first_z_test(limit, own, other, ERRORS.level),
    )


def judged(seen: Looks, at: int, limit: float) -> Judgement:
    """What ``judge`` says at one look."""
    requests, stable_requests = int(seen.requests[at]), int(seen.stable_requests[at])
    latency = [0] * (len(LATENCY_BOUNDS_S) + 1)
    latency[SLOW_BUCKET], latency[FAST_BUCKET] = int(seen.slow[at]), requests - int(seen.slow[at])
    errors = Analysis("error_rate", Condition("increase", "<=", limit))
    return judge(
        (errors, LATENCY),
        StepEvidence(
            VersionEvidence(
                requests=requests, errors={"model_error": int(seen.errors[at])}, latency=tuple(latency)
            ),
            VersionEvidence(requests=stable_requests, errors={"timeout": int(seen.stable_errors[at])}),
        ),
    )


def compare(seen: Looks, found: Ends, limit: float) -> None:
    """Stops when ``judge`` does not decide at the looks at which the arrays do, and not before them."""
    for phase, at in (("failed", found.failed), ("successful", found.successful)):
        last = len(seen.requests) - 1 if at is None else at
        for look in {last, last - 1, last // 2} - {-1}:
            said = judged(seen, look, limit).phase
            if (said == phase) != (look == at):
                raise SystemExit(f"the simulation finds {phase} at look {at}; judge says {said} at {look}")


def errors_scenario(
    *,
    share: float,
    base: float,
    more: float = 0.0,
    slow: float = 0.01,
    limit: float = ERRORS.condition.number,
    runs: int,
) -> dict[str, Any]:
    """Shares of the runs that were ever decided, and the canary's requests until then."""
    generator = np.random.default_rng([SEED, int(share * 1e4), int(base * 1e4), int((more + limit) * 1e4)])
    failed, successful, first_failed, naive = [], [], 0, 0
    for run in range(runs):
        seen = looks(generator, share, base + more, base, slow)
        found = ends(seen, limit)
        if run < 2:
            compare(seen, found, limit)
        if found.failed is not None:
            failed.append(seen.requests[found.failed])
            first_failed += found.successful is None or found.failed < found.successful
        if found.successful is not None:
            successful.append(seen.requests[found.successful])
        naive += found.z_test is not None
    return {
        "canary_share": share,
        "base": base,
        "more": more,
        "limit": limit,
        "slow": slow,
        "runs": runs,
        "failed": len(failed) / runs,
        "caught": first_failed / runs,
        "successful": len(successful) / runs,
        "z_test_failed": naive / runs,
        "until_failed": _spread(failed),
        "until_successful": _spread(successful),
    }


LOSSES = ("Brier score", "log loss")


APART = 0.2
"""Noise of either of two equally good models."""


def losses_of(
    name: str,
    generator: np.random.Generator,
    size: int,
    noise: float,
    *,
    stable_noise: float = 0.0,
    paired: bool = True,
) -> tuple[Floats, Floats]:
    """Losses of two models that see the true log-odds with so much noise; on the same rows when paired."""

    def drawn() -> tuple[Floats, Floats]:
        odds = generator.normal(-1.0, 1.5, size)
        return odds, (generator.random(size) < _share(odds)).astype(np.float64)

    def loss(odds: Floats, label: Floats) -> Floats:
        if name == "log loss":
            return np.logaddexp(0.0, np.where(label == 1, -odds, odds))
        return (_share(odds) - label) ** 2

    odds, label = drawn()
    canary = loss(odds + noise * generator.normal(0.0, 1.0, size), label)
    if not paired:
        odds, label = drawn()
    return canary, loss(odds + stable_noise * generator.normal(0.0, 1.0, size), label)


def _share(odds: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-odds))


def noise_for(name: str, more: float) -> float:
    """The noise at which the canary's mean loss is higher by ``more``, by bisection on a large sample."""
    low, high = 0.0, 8.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        canary, stable = losses_of(name, np.random.default_rng(SEED), 400_000, middle)
        low, high = (low, middle) if float((canary - stable).mean()) > more else (middle, high)
    return low


def quality_scenario(
    name: str,
    *,
    more: float,
    paired: bool,
    runs: int,
    limit: float = 0.02,
) -> dict[str, Any]:
    """As ``errors_scenario``, of the one analysis ``quality increase <= limit``."""
    generator = np.random.default_rng([SEED, int(more * 1e4), int(paired), len(name)])
    noise = noise_for(name, more) if more else 0.0
    failed, successful, naive, first_failed = [], [], 0, 0
    counts = np.arange(1.0, LONGEST + 1)
    ready = counts >= MEAN_MINIMUM
    from scipy.stats import norm

    for run in range(runs):
        # Two equally good models still differ: they were trained apart.
        canary, stable = losses_of(
            name, generator, LONGEST, noise or APART, stable_noise=0.0 if noise else APART, paired=paired
        )
        series = (canary - stable,) if paired else (canary, stable)
        moments = [_running(values) for values in series]
        mean = moments[0][0] if paired else moments[0][0] - moments[1][0]
        error = np.sqrt(sum(m2 / np.maximum(counts - 1, 1) / counts for _, m2 in moments))
        z = np.clip((mean - limit) / np.maximum(error, 1e-9), -1e6, 1e6)
        # Of the tests, not of the naive one: the spread around the limit.
        centred = z / np.sqrt(1.0 + z**2 / counts)
        fails = ready & (z > 0) & (log_normal_above(np.maximum(centred, 0), counts) >= -math.log(0.05))
        succeeds = ready & (z < 0) & (log_normal_above(np.maximum(-centred, 0), counts) >= -math.log(0.05))
        naively = (counts >= Z_TEST_FROM) & (z > norm.isf(0.05))
        at = int(np.argmax(fails)) if fails.any() else LONGEST
        until = int(np.argmax(succeeds)) if succeeds.any() else LONGEST
        if at < LONGEST:
            failed.append(counts[at])
            first_failed += at < until
        if until < LONGEST:
            successful.append(counts[until])
        naive += bool(naively.any())
        if run < 3:
            _compare_quality(moments, fails, succeeds, limit, paired=paired)
    return {
        "loss": name,
        "paired": paired,
        "more": more,
        "limit": limit,
        "runs": runs,
        "failed": len(failed) / runs,
        "caught": first_failed / runs,
        "successful": len(successful) / runs,
        "z_test_failed": naive / runs,
        "until_failed": _spread(failed),
        "until_successful": _spread(successful),
    }


def _running(values: Floats) -> tuple[Floats, Floats]:
    """Mean and sum of squared deviations at every look."""
    counts = np.arange(1.0, len(values) + 1)
    mean = np.cumsum(values) / counts
    return mean, np.maximum(np.cumsum(values**2) - counts * mean**2, 0.0)


def _compare_quality(
    moments: Sequence[tuple[Floats, Floats]], fails: Flags, succeeds: Flags, limit: float, *, paired: bool
) -> None:
    analysis = Analysis("quality", Condition("increase", "<=", limit))
    for look in range(MEAN_MINIMUM - 2, LONGEST, 979):
        held = [Moments(count=look + 1, mean=float(mean[look]), m2=float(m2[look])) for mean, m2 in moments]
        quality = QualityEvidence(differences=held[0]) if paired else QualityEvidence(held[0], held[1])
        said = judge([analysis], StepEvidence(VersionEvidence(), VersionEvidence(), quality=quality)).phase
        expected = "failed" if fails[look] else "successful" if succeeds[look] else "inconclusive"
        if said != expected:
            raise SystemExit(f"the simulation finds {expected} at look {look}; judge says {said}")


def _spread(values: Sequence[float]) -> dict[str, int] | None:
    if not values:
        return None
    median, most = np.quantile(values, [0.5, 0.95])
    return {"median": int(median), "p95": int(most)}
