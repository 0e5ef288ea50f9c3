"""What cumulative counts prove about a version, however often somebody looks. Pure.

Belongs here: e-values and the confidence sequences they invert to, for a share, a mean, a quantile and
their differences, from sufficient statistics only (counts and moments; nothing remembers earlier looks).
Does not belong here: what is measured and which limit it is held to (``conditions.py``, ``judge.py``).

An e-value against a hypothesis is a non-negative statistic whose expectation is at most 1 while the
hypothesis holds, at every data-dependent stopping time; by Ville's inequality (1939) it ever reaches
``1 / level`` with probability at most ``level``. So whoever stops at the first look at which it does is
wrong in at most ``level`` of all cases. Review: Ramdas, Grünwald, Vovk, Shafer (2023), "Game-theoretic
statistics and safe anytime-valid inference", Statistical Science 38(4).

All hypotheses are one-sided. ``log_above(x)`` is the log e-value against "the quantity is at most x" and so
evidence that it is above; ``log_below(x)`` the one against "at least x".
"""

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serve.schema import LATENCY_BOUNDS_S, Moments

Array = NDArray[np.float64]

PRIOR_A, PRIOR_B = 0.5, 5.0
"""Beta prior of a share: Jeffreys' weight near 0, where error rates live, and less of it far away."""

CASH = 0.3
"""Share of each factor of a product that is not bet: what one of two versions fails to tell costs no more."""

CELLS = 64
"""Cells over the nuisance parameter of a difference; fewer cost power, never validity."""

MEAN_MINIMUM = 200
"""Values before an asymptotic sequence says anything: its guarantee is that of the central limit theorem.

Rare large values need more than that: of a series that is not 0 in one of fifty values only, the mean is
held for too small about 15 % of the time instead of 5 % (``docs/judging.md``).
"""

MEAN_TUNING = 0.02
"""Squared scale of the normal mixture per value: sequences of means are tightest at about 500 values."""

TAIL = 0.05
"""Share of requests above the 95th percentile."""


# -- kernels: arrays in, arrays out --------------------------------------------------------------------


def log_share_above(limit: ArrayLike, hits: ArrayLike, trials: ArrayLike) -> Array:
    """Log e-value against "each trial hits with probability at most ``limit``"; arguments broadcast.

    The likelihood ratio against ``limit``, averaged over a Beta prior cut to the shares above it: the
    one-sided beta-binomial mixture of Robbins (1970), "Statistical methods related to the law of the
    iterated logarithm", and Howard, Ramdas, McAuliffe, Sekhon (2021), "Time-uniform, nonparametric,
    nonasymptotic confidence sequences", Annals of Statistics 49(2), proposition 7. Exact for every number
    of trials. ``-inf`` (no evidence) where the observed share is not above the limit.
    """
    return _log_share_above(limit, hits, trials, PRIOR_A, PRIOR_B)


def log_share_below(limit: ArrayLike, hits: ArrayLike, trials: ArrayLike) -> Array:
    """Log e-value against "each trial hits with probability at least ``limit``": the mirror image."""
    misses = np.asarray(trials, dtype=np.float64) - np.asarray(hits, dtype=np.float64)
    return _log_share_above(1.0 - np.asarray(limit, dtype=np.float64), misses, trials, PRIOR_B, PRIOR_A)


def _log_share_above(limit: ArrayLike, hits: ArrayLike, trials: ArrayLike, a: float, b: float) -> Array:
    from scipy.special import betaincc, betaln, xlog1py, xlogy  # 0.2 s

    limit, hits, trials = (np.asarray(value, dtype=np.float64) for value in (limit, hits, trials))
    misses = trials - hits
    # A margin, because a limit that was computed from the observed share must not pass it by rounding.
    speaks = hits - limit * trials > 1e-9 * trials
    # The excluded cases divide by nothing and are replaced below; next to a limit of 0 any ratio is large.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        observed = hits / trials
        ratio = xlogy(hits, observed / limit) + xlogy(misses, (1.0 - observed) / (1.0 - limit))
        # The tail is 1 to all digits once the best ratio exceeds e^50, and far tails are slow to compute.
        tail = np.where(speaks & (ratio < 50.0), limit, 0.0)
        mixed = betaln(a + hits, b + misses) + np.log(betaincc(a + hits, b + misses, tail))
        prior = betaln(a, b) + np.log(betaincc(a, b, limit))
        log_e = mixed - prior - xlogy(hits, limit) - xlog1py(misses, -limit)
    # Past the observed share the mixture is below 1; zero instead keeps the evidence monotone in the limit.
    return np.where(speaks, log_e, -np.inf)


