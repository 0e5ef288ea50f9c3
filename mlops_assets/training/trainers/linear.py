"""Generalised linear models by scikit-learn, written as the ``linear-json`` format.

Belongs here: the design they share and the two trainers on it. Logistic regression classifies; ridge
is its counterpart for regression. The design is that of ``serve.scoring.LinearScorer``: standardised
numbers with a missing indicator, one-hot categories with a level for missing.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mlops_assets.training.trainers._base import Array, Trainer
from serve.schema import FeatureSpec, ModelFormat, Task

if TYPE_CHECKING:
    from scipy import sparse


class LogisticRegressionTrainer(Trainer):
    """L2-regularised logistic regression; multinomial for more than two classes."""

    name: ClassVar[str] = "logistic_regression"
    tasks: ClassVar[frozenset[Task]] = frozenset({"binary", "multiclass"})
    model_format: ClassVar[ModelFormat] = "linear-json"
    model_file: ClassVar[str] = "linear.json"
    defaults: ClassVar[Mapping[str, Any]] = {"C": 1.0, "max_iter": 60, "tol": 1e-3}

    def _fit(
        self,
        matrix: Array,
        target: Array,
        *,
        features: Sequence[FeatureSpec],
        task: Task,
        classes: int,
        params: Mapping[str, Any],
        seed: int,
    ) -> tuple[bytes, dict[str, float]]:
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        columns = design_columns(matrix, features)
        model = LogisticRegression(
            C=float(params["C"]),
            max_iter=int(params["max_iter"]),
            tol=float(params["tol"]),
            random_state=seed,
        )
        with warnings.catch_warnings():
            # max_iter is a budget: a candidate that stops at it is judged like any other.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(sparse_design(matrix, columns), target)
        coefficients = np.zeros((1 if task == "binary" else classes, model.coef_.shape[1]))
        intercepts = np.full(len(coefficients), -30.0)
        if task == "binary":
            coefficients[:], intercepts[:] = model.coef_, model.intercept_
        else:
            present = model.classes_.astype(int)
            if len(present) == 2:  # scikit-learn then keeps one row: the margin of the second class
                coefficients[present[1]], intercepts[present[1]] = model.coef_[0], model.intercept_[0]
                intercepts[present[0]] = 0.0
            else:
                coefficients[present], intercepts[present] = model.coef_, model.intercept_
        return linear_document(columns, coefficients, intercepts), _importance(
            features, columns, coefficients
        )


class RidgeTrainer(Trainer):
    """L2-regularised least squares."""

    name: ClassVar[str] = "ridge"
    tasks: ClassVar[frozenset[Task]] = frozenset({"regression"})
    model_format: ClassVar[ModelFormat] = "linear-json"
    model_file: ClassVar[str] = "linear.json"
    defaults: ClassVar[Mapping[str, Any]] = {"alpha": 1.0}

    def _fit(
        self,
        matrix: Array,
        target: Array,
        *,
        features: Sequence[FeatureSpec],
        task: Task,
        classes: int,
        params: Mapping[str, Any],
        seed: int,
    ) -> tuple[bytes, dict[str, float]]:
        from sklearn.linear_model import Ridge

        columns = design_columns(matrix, features)
        model = Ridge(alpha=float(params["alpha"]), solver="sparse_cg", tol=1e-6, random_state=seed)
        model.fit(sparse_design(matrix, columns), target)
        coefficients = np.atleast_2d(model.coef_)
        return (
            linear_document(columns, coefficients, np.atleast_1d(model.intercept_)),
            _importance(features, columns, coefficients),
        )


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
    """The design of ``serve.scoring.LinearScorer``, sparse: one-hot columns are almost all zeros."""
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


def _importance(
    features: Sequence[FeatureSpec], columns: Sequence[Mapping[str, Any]], coefficients: Array
) -> dict[str, float]:
    """Sum of absolute coefficients of a feature's design columns."""
    importance, start = {}, 0
    for feature, column in zip(features, columns, strict=True):
        width = column["levels"] + 1 if "levels" in column else 2
        importance[feature.name] = float(np.abs(coefficients[:, start : start + width]).sum())
        start += width
    return importance
