"""Filling and scaling of a table's columns, and the statistics of the training split for both.

Each transform is plain numbers for a checkpoint, and a module that computes with them: the batches of training and an
exported program run the same one. Statistics are taken in float64, of the values that are there.
"""

# Without postponed annotations: TorchScript reads those of the modules, and cannot read text.
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainkit.data.transforms.normal_scores import NormalScores
from trainkit.data.transforms.normalize import Standardize, column_extremes

_MOST_ROWS = 1 << 20
"""Quantiles of more training rows are those of so many, spread evenly over them."""
_BLOCK_BYTES = 64 << 20
"""Columns are read this many bytes at a time."""
_MOST_QUANTILES = 1000
"""As in scikit-learn's QuantileTransformer."""
_FARTHEST_SCORE = -NormalDist().inv_cdf(1e-7)
"""The normal score of the smallest and largest training value, and of all beyond: 5.2, as in scikit-learn's."""


@dataclass(frozen=True)
class FillMissing:
    """A missing number becomes the column's median over the training split, with a flag where training had gaps."""

    median: tuple[float, ...]
    """One value a numeric column."""
    flagged: tuple[int, ...]
    """The numeric columns that get a flag, by position."""


@dataclass(frozen=True)
class RobustScale:
    """``z = (x - median) / IQR``, then ``z / sqrt(1 + (z / 3)^2)``, which lies in (-3, 3) (Holzmüller et al., 2024)."""

    median: tuple[float, ...]
    """One value a numeric column; ``scale`` too."""
    scale: tuple[float, ...]
    """Distance of the quartiles; half the range where they are equal; 0 for a constant column."""


@dataclass(frozen=True)
class Quantile:
    """The normal score of a value's rank in the training split, as scikit-learn's QuantileTransformer computes it."""

    quantiles: tuple[tuple[float, ...], ...]
    """For each numeric column: from the smallest value to the largest, at equal distances of rank."""


TableTransform = FillMissing | Standardize | RobustScale | Quantile
SCALING: dict[str, type[Standardize | RobustScale | Quantile]] = {
    "standardize": Standardize,
    "robust_scale": RobustScale,
    "quantile": Quantile,
}
"""The transforms that scale columns, by the name that they have in a config and a checkpoint."""


def to_json(transforms: Sequence[Any]) -> dict[str, Any]:
    """What a checkpoint keeps of these transforms, by name. ``standardize`` is None where it is not among them."""
    names = {kind: name for name, kind in SCALING.items()} | {FillMissing: "fill"}
    kept = {names[type(one)]: asdict(one) for one in transforms if type(one) in names}
    return {"standardize": None, **{name: _plain(values) for name, values in kept.items()}}


