"""Optimizers as a config with nothing but their name makes them; the decay of the average."""

import pytest
import torch
from torch import nn

from trainkit.builders.training import build_ema, describe_ema, torch_knobs
from trainkit.config import config_from_dict
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


def test_the_decay_of_the_average_follows_from_the_steps():
    def ema(**training):
        config = config_from_dict({"dataset": "digits", "model": "mlp", "training": training}, where="test")
        made = build_ema(config, nn.Linear(2, 2), steps_per_epoch=100)
        return made and made.decay, describe_ema(config, made)

    line = "ema.decay: 0.999 (auto: 1 - 20 / steps of the run; a half-life of 693 steps)"
    assert ema(epochs=200, ema={"decay": "auto"}) == (0.999, line)
    assert ema(epochs=1, ema={"decay": "auto"})[0] == 0.8
    assert ema(epochs=200, ema={}) == (0.999, None)
    assert ema(epochs=200) == (None, None)
