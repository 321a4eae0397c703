import pytest
import torch
from torch import nn

from trainkit.errors import ProblemsError
from trainkit.models.mlp import build_mlp
from trainkit.models.network import config_key
from trainkit.models.sequential import LayerSpec, build_sequential


def layers(*specs):
    return [LayerSpec(spec) if isinstance(spec, str) else LayerSpec(spec[0], spec[1]) for spec in specs]


CONVOLUTIONAL = layers(
    ("Conv2d", {"out_channels": 6, "kernel_size": [3, 3], "padding": "same", "in_channels": None}),
    "BatchNorm2d",
    ("LeakyReLU", {"negative_slope": 0.2}),
    ("MaxPool2d", {"kernel_size": 2, "stride": None}),
    ("Dropout2d", {"p": 0.1}),
    ("Conv2d", {"out_channels": 4, "kernel_size": 3, "groups": 2, "bias": False}),
    ("AvgPool2d", {"kernel_size": 2}),
    ("AdaptiveAvgPool2d", {"output_size": [2, 1]}),
    "Flatten",
    ("Linear", {"out_features": 12}),
    "BatchNorm1d",
    "SiLU",
    "LayerNorm",
    ("Dropout", {"p": 0.1}),
    ("Linear", {"out_features": None}),
    "LogSoftmax",
)


def test_infers_what_is_left_out():
    model = build_sequential((3, 12, 12), 5, layers=CONVOLUTIONAL)
    assert (model[0].in_channels, model[1].num_features, model[5].in_channels) == (3, 6, 6)
    assert (model[9].in_features, model[10].num_features, model[12].normalized_shape) == (8, 12, (12,))
    assert (model[14].in_features, model[14].out_features, model[15].dim) == (12, 5, 1)
    assert model(torch.randn(2, 3, 12, 12)).shape == (2, 5)


def test_explicit_arguments_reach_the_layers():
    model = build_sequential((3, 12, 12), 5, layers=CONVOLUTIONAL)
    assert (model[2].negative_slope, model[4].p, model[5].groups, model[5].bias) == (0.2, 0.1, 2, None)


def test_starts_as_the_layers_written_by_hand():
    torch.manual_seed(1)
    built = build_sequential((4,), 3, layers=layers(("Linear", {"out_features": 8}), "Tanh", "Linear"))
    torch.manual_seed(1)
    by_hand = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    assert {k: v.tolist() for k, v in built.state_dict().items()} == {
        k: v.tolist() for k, v in by_hand.state_dict().items()
    }


RESIDUAL = [
    *layers(("Conv2d", {"out_channels": 4, "kernel_size": 3}), ("GroupNorm", {"num_groups": 2, "num_channels": None})),
    LayerSpec(
        "residual",
        {
            "residual": layers(
                ("Conv2d", {"out_channels": 6, "kernel_size": 3, "padding": 1, "stride": 2}),
                "ReLU",
                ("Conv2d", {"out_channels": 6, "kernel_size": 3, "padding": 1}),
            ),
            "shortcut": layers(("Conv2d", {"out_channels": 6, "kernel_size": 1, "stride": 2}), "BatchNorm2d"),
        },
    ),
    *layers("ReLU", "Flatten", ("Linear", {"out_features": 8})),
    LayerSpec("residual", {"residual": layers("ReLU", ("Linear", {"out_features": 8})), "shortcut": []}),
    *layers("Linear"),
]


