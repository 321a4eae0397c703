"""Measurements beyond the log: the scale of the data before training, dead units after it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.data.loading import Batch
from trainkit.engine import Loss
from trainkit.models import call_name, config_key

_SAMPLE = 1024
"""Training samples whose scale is measured."""
_ROWS_BYTES = 2 << 20
DEAD_SHARE = 0.5
"""Of a layer's units. Small healthy networks have up to 40 % of dead units."""
MIN_UNITS = 8
"""Of fewer units in a ReLU layer, many may be off by chance."""


@dataclass(frozen=True)
class DeadUnits:
    """Units of a ReLU layer whose output is 0 for every sample looked at."""

    name: str
    """The layer's, with the number of a second or later call in a forward pass."""
    key: str
    """The layer's config key."""
    dead: int
    total: int
    seen: int = 0
    """Samples looked at."""

    @property
    def is_mostly_dead(self) -> bool:
        return self.total >= MIN_UNITS and self.dead > DEAD_SHARE * self.total


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
    """Measure the scale of the inputs and the losses of constant outputs, as plain values.

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
            squares = squares + rows.double().square_().sum(dim=all_but_channels(rows))
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


def all_but_channels(sample: Tensor) -> list[int]:
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
    """The loss of the best constant outputs, and of outputs 0 (of equal scores for all classes)."""
    if loss.is_classification:
        share = torch.bincount(targets, minlength=num_classes).cpu().double() / len(targets)  # MPS has no float64
        share = share.clamp(min=1e-6).float().to(targets.device)
        even = torch.full_like(share, 1 / num_classes)
        constant, zero = (_outputs_for(loss, rates) for rates in (share, even))
    else:
        constant, zero = targets.mean(dim=0), torch.zeros_like(targets[0])
    rows = (row.expand(len(targets), -1) for row in (constant, zero))
    return dict(zip(("constant_loss", "zero_loss"), (loss.mean(row, targets).item() for row in rows), strict=True))


def _outputs_for(loss: Loss, rates: Tensor) -> Tensor:
    """The outputs (K,) or (1,) that stand for these probabilities (K,)."""
    match loss.expects:
        case "probabilities":
            return rates[1:2] if loss.is_binary else rates
        case _ if loss.is_binary:
            return torch.logit(rates[1:2])
        case _:
            return rates.log()


@contextmanager
def watch_calls(
    model: nn.Module, layers: Mapping[str, nn.Module], look: Callable[[str, int, nn.Module, Tensor], None]
) -> Iterator[None]:
    """Call ``look(name, call, layer, output)`` after each call of these layers while the block runs the model.

    ``call`` counts a layer's calls within one forward pass of the model, from 1; of several outputs the first is shown.
    ``look`` must compute or copy at once: a later layer may write into the output in place.
    """
    calls: Counter[str] = Counter()

    def hook_of(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            calls[name] += 1
            first = output[0] if isinstance(output, tuple) and output else output
            if isinstance(first, Tensor):
                look(name, calls[name], layer, first.detach())

        return hook

    with ExitStack() as stack:
        stack.callback(model.register_forward_pre_hook(lambda *_: calls.clear()).remove)
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(hook_of(name)).remove)
        yield


@contextmanager
def count_silent_units(model: nn.Module) -> Iterator[Callable[[], tuple[DeadUnits, ...]]]:
    """Watch the ReLU layers while the block runs samples through the model; it yields a function for the result.

    A layer that is called several times in a forward pass has other units each time.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.ReLU | nn.ReLU6)}
    fired: dict[tuple[str, int, int], Tensor] = {}
    """Which units have been above 0 for any sample, by layer, call and number of units: bool (C,)."""
    seen: Counter[tuple[str, int, int]] = Counter()

    def look(name: str, call: int, layer: nn.Module, output: Tensor) -> None:
        units = (name, call, output.shape[1])
        above = (output > 0).sum(dim=all_but_channels(output)) > 0
        fired[units] = above | fired[units] if units in fired else above
        seen[units] += len(output)

    def result() -> tuple[DeadUnits, ...]:
        order = list(layers)
        return tuple(
            DeadUnits(
                call_name(name, call), config_key(model, name), total - int(alive.sum()), total, seen[name, call, total]
            )
            for (name, call, total), alive in sorted(fired.items(), key=lambda item: order.index(item[0][0]))
        )

    with watch_calls(model, layers, look):
        yield result
