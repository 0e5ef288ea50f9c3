"""A BentoML service that answers one row with a booster."""

import os

import bentoml
import lightgbm
import numpy as np

NAMES = [f"f{number:02d}" for number in range(20)]


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Bench:
    """One booster in one worker."""

    def __init__(self) -> None:
        self.booster = lightgbm.Booster(model_file=os.environ["MODEL_FILE"])

    @bentoml.api
    async def predict(self, features: dict[str, float]) -> dict[str, float]:
        """The probability of the positive class."""
        matrix = np.array([[features[name] for name in NAMES]])
        return {"probability": float(self.booster.predict(matrix, num_threads=1)[0])}
