"""``trainkit predict``."""

from trainkit.workflows.predict.run import Prediction, Predictor, make_input_spec, open_model, predict
from trainkit.workflows.predict.samples import InputSpec, steps_for

__all__ = [
    "InputSpec",
    "Prediction",
    "Predictor",
    "make_input_spec",
    "open_model",
    "predict",
    "steps_for",
]
