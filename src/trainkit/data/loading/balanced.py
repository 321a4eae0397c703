"""The order of an epoch in which rare classes come more often than they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from trainkit.runtime import generator, permutation


@dataclass(frozen=True)
class Balance:
    """An epoch has as many samples as the split; a class's share of them is proportional to ``count ** (1 - power)``.

    Of each class, one permutation of its samples after the other is used up, over all epochs: no sample comes again
    before every other one of its class has come. Where an epoch begins in them is a product, so an epoch is a function
    of (seed, epoch) alone.
    """

    classes: torch.Tensor
    """Of the samples of the split: int64 (n,)."""
    power: float
    """1: all classes with the same share, 0: as they are."""

    def quotas(self) -> dict[int, int]:
        """Samples of each class in an epoch; the largest remainders are rounded up, so that the sum is that of all."""
        classes, counts = np.unique(self.classes.numpy(), return_counts=True)
        shares = counts.astype(np.float64) ** (1 - self.power)
        exact = len(self.classes) * shares / shares.sum()
        whole = np.floor(exact).astype(np.int64)
        rest = len(self.classes) - int(whole.sum())
        whole[np.argsort(whole - exact, kind="stable")[:rest]] += 1
        return dict(zip(classes.tolist(), whole.tolist(), strict=True))

    def order(self, seed: int, epoch: int) -> torch.Tensor:
        """Positions in the split in the order of an epoch: int64 (n,)."""
        parts = []
        for label, quota in self.quotas().items():
            members = torch.nonzero(self.classes == label).flatten()
            first, behind = divmod(epoch * quota, len(members))
            last = (epoch * quota + quota - 1) // len(members)
            passes = [
                torch.randperm(len(members), generator=generator(seed, "balanced", label, number))
                for number in range(first, last + 1)
            ]
            if passes:
                parts.append(members[torch.cat(passes)[behind : behind + quota]])
        chosen = torch.cat(parts)
        return chosen[permutation(seed, epoch, len(chosen))]
