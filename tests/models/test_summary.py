import pytest
import torch
from torch import nn

from trainkit.errors import ProblemsError
from trainkit.models.cnn import BlockSpec, build_cnn
from trainkit.models.mlp import build_mlp
from trainkit.models.network import config_key
from trainkit.models.pretrained import HeadSpec, build_torchvision
from trainkit.models.sequential import LayerSpec, build_sequential
from trainkit.models.summary import block_table, check_output, check_shapes, layer_table


def residual_cnn():
    blocks = [BlockSpec(4, pool=2), BlockSpec(8, stride=2, padding=1, residual=True, dropout=0.5)]
    return build_cnn((1, 28, 28), 10, blocks=blocks, norm="batch", global_pool="avg", head_sizes=[6])


def two_convs():
    blocks = [BlockSpec(4, pool=2, convs=2), BlockSpec(8, stride=2, padding=1, residual=True, convs=2, norm="group")]
    return build_cnn((1, 28, 28), 10, blocks=blocks, norm="batch", norm_groups=2, global_pool="avg")


def layer_outputs(model, images):
    """What each layer really makes, by name."""
    seen = {}

    def hook(name):
        return lambda module, inputs, output: seen.update({name: (tuple(inputs[0].shape[1:]), tuple(output.shape[1:]))})

    for name, module in model.named_modules():
        if not list(module.children()) and not isinstance(module, nn.Identity):
            module.register_forward_hook(hook(name))
    model(images)
    return seen


@pytest.mark.parametrize(
    "build", [residual_cnn, two_convs, lambda: build_mlp((1, 28, 28), 10, norm="layer", dropout=0.1, output="softmax")]
)
def test_table_has_the_shapes_of_a_real_run_in_its_order(build):
    model = build()
    rows = layer_table(model, (1, 28, 28))
    assert {row.name: (row.input_shape, row.output_shape) for row in rows} == layer_outputs(
        model, torch.randn(2, 1, 28, 28)
    )
    assert [row.name for row in rows] == list(layer_outputs(model, torch.randn(2, 1, 28, 28)))
    assert sum(row.parameters for row in rows) == sum(parameter.numel() for parameter in model.parameters())


def test_costs_are_those_worked_out_by_hand():
    specs = [
        LayerSpec("Conv2d", {"out_channels": 6, "kernel_size": [3, 5], "groups": 2, "padding": "same"}),
        LayerSpec("BatchNorm2d"),
        LayerSpec("ReLU"),
        LayerSpec("Flatten"),
        LayerSpec("Linear"),
    ]
    model = build_sequential((4, 10, 8), 3, layers=specs)
    conv, norm, relu, flatten, linear = layer_table(model, (4, 10, 8))
    assert (conv.parameters, conv.multiply_adds, conv.activation_bytes) == (6 * 2 * 15 + 6, 480 * 2 * 15, 480 * 4)
    assert (norm.parameters, norm.multiply_adds) == (12, 480)
    assert (relu.multiply_adds, relu.activation_bytes, flatten.activation_bytes) == (0, 480 * 4, 0)
    assert (linear.parameters, linear.trainable, linear.multiply_adds) == (1443, 1443, 1440)
    model[4].bias.requires_grad_(False)
    assert layer_table(model, (4, 10, 8))[4].trainable == 1440


def test_rows_name_their_config_key_and_where_the_code_is():
    rows = layer_table(residual_cnn(), (1, 28, 28), source=True)
    by_name = {row.name: row for row in rows}
    assert by_name["blocks.1.shortcut.0"].key == "model.blocks[1]"
    assert by_name["blocks.0.pool"].key == "model.blocks[0].pool"
    of_two = {row.name: row.key for row in layer_table(two_convs(), (1, 28, 28))}
    assert of_two["blocks.0.pool"] == "model.blocks[0].pool"
    assert of_two["blocks.1.residual.branch.conv2"] == of_two["blocks.1.activation2"] == "model.blocks[1]"
    assert by_name["head.linear1"].key == "model.head_sizes[0]"
    file, _, line = by_name["head.linear1"].source.rpartition(":")
    with open(file) as lines:
        assert list(lines)[int(line) - 1].startswith("class Linear(")
    assert layer_table(residual_cnn(), (1, 28, 28))[0].source is None


def test_no_memory_is_taken_for_a_model_on_the_meta_device():
    with torch.device("meta"):
        model = build_mlp((1_000_000,), 10, hidden_sizes=[1_000_000])
    assert check_shapes(model, (1_000_000,)) == (2, 10)
    assert layer_table(model, (1_000_000,))[0].parameters == 1_000_001_000_000


def test_a_shape_that_does_not_fit_names_the_layer():
    with pytest.raises(ProblemsError) as error:
        check_shapes(residual_cnn(), (3, 28, 28))
    assert str(error.value).startswith(
        "model.blocks[0]: Conv2d takes 1 channels, (N, 1, H, W), but its input is (N, 3, 28, 28)"
    )
    with pytest.raises(
        ProblemsError, match=r"model.hidden_sizes\[0\]: Linear takes \(N, 64\), but its input is \(N, 49\)"
    ):
        check_shapes(build_mlp((1, 8, 8), 3, hidden_sizes=[4]), (1, 7, 7))


