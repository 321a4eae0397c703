"""The loop of PyTorch's tutorials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import common
import torch
from common import Net, silent
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def fit(
    net: nn.Module,
    data: tuple[Any, Any] = common.TRAIN,
    *,
    loss: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    kind: torch.dtype = torch.long,
    epochs: range = range(3),
    after: Callable[[torch.optim.Optimizer], None] | None = None,
) -> float:
    optimizer = optimizer or torch.optim.Adam(net.parameters(), lr=0.01)
    loss = loss or nn.CrossEntropyLoss()
    loader = DataLoader(TensorDataset(torch.tensor(data[0]), torch.tensor(data[1], dtype=kind)), 64, shuffle=True)
    for _ in epochs:
        for inputs, targets in loader:
            value = loss(net(inputs), targets)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            common.first_batch()
        if after is not None:
            after(optimizer)
    return float(value)


def misspelt_key() -> None:
    net = Net()
    fit(net, optimizer=torch.optim.Adam(net.parameters(), wieght_decay=0.1))  # type: ignore[call-arg]


def wrong_shape() -> None:
    fit(Net(63))


def softmax_twice() -> None:
    silent(f"trained; the loss of {fit(Net(last=nn.Softmax(1))):.2f} cannot come below 1.46")


def label_out_of_range() -> None:
    fit(Net(), common.label_out_of_range())


def nan_target() -> None:
    net = Net(outputs=1)
    fit(net, common.nan_target(), loss=nn.MSELoss(), kind=torch.float32)
    common.say_whether_nan(net[3].weight.detach())


def nan_input() -> None:
    net = Net()
    fit(net, common.nan_input())
    common.say_whether_nan(net[3].weight.detach())


def high_learning_rate() -> None:
    net = Net()
    fit(net, optimizer=torch.optim.SGD(net.parameters(), lr=1e20))
    common.say_whether_nan(net[3].weight.detach())


def class_missing_from_val() -> None:
    arrays, net = common.image_folders(), Net(outputs=3)
    fit(net, arrays["train"], epochs=range(200))
    right = net.eval()(torch.tensor(arrays["val"][0])).argmax(1).numpy() == arrays["val"][1]
    silent(f"trained; val accuracy {right.mean():.2f}, against the wrong labels")


def flipped_bit() -> None:
    net = Net()
    fit(net)
    torch.save(net.state_dict(), "m.pth")
    common.flip_a_bit("m.pth", net[0].weight.detach().numpy())
    net.load_state_dict(torch.load("m.pth"))
    silent("the wrong weights were loaded")


def payload() -> None:
    torch.save(Net().state_dict(), "m.pth")
    common.poison("m.pth")
    Net().load_state_dict(torch.load("m.pth"), strict=False)
    common.say_whether_it_ran()


def killed_and_resumed() -> None:
    """Weights and optimizer are saved after each epoch, as the tutorial on checkpoints does."""

    def train(epochs: range, saved: dict[str, Any] | None = None) -> dict[str, Any]:
        torch.manual_seed(1)
        net = Net()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        if saved is not None:
            net.load_state_dict(saved["net"])
            optimizer.load_state_dict(saved["optimizer"])
        save = lambda optimizer: torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, "m.pth")  # noqa: E731
        fit(net, optimizer=optimizer, epochs=epochs, after=save)
        return net.state_dict()

    whole = train(range(4))
    train(range(2))
    silent(common.whether_the_same(whole, train(range(2, 4), torch.load("m.pth"))))


common.run(globals())
