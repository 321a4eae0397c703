"""Every kind of network can be scripted, traced, exported, copied, and laid out as channels last; first weights."""

import copy
import warnings

import pytest
import torch
from torch import nn

from trainkit.models.cnn import BlockSpec, build_cnn
from trainkit.models.mlp import build_mlp
from trainkit.models.network import GlobalAvgPool2d, GroupNorm, Network, activation_layer, initialize, output_layer
from trainkit.models.sequential import LayerSpec, build_sequential

IMAGE = (3, 12, 12)
RESIDUAL = [
    BlockSpec(8, pool=2, residual=True, dropout=0.2),
    BlockSpec(8, [3, 1], residual=True),
    BlockSpec(4, 2, pool=2, pool_type="avg"),
]
TWO_CONVS = [
    BlockSpec(8, convs=2, pool=2),
    BlockSpec(8, convs=2, residual=True, dropout=0.2, norm="group"),
    BlockSpec(12, stride=2, padding=1, convs=3, residual=True, norm="group"),
    BlockSpec(6, convs=2, residual=True, pool=2, activation="silu"),
]
NETWORKS = {
    "mlp": lambda: build_mlp((7,), 3),
    "mlp_image": lambda: build_mlp(IMAGE, 3, hidden_sizes=[9, 8], norm="batch", dropout=0.3, activation="elu"),
    "mlp_layer_norm": lambda: build_mlp(IMAGE, 3, norm="layer", activation="gelu", output="log_softmax"),
    "linear": lambda: build_mlp((7,), 1, hidden_sizes=[], output="sigmoid"),
    "cnn": lambda: build_cnn(IMAGE, 3, blocks=[BlockSpec(8, 5, pool=2)], norm="batch", output="softmax"),
    "cnn_plain": lambda: build_cnn(IMAGE, 3, blocks=[BlockSpec(8, padding="valid")], activation="silu", dropout=0.1),
    "cnn_residual": lambda: build_cnn(IMAGE, 3, blocks=RESIDUAL, norm="batch", global_pool="avg", head_dropout=0.1),
    "cnn_two_convs": lambda: build_cnn(IMAGE, 3, blocks=TWO_CONVS, norm="batch", norm_groups=4, bias=False),
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
    "sequential_residual": lambda: build_sequential(
        IMAGE,
        3,
        layers=[
            LayerSpec(
                "residual",
                {
                    "residual": [
                        LayerSpec("Conv2d", {"out_channels": 4, "kernel_size": 3, "padding": 1, "stride": 2}),
                        LayerSpec("GroupNorm", {"num_groups": 2}),
                        LayerSpec("Dropout2d"),
                    ],
                    "shortcut": [LayerSpec("Conv2d", {"out_channels": 4, "kernel_size": 1, "stride": 2})],
                },
            ),
            LayerSpec("residual", {"residual": [LayerSpec("ReLU"), LayerSpec("BatchNorm2d")]}),
            LayerSpec("Flatten"),
            LayerSpec("Linear"),
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


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 5, 3)])
def test_group_norm_is_pytorchs_and_is_traced_without_a_warning(shape):
    inputs = torch.randn(shape)
    ours, theirs = GroupNorm(3, 6), nn.GroupNorm(3, 6)
    assert torch.equal(ours(inputs), theirs(inputs))
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(ours, inputs[:2])
    assert torch.equal(traced(inputs), theirs(inputs))


def test_an_exported_network_averages_with_the_operation_that_other_runtimes_know():
    model = build_cnn(IMAGE, 3, blocks=[BlockSpec(8)], global_pool="avg").eval()
    images = torch.randn(2, *IMAGE).contiguous(memory_format=torch.channels_last)
    operations = [str(node.target) for node in torch.export.export(model, (images,)).graph.nodes]
    assert "aten.adaptive_avg_pool2d.default" in operations


def normed_cnn():
    return build_cnn((1, 8, 8), 4, blocks=[BlockSpec(4), BlockSpec(6, residual=True)], norm="batch", head_sizes=[10])


KINDS = [
    ("xavier_uniform", {"gain": 2.0}, lambda w: nn.init.xavier_uniform_(w, gain=2.0)),
    ("xavier_normal", {}, nn.init.xavier_normal_),
    (
        "kaiming_uniform",
        {"mode": "fan_out"},
        lambda w: nn.init.kaiming_uniform_(w, mode="fan_out", nonlinearity="relu"),
    ),
    ("kaiming_normal", {"nonlinearity": "tanh"}, lambda w: nn.init.kaiming_normal_(w, nonlinearity="tanh")),
    ("orthogonal", {"gain": 0.5}, lambda w: nn.init.orthogonal_(w, gain=0.5)),
]


@pytest.mark.parametrize(("kind", "knobs", "by_hand"), KINDS, ids=[kind[0] for kind in KINDS])
def test_weights_are_those_of_torch(kind, knobs, by_hand):
    model, expected = normed_cnn(), normed_cnn()
    torch.manual_seed(5)
    initialize(model, kind, **knobs)
    torch.manual_seed(5)
    for layer in expected.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            by_hand(layer.weight)
            nn.init.zeros_(layer.bias)
    for (name, ours), theirs in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_default_leaves_what_the_constructors_drew():
    torch.manual_seed(5)
    model = normed_cnn()
    before = [parameter.clone() for parameter in model.parameters()]
    initialize(model, "default")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_seed_of_the_default_generator_decides():
    def weights(seed):
        torch.manual_seed(seed)
        model = normed_cnn()
        initialize(model, "orthogonal")
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_building_on_the_meta_device_draws_nothing():
    before = torch.get_rng_state()
    with torch.device("meta"):
        model = normed_cnn()
    initialize(model, "kaiming_normal")
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def chain(*layers):
    return Network([(str(at), layer) for at, layer in enumerate(layers)], config_keys={})


def in_bf16(model, rows):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model(rows)


def test_the_last_layer_with_weights_computes_in_fp32() -> None:
    torch.manual_seed(0)
    seen = []
    model = chain(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2), nn.Sigmoid())
    for layer in model:
        layer.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    rows = torch.randn(4, 5)
    outputs = in_bf16(model, rows)
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float32]
    hidden = torch.relu(rows.bfloat16() @ model[0].weight.bfloat16().T + model[0].bias.bfloat16()).float()
    torch.testing.assert_close(outputs, torch.sigmoid(hidden @ model[2].weight.T + model[2].bias), rtol=0, atol=2e-3)


def test_large_logits_keep_their_gradient_in_bf16() -> None:
    """In bf16 a sigmoid is 1 from 6.2 on, and a wrong, confident sample would have no gradient."""
    model = chain(nn.Linear(1, 1), nn.Linear(1, 1), nn.Sigmoid())
    with torch.no_grad():
        for layer, weight in ((model[0], 1.0), (model[1], 7.0)):
            layer.weight.fill_(weight)
            layer.bias.zero_()
    output = in_bf16(model, torch.ones(1, 1))
    assert output.item() < 1
    nn.functional.binary_cross_entropy(output, torch.zeros(1, 1)).backward()
    assert model[1].bias.grad.item() == pytest.approx(0.999, abs=1e-3)


def test_programs_hold_the_layers_alone():
    """Neither TorchScript nor torch.export sees the way through autocast."""
    model = chain(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    rows = torch.randn(4, 5)
    for program in (
        torch.jit.script(model),
        torch.jit.trace(model, rows),
        torch.export.export(model, (rows,)).module(),
    ):
        assert torch.equal(program(rows), model(rows))
    assert "autocast" not in str(torch.export.export(model, (rows,)).graph)