def log_share_difference_above(
    limit: ArrayLike,
    hits: ArrayLike,
    trials: ArrayLike,
    other_hits: ArrayLike,
    other_trials: ArrayLike,
    *,
    dependent: bool = False,
) -> Array:
    """Log e-value against "the share exceeds the other share by at most ``limit``"; arguments broadcast.

    If the other share is s, the null says that the first is at most s + limit. For each s the two
    one-sided e-values multiply when the series are independent, in whatever order they come, and the
    larger of them counts half when they are not (union bound). The smallest over s is an e-value for the
    whole null, as in universal inference (Wasserman, Ramdas, Balakrishnan 2020, PNAS 117(29)). It is
    bounded from below cell by cell, so the search over s costs no validity. The same problem by other
    e-values: Turner, Ly, Grünwald (2024), "Generic E-variables for exact sequential k-sample tests that
    allow for optional stopping", Journal of Statistical Planning and Inference 230.
    """
    limit, hits, trials, other_hits, other_trials = np.broadcast_arrays(
        *(np.asarray(value, dtype=np.float64) for value in (limit, hits, trials, other_hits, other_trials))
    )
    lowest, highest = np.maximum(0.0, -limit), np.minimum(1.0, 1.0 - limit)
    own = np.where(trials > 0, hits / np.maximum(trials, 1e-300), 0.0)
    other = np.where(other_trials > 0, other_hits / np.maximum(other_trials, 1e-300), 1.0)
    # Left of the other's observed share and right of what the own one allows nothing is smaller.
    start = np.clip(other, lowest, highest)
    end = np.maximum(start, np.clip(own - limit, lowest, highest))
    points = start[..., None] + (end - start)[..., None] * np.linspace(0.0, 1.0, CELLS + 1)
    first = log_share_above(points[..., 1:] + limit[..., None], hits[..., None], trials[..., None])
    second = log_share_below(points[..., :-1], other_hits[..., None], other_trials[..., None])
    return combined(first, second, dependent=dependent).min(axis=-1)


def combined(first: ArrayLike, second: ArrayLike, *, dependent: bool) -> Array:
    """Log e-value of two together: of independent series the product, each with its share of cash; of
    dependent ones half the larger (the union bound, which needs nothing of how they hang together).
    """
    if dependent:
        return np.maximum(first, second) - math.log(2.0)
    held, bet = math.log(CASH), math.log1p(-CASH)
    return np.logaddexp(held, bet + np.asarray(first)) + np.logaddexp(held, bet + np.asarray(second))


def log_normal_above(z: ArrayLike, count: ArrayLike) -> Array:
    """Log e-value against "the mean of z is at most 0", for z in standard errors after ``count`` values.

    The normal mixture over positive means: Robbins (1970); Howard et al. (2021), proposition 6. With an
    estimated standard error it is an asymptotic confidence sequence: Waudby-Smith, Arbour, Sinha,
    Kennedy, Ramdas (2024), "Time-uniform central limit theory and asymptotic confidence sequences",
    Annals of Statistics 52(6).
    """
    from scipy.special import log_ndtr

    z, count = np.asarray(z, dtype=np.float64), np.asarray(count, dtype=np.float64)
    scale = MEAN_TUNING * count
    shrunk = scale / (1.0 + scale)
    return math.log(2.0) - 0.5 * np.log1p(scale) + 0.5 * shrunk * z**2 + log_ndtr(z * np.sqrt(shrunk))


# -- sequences: what is known of one quantity at one look ------------------------------------------------


class Sequence(Protocol):
    """What the evidence so far says of one quantity. ``samples`` is of the version under judgement."""

    @property
    def samples(self) -> float: ...

    @property
    def value(self) -> float | None:
        """The observed value; None where nothing defines it."""

    @property
    def certain(self) -> bool:
        """Whether the observed value counts as the true one: a series without any spread."""

    def log_above(self, limit: float) -> float:
        """Log e-value against "the quantity is at most ``limit``"."""

    def log_below(self, limit: float) -> float:
        """Log e-value against "the quantity is at least ``limit``"."""

    def low(self, level: float) -> float | None:
        """The quantity is above this at every look, but for a probability of ``level``; None: unknown."""

    def high(self, level: float) -> float | None:
        """The quantity is below this at every look, but for a probability of ``level``; None: unknown."""

    def scaled(self, factor: float) -> "Sequence":
        """The same observed values with ``factor`` times the samples."""


