"""A plug-in: a layer and a loss of one's own. `trainkit --plugin acme train train.yaml`, in this folder."""

from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

import trainkit


class Gate(nn.Module):
    """Squeeze-and-excitation (Hu et al., 2018): scales each channel by what all channels hold."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        squeeze = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU()]
        self.scale = nn.Sequential(*squeeze, nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale(images)[:, :, None, None]


class SqueezeExcite(trainkit.Section):
    """Squeeze-and-excitation (Hu et al., 2018)."""

    reduction: int = Field(4, ge=1, description="The channels are squeezed by this factor.")

    def build(self, input_shape: tuple[int, ...]) -> nn.Module:
        return Gate(input_shape[0], max(1, input_shape[0] // self.reduction))


class Poly(trainkit.Section):
    """PolyLoss (Leng et al., 2022): cross-entropy, plus epsilon times 1 - p of the target's probability p."""

    outputs: ClassVar[str] = "logits"
    epsilon: float = Field(1.0, ge=-1, description="Weight of the added term.")

    def build(self) -> Callable[[Tensor, Tensor], Tensor]:
        def losses(logits: Tensor, targets: Tensor) -> Tensor:
            of_each = F.cross_entropy(logits, targets, reduction="none")
            return of_each + self.epsilon * (1 - torch.exp(-of_each))

        return losses


plugin = trainkit.Plugin("acme", layers=[SqueezeExcite], losses=[Poly])
