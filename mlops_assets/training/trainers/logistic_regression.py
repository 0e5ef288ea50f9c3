"""Logistic regression by scikit-learn, written as the ``linear-json`` format."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from mlops_assets.training.trainers._base import FitInputs, Trainer
from mlops_assets.training.trainers._linear import (
    design_columns,
    importance_of,
    linear_document,
    sparse_design,
)
from serve.schema import Task


class LogisticRegressionTrainer(Trainer):
    """L2-regularised logistic regression; multinomial for more than two classes."""

    name: ClassVar[str] = "logistic_regression"
    tasks: ClassVar[frozenset[Task]] = frozenset({"binary", "multiclass"})
    model_format: ClassVar[str] = "linear-json"
    defaults: ClassVar[Mapping[str, Any]] = {"C": 1.0, "max_iter": 60, "tol": 1e-3}

    def _fit(self, given: FitInputs) -> tuple[bytes, dict[str, float]]:
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        columns = design_columns(given.matrix, given.features)
        model = LogisticRegression(
            C=float(given.params["C"]),
            max_iter=int(given.params["max_iter"]),
            tol=float(given.params["tol"]),
            random_state=given.seed,
        )
        with warnings.catch_warnings():
            # max_iter is a budget: a candidate that stops at it is judged like any other.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(sparse_design(given.matrix, columns), given.target)
        coefficients = np.zeros((1 if given.task == "binary" else given.classes, model.coef_.shape[1]))
        intercepts = np.full(len(coefficients), -30.0)
        if given.task == "binary":
            coefficients[:], intercepts[:] = model.coef_, model.intercept_
        else:
            present = model.classes_.astype(int)
            if len(present) == 2:  # scikit-learn then keeps one row: the margin of the second class
                coefficients[present[1]], intercepts[present[1]] = model.coef_[0], model.intercept_[0]
                intercepts[present[0]] = 0.0
            else:
                coefficients[present], intercepts[present] = model.coef_, model.intercept_
        return linear_document(columns, coefficients, intercepts), importance_of(
            given.features, columns, coefficients
        )
