"""A plug-in: a layer, a loss and a data set of one's own. `trainkit --plugin acme train train.yaml`, in this folder."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
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


class Shapes(trainkit.Section):
    """Pictures of bars on noise: standing, lying, or both."""

    kind: ClassVar[str] = "image"
    task: ClassVar[str] = "classification"
    num_samples: int = Field(600, ge=30, description="Number of pictures.")
    noise: float = Field(0.3, ge=0, le=1, description="Brightness of the noise.")

    def build(self) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        labels = np.arange(self.num_samples) % 3
        images = rng.uniform(0, self.noise, (self.num_samples, 1, 12, 12))
        for image, label, place in zip(images, labels, rng.integers(1, 10, (self.num_samples, 2)), strict=True):
            if label != 1:
                image[0, :, place[0]] = 1
            if label != 0:
                image[0, place[1]] = 1
        return {"train": ((255 * images).astype("uint8"), labels), "class_names": ["standing", "lying", "both"]}


plugin = trainkit.Plugin("acme", layers=[SqueezeExcite], losses=[Poly], datasets=[Shapes])
