"""What the processes of a run tell each other. That the bits are those of one process is tested with processes."""

import torch
from torch import nn

from trainkit.engine import Best, Schedule, TrainState
from trainkit.engine.exchange import Exchange
from trainkit.runtime import Ranks


def test_gradients_come_back_as_they_were():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(5, 2)).to(memory_format=torch.channels_last)
    parameters = list(model.parameters())
    exchange = Exchange(Ranks(0, 4), parameters)
    gradients = [torch.randn_like(parameter) for parameter in parameters]
    gradients[0] = gradients[0].contiguous()  # not in the layout of its parameter
    gradients[2] = None
    row = torch.full((3, exchange.width), torch.nan)[1]
    exchange.write(gradients, row)
    assert len(row) % 4 == 0
    assert row.isfinite().all()
    back = exchange.read(row)
    assert back[2] is None
    for parameter, gradient, other in zip(parameters, gradients, back, strict=True):
        if gradient is not None:
            assert torch.equal(gradient, other)
            assert other.stride() == parameter.stride()
    exchange.write([None] * len(parameters), row)
    assert exchange.read(row) == [None] * len(parameters)


def test_it_is_kept_until_other_parameters_train():
    ranks = Ranks(0, 2)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = TrainState(model, optimizer, Schedule(main_lr=lambda step: 0.1), Best("val_loss", "min"))
    parameters = list(model.parameters())
    first = state.exchange_of(parameters, ranks)
    assert state.exchange_of(list(parameters), ranks) is first
    assert state.exchange_of(parameters[2:], ranks) is not first
