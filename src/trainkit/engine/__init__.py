"""The training loop and its parts: state and plan, steps, losses, metrics, optimizers, schedules."""
# mypy: implicit-reexport

from trainkit.engine.averages import Swa
from trainkit.engine.captured import CapturedStep
from trainkit.engine.compile import WITH_CUDA_GRAPHS, compiled
from trainkit.engine.freezing import Freezing, frozen_until
from trainkit.engine.layer_decay import layer_scales
from trainkit.engine.loop import Outcome, evaluate, fit, train_epoch
from trainkit.engine.losses import (
    EXPECTS,
    Loss,
    LossName,
    auto_loss,
    balanced_pos_weight,
    balanced_weight,
    build_loss,
    build_own_loss,
    output_size,
    outputs_of,
)
from trainkit.engine.metrics import EXTRA_METRICS, ClassificationMetrics, RegressionMetrics
from trainkit.engine.mixing import MixedBatches, Mixing
from trainkit.engine.monitors import Best, EarlyStopping, Plateau
from trainkit.engine.muon import hidden_matrices
from trainkit.engine.nonfinite import Guard, NonFiniteError
from trainkit.engine.optimizers import Ema, build_optimizer
from trainkit.engine.own_metrics import OwnMetric, WithOwnMetrics
from trainkit.engine.parameter_groups import GroupSpec, ParameterGroup, covering_names, group_parameters
from trainkit.engine.plan import Batches, Metrics, Plan, Unit
from trainkit.engine.ranking import average_precision, roc_auc
from trainkit.engine.records import Checkpointer, Recorder, Saver
from trainkit.engine.schedules import Schedule, build_factor, build_schedule, duration_to_steps
from trainkit.engine.state import Progress, TrainState
from trainkit.engine.step import compute_gradients, train_step
