"""Mixup and cutmix: training batches whose samples are mixed with others of the same batch.

How a batch is mixed is a function of (seed, epoch, batch): a permutation says which sample each is mixed with, and each
has a share of its own. Pieces of a batch are cut after it was mixed, so their number changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainkit.data.loading import Batch
from trainkit.engine.losses import Loss
from trainkit.engine.plan import Batches
from trainkit.runtime import derive_seed


@dataclass(frozen=True)
class Mixing:
    """How samples are mixed. At least one of the two alphas is a number."""

    mixup_alpha: float | None = None
    """Mixup (Zhang et al., 2018): both samples are added up, in shares that are drawn from Beta(alpha, alpha)."""
    cutmix_alpha: float | None = None
    """Cutmix (Yun et al., 2019): a box of the other picture, whose area has such a share, covers a part of this one."""
    switch_p: float = 0.5
    """Share of the samples that cutmix takes where there are both."""
    p: float = 1.0
    """Share of the samples that are mixed at all."""


@dataclass(frozen=True)
class Draws:
    """How the N samples of a batch are mixed."""

    partners: Tensor
    """The sample that each is mixed with: int64 (N,)."""
    shares: Tensor
    """What is left of the sample itself: float32 (N,), 1 where it is not mixed."""
    boxes: Tensor | None
    """Top, bottom, left and right of what the partner covers; empty for mixup: int64 (N, 4). None without cutmix."""


class MixedBatches:
    """The same batches, mixed, up to a step of the run.

    Args:
        num_steps: steps from the start of the run whose batches are mixed; those after them stay as they are.
    """

    def __init__(self, batches: Batches, mixing: Mixing, *, seed: int, num_steps: int) -> None:
        self.batches, self.mixing, self.seed, self.num_steps = batches, mixing, seed, num_steps
        self.batches_per_epoch, self.num_samples = batches.batches_per_epoch, batches.num_samples

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from batch ``start`` on."""
        for number, batch in enumerate(self.batches.epoch(epoch, start=start), start):
            if epoch * self.batches_per_epoch + number < self.num_steps:
                yield mix(batch, draw(self.mixing, batch.inputs.shape, seed=self.seed, epoch=epoch, batch=number))
            else:
                yield batch


def draw(mixing: Mixing, shape: torch.Size, *, seed: int, epoch: int, batch: int) -> Draws:
    """How the samples of a batch of this shape are mixed: (N, C, H, W), or (N, F) without cutmix."""
    random, count = np.random.default_rng(derive_seed(seed, "mix", epoch, batch)), shape[0]
    partners = random.permutation(count)
    takes_cutmix = random.random(count) < (mixing.switch_p if mixing.mixup_alpha is not None else 1.0)
    takes_part = random.random(count) < mixing.p
    shares, boxes = np.ones(count), None
    if mixing.mixup_alpha is not None:
        shares = random.beta(mixing.mixup_alpha, mixing.mixup_alpha, count)
    if mixing.cutmix_alpha is not None:
        height, width = shape[-2:]
        boxes = draw_boxes(random, mixing.cutmix_alpha, count, height, width) * (takes_cutmix & takes_part)[:, None]
        areas = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
        shares = np.where(takes_cutmix, 1 - areas / (height * width), shares)
    shares = np.where(takes_part, shares, 1.0)
    return Draws(
        torch.from_numpy(partners),
        torch.from_numpy(shares).float(),
        None if boxes is None else torch.from_numpy(boxes),
    )


def draw_boxes(random: np.random.Generator, alpha: float, count: int, height: int, width: int) -> np.ndarray:
    """The boxes of the paper: int64 (N, 4), around a pixel anywhere in the picture and cut at its edges.

    The share of a sample is taken from its box after that, as in the authors' program and torchvision's.
    """
    side = np.sqrt(1 - random.beta(alpha, alpha, count))
    ends = []
    for size in (height, width):
        center, half = random.integers(size, size=count), (size * side).astype(np.int64) // 2
        ends += [np.clip(center - half, 0, size), np.clip(center + half, 0, size)]
    return np.stack(ends, axis=1)


def mix(batch: Batch, draws: Draws) -> Batch:
    """The mixed batch. Of the two targets of a sample, ``targets`` are those with the larger share.

    A target with its share is a target with a weight: the loss of a mixed batch is the sum over both.
    """
    inputs, own = batch.inputs, batch.targets
    partners, shares = (on_device(tensor, inputs.device) for tensor in (draws.partners, draws.shares))
    kept = shares.view(-1, *(1,) * (inputs.dim() - 1))
    if draws.boxes is not None:
        boxes = on_device(draws.boxes, inputs.device)
        inside = covered(boxes, height=inputs.shape[2], width=inputs.shape[3])
        is_box = (boxes[:, 1] > boxes[:, 0]).view(-1, 1, 1, 1)
        kept = torch.where(inside, 0.0, torch.where(is_box, 1.0, kept))
    # From the partner to the sample itself: exactly either at the shares 0 and 1.
    mixed = torch.lerp(inputs[partners], inputs, kept, out=torch.empty_like(inputs))
    of_own = of_partner = torch.ones_like(shares)
    if batch.weights is not None:
        of_own, of_partner = batch.weights, batch.weights[partners]
    swapped, partner = shares < 0.5, own[partners]
    pairs = (own, partner), (shares * of_own, (1 - shares) * of_partner)
    (targets, others), (weights, other_weights) = (
        (torch.where(swapped, second, first), torch.where(swapped, first, second)) for first, second in pairs
    )
    # A target without a share may have an infinite loss, which times 0 would be NaN.
    others = torch.where((shares == 0) | (shares == 1), targets, others)
    return Batch(mixed, targets, batch.indices, weights, others, other_weights)


def covered(boxes: Tensor, *, height: int, width: int) -> Tensor:
    """Whether a pixel lies in the box: bool (N, 1, H, W)."""
    top, bottom, left, right = boxes.view(-1, 4, 1).unbind(1)
    rows, columns = (torch.arange(size, device=boxes.device) for size in (height, width))
    in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on the device; nothing waits for it on CUDA."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def loss_sum(loss: Loss, outputs: Tensor, batch: Batch) -> Tensor:
    """The loss () summed over the batch; ``lam L(y1) + (1 - lam) L(y2)`` where it is mixed."""
    total = loss.sum(outputs, batch.targets, batch.weights)
    if batch.other_targets is not None:
        total = total + loss.sum(outputs, batch.other_targets, batch.other_weights)
    return total


def loss_normalizer(loss: Loss, batch: Batch) -> Tensor | float:
    """What divides the sum to the batch's mean; mixed like the loss."""
    total = loss.normalizer(batch.targets, batch.weights)
    if batch.other_targets is not None:
        total = total + loss.normalizer(batch.other_targets, batch.other_weights)
    return total