class _Inverted:
    """Bounds from e-values by bisection, for sequences whose e-values grow with the distance."""

    support: tuple[float, float]

    @property
    def certain(self) -> bool:
        return False

    @property
    def value(self) -> float | None:
        raise NotImplementedError

    @property
    def anchor(self) -> float | None:
        """A value that nothing speaks against, where the search for the bounds starts."""
        return self.value

    def log_above(self, limit: float) -> float:
        raise NotImplementedError

    def log_below(self, limit: float) -> float:
        raise NotImplementedError

    def low(self, level: float) -> float | None:
        return self._edge(level, downwards=True)

    def high(self, level: float) -> float | None:
        return self._edge(level, downwards=False)

    def _edge(self, level: float, *, downwards: bool) -> float | None:
        enough = -math.log(level)
        start = self.anchor
        if start is None or self.certain:
            return start
        end = self.support[0] if downwards else self.support[1]
        log_e = self.log_above if downwards else self.log_below
        sign = -1.0 if downwards else 1.0
        inner, outer, step = start, end, 1e-6 * max(1.0, abs(start))
        if math.isinf(end):
            outer = inner + sign * step
            while log_e(outer) < enough:
                step *= 2.0
                outer = inner + sign * step
                if math.isinf(outer):
                    return None
        elif log_e(end) < enough:
            return end
        for _ in range(60):
            middle = 0.5 * (inner + outer)
            if log_e(middle) >= enough:
                outer = middle
            else:
                inner = middle
            if abs(outer - inner) <= 1e-6 * max(1e-3, abs(outer)):
                break
        return outer


@dataclass(frozen=True)
class Share(_Inverted):
    """The chance that a trial hits, from ``hits`` of ``trials``; exact."""

    hits: float
    trials: float
    support: tuple[float, float] = field(default=(0.0, 1.0), init=False)

    @property
    def samples(self) -> float:
        return self.trials

    @property
    def value(self) -> float | None:
        return self.hits / self.trials if self.trials > 0 else None

    def log_above(self, limit: float) -> float:
        if limit < 0:
            return math.inf
        return float(log_share_above(min(limit, 1.0), self.hits, self.trials))

    def log_below(self, limit: float) -> float:
        if limit > 1:
            return math.inf
        return float(log_share_below(max(limit, 0.0), self.hits, self.trials))

    def scaled(self, factor: float) -> "Share":
        return Share(self.hits * factor, self.trials * factor)


@dataclass(frozen=True)
class ShareDifference(_Inverted):
    """How much the share of ``own`` exceeds that of ``other``; exact.

    ``dependent``: both saw the same requests, so that only a union bound is valid. Own trials alone can
    prove the difference small (an own share of at most x exceeds no other by more than x).
    """

    own: Share
    other: Share
    dependent: bool = False
    support: tuple[float, float] = field(default=(-1.0, 1.0), init=False)

    @property
    def samples(self) -> float:
        return self.own.trials

    @property
    def value(self) -> float | None:
        if self.own.value is None or self.other.value is None:
            return None
        return self.own.value - self.other.value

    @property
    def anchor(self) -> float | None:
        # Of an unseen other nothing is known, so also not that it is 0.
        return None if self.own.value is None else self.own.value - (self.other.value or 0.0)

    def log_above(self, limit: float) -> float:
        return self._log_above(limit, self.own, self.other)

    def log_below(self, limit: float) -> float:
        return self._log_above(-limit, self.other, self.own)

    def _log_above(self, limit: float, own: Share, other: Share) -> float:
        if abs(limit) > 1:
            return math.inf if limit < 0 else -math.inf
        return float(
            log_share_difference_above(
                limit, own.hits, own.trials, other.hits, other.trials, dependent=self.dependent
            )
        )

    def scaled(self, factor: float) -> "ShareDifference":
        return ShareDifference(self.own.scaled(factor), self.other.scaled(factor), self.dependent)


