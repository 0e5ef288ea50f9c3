"""The least that answers one row: FastAPI, a pydantic body, a booster. Nothing else is done."""

import lightgbm
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

booster = lightgbm.Booster(model_file="model.txt")
names = [f"f{number:02d}" for number in range(20)]
app = FastAPI()


class Row(BaseModel):
    """One row by feature name."""

    features: dict[str, float]


@app.post("/predict")
async def predict(row: Row) -> dict[str, float]:
    """The probability of the positive class."""
    matrix = np.array([[row.features[name] for name in names]])
    return {"probability": float(booster.predict(matrix, num_threads=1)[0])}
