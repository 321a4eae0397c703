"""A plug-in: a layer of one's own. `trainkit --plugin acme train train.yaml`, in this folder."""

from pydantic import Field
from torch import Tensor, nn

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


plugin = trainkit.Plugin("acme", layers=[SqueezeExcite])
