"""From config sections to objects: the only folder that knows both the schema and the machine."""
# mypy: implicit-reexport

from trainkit.builders.compiling import choose_compile
from trainkit.builders.data import (
    ImageFiles,
    build_batch_transforms,
    check_rules,
    layout_of,
    load_data,
    load_source,
    model_input_shape,
    section_of,
)
from trainkit.builders.ensembles import shared_preprocessing
from trainkit.builders.features import choose_features, frozen_epochs, on_features
from trainkit.builders.fine_tuning import describe_frozen, freezes_random_weights, frozen_parameters
from trainkit.builders.memory import Memory, data_bytes, estimate_memory, residency_of
from trainkit.builders.metrics import extra_metrics, monitor_of
from trainkit.builders.model import (
    build_loss_for,
    build_model,
    eval_batch_size,
    is_convolutional,
    loss_name,
    output_size_for,
    outputs_as,
    place,
)
from trainkit.builders.own_parts import build_module, build_part
from trainkit.builders.precision import choose_precision, choose_scoring_precision
from trainkit.builders.pretrained import Loaded, check_kept_classes, load_pretrained
from trainkit.builders.setup import Setup, build_setup
from trainkit.builders.static_transforms import (
    build_static_transforms,
    build_training_transforms,
    count_static_transforms,
    crop_choices,
    decoding_of,
)
from trainkit.builders.targets import scale_choice
from trainkit.builders.threads import choose_threads, describe_others, most_threads, use_most_threads
from trainkit.builders.trained import TrainedModel, load_scored_weights, open_trained, scored_weights, with_tta
from trainkit.builders.training import (
    build_schedule_for,
    describe_ema,
    describe_muon,
    mixing_of,
    parameter_groups,
)
