"""Writes a LightGBM text model as an MLflow model folder: save.py MODEL_FILE FOLDER."""

import sys

import lightgbm
import mlflow.lightgbm

mlflow.lightgbm.save_model(lightgbm.Booster(model_file=sys.argv[1]), sys.argv[2])
