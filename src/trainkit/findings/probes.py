"""What findings need to know beyond the log: about the data before training, about the units after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.data.loading.resident import Batch
from trainkit.engine.losses import Loss
from trainkit.models.network import config_key

_SAMPLE = 1024
"""Training samples whose scale is measured."""
_ROWS_BYTES = 2 << 20


@dataclass(frozen=True)
class DeadUnits:
    """Units of a ReLU layer whose output is 0 for every sample looked at."""

    name: str
    key: str
    """The layer's config key."""
    dead: int
    total: int
    seen: int = 0
    """Samples looked at."""


def facts_before_training(
    batches: Iterable[Batch],
    *,
    loss: Loss,
    targets: Tensor,
    num_classes: int,
    num_samples: Mapping[str, int],
    feature_names: Sequence[str],
    decoded_while_training: bool = False,
) -> dict[str, Any]:
    """What can be measured without training, as plain values: the scale of the inputs, the loss of knowing nothing.

    Args:
        batches: of the training split, without the random transforms.
        targets: of the training split: int64 (N,) or float32 (N, T), on the loss's device.
        decoded_while_training: whether the samples are image files that were not decoded beforehand.
    """
    squares, values, seen = torch.zeros(1, dtype=torch.float64), 0, 0
    input_shape: list[int] = []
    for batch in batches:
        inputs = batch.inputs[: _SAMPLE - seen].float().cpu()
        input_shape, seen = list(inputs.shape[1:]), seen + len(inputs)
        values += inputs.numel() // inputs.shape[1]
        # Some rows at a time: of large images, the sample in float64 would be gigabytes.
        for rows in inputs.split(max(1, _ROWS_BYTES // inputs[:1].nbytes)):
            squares = squares + rows.double().square_().sum(dim=_across(rows))
        if seen >= _SAMPLE:
            break
    facts: dict[str, Any] = {
        "num_samples": dict(num_samples),
        "input_shape": input_shape,
        "input_scale": _input_scale((squares / values).sqrt(), feature_names),
        "decoded_while_training": decoded_while_training,
        **_losses_of_knowing_nothing(loss, targets, num_classes),
    }
    if num_classes:
        counts = torch.bincount(targets, minlength=num_classes)
        facts["majority_share"] = counts.max().item() / counts.sum().item()
    return facts


def _across(sample: Tensor) -> list[int]:
    """All but the columns of a table (N, F), or the channels of images (N, C, H, W)."""
    return [dim for dim in range(sample.dim()) if dim != 1]


def _input_scale(rms: Tensor, feature_names: Sequence[str]) -> dict[str, Any]:
    """The smallest and the largest root mean square of a column or channel (F,)."""
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


@contextmanager
def count_silent_units(model: nn.Module) -> Iterator[Callable[[], tuple[DeadUnits, ...]]]:
    """Watch the ReLU layers while the block runs samples through the model; call what it yields after that."""
    watches = [_Watch(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.ReLU | nn.ReLU6)]
    try:
        yield lambda: tuple(watch.result(model) for watch in watches if watch.alive is not None)
    finally:
        for watch in watches:
            watch.handle.remove()


class _Watch:
    """Which units of a layer have been above 0 for any sample."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        self.name = name
        self.alive: Tensor | None = None
        self.seen = 0
        self.handle = layer.register_forward_hook(self._look)

    def _look(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        across = [dim for dim in range(output.dim()) if dim != 1]
        fired = (output > 0).sum(dim=across) > 0
        self.alive = fired if self.alive is None else self.alive.logical_or_(fired)
        self.seen += len(output)

    def result(self, model: nn.Module) -> DeadUnits:
        assert self.alive is not None
        total = len(self.alive)
        return DeadUnits(self.name, config_key(model, self.name), total - int(self.alive.sum()), total, self.seen)
