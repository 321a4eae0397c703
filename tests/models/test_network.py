"""Every kind of network can be scripted, traced, exported, copied, and laid out as channels last."""

import copy
import warnings

import pytest
import torch

from trainkit.models.cnn import BlockSpec, build_cnn
from trainkit.models.mlp import build_mlp
from trainkit.models.network import GlobalAvgPool2d, activation_layer, output_layer
from trainkit.models.sequential import LayerSpec, build_sequential

IMAGE = (3, 12, 12)
RESIDUAL = [
    BlockSpec(8, pool=2, residual=True, dropout=0.2),
    BlockSpec(8, [3, 1], residual=True),
    BlockSpec(4, 2, pool=2, pool_type="avg"),
]
NETWORKS = {
    "mlp": lambda: build_mlp((7,), 3),
    "mlp_image": lambda: build_mlp(IMAGE, 3, hidden_sizes=[9, 8], norm="batch", dropout=0.3, activation="elu"),
    "mlp_layer_norm": lambda: build_mlp(IMAGE, 3, norm="layer", activation="gelu", output="log_softmax"),
    "linear": lambda: build_mlp((7,), 1, hidden_sizes=[], output="sigmoid"),
    "cnn": lambda: build_cnn(IMAGE, 3, blocks=[BlockSpec(8, 5, pool=2)], norm="batch", output="softmax"),
    "cnn_plain": lambda: build_cnn(IMAGE, 3, blocks=[BlockSpec(8, padding="valid")], activation="silu", dropout=0.1),
    "cnn_residual": lambda: build_cnn(IMAGE, 3, blocks=RESIDUAL, norm="batch", global_pool="avg", head_dropout=0.1),
    "cnn_max": lambda: build_cnn(IMAGE, 3, blocks=RESIDUAL, activation="leaky_relu", global_pool="max", head_sizes=[5]),
    "sequential": lambda: build_sequential(
        IMAGE,
        3,
        layers=[
            LayerSpec("Conv2d", {"out_channels": 4, "kernel_size": 3}),
            LayerSpec("BatchNorm2d"),
            LayerSpec("ReLU"),
            LayerSpec("AdaptiveAvgPool2d", {"output_size": 2}),
            LayerSpec("Flatten"),
            LayerSpec("Linear"),
            LayerSpec("LogSoftmax"),
        ],
    ),
}
ROWS = {"mlp", "linear"}


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    model = NETWORKS[request.param]()
    inputs = torch.randn(5, *(IMAGE if request.param not in ROWS else (7,)))
    model(inputs)  # batch-norm statistics that are not the ones it starts with
    return model.eval(), inputs


@pytest.mark.filterwarnings("ignore")
def test_can_be_scripted_and_traced(network, tmp_path):
    model, inputs = network
    scripted = torch.jit.script(model)
    torch.jit.save(scripted, tmp_path / "model.pt")
    assert torch.equal(torch.jit.load(tmp_path / "model.pt")(inputs), model(inputs))
    traced = torch.jit.trace(model, inputs)
    assert torch.equal(traced(inputs[:2]), model(inputs[:2]))


@pytest.mark.filterwarnings("ignore")
def test_can_be_scripted_for_training(network):
    model, inputs = network
    scripted = torch.jit.script(model.train())
    assert scripted(inputs).shape == (5, *model(inputs).shape[1:])


def test_can_be_exported_with_any_batch_size(network):
    model, inputs = network
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.testing.assert_close(program.module()(inputs[:3]), model(inputs[:3]))


@pytest.mark.parametrize("network", sorted(NETWORKS.keys() - ROWS), indirect=True)
def test_is_the_same_in_channels_last(network):
    model, inputs = network
    expected = model(inputs)
    moved = copy.deepcopy(model).to(memory_format=torch.channels_last)
    torch.testing.assert_close(moved(inputs.to(memory_format=torch.channels_last)), expected)


def test_a_copy_keeps_the_config_keys(network):
    model, _ = network
    assert copy.deepcopy(model).config_keys == model.config_keys


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", torch.relu),
        ("leaky_relu", torch.nn.functional.leaky_relu),
        ("gelu", torch.nn.functional.gelu),
        ("silu", torch.nn.functional.silu),
        ("tanh", torch.tanh),
        ("sigmoid", torch.sigmoid),
        ("elu", torch.nn.functional.elu),
    ],
)
def test_activations_are_those_of_torch(name, function):
    values = torch.linspace(-3, 3, 13)
    before = values.clone()
    assert torch.equal(activation_layer(name)(values), function(values))
    assert torch.equal(values, before)


def test_output_activations_are_over_the_classes():
    scores = torch.randn(4, 3)
    assert output_layer("none") is None
    assert torch.equal(output_layer("softmax")(scores), scores.softmax(dim=1))
    assert torch.equal(output_layer("log_softmax")(scores), scores.log_softmax(dim=1))
    assert torch.equal(output_layer("sigmoid")(scores), scores.sigmoid())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(6, 8, 28, 28), (5, 64, 7, 5), (3, 4, 1, 1), (4, 1, 9, 9)])
def test_the_global_mean_and_its_gradient_are_pytorchs_bit_for_bit(shape, training, dtype, layout):
    images = torch.randn(shape).to(dtype).contiguous(memory_format=layout).requires_grad_()
    upstream = torch.randn(shape[0], shape[1], 1, 1).to(dtype)
    found = []
    for layer in (torch.nn.AdaptiveAvgPool2d(1), GlobalAvgPool2d().train(training)):
        images.grad = None
        output = layer(images)
        output.backward(upstream)
        found.append((output.detach(), images.grad))
    (expected, expected_grad), (output, grad) = found
    assert output.shape == expected.shape
    assert torch.equal(output, expected)
    assert torch.equal(grad, expected_grad)


def test_an_exported_network_averages_with_the_operation_that_other_runtimes_know():
    model = build_cnn(IMAGE, 3, blocks=[BlockSpec(8)], global_pool="avg").eval()
    images = torch.randn(2, *IMAGE).contiguous(memory_format=torch.channels_last)
    operations = [str(node.target) for node in torch.export.export(model, (images,)).graph.nodes]
    assert "aten.adaptive_avg_pool2d.default" in operations