@dataclass(frozen=True)
class Mean(_Inverted):
    """The mean of a series; asymptotic, silent below MEAN_MINIMUM values.

    A series without any spread counts as known exactly from MEAN_MINIMUM values on.
    """

    moments: Moments
    support: tuple[float, float] = field(default=(-math.inf, math.inf), init=False)

    @property
    def samples(self) -> float:
        return self.moments.count

    @property
    def value(self) -> float | None:
        return self.moments.mean if self.moments.count > 0 else None

    @property
    def certain(self) -> bool:
        return self.moments.count >= MEAN_MINIMUM and self.moments.m2 == 0.0

    @cached_property
    def error(self) -> float:
        """Standard error of the mean."""
        count = self.moments.count
        return math.sqrt(max(self.moments.m2, 0.0) / (count - 1) / count) if count > 1 else math.inf

    def log_above(self, limit: float) -> float:
        return _log_mean_above(self.moments.mean - limit, self.error, self.samples, self.samples)

    def log_below(self, limit: float) -> float:
        return _log_mean_above(limit - self.moments.mean, self.error, self.samples, self.samples)

    def scaled(self, factor: float) -> "Mean":
        return Mean(_scaled(self.moments, factor))


@dataclass(frozen=True)
class MeanDifference(_Inverted):
    """Mean of ``own`` less mean of ``other``, two independent series; asymptotic, silent below
    MEAN_MINIMUM values of either.

    The difference over its variance is a Brownian motion with drift in the information 1 / variance,
    whatever the two counts: Jennison, Turnbull (1997), "Group-sequential analysis incorporating covariate
    information", JASA 92(440). So the mixture of one series applies, at the harmonic mean of the counts.
    """

    own: Moments
    other: Moments
    support: tuple[float, float] = field(default=(-math.inf, math.inf), init=False)

    @property
    def samples(self) -> float:
        return self.own.count

    @property
    def value(self) -> float | None:
        return self.own.mean - self.other.mean if self.own.count > 0 and self.other.count > 0 else None

    @property
    def certain(self) -> bool:
        return Mean(self.own).certain and Mean(self.other).certain

    def log_above(self, limit: float) -> float:
        return self._log_above(self.own.mean - self.other.mean - limit)

    def log_below(self, limit: float) -> float:
        return self._log_above(limit - (self.own.mean - self.other.mean))

    def _log_above(self, distance: float) -> float:
        fewest = min(self.own.count, self.other.count)
        if fewest < MEAN_MINIMUM:
            return -math.inf
        error = math.hypot(Mean(self.own).error, Mean(self.other).error)
        harmonic = 2.0 / (1.0 / self.own.count + 1.0 / self.other.count)
        return _log_mean_above(distance, error, fewest, harmonic)

    def scaled(self, factor: float) -> "MeanDifference":
        return MeanDifference(_scaled(self.own, factor), _scaled(self.other, factor))


def _log_mean_above(distance: float, error: float, fewest: float, count: float) -> float:
    if fewest < MEAN_MINIMUM or distance <= 0.0:
        return -math.inf
    # The spread is taken around the limit, not the mean: exact for symmetric series (de la Peña 1999, "A
    # general class of exponential inequalities for martingales and ratios", Annals of Probability 27(1)),
    # and what has no spread at all is still only as sure as its count.
    z = 1.0 / math.hypot(error / distance, 1.0 / math.sqrt(count))
    return float(log_normal_above(z, count))


def _scaled(moments: Moments, factor: float) -> Moments:
    # Whole values only: the estimate of what is missing need not be finer.
    count = math.ceil(moments.count * factor)
    per_value = moments.m2 / (moments.count - 1) if moments.count > 1 else 0.0
    return Moments(count=count, mean=moments.mean, m2=per_value * max(count - 1, 0))


@dataclass(frozen=True)
class Magnitude(_Inverted):
    """The absolute value of a signed quantity."""

    signed: Mean | MeanDifference
    support: tuple[float, float] = field(default=(0.0, math.inf), init=False)

    @property
    def samples(self) -> float:
        return self.signed.samples

    @property
    def value(self) -> float | None:
        return None if self.signed.value is None else abs(self.signed.value)

    @property
    def certain(self) -> bool:
        return self.signed.certain

    def log_above(self, limit: float) -> float:
        if limit < 0:
            return math.inf
        # Either side can be wrong while the quantity is within: their mean is an e-value.
        both = np.logaddexp(self.signed.log_above(limit), self.signed.log_below(-limit))
        return float(both) - math.log(2.0)

    def log_below(self, limit: float) -> float:
        # Outside there is only one side to be wrong on: no price for two.
        return min(self.signed.log_below(limit), self.signed.log_above(-limit)) if limit > 0 else -math.inf

    def scaled(self, factor: float) -> "Magnitude":
        return Magnitude(self.signed.scaled(factor))


# -- the 95th percentile of latency counts ---------------------------------------------------------------


