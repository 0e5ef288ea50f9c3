"""How good the flights model is on months it has not seen: never retrained against monthly retrained.

Belongs here: walking forward through 2013 with the declared features and the declared trainer. Does not
belong here: the gate's judgement of one challenger (``mlops_assets/evaluation``), timings of assets.

``python -m bench.walk_forward`` prints a table, ``--json`` the same numbers. It needs no stack: the declared
functions run on the raw files. Training sees flights of earlier months only, each with features that
were known before its departure.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from mlops_assets.data.loading import Source, load
from mlops_assets.data.validation import Rules, validate
from mlops_assets.defs.flights.datasets import prepare_flights, prepare_weather
from mlops_assets.defs.flights.features import arrived_late, flight_features
from mlops_assets.documents.dataset import DatasetDeclaration
from mlops_assets.documents.feature_view import FeatureViewDeclaration
from mlops_assets.evaluation.metrics.log_loss import log_losses
from mlops_assets.evaluation.metrics.roc_auc import roc_auc
from mlops_assets.features.declared import declare
from mlops_assets.features.view import compute
from mlops_assets.resources.lake import Lake
from mlops_assets.training.dictionary import with_dictionaries
from mlops_assets.training.trainers import FitInputs, trainer
from serve.schema import FeatureSpec
from serve.scoring import Encoder

if TYPE_CHECKING:
    import pandas as pd

DECLARATIONS = Path(__file__).resolve().parent.parent / "mlops_assets/defs/flights/defs.yaml"
MONTHS = range(4, 13)
SEED = 7
_TRANSFORMS = {
    f"{function.__module__}.{function.__qualname__}": function
    for function in (prepare_flights, prepare_weather)
}


def declarations(kind: str) -> "list[dict[str, Any]]":
    """Attributes of the flights documents of one component type."""
    documents = yaml.safe_load_all(DECLARATIONS.read_text(encoding="utf-8"))
    return [document["attributes"] for document in documents if document["type"].endswith(f".{kind}")]


def dataset(declared: DatasetDeclaration) -> "pd.DataFrame":
    """The rows that the dataset asset would keep: transformed, typed, without the quarantine."""
    source = Source(
        declared.source.reader(DECLARATIONS.parent),
        _TRANSFORMS[declared.transform] if declared.transform else None,
    )
    loaded = load(source, declared.columns, partition_column=None, partitions=None, lake=Lake(uri="unused"))
    # The suites judge single days; here only the rules on rows matter.
    rules = Rules(
        primary_key=declared.primary_key,
        row_rules=[rule.expectation() for rule in declared.row_rules],
        max_quarantine_share=declared.max_quarantine_share,
    )
    return validate(loaded.frame, rules, partition_column=None, partitions=None).kept


def labelled_features(view: FeatureViewDeclaration) -> "pd.DataFrame":
    """Declared features of every labelled flight, with ``label`` (0 or 1) and ``month``."""
    tables = {one["name"]: dataset(DatasetDeclaration(**one)) for one in declarations("DatasetComponent")}
    flights = tables[view.base]
    how = view.computed_as(timedelta(days=view.lookback_days), flight_features)
    computed = compute(how, flights, tables)
    made = declare(computed, view.features, keep={"flight_date": "string"})
    if made.problems:
        raise SystemExit(f"features break their declaration: {made.problems[0]}")
    frame = made.frame.assign(
        label=arrived_late(flights), month=computed["flight_date"].str.slice(5, 7).astype(int)
    )
    return frame[frame["label"].notna()].reset_index(drop=True)


def walk(
    frame: "pd.DataFrame",
    features: Sequence[FeatureSpec],
    *,
    trainer_name: str,
    params: Mapping[str, Any],
    months: Sequence[int] = MONTHS,
) -> list[dict[str, Any]]:
    """Per month: rows, late share, AUC and log loss of both regimes, seconds of the monthly fit.

    ``never`` was trained on January to March only; ``monthly`` on everything before the month.
    """
    month = frame["month"].to_numpy()
    never = _fit(frame[month <= 3], features, trainer_name, params)
    rows = []
    for current in months:
        started = time.perf_counter()
        # The first month is scored by the same model in both regimes.
        monthly = never if current == 4 else _fit(frame[month < current], features, trainer_name, params)
        seconds = time.perf_counter() - started
        unseen = frame[month == current]
        target = unseen["label"].to_numpy(dtype=np.float64)
        row: dict[str, Any] = {
            "month": current,
            "rows": len(unseen),
            "late": float(target.mean()),
            "fit_s": seconds,
        }
        for regime, score in (("never", never), ("monthly", monthly)):
            scores = score(unseen)
            row[regime] = {
                "roc_auc": roc_auc(target, scores),
                "log_loss": float(log_losses(target, scores).mean()),
            }
        rows.append(row)
    return rows


def _fit(
    frame: "pd.DataFrame", features: Sequence[FeatureSpec], trainer_name: str, params: Mapping[str, Any]
) -> Any:
    from serve.schema import ModelManifest
    from serve.scoring import scorer_from_bytes

    specs = with_dictionaries(frame, features)
    encoder = Encoder(specs)
    how = trainer(trainer_name)
    fitted = how.fit(
        FitInputs(
            encoder.columns({spec.name: frame[spec.name] for spec in specs}),
            frame["label"].to_numpy(dtype=np.float64),
            features=specs,
            task="binary",
            classes=2,
            params=params,
            seed=SEED,
        )
    )
    manifest = ModelManifest(
        name="flights",
        task="binary",
        trainer=trainer_name,
        model_format=how.model_format,
        model_file=fitted.model_file,
        target="arrived_late",
        features=specs,
        classes=("on_time", "late"),
    )
    scorer = scorer_from_bytes(manifest, fitted.payload)

    def score(unseen: "pd.DataFrame") -> NDArray[np.float64]:
        columns = {spec.name: unseen[spec.name] for spec in specs}
        return scorer.score(scorer.encoder.columns(columns))

    return score


def mean(rows: Sequence[Mapping[str, Any]], regime: str, metric: str) -> float:
    """Plain mean over the months."""
    return float(np.mean([row[regime][metric] for row in rows]))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows and their mean as text."""
    lines = [
        f"{'':7}{'':>8}{'':>7} | {'never retrained':^19} | {'monthly':^19} |",
        f"{'month':7}{'rows':>8}{'late':>7} | {'AUC':>8}{'log loss':>11} | {'AUC':>8}{'log loss':>11} | "
        f"{'fit s':>6}",
    ]
    for row in rows:
        lines.append(
            f"{row['month']:<7}{row['rows']:>8}{row['late']:>7.1%} | "
            f"{row['never']['roc_auc']:>8.3f}{row['never']['log_loss']:>11.3f} | "
            f"{row['monthly']['roc_auc']:>8.3f}{row['monthly']['log_loss']:>11.3f} | {row['fit_s']:>6.1f}"
        )
    means = [
        mean(rows, regime, metric) for regime in ("never", "monthly") for metric in ("roc_auc", "log_loss")
    ]
    lines.append(f"{'mean':22} | {means[0]:>8.3f}{means[1]:>11.3f} | {means[2]:>8.3f}{means[3]:>11.3f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the walk through the year."""
    parser = argparse.ArgumentParser(prog="python -m bench.walk_forward", description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--trainer", default="lightgbm", help="name of the trainer (default: lightgbm)")
    parser.add_argument("--params", type=json.loads, help="JSON object of parameters (default: as declared)")
    chosen = parser.parse_args(arguments)
    (model,) = declarations("ModelComponent")
    declared = {one["trainer"]: one.get("params", {}) for one in model["candidates"]}
    params = declared.get(chosen.trainer, {}) if chosen.params is None else chosen.params
    view = FeatureViewDeclaration(**declarations("FeatureViewComponent")[0])
    rows = walk(labelled_features(view), view.features, trainer_name=chosen.trainer, params=params)
    if chosen.json:
        means = {
            regime: {metric: mean(rows, regime, metric) for metric in ("roc_auc", "log_loss")}
            for regime in ("never", "monthly")
        }
        print(json.dumps({"months": rows, "mean": means}, indent=1))
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
