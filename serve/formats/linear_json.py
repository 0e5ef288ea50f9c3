"""Generalised linear models as JSON."""

import json
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from serve.encoding import Matrix
from serve.formats._base import Scorer


class LinearScorer(Scorer):
    """A generalised linear model as JSON: standardised numbers, one-hot categories, softmax.

    The document holds ``columns`` (per feature: ``mean`` and ``scale``, or ``levels``),
    ``coefficients`` (one row per output) and ``intercepts``. A row of ``coefficients`` goes through
    the columns in order: a number has two (of the standardised value, which is 0 when it is missing,
    and of a missing indicator), a category ``levels`` + 1 (one per code, the last for missing or unseen).
    """

    name: ClassVar[str] = "linear-json"
    model_file: ClassVar[str] = "linear.json"
    peak_per_package_byte: ClassVar[float] = 7.0

    def _load(self, payload: bytes) -> None:
        document = json.loads(payload)
        self._columns: list[dict[str, Any]] = document["columns"]
        self._coefficients = np.asarray(document["coefficients"], dtype=np.float64)
        self._intercepts = np.asarray(document["intercepts"], dtype=np.float64)

    def score(self, matrix: Matrix) -> Matrix:
        margin = self._margin(matrix)
        if self.manifest.task == "regression":
            return margin[:, 0]
        # math.exp and not numpy's: numpy picks an implementation by CPU and array layout, and a row
        # must score the same alone, in a batch, and on another machine.
        if self.manifest.task == "binary":
            return np.array([_logistic(value) for value in margin[:, 0].tolist()], dtype=np.float64)
        return np.array([_softmax(row) for row in margin.tolist()], dtype=np.float64).reshape(margin.shape)

    def _margin(self, matrix: Matrix) -> Matrix:
        """Linear predictor, shape (n, outputs).

        Summed feature by feature and not as a matrix product: BLAS adds in another order for one row
        than for many, and the last bit of an answer must not depend on the batch it came in.
        """
        margin = np.tile(self._intercepts, (len(matrix), 1))
        start = 0
        for position, column in enumerate(self._columns):
            values = matrix[:, position]
            missing = np.isnan(values)
            if "levels" in column:
                codes = np.where(missing, column["levels"], values).astype(np.int64)
                margin += self._coefficients.T[start + codes]
                start += column["levels"] + 1
            else:
                standard = np.where(missing, 0.0, (values - column["mean"]) / column["scale"])
                margin += np.where(
                    missing[:, None],
                    self._coefficients[:, start + 1],
                    standard[:, None] * self._coefficients[:, start],
                )
                start += 2
        return margin


def _logistic(margin: float) -> float:
    if margin >= 0:
        return 1.0 / (1.0 + math.exp(-margin))
    odds = math.exp(margin)
    return odds / (1.0 + odds)


def _softmax(margins: Sequence[float]) -> list[float]:
    highest = max(margins)
    powers = [math.exp(margin - highest) for margin in margins]
    total = sum(powers)
    return [power / total for power in powers]
