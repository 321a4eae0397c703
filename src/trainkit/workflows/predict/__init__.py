"""``trainkit predict``."""

from trainkit.workflows.predict.run import Prediction, Predictor, open_model, predict

__all__ = [
    "Prediction",
    "Predictor",
    "open_model",
    "predict",
]
