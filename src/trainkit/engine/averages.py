"""Stochastic weight averaging: the plain mean of the weights at regular steps, with its own batch-norm statistics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from trainkit.data.loading import Batch
from trainkit.engine.exchange import gathered
from trainkit.engine.pieces import BatchNorms, own_pieces
from trainkit.runtime import Ranks, lerp_, piece_bounds


class Swa:
    """The mean of the weights after step ``start`` and every ``every`` steps from there (Izmailov et al., 2018).

    Statistics of batch norm belong to other weights until ``recompute_statistics``: only then is the mean evaluated.
    Other buffers are copied.
    """

    def __init__(self, model: nn.Module, *, start: int, every: int) -> None:
        self.start, self.every = start, every
        self.num_averaged = 0
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.has_statistics = bool(batch_norms(self.model))
        self.is_fresh = False
        """Whether the statistics of batch norm are those of the mean."""

    @property
    def ready(self) -> bool:
        """Whether the mean can be evaluated."""
        return self.num_averaged > 0 and self.is_fresh

    @torch.no_grad()
    def update(self, model: nn.Module, *, step: int) -> None:
        """Add the weights after ``step`` completed steps, where it is their turn."""
        if step < self.start or (step - self.start) % self.every:
            return
        self.num_averaged += 1
        lerp_(list(self.model.parameters()), list(model.parameters()), 1 / self.num_averaged)
        for average, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(buffer)
        self.is_fresh = not self.has_statistics

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "num_averaged": self.num_averaged, "is_fresh": self.is_fresh}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.num_averaged, self.is_fresh = state["num_averaged"], state["is_fresh"]


def batch_norms(model: nn.Module, *, trained: nn.Module | None = None) -> list[_NormBase]:
    """Its layers of batch norm that keep statistics; only those that are in training mode in ``trained``, its origin.

    Frozen ones are in evaluation mode: what comes behind them was trained with the statistics that they have.
    """
    pairs = zip(model.modules(), (trained or model).modules(), strict=True)
    found = [(layer, own) for layer, own in pairs if isinstance(layer, _NormBase) and layer.running_mean is not None]
    return [layer for layer, own in found if trained is None or own.training]


@torch.no_grad()
def recompute_statistics(
    model: nn.Module,
    batches: Iterable[Batch],
    forward: Callable[[nn.Module, Tensor], object],
    *,
    trained: nn.Module | None = None,
    pieces: int = 1,
    ranks: Ranks | None = None,
) -> None:
    """Set the statistics of batch norm to the means over the pieces of these batches, each counted by its samples.

    As ``torch.optim.swa_utils.update_bn``, but with dropout off, as in evaluation.
    """
    model.eval()
    for layer in batch_norms(model, trained=trained):
        layer.reset_running_stats()
        layer.train()
    norms, ranks = BatchNorms(model), ranks or Ranks()
    means, seen = [torch.zeros_like(values) for values in norms.statistics()], 0
    with norms.collecting():
        for batch in batches:
            bounds, own = piece_bounds(len(batch.targets), min(pieces, len(batch.targets))), []
            for _, piece in own_pieces(batch, bounds, ranks):
                forward(model, piece.inputs)
                own.append(norms.statistics())
            for (start, end), found in zip(pairwise(bounds), gathered(own, norms, ranks, bounds), strict=True):
                seen += end - start
                for mean, values in zip(means, found, strict=True):
                    mean.lerp_(values, (end - start) / seen)
    norms.apply([means], share=1.0)
    model.eval()
