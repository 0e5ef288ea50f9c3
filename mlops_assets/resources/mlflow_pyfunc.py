"""The MLflow model of a package: MLflow runs this file when it loads one ("models from code").

Belongs here: the pyfunc wrapper around ``serve.scoring``. Nothing imports this module.
"""

from typing import Any

import mlflow  # noqa: TID253 - MLflow itself runs this file
from mlflow.pyfunc.model import PythonModel  # noqa: TID253

from serve.scoring import Scorer, load_package


class PackagedModel(PythonModel):
    """Scores a DataFrame with the package's own scorer: the same numbers as the endpoint."""

    scorer: Scorer

    def load_context(self, context: Any) -> None:
        self.scorer = load_package(context.artifacts["package"])

    # Without annotations: MLflow turns them into checks of its own, and warns of any it cannot check.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        """Scores of shape (n,), or (n, classes) for multiclass."""
        columns = {name: model_input[name] for name in self.scorer.manifest.feature_names}
        return self.scorer.score(self.scorer.encoder.columns(columns))


mlflow.models.set_model(PackagedModel())
