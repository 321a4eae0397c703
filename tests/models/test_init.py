import pytest
import torch
from torch import nn

from trainkit.models.cnn import BlockSpec, build_cnn
from trainkit.models.init import initialize


def build():
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
    model, expected = build(), build()
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
    model = build()
    before = [parameter.clone() for parameter in model.parameters()]
    initialize(model, "default")
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_seed_of_the_default_generator_decides():
    def weights(seed):
        torch.manual_seed(seed)
        model = build()
        initialize(model, "orthogonal")
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_building_on_the_meta_device_draws_nothing():
    before = torch.get_rng_state()
    with torch.device("meta"):
        model = build()
    initialize(model, "kaiming_normal")
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)
