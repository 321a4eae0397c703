"""How the weights start."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import init

InitKind = Literal["default", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal"]


def initialize(
    model: nn.Module,
    kind: InitKind = "default",
    *,
    gain: float = 1.0,
    mode: Literal["fan_in", "fan_out"] = "fan_in",
    nonlinearity: Literal["relu", "leaky_relu", "tanh", "linear"] = "relu",
) -> None:
    """Fill the weights of linear layers and convolutions as ``torch.nn.init`` does, in their order; biases become 0.

    ``default`` leaves what PyTorch's own constructors drew. Norm layers keep weight 1 and bias 0. ``gain`` is for the
    xavier kinds and orthogonal, ``mode`` and ``nonlinearity`` for the kaiming kinds. Draws from the default generator.
    """
    fill: Callable[[Tensor], Any]
    match kind:
        case "default":
            return
        case "xavier_uniform":
            fill = partial(init.xavier_uniform_, gain=gain)
        case "xavier_normal":
            fill = partial(init.xavier_normal_, gain=gain)
        case "kaiming_uniform":
            fill = partial(init.kaiming_uniform_, mode=mode, nonlinearity=nonlinearity)
        case "kaiming_normal":
            fill = partial(init.kaiming_normal_, mode=mode, nonlinearity=nonlinearity)
        case "orthogonal":
            fill = partial(init.orthogonal_, gain=gain)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fill(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
