import pytest
import torch
from torch import nn

from trainkit.models.mlp import build_mlp


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
def test_has_the_well_known_number_of_parameters(input_shape, output_size, hidden_sizes, parameters):
    assert count(build_mlp(input_shape, output_size, hidden_sizes=hidden_sizes)) == parameters


def test_starts_and_computes_as_the_network_written_by_hand():
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
