"""Models as production would have trained them at past moments, each trained once. Pure.

Belongs here: the rows known at a moment, the model of them, its verdict, drift reference and scores.
Does not belong here: when a model is trained and which one answers (``replay.py``).

Everything goes through the functions that the assets call: ``assemble``, the declared trainer, ``package``,
``judge``, ``make_reference``. A model is a function of the rows that were known, so regimes share them.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlops_assets.errors import DataError
from mlops_assets.evaluation.baseline import baseline_answer
from mlops_assets.evaluation.gate import GatePolicy, Verdict
from mlops_assets.monitoring.reference import DriftReference, HeldOut, TrainingRows, make_reference
from mlops_assets.training.candidates import Candidate
from mlops_assets.training.competition import Competition, won
from mlops_assets.training.package import ModelPackage, package
from mlops_assets.training.trainers import trainer
from mlops_assets.training.training_data import TrainingData, training_data
from mlops_assets.training.training_set import (
    EVALUATE,
    LABEL,
    SPLIT,
    TRAIN,
    SplitRule,
    TrainingSet,
    assemble,
    encode_target,
    with_labels,
)
from serve.schema import FeatureSpec, ModelManifest, Task
from serve.scoring import Scorer, scorer_from_bytes

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
Positions = NDArray[np.int64]

_ROW = "history row"
_BLOCK = 16_384
"""Rows scored at a time: few calls of a library, and few needless rows for a model that answers a week."""


@dataclass(frozen=True)
class History:
    """Every row of a use case in order of event time, with its label and when the label was known.

    ``frame`` (n rows, index from 0): join keys, event timestamp (UTC), features, ``label`` as the label
    function gives it (missing: never labelled). ``target`` (n,): class codes or numbers, NaN without label.
    ``times``, ``known_at`` (n,): datetime64[ns], UTC; ``days`` (n,): day numbers. Before ``known_at`` a model
    can answer a row, but it is neither trained nor judged on it.
    """

    frame: "pd.DataFrame"
    join_keys: tuple[str, ...]
    event_timestamp: str
    task: Task
    classes: tuple[str, ...] | None
    target: Array
    times: NDArray[np.datetime64]
    known_at: NDArray[np.datetime64]
    days: NDArray[np.int64]

    def between(self, start: datetime, end: datetime) -> slice:
        """Positions of the rows with an event from ``start`` to ``end`` (exclusive)."""
        first, last = np.searchsorted(self.times, [as_numpy(start), as_numpy(end)])
        return slice(int(first), int(last))

    def known(self, now: datetime) -> NDArray[np.bool_]:
        """Which rows could be trained on at ``now``: (n,)."""
        return np.asarray(self.known_at <= as_numpy(now))


def as_numpy(time: datetime) -> np.datetime64:
    """The moment as numpy holds it, in UTC without a zone."""
    return np.datetime64(time.astimezone(UTC).replace(tzinfo=None), "ns")


def as_datetime(moment: np.datetime64) -> datetime:
    """The inverse of ``as_numpy``, to the microsecond."""
    return datetime.fromtimestamp(int(moment.astype("datetime64[us]").astype(np.int64)) / 1_000_000, tz=UTC)


@dataclass(frozen=True)
class RowKeys:
    """The columns that identify a row, and the one with its time."""

    join_keys: Sequence[str]
    event_timestamp: str | None


def make_history(
    features: "pd.DataFrame",
    labels: "pd.DataFrame",
    row_keys: RowKeys,
    *,
    task: Task,
    classes: Sequence[str] | None,
    labels_after: timedelta,
) -> History:
    """The history of a feature table and its labels (join keys and ``label``).

    All rows of a day (UTC) become known together, ``labels_after`` after its end: data arrives by the day.
    Raises DataError without an event timestamp, without labels, or when keys repeat.
    """
    import pandas as pd

    keys, event_timestamp = list(row_keys.join_keys), row_keys.event_timestamp
    if event_timestamp is None:
        raise DataError("the feature view has no event_timestamp, which a backtest needs; declare one")
    joined = with_labels(features, labels, keys)
    joined[event_timestamp] = pd.to_datetime(joined[event_timestamp], utc=True)
    joined = joined.sort_values([event_timestamp, *keys], kind="stable").reset_index(drop=True)
    labelled = joined[LABEL].notna().to_numpy(dtype=bool)
    if not labelled.any():
        raise DataError(f"none of {len(joined)} rows has a label; check join keys {keys} and the label")
    codes, known_classes = encode_target(joined.loc[labelled, LABEL], task=task, classes=classes)
    target = np.full(len(joined), np.nan)
    target[labelled] = codes
    times = joined[event_timestamp].dt.tz_localize(None).to_numpy(dtype="datetime64[ns]")
    days = times.astype("datetime64[D]")
    arrived = (days + np.timedelta64(1, "D")).astype("datetime64[ns]")
    return History(
        frame=joined,
        join_keys=tuple(keys),
        event_timestamp=event_timestamp,
        task=task,
        classes=known_classes,
        target=target,
        times=times,
        known_at=arrived + np.timedelta64(round(labels_after / timedelta(microseconds=1)), "us"),
        days=days.astype(np.int64),
    )


@dataclass(frozen=True)
class Recipe:
    """How a model is made and judged, as its document declares it.

    ``candidates``: a single one is trained as it is; several, and windows of one, compete on the folds at
    each training, as in the asset, which multiplies the cost.
    """

    name: str
    features: tuple[FeatureSpec, ...]
    candidates: tuple[Candidate, ...]
    gate: GatePolicy
    selecting_metric: str
    evaluation_window_days: int = 14
    training_window_days: int | None = None
    folds: int = 3
    threshold: float = 0.5
    seed: int = 7


@dataclass(frozen=True, eq=False)
class ReplayedModel:
    """A model that was trained on what was known at a moment.

    ``trained_until``, ``data_until``: the newest row it was trained on, and the newest that was known (times
    with a zone). ``trained``, ``judged``: positions of the training and the evaluation part. ``changed_by``:
    the change that their split followed, "" for none.
    """

    package: ModelPackage
    scorer: Scorer
    trained_until: datetime
    data_until: datetime
    trained: Positions
    judged: Positions
    changed_by: str = ""

    @property
    def digest(self) -> str:
        return self.scorer.digest


class Trainings:
    """Trains, judges and scores on demand, each only once. ``window_days``: length of the judged windows."""

    def __init__(
        self,
        history: History,
        recipe: Recipe,
        *,
        window_days: float,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.history, self.recipe = history, recipe
        self._window_days = window_days
        self._report = report
        self._models: dict[str, ReplayedModel] = {}
        self._verdicts: dict[tuple[str, str, str, str], Verdict] = {}
        self._references: dict[str, DriftReference] = {}
        self._scored: dict[tuple[str, int], Array] = {}

    def at(self, now: datetime, changed_by: str = "") -> ReplayedModel:
        """The model of everything known at ``now``; the same one while nothing more is known.

        ``changed_by``: a time by which a change had shown (ISO 8601), which the split follows; "" for none.
        Raises DataError when too little is known to split into a training and an evaluation part.
        """
        known = self.history.known(now) & ~np.isnan(self.history.target)
        cut = hashlib.sha256(np.packbits(known).tobytes() + changed_by.encode()).hexdigest()[:32]
        if cut not in self._models:
            self._models[cut] = self._train(known, cut, changed_by)
        return self._models[cut]

    def made(self, digest: str) -> ReplayedModel:
        """The model of that digest; DataError when none was trained here."""
        found = next((one for one in self._models.values() if one.digest == digest), None)
        if found is None:
            raise DataError(
                f"no model {digest} among the {len(self._models)} that were trained; "
                "ask the trainings that the replay was given"
            )
        return found

    def verdict(
        self,
        challenger: ReplayedModel,
        champion: ReplayedModel | None,
        champion_is: str,
        *,
        look: int = 1,
        now: datetime | None = None,
    ) -> Verdict:
        """The gate's verdict on the challenger's evaluation part. ``champion`` None: the first model.

        From ``look`` 2 on it is judged on every row behind its training part that is known at ``now``.
        """
        from mlops_assets.evaluation.evaluate import Champion, EvaluationRows, evaluate

        # The verdict's reason names the champion, and the same model has another name in each regime.
        seen = f"{look} {now}" if look > 1 else ""
        pair = (challenger.digest, champion.digest if champion else "", champion_is, seen)
        if pair not in self._verdicts:
            history, rows = self.history, challenger.judged
            if look > 1 and now is not None:
                rows = self._behind(challenger, now)
            self._verdicts[pair] = evaluate(
                self.recipe.gate.at_look(look),
                self.recipe.selecting_metric,
                EvaluationRows(
                    history.frame.iloc[rows].reset_index(drop=True),
                    history.target[rows],
                    history.target[challenger.trained],
                    history.task,
                    history.classes,
                    history.event_timestamp,
                    challenger.changed_by,
                ),
                challenger.scorer,
                Champion(
                    champion.scorer,
                    champion_is,
                    same=champion.digest == challenger.digest,
                    trained_until=champion.trained_until.isoformat(),
                )
                if champion
                else None,
                plots=False,
            ).verdict
        return self._verdicts[pair]

    def _behind(self, model: ReplayedModel, now: datetime) -> Positions:
        """Positions of the labelled rows known at ``now`` that are later than the whole training part."""
        history = self.history
        later = history.times > history.times[model.trained[-1]]
        return np.flatnonzero(later & history.known(now) & ~np.isnan(history.target))

    def reference(self, model: ReplayedModel) -> DriftReference:
        """The drift reference of this model, for windows of its answers."""
        if model.digest not in self._references:
            history, rows = self.history, np.sort(np.concatenate([model.trained, model.judged]))
            scores = self._score_rows(model, model.judged)
            target, groups = history.target[model.judged], history.days[model.judged]
            baseline = baseline_answer(
                history.task, history.target[model.trained], len(history.classes or ())
            )
            self._references[model.digest] = make_reference(
                TrainingRows(
                    history.frame.iloc[rows].reset_index(drop=True),
                    model.package.manifest.features,
                    history.days[rows],
                    np.isin(rows, model.trained),
                ),
                held_out=HeldOut(scores, target, groups, baseline),
                task=history.task,
                classes=history.classes,
                window_days=self._window_days,
            )
        return self._references[model.digest]

    def scores(self, model: ReplayedModel, rows: slice) -> Array:
        """The model's scores on these rows of the history: (n,), or (n, classes)."""
        blocks = [
            self._block(model, number)
            for number in range(rows.start // _BLOCK, max(rows.stop - 1, rows.start) // _BLOCK + 1)
        ]
        offset = rows.start // _BLOCK * _BLOCK
        return np.concatenate(blocks)[rows.start - offset : rows.stop - offset]

    def _block(self, model: ReplayedModel, number: int) -> Array:
        if (model.digest, number) not in self._scored:
            rows = np.arange(number * _BLOCK, min((number + 1) * _BLOCK, len(self.history.frame)))
            self._scored[model.digest, number] = self._score_rows(model, rows)
        return self._scored[model.digest, number]

    def _score_rows(self, model: ReplayedModel, rows: Positions) -> Array:
        names = model.scorer.manifest.feature_names
        part = self.history.frame.iloc[rows]
        return model.scorer.score(model.scorer.encoder.columns({name: part[name] for name in names}))

    def _assembled(self, known: NDArray[np.bool_], changed_by: str) -> TrainingSet:
        import pandas as pd

        history, recipe = self.history, self.recipe
        rows, keys = np.flatnonzero(known), list(history.join_keys)
        columns = dict.fromkeys([*keys, history.event_timestamp, *(spec.name for spec in recipe.features)])
        frame = history.frame.iloc[rows]
        split = SplitRule(
            event_timestamp=history.event_timestamp,
            evaluation_window_days=recipe.evaluation_window_days,
            training_window_days=recipe.training_window_days,
            changed_by=pd.Timestamp(changed_by) if changed_by else None,
            seed=recipe.seed,
        )
        return assemble(
            frame[list(columns)].assign(**{_ROW: rows}),
            frame[[*keys, LABEL]],
            join_keys=keys,
            task=history.task,
            classes=history.classes,
            split=split,
        )

    def _candidate(self, data: TrainingData) -> Candidate:
        """The candidate that wins on the folds of these rows."""
        recipe = self.recipe
        winner, _ = won(
            Competition(
                data,
                recipe.candidates,
                folds=recipe.folds,
                metric=recipe.selecting_metric,
                task=self.history.task,
                seed=recipe.seed,
            )
        )
        return recipe.candidates[winner]

    def _train(self, known: NDArray[np.bool_], cut: str, changed_by: str) -> ReplayedModel:
        history, recipe, made = self.history, self.recipe, self._assembled(known, changed_by)
        data = training_data(
            made.frame,
            split=TRAIN,
            features=recipe.features,
            classes=history.classes,
            join_keys=history.join_keys,
            event_timestamp=history.event_timestamp,
        )
        candidate = self._candidate(data)
        data = data.within(candidate.window_days)
        how = trainer(candidate.trainer)
        fitted = how.fit(data.inputs(history.task, candidate.params, recipe.seed))
        manifest = ModelManifest(
            name=recipe.name,
            task=history.task,
            trainer=how.name,
            model_format=how.model_format,
            model_file=how.model_file,
            target=LABEL,
            features=data.features,
            classes=history.classes,
            threshold=recipe.threshold,
            training_set_version=cut,
            training_window=data.trained_window(candidate.window_days),
        )
        packed = package(fitted, data.frame, manifest)
        trained = data.frame[_ROW].to_numpy(dtype=np.int64)
        judged = np.sort(made.frame.loc[made.frame[SPLIT] == EVALUATE, _ROW].to_numpy(dtype=np.int64))
        model = ReplayedModel(
            package=packed,
            scorer=scorer_from_bytes(packed.manifest, packed.payload),
            trained_until=as_datetime(history.times[trained[-1]]),
            data_until=as_datetime(history.times[judged[-1]]),
            trained=trained,
            judged=judged,
            changed_by=changed_by,
        )
        self._report(
            f"trained {candidate.name} on {len(trained):,} rows until {model.trained_until:%Y-%m-%d}, "
            f"{len(judged):,} held out"
        )
        return model
