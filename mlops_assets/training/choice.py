"""Which candidate wins, and why. Pure.

Belongs here: comparing candidates over the folds, and training windows on the rows nearest to now. Does not
belong here: training them (``candidates.py``), whether the winner is good enough (``evaluation/gate.py``).
"""

from collections.abc import Sequence

from mlops_assets.errors import DataError
from mlops_assets.evaluation.compare import Comparison, compare
from mlops_assets.evaluation.jackknife import MIN_GROUPS
from mlops_assets.evaluation.metrics import Metric, metric
from mlops_assets.training.candidates import CandidateResult, OutOfFold
from mlops_assets.training.window import Outcomes
from serve.schema import Task

NEWEST_DAYS = MIN_GROUPS
"""Windows are compared on so many of the newest days: as few as an interval over whole days can be made of.
So soon after a change all of them lie behind it, with days to learn from before them."""
CONFIDENCE = 0.95
"""Of all comparisons of windows together, as the gate's of its one."""


def best(results: Sequence[CandidateResult], name: str, task: Task, outcomes: Outcomes) -> tuple[int, str]:
    """Position of the winner by a metric, and why in words.

    Among candidates with the longest training window (all history, where one has it) the best mean over the
    folds wins. Equal candidates keep their order. One on which the metric is never defined cannot win;
    DataError when none can.

    A shorter window takes its place only where it is *proven* better. A mean over the folds cannot choose
    windows: right after a change every fold but the newest rows lies before it and speaks for all history,
    and while nothing changes fewer rows only make a model worse, by less than a mean over three folds can
    tell. So each shorter window is compared with that winner on the same rows, as the gate compares: paired,
    whole days left out (delete-a-group jackknife, Student's t). It has two chances, the newest
    ``NEWEST_DAYS`` days, which see a sudden change soon, and the last fold, whose many days see a slow
    one; it must not look worse on the newest. The confidence of 95 % is that of all these comparisons
    together (Bonferroni), so where nothing changed all history is kept in at least 95 of 100 trainings. Of
    several that are proven the best on the newest days wins.
    """
    chosen = metric(name, task)
    longest = max((_reach(result) for result in results), default=0.0)
    whole = [place for place, result in enumerate(results) if _reach(result) == longest]
    means = [(place, value) for place in whole if (value := results[place].mean(name)) is not None]
    if not means:
        raise DataError(f"metric {name} is defined on no fold of any candidate; declare longer folds")
    ranked = sorted(means, key=lambda pair: -pair[1] if chosen.greater_is_better else pair[1])
    first = ranked[0][0]
    words = f"{results[first].candidate.name} has the best mean {name}, {ranked[0][1]:.4f}"
    if len(ranked) > 1:
        words += f", before {results[ranked[1][0]].candidate.name} with {ranked[1][1]:.4f}"
    shorter = [place for place in range(len(results)) if place not in whole]
    if not shorter:
        return first, words
    proven = _proven(results, first, shorter, chosen, outcomes)
    if not proven:
        return first, f"{words}; no shorter training window is proven better on the newest rows"
    place, found = proven[0]
    gain = found.sentence(results[first].candidate.name)
    return place, f"{results[place].candidate.name} is proven better on the newest rows: {gain}; {words}"


def _reach(result: CandidateResult) -> float:
    days = result.candidate.window_days
    return float("inf") if days is None else float(days)


def _proven(
    results: Sequence[CandidateResult],
    first: int,
    shorter: Sequence[int],
    chosen: Metric,
    outcomes: Outcomes,
) -> list[tuple[int, Comparison]]:
    """The shorter windows that are proven better, best on the newest days first, each with its proof."""
    pairs = {
        place: [
            (ours, theirs)
            for ours, theirs in (
                (results[place].newest, results[first].newest),
                (results[place].last_fold, results[first].last_fold),
            )
            if ours is not None and theirs is not None
        ]
        for place in shorter
    }
    looks = max(sum(map(len, pairs.values())), 1)
    confidence = 1 - (1 - CONFIDENCE) / looks
    found: list[tuple[float, int, Comparison]] = []
    for place, looked in pairs.items():
        if results[place].newest is None or results[first].newest is None:
            continue
        compared = [_compared(chosen, ours, theirs, outcomes, confidence) for ours, theirs in looked]
        newest, proofs = compared[0], [one for one in compared if one.low is not None and one.low > 0]
        if proofs and newest.improvement is not None and newest.improvement > 0:
            found.append((newest.improvement, place, proofs[0]))
    return [(place, proof) for _, place, proof in sorted(found, key=lambda one: (-one[0], one[1]))]


def _compared(
    chosen: Metric, ours: OutOfFold, theirs: OutOfFold, outcomes: Outcomes, confidence: float
) -> Comparison:
    return compare(
        chosen,
        outcomes.target[ours.rows],
        ours.scores,
        theirs.scores,
        groups=None if outcomes.days is None else outcomes.days[ours.rows],
        confidence=confidence,
    )