def from_json(stored: Mapping[str, Any]) -> list[TableTransform]:
    """The inverse of ``to_json``, in the order in which they apply."""
    kinds: dict[str, type[TableTransform]] = {"fill": FillMissing, **SCALING}
    return [
        kind(**{name: as_tuples(values) for name, values in stored[key].items()})
        for key, kind in kinds.items()
        if stored.get(key) is not None
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def as_tuples(value: Any) -> Any:
    """Lists of lists as tuples of tuples."""
    return tuple(as_tuples(item) for item in value) if isinstance(value, list) else value


def column_module(transform: TableTransform, *, device: torch.device | None = None) -> "Fill | Numeric":
    """The transform as a module of rows (N, C) whose first columns are numeric; the others pass."""
    module: Fill | Numeric
    match transform:
        case FillMissing(median, flagged):
            module = Fill(median, flagged)
        case Standardize(mean, std):
            module = Shift(mean, std)
        case RobustScale(median, scale):
            module = Robust(median, scale)
        case Quantile(quantiles):
            module = NormalScore(quantiles, exact=device is None or device.type != "mps")
    return module.to(device)


class Fill(nn.Module):
    """Puts the medians where values are missing, and flags behind the numeric columns."""

    median: Tensor
    flagged: Tensor

    def __init__(self, median: Sequence[float], flagged: Sequence[int]) -> None:
        super().__init__()
        self.numeric = len(median)
        self.register_buffer("median", torch.tensor(median, dtype=torch.float32))
        self.register_buffer("flagged", torch.tensor(flagged, dtype=torch.int64))

    def forward(self, rows: Tensor) -> Tensor:
        """float32 (N, n + c) to (N, n + f + c)."""
        numeric = rows[:, : self.numeric]
        missing = torch.isnan(numeric)
        filled = torch.where(missing, self.median, numeric)
        flags = missing.index_select(1, self.flagged).to(torch.float32)
        return torch.cat([filled, flags, rows[:, self.numeric :]], dim=1)


class Numeric(nn.Module):
    """What all scaling modules share: the first columns are scaled, and constant ones become 0 whatever they hold."""

    moving: Tensor

    def __init__(self, moving: Sequence[bool]) -> None:
        super().__init__()
        self.numeric = len(moving)
        self.register_buffer("moving", torch.tensor(moving, dtype=torch.bool))

    def scale(self, numeric: Tensor) -> Tensor:
        """(N, n) to (N, n)."""
        return numeric

    def forward(self, rows: Tensor) -> Tensor:
        """float32 (N, C) to the same shape."""
        numeric = self.scale(rows[:, : self.numeric])
        numeric = torch.where(self.moving, numeric, torch.zeros_like(numeric))
        return torch.cat([numeric, rows[:, self.numeric :]], dim=1)


class Shift(Numeric):
    """``(x - mean) / std``; a deviation of 0 stands for a constant column."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__([value > 0 for value in std])
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor([value or 1.0 for value in std], dtype=torch.float32))

    def scale(self, numeric: Tensor) -> Tensor:
        return (numeric - self.mean) / self.std


class Robust(Shift):
    """``Shift`` by median and scale, then bent into (-3, 3)."""

    def scale(self, numeric: Tensor) -> Tensor:
        scaled = ((numeric - self.mean) / self.std).clamp(-1e9, 1e9)  # the square would overflow to a result of 0
        return scaled / torch.sqrt(1 + (scaled / 3) ** 2)


class NormalScore(Numeric):
    """Rank among the quantiles, interpolated and as a normal score; a value that several quantiles have is in their
    middle."""

    table: Tensor
    starts: Tensor

    def __init__(self, quantiles: Sequence[Sequence[float]], *, exact: bool = True) -> None:
        """``exact``: compute in float64, which MPS does not have."""
        super().__init__([column[0] < column[-1] for column in quantiles])
        self.count = len(quantiles[0]) if len(quantiles) else 1
        self.dtype = torch.float64 if exact else torch.float32
        self.normal = NormalScores()
        self.farthest = _FARTHEST_SCORE
        length = 2 ** self.count.bit_length() - 1  # halves down to single steps
        self.steps = [2**power for power in range(self.count.bit_length() - 1, -1, -1)]
        table = np.full((len(quantiles), length), np.inf)
        table[:, : self.count] = np.asarray(quantiles, np.float64).reshape(len(quantiles), -1)
        # Stored values are float32, so equal ones must be found equal to a quantile.
        self.register_buffer("table", torch.from_numpy(table.astype(np.float32)).to(self.dtype).reshape(-1))
        self.register_buffer("starts", torch.arange(len(quantiles)) * length)

    def scale(self, numeric: Tensor) -> Tensor:
        values = numeric.to(self.dtype)
        below, until = self.count_below(values, False), self.count_below(values, True)
        last = self.count - 1
        right, left = below.clamp(0, last), (until - 1).clamp(0, last)
        high, low = self.table[self.starts + right], self.table[self.starts + left]
        between = (values - low) / torch.where(right == left, torch.ones_like(low), high - low)
        place = torch.where(until > below, (right + left).to(self.dtype) / 2, left.to(self.dtype) + between)
        # Without room for an interpolation: at or beyond the smallest and the largest quantile.
        place = torch.where(values <= self.table[self.starts], torch.zeros_like(place), place)
        place = torch.where(values >= self.table[self.starts + last], torch.full_like(place, float(last)), place)
        scores: Tensor = self.normal(place / max(1, last))
        return scores.clamp(-self.farthest, self.farthest).to(torch.float32)

    def count_below(self, values: Tensor, or_equal: bool) -> Tensor:
        """How many quantiles of its column are below (or equal to) each value: a binary search without branches."""
        found = torch.zeros_like(values, dtype=torch.int64)
        for step in self.steps:
            probed = self.table[self.starts + found + (step - 1)]
            passed = probed <= values if or_equal else probed < values
            found = found + passed.to(torch.int64) * step
        return found


def medians(inputs: NDArray[np.float32], indices: NDArray[np.int64], numeric: int) -> tuple[float, ...]:
    """The median of each numeric column over these rows; 0 where no value is there."""
    return tuple(_quantiles(inputs, indices, numeric, [0.5])[0].tolist())


def robust_statistics(
    inputs: NDArray[np.float32], indices: NDArray[np.int64], numeric: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Median and scale of ``RobustScale`` for each numeric column over these rows."""
    first, median, third = _quantiles(inputs, indices, numeric, [0.25, 0.5, 0.75])
    low, high = column_extremes(inputs, indices, numeric)
    scale = np.where(third > first, third - first, (high - low) / 2)
    return tuple(median.tolist()), tuple(scale.tolist())


def rank_quantiles(
    inputs: NDArray[np.float32], indices: NDArray[np.int64], numeric: int
) -> tuple[tuple[float, ...], ...]:
    """The quantiles of ``Quantile`` for each numeric column over these rows: 1000, or as many as there are rows."""
    points = np.linspace(0, 1, min(_MOST_QUANTILES, max(2, len(indices))))
    found = np.maximum.accumulate(_quantiles(inputs, indices, numeric, points), axis=0)
    found[0], found[-1] = column_extremes(inputs, indices, numeric)
    return tuple(tuple(column.tolist()) for column in found.T)


def _quantiles(
    inputs: NDArray[np.float32], indices: NDArray[np.int64], numeric: int, points: Sequence[float] | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Linearly interpolated quantiles of the values that are there: float64 (points, numeric)."""
    if len(indices) > _MOST_ROWS:
        indices = indices[np.linspace(0, len(indices) - 1, _MOST_ROWS).astype(np.int64)]
    found = np.zeros((len(points), numeric))
    columns = max(1, _BLOCK_BYTES // (8 * len(indices)))
    for start in range(0, numeric, columns):
        block = inputs[indices, start : min(numeric, start + columns)].astype(np.float64)
        missing = np.isnan(block)
        if not missing.any():
            found[:, start : start + columns] = np.quantile(block, points, axis=0)
            continue
        for column in range(block.shape[1]):
            if len(values := block[~missing[:, column], column]):
                found[:, start + column] = np.quantile(values, points)
    return found
