"""Layers for the columns of a table."""

# Without postponed annotations: TorchScript reads those of the buffers, and cannot read text.
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class OneHot(nn.Module):
    """A column for each known category in the place of its code; a code that counts for nothing makes all of them 0."""

    code: Tensor
    category: Tensor

    def __init__(self, numeric: int, sizes: Sequence[int]) -> None:
        """
        Args:
            numeric: columns that pass, before those with codes.
            sizes: categories of each column with codes.
        """
        super().__init__()
        self.numeric = numeric
        self.width = numeric + sum(sizes)
        places = [(numeric + column, value) for column, size in enumerate(sizes) for value in range(size)]
        columns, values = zip(*places, strict=True)
        self.register_buffer("code", torch.tensor(columns, dtype=torch.int64), persistent=False)
        self.register_buffer("category", torch.tensor(values, dtype=torch.float32), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """(N, n + c) to (N, width)."""
        hot = rows.index_select(1, self.code) == self.category
        return torch.cat([rows[:, : self.numeric], hot.to(rows.dtype)], dim=1)
