"""Layers for the columns of a table: one-hot, embeddings of numbers and categories, and those of RealMLP.

RealMLP: Holzmüller, Grinsztajn and Steinwart, 2024, "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees on
Tabular Data". A layer says with ``lr_scale`` which factor its parameters have on the learning rate.
"""

# Without postponed annotations: TorchScript reads those of the buffers, and cannot read text.
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainkit.data.tables import TableLayout


class OneHot(nn.Module):
    """A column for each category in the place of its code; a code that counts for nothing makes all of them 0."""

    code: Tensor
    category: Tensor

    def __init__(self, columns: Sequence[int], sizes: Sequence[int], *, keep: int = 0) -> None:
        """
        Args:
            columns: where the codes stand.
            sizes: how many categories each of them has.
            keep: the first columns, which pass as they are.
        """
        super().__init__()
        self.keep = keep
        places = [(column, value) for column, size in zip(columns, sizes, strict=True) for value in range(size)]
        codes, values = zip(*places, strict=True)
        self.sources = [*range(keep), *codes]
        self.width = len(self.sources)
        self.register_buffer("code", torch.tensor(codes, dtype=torch.int64), persistent=False)
        self.register_buffer("category", torch.tensor(values, dtype=torch.float32), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """(N, C) to (N, width)."""
        hot = (rows.index_select(1, self.code) == self.category).to(rows.dtype)
        return torch.cat([rows[:, : self.keep], hot], dim=1) if self.keep else hot


def one_hot_layer(layout: TableLayout) -> OneHot:
    """The layer that makes the categories of a table one-hot, behind its numbers."""
    return OneHot(range(layout.numeric, layout.width), layout.sizes, keep=layout.numeric)


class Signs(nn.Module):
    """-1 and 1 for the two categories of a column, 0 for any other code."""

    code: Tensor

    def __init__(self, columns: Sequence[int]) -> None:
        super().__init__()
        self.sources = list(columns)
        self.width = len(columns)
        self.register_buffer("code", torch.tensor(columns, dtype=torch.int64), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """(N, C) to (N, width)."""
        codes = rows.index_select(1, self.code)
        return torch.where(codes < 2, 2 * codes - 1, torch.zeros_like(codes))


class CategoryEmbedding(nn.Module):
    """A learned vector for each category of each column, in one table; zeros for a code that counts for nothing."""

    code: Tensor
    size: Tensor
    start: Tensor

    def __init__(self, columns: Sequence[int], sizes: Sequence[int], *, dim: int) -> None:
        super().__init__()
        self.sources = [column for column in columns for _ in range(dim)]
        self.width = len(self.sources)
        self.weight = nn.Parameter(torch.randn(sum(sizes), dim))
        starts = [sum(sizes[:position]) for position in range(len(sizes))]
        self.register_buffer("code", torch.tensor(columns, dtype=torch.int64), persistent=False)
        self.register_buffer("size", torch.tensor(sizes, dtype=torch.int64), persistent=False)
        self.register_buffer("start", torch.tensor(starts, dtype=torch.int64), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """(N, C) to (N, width)."""
        codes = rows.index_select(1, self.code).to(torch.int64)
        known = codes < self.size
        vectors = F.embedding(torch.where(known, codes, torch.zeros_like(codes)) + self.start, self.weight)
        return (vectors * known.unsqueeze(2).to(vectors.dtype)).flatten(1)


class PeriodicEmbedding(nn.Module):
    """PBLD of RealMLP: each number x beside a linear map, of its own, of ``cos(2 pi w x + b)``."""

    lr_scale = 0.1

    def __init__(self, numeric: int, *, frequencies: int = 16, dim: int = 4, frequency_scale: float = 0.1) -> None:
        """
        Args:
            numeric: how many of the first columns are numbers.
            frequencies: cosines of each number.
            dim: columns that each number becomes, itself included.
            frequency_scale: standard deviation of the first ``w``.
        """
        super().__init__()
        self.numeric = numeric
        self.sources = [*(column for column in range(numeric) for _ in range(dim - 1)), *range(numeric)]
        self.width = len(self.sources)
        limit = 1 / math.sqrt(frequencies)
        self.frequency = nn.Parameter(frequency_scale * torch.randn(numeric, frequencies))
        self.phase = nn.Parameter(math.pi * (2 * torch.rand(numeric, frequencies) - 1))
        self.weight = nn.Parameter(limit * (2 * torch.rand(numeric, frequencies, dim - 1) - 1))
        self.shift = nn.Parameter(limit * (2 * torch.rand(numeric, 1, dim - 1) - 1))

    def forward(self, rows: Tensor) -> Tensor:
        """(N, C) to (N, width)."""
        numbers = rows[:, : self.numeric]
        waves = torch.cos(2 * math.pi * numbers.unsqueeze(2) * self.frequency + self.phase)
        mapped = torch.baddbmm(self.shift, waves.transpose(0, 1), self.weight)
        return torch.cat([mapped.transpose(0, 1).flatten(1), numbers], dim=1)


class TableFeatures(nn.Module):
    """The columns of a table as features: what its parts make of them, side by side."""

    def __init__(self, parts: Sequence[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(dict(parts))
        self.sources = [column for _, part in parts for column in cast("list[int]", part.sources)]
        """The column of the table that each feature comes from."""
        self.width = len(self.sources)

    def forward(self, rows: Tensor) -> Tensor:
        """(N, C) to (N, width)."""
        made: list[Tensor] = []
        for part in self.parts.values():
            made.append(part(rows))
        return torch.cat(made, dim=1)


class Scale(nn.Module):
    """A learned factor for each feature, which moves six times as fast as other weights: it selects features."""

    lr_scale = 6.0

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, features: Tensor) -> Tensor:
        """(N, F) to the same shape."""
        return features * self.weight


class NtkLinear(nn.Module):
    """``x W^T / sqrt(F) + b`` with weights around 1 (Jacot et al., 2018): a step moves wide and narrow layers alike."""

    lr_scale = {"bias": 0.1}  # noqa: RUF012  (TorchScript knows no ClassVar)

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.gain = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, features: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return F.linear(features, self.scaled_weight(), self.bias)

    def scaled_weight(self) -> Tensor:
        return self.weight if self.gain == 1.0 else self.weight * self.gain


class ParametricActivation(nn.Module):
    """``x + w (f(x) - x)`` with a learned ``w`` for each unit, which begins at 1."""

    lr_scale = 0.1

    def __init__(self, features: int, function: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.ones(features))

    def forward(self, features: Tensor) -> Tensor:
        """(..., F) to the same shape."""
        return torch.lerp(features, self.function(features), self.weight.to(features.dtype))


@torch.no_grad()
def fold_gains(model: nn.Module) -> None:
    """Multiply the weights of linear layers by their gain once and for all: the same numbers, with less work."""
    for layer in model.modules():
        if isinstance(layer, NtkLinear):
            layer.weight.mul_(layer.gain)
            layer.gain = 1.0


@torch.no_grad()
def initialize_on(layers: Sequence[nn.Module], rows: Tensor) -> None:
    """Give the linear layers first weights that suit the data: RealMLP's, after Steinwart, 2019.

    Each unit's weights are scaled so that its values over the rows have a deviation of 1, and its bias moves 0 to a
    random mix of five rows. Draws from the default generator of the CPU.

    Args:
        layers: one after the other, on the CPU and in evaluation mode.
        rows: (N, C), as the model gets them.
    """
    values = rows
    for layer in layers:
        if isinstance(layer, NtkLinear):
            layer.bias.zero_()
            made = layer(values)
            # Of shared weights over all that they see; each member's own weights over the rows.
            spread = (made if layer.weight.dim() == 3 else made.flatten(0, -2)).std(dim=0, correction=0)
            layer.weight.div_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)).unsqueeze(-1))
            made = layer(values)
            chosen = torch.randint(len(made), (5, *layer.bias.shape))
            share = torch.empty(chosen.shape).exponential_()
            layer.bias.copy_(-(made.gather(0, chosen) * share / share.sum(dim=0)).sum(dim=0))
        values = layer(values)
