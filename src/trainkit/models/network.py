"""The parts of the networks (a chain of layers with their config keys, the residual block) and the initialization."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn import init

Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid", "elu"]
OutputActivation = Literal["none", "sigmoid", "softmax", "log_softmax"]
InitKind = Literal["default", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal"]


class Network(nn.Sequential):
    """A model: its layers one after the other, by name.

    ``config_keys`` says which part of the config a module comes from (``{"blocks.1.conv": "model.blocks[1]"}``).
    Messages use it; TorchScript leaves it out.
    """

    __jit_ignored_attributes__: ClassVar[list[str]] = ["config_keys", "last_weighted", "lr_scale"]
    lr_scale: float = 1.0
    """A factor on the learning rate of all layers."""
    config_keys: dict[str, str]
    last_weighted: int
    """Index of the last layer with weights."""

    def __init__(self, layers: Sequence[tuple[str, nn.Module]], *, config_keys: dict[str, str]) -> None:
        super().__init__(OrderedDict(layers))
        self.config_keys = config_keys
        self.last_weighted = max(
            (at for at, (_, layer) in enumerate(layers) if next(layer.parameters(), None) is not None), default=0
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Under autocast, the last layer with weights, and what stands behind it, compute in fp32.

        In bf16 the outputs would have 8 bits: 152.34 becomes 152, a sigmoid is 1 from 6.2 on, and ties are common.
        """
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            pass  # a branch of its own: TorchScript would compile an `and` whole
        elif not inputs.is_meta and torch.is_autocast_enabled(inputs.device.type):
            return self._forward_in_autocast(inputs)
        for layer in self:
            inputs = layer(inputs)
        return inputs

    @torch.jit.unused
    def _forward_in_autocast(self, inputs: Tensor) -> Tensor:
        layers = list(self)
        for layer in layers[: self.last_weighted]:
            inputs = layer(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            inputs = inputs.float()
            for layer in layers[self.last_weighted :]:
                inputs = layer(inputs)
        return inputs


class ResidualBlock(nn.Module):
    """conv -> norm, plus the shortcut of the input, and the rest of the block's layers (He et al., 2015)."""

    def __init__(
        self, *, conv: nn.Module, norm: nn.Module, shortcut: nn.Module, rest: OrderedDict[str, nn.Module]
    ) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.shortcut = shortcut
        self.rest = nn.Sequential(rest)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        return self.rest(self.norm(self.conv(images)) + self.shortcut(images))  # type: ignore[no-any-return]


class Residual(nn.Module):
    """The layers of a branch, plus the shortcut of their input (He et al., 2015)."""

    def __init__(self, *, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, inputs: Tensor) -> Tensor:
        """Both make the same shape, which is that of the output."""
        return self.branch(inputs) + self.shortcut(inputs)  # type: ignore[no-any-return]


class GroupNorm(nn.GroupNorm):
    """PyTorch's own without its look at the sizes, which a trace cannot record; ``layer_shapes`` has the same check."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) to the same shape."""
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class GlobalAvgPool2d(nn.AdaptiveAvgPool2d):
    """The mean of each channel: (N, C, H, W) to (N, C, 1, 1), as PyTorch's own with an output size of 1, bit for bit.

    On the CPU, the gradient of PyTorch's own comes in the other layout than channels-last activations, and kernels that
    read both are slow: on two cores, 64 x 64 x 16 x 16 take 2.2 ms instead of 5.1, with a ReLU before it and both
    gradients. In training only, so that exports hold the operation that other runtimes know.
    """

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, images: Tensor) -> Tensor:
        if self.training and images.device.type == "cpu" and images.is_contiguous(memory_format=torch.channels_last):
            return images.permute(0, 2, 3, 1).flatten(1, 2).mean(1)[:, :, None, None]
        return F.adaptive_avg_pool2d(images, 1)


def activation_layer(name: Activation) -> nn.Module:
    """The activation with PyTorch's own defaults; never in place, so that outputs can be looked at."""
    return _ACTIVATIONS[name]()


_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
}


def output_layer(name: OutputActivation) -> nn.Module | None:
    """The activation of the output (N, K), over its K values where it needs to know; None for none."""
    match name:
        case "none":
            return None
        case "sigmoid":
            return nn.Sigmoid()
        case "softmax":
            return nn.Softmax(dim=1)
        case "log_softmax":
            return nn.LogSoftmax(dim=1)


_FILLS: dict[InitKind, Callable[..., Any]] = {
    "xavier_uniform": init.xavier_uniform_,
    "xavier_normal": init.xavier_normal_,
    "kaiming_uniform": init.kaiming_uniform_,
    "kaiming_normal": init.kaiming_normal_,
    "orthogonal": init.orthogonal_,
}


def initialize(model: nn.Module, kind: InitKind = "default", **knobs: Any) -> None:
    """Fill the weights of linear layers and convolutions as ``torch.nn.init`` does, in their order, and biases with 0.

    ``default`` leaves what PyTorch's own constructors drew. Norm layers keep weight 1 and bias 0. ``knobs`` are those
    of PyTorch's function. Draws from the default generator.
    """
    if kind == "default":
        return
    fill = partial(_FILLS[kind], **knobs)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fill(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)


def config_key(model: nn.Module, name: str) -> str:
    """The config key of the module of this name, or of the nearest one that holds it; ``model`` where none is known."""
    keys: dict[str, str] = getattr(model, "config_keys", {})
    while name:
        if name in keys:
            return keys[name]
        name = name.rpartition(".")[0]
    return "model"


def call_name(name: str, call: int) -> str:
    """The name of one of several calls of a module in a forward pass: ``relu``, then ``relu (call 2)``."""
    return name if call == 1 else f"{name} (call {call})"
