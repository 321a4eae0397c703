"""A look at a model and its data: what findings and pages need beyond the log."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.data.batches import Batch
from trainkit.losses import Loss
from trainkit.models.network import config_key

_SAMPLE = 1024
"""Training samples whose scale is measured."""


@dataclass(frozen=True)
class DeadUnits:
    """Units of a ReLU layer whose output is 0 for every sample looked at."""

    name: str
    key: str
    """The layer's config key."""
    dead: int
    total: int


@dataclass(frozen=True)
class Wrong:
    """A sample that the model got wrong."""

    index: int
    """In the part that the split comes from."""
    true: int
    predicted: int
    probability: float
    """Of the predicted class."""
    true_probability: float


@dataclass(frozen=True)
class Look:
    """A trained model on one split."""

    split: str
    num_samples: int
    class_names: tuple[str, ...] = ()
    confusion: list[list[int]] | None = None
    """Rows are the true classes, columns the predicted ones; None for regression."""
    wrong: tuple[Wrong, ...] = ()
    """The most confidently wrong first."""
    num_wrong: int = 0
    dead_units: tuple[DeadUnits, ...] = ()
    values: tuple[list[float], list[float]] | None = None
    """Regression: true and predicted values of the first target."""


def facts_before_training(
    batches: Iterable[Batch],
    *,
    loss: Loss,
    targets: Tensor,
    num_classes: int,
    num_samples: Mapping[str, int],
    feature_names: Sequence[str],
) -> dict[str, Any]:
    """What can be measured without training, as plain values: the scale of the inputs, the loss of knowing nothing.

    Args:
        batches: of the training split, without the random transforms.
        targets: of the training split: int64 (N,) or float32 (N, T), on the loss's device.
    """
    inputs, seen = [], 0
    for batch in batches:
        inputs.append(batch.inputs.float().cpu())
        seen += len(batch.targets)
        if seen >= _SAMPLE:
            break
    sample = torch.cat(inputs)[:_SAMPLE]
    facts: dict[str, Any] = {
        "num_samples": dict(num_samples),
        "input_shape": list(sample.shape[1:]),
        "input_scale": _input_scale(sample, feature_names),
        **_losses_of_knowing_nothing(loss, targets, num_classes),
    }
    if num_classes:
        counts = torch.bincount(targets, minlength=num_classes)
        facts["majority_share"] = counts.max().item() / counts.sum().item()
    return facts


def _input_scale(sample: Tensor, feature_names: Sequence[str]) -> dict[str, Any]:
    """Root mean square of each column of a table (N, F), or channel of images (N, C, H, W)."""
    across = [dim for dim in range(sample.dim()) if dim != 1]
    rms = sample.double().square().mean(dim=across).sqrt()
    names = feature_names or [f"channel {index}" for index in range(len(rms))]
    moving = rms.clone()
    moving[rms == 0] = math.inf  # a column of zeros has no scale
    low, high = int(moving.argmin()), int(rms.argmax())
    return {
        "smallest": names[low],
        "smallest_rms": rms[low].item(),
        "largest": names[high],
        "largest_rms": rms[high].item(),
    }


@torch.no_grad()
def _losses_of_knowing_nothing(loss: Loss, targets: Tensor, num_classes: int) -> dict[str, float]:
    """The loss of the best constant answer, and of the answer 0 (of equal scores for all classes)."""
    if loss.is_classification:
        share = torch.bincount(targets, minlength=num_classes).double() / len(targets)
        share = share.clamp(min=1e-6).float()
        even = torch.full_like(share, 1 / num_classes)
        constant, zero = (_outputs_for(loss, rates) for rates in (share, even))
    else:
        constant, zero = targets.mean(dim=0), torch.zeros_like(targets[0])
    rows = (row.expand(len(targets), -1) for row in (constant, zero))
    return dict(zip(("constant_loss", "zero_loss"), (loss.mean(row, targets).item() for row in rows), strict=True))


def _outputs_for(loss: Loss, rates: Tensor) -> Tensor:
    """The outputs (K,) or (1,) with which the model says these probabilities (K,)."""
    match loss.expects:
        case "probabilities":
            return rates[1:2] if loss.is_binary else rates
        case _ if loss.is_binary:
            return torch.logit(rates[1:2])
        case _:
            return rates.log()


@torch.inference_mode()
def look_at(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    loss: Loss,
    split: str,
    class_names: Sequence[str],
    max_wrong: int = 24,
) -> Look:
    """Run the model over a split, in evaluation mode, and keep what is worth showing."""
    model.eval()
    watched = _watch_units(model)
    outputs, targets, indices = [], [], []
    try:
        for batch in batches:
            outputs.append(model(batch.inputs).float().cpu())
            targets.append(batch.targets.cpu())
            indices.append(batch.indices)
    finally:
        for watch in watched:
            watch.handle.remove()
    said, true = torch.cat(outputs), torch.cat(targets)
    dead = tuple(watch.result(model) for watch in watched if watch.alive is not None)
    if not loss.is_classification:
        values = (true[:, 0].tolist(), said[:, 0].tolist())
        return Look(split, len(true), dead_units=dead, values=values)
    probabilities = loss.probabilities(said)
    predicted = probabilities.argmax(dim=1)
    size = len(class_names)
    confusion = torch.bincount(true * size + predicted, minlength=size * size).view(size, size)
    wrong = (predicted != true).nonzero()[:, 0]
    sure = probabilities[wrong, predicted[wrong]]
    worst = wrong[sure.argsort(descending=True, stable=True)[:max_wrong]]
    at = torch.cat(indices)
    return Look(
        split,
        len(true),
        class_names=tuple(class_names),
        confusion=confusion.tolist(),
        wrong=tuple(
            Wrong(
                index=int(at[row]),
                true=int(true[row]),
                predicted=int(predicted[row]),
                probability=probabilities[row, predicted[row]].item(),
                true_probability=probabilities[row, true[row]].item(),
            )
            for row in worst.tolist()
        ),
        num_wrong=len(wrong),
        dead_units=dead,
    )


class _Watch:
    """Which units of a layer have been above 0 for any sample."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = name
        self.alive: Tensor | None = None
        self.handle = module.register_forward_hook(self._look)

    def _look(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        across = [dim for dim in range(output.dim()) if dim != 1]
        fired = (output > 0).any(dim=0) if output.dim() == 2 else (output > 0).sum(dim=across) > 0
        self.alive = fired if self.alive is None else self.alive | fired

    def result(self, model: nn.Module) -> DeadUnits:
        assert self.alive is not None
        total = len(self.alive)
        return DeadUnits(self.name, config_key(model, self.name), total - int(self.alive.sum()), total)


def _watch_units(model: nn.Module) -> list[_Watch]:
    return [_Watch(name, module) for name, module in model.named_modules() if isinstance(module, nn.ReLU | nn.ReLU6)]