def test_residual_parts_start_and_compute_as_the_network_written_by_hand():
    torch.manual_seed(1)
    built = build_sequential((3, 8, 8), 5, layers=RESIDUAL)
    torch.manual_seed(1)
    first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4))
    branch = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1))
    shortcut = nn.Sequential(nn.Conv2d(4, 6, 1, stride=2), nn.BatchNorm2d(6))
    rows, inner, last = nn.Linear(54, 8), nn.Linear(8, 8), nn.Linear(8, 5)
    by_hand = nn.ModuleList([first, branch, shortcut, rows, inner, last])
    for ours, theirs in zip(built.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    images = torch.randn(4, 3, 8, 8)
    before = first(images)
    hidden = rows(torch.relu(branch(before) + shortcut(before)).flatten(1))
    assert torch.equal(built(images), last(inner(torch.relu(hidden)) + hidden))
    assert [config_key(built, name) for name in ("2", "2.branch.0", "2.shortcut.1", "6.branch.1")] == [
        "model.layers[2]",
        "model.layers[2].residual[0]",
        "model.layers[2].shortcut[1]",
        "model.layers[6].residual[1]",
    ]


def test_an_output_of_the_wrong_size_is_that_of_a_layer_in_a_residual_part():
    part = LayerSpec("residual", {"residual": layers(("Linear", {"out_features": 4}))})
    with pytest.raises(ProblemsError) as error:
        build_sequential((4,), 3, layers=[part])
    (problem,) = error.value.problems
    assert problem.key == "model.layers[0].residual[0]"
    assert "the output of the model is (N, 4), but data and loss need (N, 3)" in problem.message


def residual(*specs, shortcut=()):
    return LayerSpec("residual", {"residual": layers(*specs), "shortcut": layers(*shortcut)})


SUM = "a residual block adds its input to the output of its layers, but the shortcut is"


@pytest.mark.parametrize(
    ("input_shape", "part", "expected"),
    [
        (
            (3, 7, 8),
            residual(("Conv2d", {"out_channels": 4, "kernel_size": 3, "padding": 1, "stride": 2})),
            f"model.layers[0]: {SUM} (N, 3, 7, 8) and the layers make (N, 4, 4, 4); "
            "add shortcut: [{type: Conv2d, out_channels: 4, kernel_size: 1, stride: 2}]",
        ),
        (
            (1, 8, 8),
            residual(("Conv2d", {"out_channels": 4, "kernel_size": 3, "padding": "same"})),
            "(N, 1, 8, 8) and the layers make (N, 4, 8, 8); "
            "add shortcut: [{type: Conv2d, out_channels: 4, kernel_size: 1}]",
        ),
        (
            (3, 8, 8),
            residual(("Conv2d", {"out_channels": 3, "kernel_size": 3})),
            "make (N, 3, 6, 6); give its convolutions a padding of half of their kernel_size, or add a shortcut that",
        ),
        ((4,), residual(("Linear", {"out_features": 6})), "add shortcut: [{type: Linear, out_features: 6}]"),
        ((3, 8, 8), residual("Flatten"), "let residual and shortcut make the same shape"),
        (
            (4,),
            residual(("Linear", {"out_features": 6}), shortcut=[("Linear", {"out_features": 1})]),
            f"model.layers[0]: {SUM} (N, 1) and the layers make (N, 6); let residual and shortcut make the same shape",
        ),
        ((4,), residual("ReLU", "Conv2d"), "model.layers[0].residual[1]: "),
        ((4,), residual("ReLU", shortcut=["BatchNorm2d"]), "model.layers[0].shortcut[0]: BatchNorm2d takes images"),
        ((4,), residual("Linear"), "model.layers[0].residual[0].out_features: out_features is missing"),
        (
            (6, 2, 2),
            residual(("GroupNorm", {"num_groups": 4})),
            "model.layers[0].residual[0]: torch.nn.GroupNorm does not take these arguments: num_channels (6) must be "
            "divisible by num_groups (4)",
        ),
        (
            (6, 2, 2),
            residual(("GroupNorm", {"num_groups": 4, "num_channels": 8})),
            "GroupNorm takes 8 channels, but its input is (N, 6, 2, 2); set num_channels to 6 or leave it out",
        ),
        ((6,), residual(("GroupNorm", {"num_groups": 6})), "one value in each, and would make all outputs 0"),
    ],
)
def test_a_residual_part_that_does_not_fit_is_named(input_shape, part, expected):
    with pytest.raises(ProblemsError) as error:
        build_sequential(input_shape, 5, layers=[part, *layers("Flatten", "Linear")])
    (problem,) = error.value.problems
    assert expected in f"{problem.key}: {problem.message}"


def test_a_network_may_end_in_convolutions():
    specs = layers(
        ("Conv2d", {"out_channels": 5, "kernel_size": 3}), ("AdaptiveAvgPool2d", {"output_size": 1}), "Flatten"
    )
    assert build_sequential((1, 8, 8), 5, layers=specs)(torch.randn(2, 1, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize(
    ("input_shape", "specs", "expected"),
    [
        (
            (1, 28, 28),
            ["Linear"],
            "model.layers[0]: Linear takes rows (N, F), but its input is (N, 1, 28, 28); put a Flatten layer before it",
        ),
        (
            (1, 28, 28),
            [("Linear", {"in_features": 784})],
            "model.layers[0]: Linear takes rows (N, 784), but its input is (N, 1, 28, 28); put a Flatten layer "
            "before it, which makes it (N, 784), and set in_features to 784 or leave it out",
        ),
        (
            (1, 28, 28),
            ["Flatten", ("Linear", {"in_features": 700})],
            "model.layers[1]: Linear takes (N, 700), but its input is (N, 784); set in_features to 784 or leave it out",
        ),
        (
            (3, 8, 8),
            [("Conv2d", {"out_channels": 4, "kernel_size": 3, "in_channels": 1})],
            "model.layers[0]: Conv2d takes 1 channels, (N, 1, H, W), but its input is (N, 3, 8, 8); "
            "set in_channels to 3",
        ),
        (
            (3, 8, 8),
            [("Conv2d", {"out_channels": 4, "kernel_size": 3, "dilation": 5})],
            "model.layers[0]: Conv2d has a kernel of 3 x 3 (over 11 x 11 with its dilation), "
            "larger than its input (N, 3, 8, 8)",
        ),
        (
            (3, 8, 8),
            [("Conv2d", {"out_channels": 4, "kernel_size": 3, "groups": 2})],
            "model.layers[0].groups: groups must divide in_channels 3, got 2",
        ),
        (
            (3, 8, 8),
            [("Conv2d", {"out_channels": 4, "kernel_size": 3, "padding": "same", "stride": 2})],
            "model.layers[0]: padding same keeps the size and so needs stride 1, got stride 2",
        ),
        (
            (3, 8, 8),
            [("BatchNorm1d", {})],
            "BatchNorm1d takes rows (N, 3), but its input is (N, 3, 8, 8); use BatchNorm2d",
        ),
        ((30,), ["BatchNorm2d"], "BatchNorm2d takes images (N, C, H, W), but its input is (N, 30); use BatchNorm1d"),
        (
            (30,),
            [("BatchNorm1d", {"num_features": 3})],
            "takes 3 features, but its input is (N, 30); set num_features to 30",
        ),
        (
            (30,),
            [("LayerNorm", {"normalized_shape": 3})],
            "LayerNorm takes inputs that end in 3, but its input is (N, 30)",
        ),
        ((30,), ["Dropout2d"], "Dropout2d takes images (N, C, H, W), but its input is (N, 30); use Dropout"),
        ((30,), [("MaxPool2d", {"kernel_size": 2})], "MaxPool2d takes images (N, C, H, W), but its input is (N, 30)"),
        ((1, 4, 4), [("MaxPool2d", {"kernel_size": 2, "padding": 2})], "padding 2, more than half of its window 2 x 2"),
        (
            (1, 4, 4),
            [("AvgPool2d", {"kernel_size": 5})],
            "AvgPool2d has a window of 5 x 5, larger than its input (N, 1, 4, 4)",
        ),
        ((1, 4, 4), [("AdaptiveAvgPool2d", {"output_size": 1}), "Softmax"], "the output of the model is (N, 1, 1, 1)"),
        (
            (30,),
            ["Linear", ("Linear", {"out_features": 5})],
            "model.layers[0].out_features: out_features is missing; it may be left out in the last Linear layer only",
        ),
        (
            (30,),
            [("Linear", {"out_features": 7}), "Softmax"],
            "model.layers[0]: the output of the model is (N, 7), but data and loss need (N, 5)",
        ),
        (
            (1, 8, 8),
            [("Conv2d", {"out_channels": 5, "kernel_size": 3})],
            "model.layers[0]: the output of the model is (N, 5, 6, 6), but data and loss need (N, 5); "
            "end it with Flatten",
        ),
        ((30,), ["Linaer"], "model.layers[0].type: unknown layer, got Linaer; known: Linear, Conv2d"),
        ((30,), [("ReLU", {"slope": 1})], "model.layers[0]: torch.nn.ReLU does not take these arguments"),
    ],
)
def test_a_layer_that_does_not_fit_is_named(input_shape, specs, expected):
    with pytest.raises(ProblemsError) as error:
        build_sequential(input_shape, 5, layers=layers(*specs))
    (problem,) = error.value.problems
    assert expected in f"{problem.key}: {problem.message}"


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("input_shape", "output_size", "hidden_sizes", "parameters"),
    [
        ((1, 28, 28), 10, [128, 64], 109_386),
        ((1, 28, 28), 10, [512, 256], 535_818),
        ((10,), 1, [5], 61),
        ((5,), 1, [8], 57),
        ((4,), 3, [], 15),
    ],
)
def test_an_mlp_has_the_well_known_number_of_parameters(input_shape, output_size, hidden_sizes, parameters):
    assert count(build_mlp(input_shape, output_size, hidden_sizes=hidden_sizes)) == parameters


def test_an_mlp_starts_and_computes_as_the_network_written_by_hand():
    torch.manual_seed(3)
    built = build_mlp((1, 8, 8), 10, hidden_sizes=[32, 16], activation="tanh", norm="batch", output="log_softmax")
    torch.manual_seed(3)
    by_hand = nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Tanh()),
        *(nn.Linear(32, 16), nn.BatchNorm1d(16), nn.Tanh()),
        *(nn.Linear(16, 10), nn.LogSoftmax(dim=1)),
    )
    images = torch.randn(5, 1, 8, 8)
    assert [type(a) for a in built] == [type(b) for b in by_hand]
    for ours, theirs in zip(built.parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(built(images), by_hand(images))


def test_what_is_switched_off_leaves_no_layer():
    assert [name for name, _ in build_mlp((4,), 3, hidden_sizes=[8]).named_children()] == [
        "linear1",
        "activation1",
        "output",
    ]


def test_each_layer_knows_its_config_key():
    model = build_mlp((1, 2, 2), 3, hidden_sizes=[8, 6], norm="layer", dropout=0.5, output="softmax")
    assert model.config_keys["linear2"] == "model.hidden_sizes[1]"
    assert model.config_keys["norm1"] == "model.norm"
    assert model.config_keys["dropout2"] == "model.dropout"
    assert model.config_keys["output_activation"] == "model.output"
    assert set(model.config_keys) == {name for name, _ in model.named_children()}
