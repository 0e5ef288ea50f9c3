"""What each version lost under each routing, as labels tell: evidence for a rollout's ``quality``. Pure.

Belongs here: the loss of an answer, which answers count, their moments by revision and version. Does not
belong here: what the evidence proves (``rollout/judging``), metrics of windows (``performance.py``), where
answers come from.

Requests are many, and every one of them has to be told from the others. So DuckDB groups and pairs them: in
memory, or in a database on disk that its caller opened.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlops_assets.evaluation.metrics import LossMetric, metric
from mlops_assets.monitoring.labels import LABEL, label_codes
from mlops_assets.monitoring.performance import scores_of_answers
from mlops_assets.rollout.judging.evidence import QualityEvidence
from serve.schema import Moments, Task

if TYPE_CHECKING:
    import pandas as pd
    from duckdb import DuckDBPyConnection

SHADOW = "shadow"
ASKED_FOR = "/versions/"
"""In the path of a request that names the version that answers it."""
LOSS_NAMES: Mapping[Task, str] = {
    "binary": "log loss",
    "multiclass": "log loss",
    "regression": "squared error",
}


def losses_by_revision(
    joined: "pd.DataFrame", task: Task, classes: Sequence[str] | None
) -> dict[str, dict[str, Any]]:
    """Losses of labelled answers, for a rollout's ``quality``: what each version lost under each routing.

    ``joined``: rows of all variants and versions, as ``join_labels`` gives them, with ``answer_id``,
    ``row``, ``revision``, ``endpoint``, ``variant`` and ``version``. Gives, by revision as text::

        {"12": {"loss": "log loss",
                "versions":    {"v7": {"count": 10, "mean": 0.5, "m2": 0.1}, ...},
                "differences": {"v8": {"count": 9, "mean": -0.1, "m2": 0.02}, ...}}}

    ``versions`` holds the loss of every version's own answers, a shadow's included; ``differences``, of every
    version that answered as a shadow, its loss less the live one on the same rows. Counts are of requests,
    each with the mean over its labelled rows: rows of one request are not independent, and the tests on
    ``quality`` take what they count as independent. Labels that the task cannot use, and answers with another
    number of scores than there are classes, are left out; and so are answers to requests that named their
    version: who asks for a version is no draw of the routing.
    """
    import duckdb

    drawn = ~joined["endpoint"].str.contains(ASKED_FOR, regex=False).to_numpy(dtype=bool)
    target = label_codes(joined[LABEL], task=task, classes=classes)
    rows = joined[drawn].assign(micros=np.flatnonzero(drawn))
    lost = answer_losses(rows, target[drawn], task, len(classes) if classes else None)
    with duckdb.connect(":memory:") as connection:
        connection.register("lost", lost)
        return moments_by_revision(connection, "lost", task)


def answer_losses(
    rows: "pd.DataFrame", target: NDArray[np.float64], task: Task, width: int | None
) -> "pd.DataFrame":
    """The loss of every answer that has a usable label and score, and what it is told apart by.

    ``rows``: answers whose requests named no version, with their scores; ``micros`` orders them. ``target``
    (n,): NaN where no usable label came. ``width`` as ``scores_of_answers`` takes it.
    """
    scores, scored = scores_of_answers(rows, task, width)
    kept = ~np.isnan(target) & scored
    if task == "multiclass":
        kept &= target < scores.shape[1]
    judging = metric("rmse" if task == "regression" else "log_loss", task)
    assert isinstance(judging, LossMetric)
    told = rows.loc[kept, ["answer_id", "row", "revision", "variant", "version", "micros"]]
    return told.assign(loss=judging.losses(target[kept], scores[kept]))


def moments_by_revision(
    connection: "DuckDBPyConnection", table: str, task: Task
) -> dict[str, dict[str, Any]]:
    """What ``losses_by_revision`` gives, of a table or view with the columns of ``answer_losses``."""
    # A request that was logged twice counts once.
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE answered AS
        SELECT revision, version, variant, answer_id, "row", arg_min(loss, micros) AS loss
        FROM {table} GROUP BY revision, version, variant, answer_id, "row"
        """  # noqa: S608 - the name is ours
    )
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE requests AS
        SELECT revision, version, answer_id, favg(loss ORDER BY "row", variant) AS loss
        FROM answered GROUP BY ALL
        """
    )
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE pairs AS
        SELECT shadow.revision, shadow.version, shadow.answer_id,
            favg(shadow.loss - live.loss ORDER BY "row", live.version, live.variant) AS loss
        FROM answered AS shadow JOIN answered AS live USING (revision, answer_id, "row")
        WHERE shadow.variant = $1 AND live.variant <> $1 AND shadow.version <> live.version
        GROUP BY ALL
        """,
        [SHADOW],
    )
    revisions = connection.execute("SELECT DISTINCT revision FROM requests ORDER BY revision").fetchall()
    return {
        str(revision): {
            "loss": LOSS_NAMES[task],
            "versions": _by_version(connection, "requests", revision),
            "differences": _by_version(connection, "pairs", revision),
        }
        for (revision,) in revisions
    }


def _by_version(connection: "DuckDBPyConnection", table: str, revision: int) -> dict[str, dict[str, float]]:
    versions = connection.execute(
        f"SELECT DISTINCT version FROM {table} WHERE revision = ? ORDER BY version",  # noqa: S608
        [revision],
    ).fetchall()
    # In a fixed order: the same answers have the same moments to the last digit.
    query = f"SELECT loss FROM {table} WHERE revision = ? AND version = ? ORDER BY answer_id"  # noqa: S608
    return {
        version: _moments(connection.execute(query, [revision, version]).fetchnumpy()["loss"])
        for (version,) in versions
    }


def quality_evidence(
    losses: Mapping[str, Any], revision: int, canary: str, stable: str
) -> QualityEvidence | None:
    """What ``losses_by_revision`` tells of two versions under one revision; None when it holds no labels."""
    found = losses.get(str(revision))
    if found is None:
        return None
    paired = found["differences"].get(canary)
    return QualityEvidence(
        canary=Moments(**found["versions"].get(canary, {})),
        stable=Moments(**found["versions"].get(stable, {})),
        differences=None if paired is None else Moments(**paired),
        loss=found["loss"],
    )


def _moments(values: NDArray[np.float64]) -> dict[str, float]:
    mean = float(values.mean())
    return {"count": len(values), "mean": mean, "m2": float(((values - mean) ** 2).sum())}
