"""Networks of one task as one network, each with the statistics that its own training made of inputs and targets."""

# Without postponed annotations: TorchScript reads those of the modules, and cannot read text.
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainkit.models.members import mean_of_members


class NormalizeChannels(nn.Module):
    """``(x - mean) / std`` for each channel of images (N, C, H, W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return (inputs - self.mean) / self.std


class Rescale(nn.Module):
    """``x * factor + shift`` for each target: values in one standard deviation and mean to those in another."""

    factor: Tensor
    shift: Tensor

    def __init__(self, factor: Sequence[float], shift: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor, dtype=torch.float32))
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32))

    def forward(self, outputs: Tensor) -> Tensor:
        """(N, T) to the same shape."""
        return outputs * self.factor + self.shift


class EnsembleMember(nn.Module):
    """A network between what scales its inputs and what puts its outputs into common units."""

    def __init__(self, prepare: nn.Module, network: nn.Module, rescale: nn.Module) -> None:
        super().__init__()
        self.prepare = prepare
        self.network = network
        self.rescale = rescale

    def forward(self, inputs: Tensor) -> Tensor:
        return self.rescale(self.network(self.prepare(inputs)))  # type: ignore[no-any-return]


class Ensemble(nn.Module):
    """In evaluation, the outputs that stand for the mean of what the members' outputs stand for.

    Args:
        kind: as for ``mean_of_members``: what the mean is of.
    """

    def __init__(self, members: Sequence[EnsembleMember], *, kind: str) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.kind = kind

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs before they are scaled (N, ...) to outputs (N, K) of the kind that each member has."""
        outputs = []
        for member in self.members:
            outputs.append(member(inputs))
        return mean_of_members(torch.stack(outputs, dim=1), self.kind)