def test_a_training_batch_of_one_and_batch_norm():
    model = build_mlp((4,), 3, hidden_sizes=[8], norm="batch")
    assert check_shapes(model, (4,), batch_size=2) == (2, 3)
    with pytest.raises(ProblemsError, match=r"model.norm: BatchNorm1d gets one value a feature in a batch of 1"):
        check_shapes(model, (4,), batch_size=1)


def test_config_key_is_that_of_the_nearest_module_that_has_one():
    model = residual_cnn()
    assert config_key(model, "blocks.1.norm") == "model.blocks[1]"
    assert config_key(model, "nowhere") == "model"
    assert config_key(nn.Linear(1, 1), "") == "model"


def test_an_output_of_the_wrong_size_is_explained():
    model = build_mlp((4,), 10, hidden_sizes=[8])
    check_output(model, (4,), output_size=10)
    with pytest.raises(ProblemsError, match=r"the output of the model is \(N, 10\), but data and loss need \(N, 3\)"):
        check_output(model, (4,), output_size=3)


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        # Parameters and GMACs as torchvision documents them for its weights of 1,000 classes.
        ("resnet18", 11_689_512, 1.814e9),
        ("efficientnet_b0", 5_288_548, 0.386e9),
        ("mobilenet_v3_small", 2_542_856, 0.057e9),
        ("swin_t", 28_288_354, 4.491e9),
        ("vit_b_16", 86_567_656, 17.564e9),
    ],
)
def test_the_models_of_torchvision_have_their_documented_sizes(name, parameters, multiply_adds):
    from torchvision import models

    with torch.device("meta"):
        model = getattr(models, name)()
    rows = layer_table(model, (3, 224, 224))
    assert sum(row.parameters for row in rows) == sum(row.trainable for row in rows) == parameters
    products = sum(row.multiply_adds for row in rows if "Norm" not in row.type)
    assert products == pytest.approx(multiply_adds, rel=0.01)
    assert check_shapes(model, (3, 224, 224)) == (2, 1000)
    check_output(model, (3, 224, 224), output_size=1000)
    assert len({row.name for row in rows}) == len(rows)


def test_a_layer_that_is_called_twice_has_two_rows_and_its_parameters_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
            self.other.weight = self.layer.weight
            self.scale = nn.Parameter(torch.ones(4))
            self.unused = nn.Linear(4, 2)

        def forward(self, rows):
            return self.other(self.layer(self.layer(rows))) * self.scale

    rows = layer_table(Tied(), (4,))
    assert [(row.name, row.parameters) for row in rows] == [
        ("", 4 + 10),
        ("layer", 20),
        ("layer (call 2)", 0),
        ("other", 4),
    ]
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in Tied().parameters())


def test_costs_of_layers_beyond_the_builders():
    attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    rows = {row.name: row for row in layer_table(attention, (5, 8))}
    projections, scores = 4 * 5 * 8 * 8, 2 * 5 * 5 * 8
    assert rows["self_attn"].multiply_adds == projections + scores
    assert rows["self_attn"].parameters == 4 * (8 * 8 + 8)
    model = nn.Sequential(nn.Conv1d(3, 8, 3), nn.ConvTranspose1d(8, 4, 3, stride=2), nn.ReLU(inplace=True))
    conv, transposed, relu = layer_table(model, (3, 9))
    assert (conv.multiply_adds, transposed.multiply_adds) == (7 * 8 * 3 * 3, 7 * 8 * 4 * 3)
    assert (transposed.activation_bytes, relu.activation_bytes) == (4 * 15 * 4, 0)
    model = nn.Sequential(nn.LSTM(4, 8, batch_first=True))
    (lstm,) = layer_table(model, (5, 4))
    assert (lstm.output_shape, lstm.multiply_adds) == ((5, 8), 5 * 4 * 8 * (4 + 8))
    with pytest.raises(ProblemsError, match="Sequential returns tuple; a layer has to return one tensor"):
        check_shapes(model, (5, 4))


def test_the_costs_agree_with_the_counter_of_pytorch():
    from torch.utils.flop_counter import FlopCounterMode

    model = residual_cnn().eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 1, 28, 28))
    rows = [row for row in layer_table(model, (1, 28, 28)) if "Norm" not in row.type]
    assert sum(row.multiply_adds for row in rows) == counter.get_total_flops() // 2


def test_layers_by_blocks():
    """Numbered blocks in one row each, with all that is in them; the layers around them stay."""
    model = build_torchvision("resnet18", 7, input_shape=(3, 64, 64), head=HeadSpec())
    rows = layer_table(model, (3, 64, 64))
    blocks = block_table(model, rows)
    names = [row.name for row in blocks]
    assert names[:6] == ["conv1", "bn1", "relu", "maxpool", "layer1.0", "layer1.1"]
    assert names[-3:] == ["layer4.1", "avgpool", "fc"]
    assert (blocks[6].type, blocks[6].input_shape, blocks[6].output_shape) == ("BasicBlock", (64, 16, 16), (128, 8, 8))
    for column in ("parameters", "trainable", "multiply_adds", "activation_bytes"):
        assert sum(getattr(row, column) for row in blocks) == sum(getattr(row, column) for row in rows)


def test_parameters_of_a_block_itself_are_in_its_row():
    with torch.device("meta"):
        model = build_torchvision("convnext_tiny", 7, input_shape=(3, 64, 64), head=HeadSpec())
    names = [row.name for row in block_table(model, layer_table(model, (3, 64, 64)))]
    assert names[:5] == ["features.0", "features.1.0", "features.1.1", "features.1.2", "features.2"]
