"""Classes of torchvision without what does not fit: second outputs, and loading that asks for a version.

Imported when such a network is built: torchvision takes half a second.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models import GoogLeNet, Inception3, MNASNet


class OneOutputGoogLeNet(GoogLeNet):  # type: ignore[misc]
    """Its forward pass returns a tuple in TorchScript."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, K)."""
        return self._forward(self._transform_input(x))[0]  # type: ignore[no-any-return]


class OneOutputInception3(Inception3):  # type: ignore[misc]
    """Its forward pass returns a tuple in TorchScript."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, K)."""
        return self._forward(self._transform_input(x))[0]  # type: ignore[no-any-return]


class PlainMNASNet(MNASNet):  # type: ignore[misc]
    """Its loading refuses weights without a version, which a plain mapping of names to tensors does not have."""

    def _load_from_state_dict(self, *args: Any) -> None:
        nn.Module._load_from_state_dict(self, *args)


_INSTEAD: dict[type[nn.Module], Any] = {
    GoogLeNet: OneOutputGoogLeNet,
    Inception3: OneOutputInception3,
    MNASNet: PlainMNASNet,
}


def without_extras(model: nn.Module) -> nn.Module:
    """The model as a class of this file, where there is one for it."""
    model.__class__ = _INSTEAD.get(type(model), type(model))
    return model