@dataclass(frozen=True)
class Quantile:
    """The 95th percentile in seconds, from counts by LATENCY_BOUNDS_S; exact up to the buckets.

    It is above a bound exactly when more than 5 % of the requests are, which is a statement on a share.
    One fixed quantile needs no correction for the number of bounds: Howard, Ramdas (2022), "Sequential
    estimation of quantiles with applications to A/B testing and best-arm identification", Bernoulli 28(3).
    """

    counts: tuple[float, ...]
    certain: bool = field(default=False, init=False)

    @cached_property
    def samples(self) -> float:
        return sum(self.counts)

    @property
    def value(self) -> float | None:
        """Interpolated within its bucket, an estimate; None without requests or above the last bound."""
        if self.samples <= 0:
            return None
        reached, lower = 0.0, 0.0
        for count, upper in zip(self.counts, LATENCY_BOUNDS_S, strict=False):
            if count > 0 and reached + count >= (1.0 - TAIL) * self.samples:
                return lower + (upper - lower) * ((1.0 - TAIL) * self.samples - reached) / count
            reached, lower = reached + count, upper
        return None

    def slower_than(self, index: int) -> Share:
        """The share of requests above ``LATENCY_BOUNDS_S[index]``."""
        return Share(sum(self.counts[index + 1 :]), self.samples)

    def log_above(self, limit: float) -> float:
        # Rounded up to a bound: above that one means above the limit.
        for index, bound in enumerate(LATENCY_BOUNDS_S):
            if bound >= limit:
                return self.slower_than(index).log_above(TAIL)
        return -math.inf

    def log_below(self, limit: float) -> float:
        for index in reversed(range(len(LATENCY_BOUNDS_S))):
            if LATENCY_BOUNDS_S[index] <= limit:
                return self.slower_than(index).log_below(TAIL)
        return -math.inf

    def low(self, level: float) -> float | None:
        proven = [bound for bound in LATENCY_BOUNDS_S if self.log_above(bound) >= -math.log(level)]
        return max(proven) if proven else None

    def high(self, level: float) -> float | None:
        proven = [bound for bound in LATENCY_BOUNDS_S if self.log_below(bound) >= -math.log(level)]
        return min(proven) if proven else None

    def scaled(self, factor: float) -> "Quantile":
        return Quantile(tuple(count * factor for count in self.counts))


@dataclass(frozen=True)
class QuantileRatio:
    """The 95th percentile of ``own`` over that of ``other``; exact up to the buckets.

    For each bucket that the other's percentile may lie in: how little fits it and how little the own
    percentile fits the ratio. Two equal versions can be proven to differ by no less than the width of
    their bucket, a factor of 1.3 to 2.5.
    """

    own: Quantile
    other: Quantile
    dependent: bool = False
    certain: bool = field(default=False, init=False)

    @property
    def samples(self) -> float:
        return self.own.samples

    @property
    def value(self) -> float | None:
        if self.own.value is None or not self.other.value:
            return None
        return self.own.value / self.other.value

    def log_above(self, limit: float) -> float:
        # The other's percentile lies in (lower, upper]; then the own one is at most limit * upper.
        return min(
            self._together(self.own.log_above(limit * upper), self.other.log_below(lower))
            for lower, upper in _BUCKETS
        )

    def log_below(self, limit: float) -> float:
        return min(
            self._together(self.own.log_below(limit * lower), self.other.log_above(upper))
            for lower, upper in _BUCKETS
        )

    def _together(self, own: float, other: float) -> float:
        return float(combined(own, other, dependent=self.dependent))

    def low(self, level: float) -> float | None:
        # Only ratios of two bounds matter, and the evidence falls from one to the next.
        unproven = bisect_left(_RATIOS, True, key=lambda ratio: self.log_above(ratio) < -math.log(level))
        return _RATIOS[unproven - 1] if unproven > 0 else None

    def high(self, level: float) -> float | None:
        proven = bisect_left(_RATIOS, True, key=lambda ratio: self.log_below(ratio) >= -math.log(level))
        return _RATIOS[proven] if proven < len(_RATIOS) else None

    def scaled(self, factor: float) -> "QuantileRatio":
        return QuantileRatio(self.own.scaled(factor), self.other.scaled(factor), self.dependent)


_BUCKETS = tuple(zip((0.0, *LATENCY_BOUNDS_S), (*LATENCY_BOUNDS_S, math.inf), strict=True))
_RATIOS = tuple(sorted({one / other for one in LATENCY_BOUNDS_S for other in LATENCY_BOUNDS_S}))
