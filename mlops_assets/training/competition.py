"""A competition of candidates on one training part: who takes part, what each is judged on, who wins. Pure.

Belongs here: the order of steps from training rows to a winner, for the asset and the backtest alike. Does
not belong here: each step (``window.py``, ``candidates.py``, ``choice.py``), logging what came of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mlops_assets.errors import DataError
from mlops_assets.training.candidates import Candidate, CandidateResult, compete
from mlops_assets.training.choice import NEWEST_DAYS, best
from mlops_assets.training.folds import Fold
from mlops_assets.training.training_data import TrainingData
from mlops_assets.training.window import Outcomes, out_of_the_running
from serve.schema import Task


@dataclass(frozen=True)
class Competition:
    """All candidates on the same folds of ``data``. Winners are named by their position among ``candidates``.

    ``folds``: how many. Same data, candidates and seed give the same winner.
    """

    data: TrainingData
    candidates: Sequence[Candidate]
    folds: int
    metric: str
    task: Task
    seed: int
    report: Callable[[str], None] = field(default=lambda line: None)

    def taking_part(self) -> tuple[list[int], dict[int, str]]:
        """Positions of the candidates that compete, and of those that cannot, why.

        DataError with every reason when none can.
        """
        newest, out = self._newest(), {}
        outcomes = Outcomes(self.data.target, self.data.days)
        compared = len({candidate.window_days for candidate in self.candidates}) > 1
        for place, candidate in enumerate(self.candidates):
            why = out_of_the_running(
                candidate.window_days,
                candidate.beside(self.candidates),
                outcomes,
                newest=newest,
                compared=compared,
                task=self.task,
            )
            if why:
                out[place] = why
        inside = [place for place in range(len(self.candidates)) if place not in out]
        if not inside:
            reasons = "; ".join(f"{self.candidates[place].name}: {why}" for place, why in out.items())
            raise DataError(
                f"no candidate can compete: {reasons}. Let one train on all history (training_window: all), "
                "or materialise more partitions"
            )
        return inside, out

    def result(self, place: int, inside: Sequence[int]) -> CandidateResult:
        """How a candidate does on every fold, beside those that take part with it."""
        windows = {self.candidates[one].window_days for one in inside}
        data, candidate = self.data, self.candidates[place]
        return compete(
            candidate,
            data.inputs(self.task, candidate.params, self.seed),
            data.folds(self.folds, self.seed, self.task),
            days=data.days,
            # With one window there is nothing to compare on it.
            newest=self._newest() if len(windows) > 1 else None,
            report=self.report,
        )

    def winner(self, inside: Sequence[int], results: Sequence[CandidateResult]) -> tuple[int, str]:
        """Position of the winner among ``candidates``, and why. ``results``: of ``inside``, in order."""
        place, why = best(results, self.metric, self.task, Outcomes(self.data.target, self.data.days))
        return inside[place], why

    def _newest(self) -> Fold | None:
        return self.data.newest_fold(NEWEST_DAYS)


def won(competition: Competition) -> tuple[int, str]:
    """The winner's position and why, with nothing kept of the others; one candidate wins unjudged."""
    inside, _ = competition.taking_part()
    if len(inside) == 1:
        return inside[0], f"{competition.candidates[inside[0]].name} is the only one"
    return competition.winner(inside, [competition.result(place, inside) for place in inside])
