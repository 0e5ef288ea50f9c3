"""Ridge regression by scikit-learn, written as the ``linear-json`` format."""

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


class RidgeTrainer(Trainer):
    """L2-regularised least squares."""

    name: ClassVar[str] = "ridge"
    tasks: ClassVar[frozenset[Task]] = frozenset({"regression"})
    model_format: ClassVar[str] = "linear-json"
    defaults: ClassVar[Mapping[str, Any]] = {"alpha": 1.0}

    def _fit(self, given: FitInputs) -> tuple[bytes, dict[str, float]]:
        from sklearn.linear_model import Ridge

        columns = design_columns(given.matrix, given.features)
        model = Ridge(
            alpha=float(given.params["alpha"]), solver="sparse_cg", tol=1e-6, random_state=given.seed
        )
        model.fit(sparse_design(given.matrix, columns), given.target)
        coefficients = np.atleast_2d(model.coef_)
        return (
            linear_document(columns, coefficients, np.atleast_1d(model.intercept_)),
            importance_of(given.features, columns, coefficients),
        )
