"""When a canary is taken out of the traffic, decided from what was measured within a short window.

Belongs here: the rules and their words. Does not belong here: counting (``serve/evidence.py``), acting
on a trip (``serve/aggregator.py``, ``serve/traffic.py``), judging a rollout over minutes and hours (the
control plane). Pure: the clock and the counts come in with each call.

The same rules run on every replica, on its own traffic, and in the aggregator, on everybody's.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from serve.schema import LATENCY_BOUNDS_S, GuardRules, ShadowEvidence, VersionEvidence

SAMPLES_PER_WINDOW = 120
"""Observations closer together than this are judged but not kept."""

NON_FINITE = "non_finite"

P95_SHARE = 20
"""The 95th percentile is above a limit when more than one request in 20 is."""


class _Counts(NamedTuple):
    requests: int
    errors: dict[str, int]
    losses: int
    slow: int

    def since(self, earlier: "_Counts") -> "_Counts":
        return _Counts(
            self.requests - earlier.requests,
            {reason: count - earlier.errors.get(reason, 0) for reason, count in self.errors.items()},
            self.losses - earlier.losses,
            self.slow - earlier.slow,
        )


_NOTHING = _Counts(0, {}, 0, 0)

_Key = tuple[bool, str]
"""Whether it is the version's shadow, and the version."""


class Guard:
    """The rules of one revision over a sliding window of cumulative evidence.

    What is there at the first ``observe`` counts as having happened just then, unless ``rebase`` came
    before.
    """

    def __init__(self, rules: GuardRules, *, revision: int) -> None:
        self.rules, self.revision = rules, revision
        self._samples: deque[tuple[float, dict[_Key, _Counts]]] = deque()
        limit_s = None if rules.max_p95_ms is None else rules.max_p95_ms / 1000
        # The first bound at or above the limit: what is counted beyond it is above the limit for certain.
        self._slow_from = None if limit_s is None else bisect_left(LATENCY_BOUNDS_S, limit_s) + 1

    def rebase(
        self, now: float, versions: Mapping[str, VersionEvidence], shadows: Mapping[str, ShadowEvidence]
    ) -> None:
        """Begins anew: all of this happened before the window, and only what comes on top counts."""
        self._samples.clear()
        self._samples.append((now, self._compact(versions, shadows)))

    def observe(
        self,
        now: float,
        versions: Mapping[str, VersionEvidence],
        shadows: Mapping[str, ShadowEvidence],
        *,
        stable: str,
    ) -> dict[str, str]:
        """Takes the cumulative evidence at ``now`` (seconds of any steady clock).

        Gives {version: reason in words with numbers} for the versions that trip at this moment, their
        shadows judged by the same rules. Never contains ``stable``.
        """
        counts = self._compact(versions, shadows)
        base = self._base(now, counts)
        reasons: dict[str, str] = {}
        for (is_shadow, version), total in counts.items():
            if version == stable:
                continue
            reason = self._reason(total.since(base.get((is_shadow, version), _NOTHING)))
            if reason is not None:
                reasons.setdefault(version, f"as a shadow, {reason}" if is_shadow else reason)
        return reasons

    def _base(self, now: float, counts: dict[_Key, _Counts]) -> dict[_Key, _Counts]:
        samples = self._samples
        if not samples:
            samples.append((now, {}))
        # The newest sample stays however old: what came since then cannot be dated any better.
        while len(samples) > 1 and samples[0][0] < now - self.rules.window_s:
            samples.popleft()
        base = samples[0][1]
        if now - samples[-1][0] >= self.rules.window_s / SAMPLES_PER_WINDOW:
            samples.append((now, counts))
        return base

    def _compact(
        self, versions: Mapping[str, VersionEvidence], shadows: Mapping[str, ShadowEvidence]
    ) -> dict[_Key, _Counts]:
        compact = {
            (False, version): _Counts(
                evidence.requests, evidence.errors, evidence.losses, self._slow(evidence.latency)
            )
            for version, evidence in versions.items()
        }
        for version, shadow in shadows.items():
            compact[True, version] = _Counts(shadow.requests, shadow.errors, 0, self._slow(shadow.latency))
        return compact

    def _slow(self, latency: tuple[int, ...]) -> int:
        # A limit above the last bound leaves nothing that is certain to be above it.
        return 0 if self._slow_from is None else sum(latency[self._slow_from :])

    def _reason(self, counts: _Counts) -> str | None:
        """Why counts of one window trip, all rules that apply joined; None when none does."""
        rules = self.rules
        found = []
        errors = sum(counts.errors.values())
        enough = counts.requests >= rules.min_requests
        window = f"in the last {rules.window_s:g} s"
        if enough and errors >= rules.min_errors and errors / counts.requests > rules.max_error_rate:
            by_reason = sorted(counts.errors.items(), key=lambda entry: (-entry[1], entry[0]))
            found.append(
                f"{errors} of {counts.requests} requests failed {window} "
                f"({_percent(errors, counts.requests)}, allowed {rules.max_error_rate * 100:g} %): "
                + ", ".join(f"{count} {reason}" for reason, count in by_reason if count)
            )
        non_finite = counts.errors.get(NON_FINITE, 0)
        if non_finite > rules.max_non_finite:
            found.append(f"{non_finite} non-finite outputs {window} (allowed {rules.max_non_finite})")
        if counts.losses > rules.max_losses:
            found.append(f"it stopped answering {counts.losses} times {window} (allowed {rules.max_losses})")
        if enough and counts.slow >= rules.min_errors and counts.slow * P95_SHARE > counts.requests:
            assert self._slow_from is not None
            bound_ms = LATENCY_BOUNDS_S[self._slow_from - 1] * 1000
            found.append(
                f"{counts.slow} of {counts.requests} requests took more than {bound_ms:g} ms {window} "
                f"({_percent(counts.slow, counts.requests)}, allowed 5 % above {rules.max_p95_ms:g} ms)"
            )
        return "; ".join(found) or None


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"
