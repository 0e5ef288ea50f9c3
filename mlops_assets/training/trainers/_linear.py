"""What the trainers of generalised linear models share: their design and the ``linear-json`` document.

The design is that of ``serve/formats/linear_json.py``: standardised numbers with a missing indicator, one-hot
categories with a level for missing.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mlops_assets.training.trainers._base import Array
from serve.schema import FeatureSpec

if TYPE_CHECKING:
    from scipy import sparse


def design_columns(matrix: Array, features: Sequence[FeatureSpec]) -> list[dict[str, Any]]:
    """Per feature ``{levels}`` of a category or ``{mean, scale}`` of a number, from training rows."""
    columns: list[dict[str, Any]] = []
    for position, feature in enumerate(features):
        values = matrix[:, position]
        known = values[~np.isnan(values)]
        if feature.type == "category":
            columns.append({"levels": len(feature.categories or ())})
        else:
            scale = float(known.std()) if len(known) else 0.0
            columns.append({"mean": float(known.mean()) if len(known) else 0.0, "scale": scale or 1.0})
    return columns


def sparse_design(matrix: Array, columns: Sequence[Mapping[str, Any]]) -> "sparse.csr_matrix":
    """The design that the format's scorer has, sparse: one-hot columns are almost all zeros."""
    from scipy import sparse

    rows = np.arange(len(matrix))
    parts = []
    for position, column in enumerate(columns):
        values = matrix[:, position]
        missing = np.isnan(values)
        if "levels" in column:
            codes = np.where(missing, column["levels"], values).astype(np.int64)
            shape = (len(matrix), column["levels"] + 1)
            parts.append(sparse.csr_matrix((np.ones(len(matrix)), (rows, codes)), shape=shape))
        else:
            standard = np.where(missing, 0.0, (values - column["mean"]) / column["scale"])
            parts.append(sparse.csr_matrix(np.column_stack([standard, missing.astype(np.float64)])))
    return sparse.hstack(parts, format="csr")


def linear_document(columns: Sequence[Mapping[str, Any]], coefficients: Array, intercepts: Array) -> bytes:
    """The ``linear-json`` model file."""
    document = {
        "columns": list(columns),
        "coefficients": coefficients.tolist(),
        "intercepts": intercepts.tolist(),
    }
    return json.dumps(document, sort_keys=True).encode()


def importance_of(
    features: Sequence[FeatureSpec], columns: Sequence[Mapping[str, Any]], coefficients: Array
) -> dict[str, float]:
    """Sum of absolute coefficients of a feature's design columns."""
    importance, start = {}, 0
    for feature, column in zip(features, columns, strict=True):
        width = column["levels"] + 1 if "levels" in column else 2
        importance[feature.name] = float(np.abs(coefficients[:, start : start + width]).sum())
        start += width
    return importance
