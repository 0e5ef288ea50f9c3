"""From named values to the matrix of a model.

Belongs here: the one encoding that training, evaluation and replicas share. Does not belong here: whether
values are valid (``validation.py``), scores (``formats/``).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.schema import FeatureSpec, FeatureValue

Matrix = NDArray[np.float64]


class Encoder:
    """Turns named values into the float64 matrix of a model: one column per feature, in order.

    Missing values are NaN. A category becomes its integer code in the feature's dictionary; one
    that is not in the dictionary becomes NaN. Values are taken as already validated. ``rows`` and
    ``columns`` give the same matrix to the bit.
    """

    def __init__(self, features: Sequence[FeatureSpec]) -> None:
        self._features = tuple(features)
        self._codes: list[dict[str, float] | None] = [
            {value: float(code) for code, value in enumerate(feature.categories or ())}
            if feature.type == "category"
            else None
            for feature in self._features
        ]

    def rows(self, rows: Sequence[Mapping[str, FeatureValue]]) -> Matrix:
        """Matrix of shape (len(rows), features); a name that a row lacks is missing."""
        matrix = np.empty((len(rows), len(self._features)))
        for position, row in enumerate(rows):
            for column, (feature, codes) in enumerate(zip(self._features, self._codes, strict=True)):
                value = row.get(feature.name)
                if value is None:
                    matrix[position, column] = math.nan
                elif codes is None:
                    matrix[position, column] = float(value)
                else:
                    matrix[position, column] = codes.get(str(value), math.nan)
        return matrix

    def columns(self, columns: Mapping[str, Any]) -> Matrix:
        """The same matrix from whole columns (arrays or pandas Series), for training and evaluation."""
        import pandas as pd  # 0.4 s; a replica that answers single rows never needs it

        encoded = []
        for feature, codes in zip(self._features, self._codes, strict=True):
            series = pd.Series(columns[feature.name])
            if codes is not None:
                # Each distinct value is looked up once: a column has few of them and many rows.
                positions, distinct = pd.factorize(series)
                known = np.array([*(codes.get(str(value), math.nan) for value in distinct), math.nan])
                encoded.append(known[positions])
            else:
                if series.dtype == object:
                    series = series.astype("Float64")
                encoded.append(series.to_numpy(dtype=np.float64, na_value=math.nan))
        return np.column_stack(encoded)
