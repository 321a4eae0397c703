"""Optimizers as a config with nothing but their name makes them."""

import pytest
import torch

from trainkit.builders.training import torch_knobs
from trainkit.config.help.introspect import variants
from trainkit.config.schema.optimization import Optimizer
from trainkit.engine.optimizers import build_optimizer


@pytest.mark.parametrize(("name", "section"), variants(Optimizer).items())
def test_defaults_are_those_of_torch(name, section) -> None:
    spec = section(type=name)
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    ours = build_optimizer(name, parameters, device="cpu", **torch_knobs(spec))
    assert ours.defaults == type(ours)(parameters).defaults
    group = ours.param_groups[0]
    assert spec.has_momentum == ("momentum" in group or "betas" in group)
