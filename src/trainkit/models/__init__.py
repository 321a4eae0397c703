"""Networks built from plain values, made of ``torch.nn`` modules; the layers, shapes and costs of any model."""
# mypy: implicit-reexport

from trainkit.models.backbone import features_of, head_of, head_prefixes
from trainkit.models.cnn import BlockSpec, build_cnn
from trainkit.models.dropout import ScheduledDropout, schedule_dropout, scheduled_dropouts
from trainkit.models.ensembles import Ensemble, EnsembleMember, NormalizeChannels, Rescale
from trainkit.models.members import MeanOfViews, Outputs, mean_of_members
from trainkit.models.mlp import build_mlp
from trainkit.models.network import call_name, config_key, initialize
from trainkit.models.pretrained import (
    HeadSpec,
    build_timm,
    build_torchvision,
    current_names,
    head_names,
    is_timm_convolutional,
)
from trainkit.models.sequential import LayerSpec, build_sequential
from trainkit.models.summary import LayerRow, block_table, check_output, check_shapes, layer_table, own_parameters
from trainkit.models.table_layers import fold_gains, one_hot_layer
from trainkit.models.tabular import build_tabular_mlp, is_tabular, suit_to_data
from trainkit.models.whitening import begin_as_identity, whiten
