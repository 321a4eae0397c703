"""``trainkit predict``."""
# mypy: implicit-reexport

from trainkit.workflows.predict.run import Prediction, Predictor, check_prediction, make_input_spec, open_model, predict
from trainkit.workflows.predict.samples import steps_for
from trainkit.workflows.predict.shared import PATIENCE
