"""Measurements before the first step: scale of inputs and targets, losses of constant outputs, the untrained model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainkit.data.loading import Batch
from trainkit.engine import Loss
from trainkit.findings.probes import all_but_channels, count_silent_units

_SAMPLE = 1024
"""Training samples whose scale is measured."""
_ROWS_BYTES = 2 << 20
_FIRST_ROWS = {"table": 256, "image": 64}
"""Samples that the untrained model is run on: an image has many positions that can wake a unit."""


def facts_before_training(
    batches: Iterable[Batch],
    *,
    model: nn.Module,
    loss: Loss,
    targets: Tensor,
    num_classes: int,
    num_samples: Mapping[str, int],
    piece_size: int = 64,
    quantities: Sequence[str] | None = None,
    target_names: Sequence[str] = (),
    decoded_while_training: bool = False,
    weights: Tensor | None = None,
) -> dict[str, Any]:
    """Measure inputs, targets, the losses of constant outputs and the untrained model, as plain values.

    Args:
        batches: of the training split, without the random transforms.
        targets: of the training split, as the model sees them: int64 (N,) or float32 (N, T), on the loss's device.
        quantities: the names of a table's numeric columns, the first ones: only they have a scale. None for images.
        piece_size: samples that a training step puts through the model at once, so that there is memory for them.
        weights: of the samples in the loss: (N,).
        decoded_while_training: whether the samples are image files that were not decoded beforehand.
    """
    first: Batch | None = None
    sums = squares = torch.zeros(1, dtype=torch.float64)
    values, seen, identical = 0, 0, True
    for batch in batches:
        inputs = batch.inputs[: _SAMPLE - seen].float().cpu()
        first = first or batch
        reference = first.inputs[:1].float().cpu()
        seen += len(inputs)
        values += inputs.numel() // inputs.shape[1]
        # Some rows at a time: of large images, the sample in float64 would be gigabytes.
        for rows in inputs.split(max(1, _ROWS_BYTES // inputs[:1].nbytes)):
            identical = identical and bool((rows == reference).all())
            exact = rows.double()
            sums = sums + exact.sum(dim=all_but_channels(rows))
            squares = squares + exact.square_().sum(dim=all_but_channels(rows))
        if seen >= _SAMPLE:
            break
    assert first is not None, "a training split without samples"
    facts: dict[str, Any] = {
        "num_samples": dict(num_samples),
        "input_shape": list(first.inputs.shape[1:]),
        "input_scale": _input_scale(sums / values, squares / values, quantities),
        "identical_inputs": seen if identical and seen > 1 else 0,
        "decoded_while_training": decoded_while_training,
        "first_outputs": _first_outputs(model, loss, first, piece_size=piece_size),
        **_losses_of_knowing_nothing(loss, targets, num_classes, weights),
    }
    if num_classes:
        counts = torch.bincount(targets, minlength=num_classes)
        facts["class_counts"] = counts.tolist()
        facts["majority_share"] = counts.max().item() / counts.sum().item()
    else:
        facts["target_scale"] = _target_scale(targets, target_names)
    return facts


def _input_scale(mean: Tensor, square: Tensor, quantities: Sequence[str] | None) -> dict[str, Any]:
    """Extremes over columns or channels, from their means and mean squares (F,); {} where no column is numeric."""
    names = [f"channel {index}" for index in range(len(mean))] if quantities is None else quantities
    if not names:
        return {}
    mean, square = mean[: len(names)], square[: len(names)]
    rms, std = square.sqrt(), (square - mean.square()).clamp(min=0).sqrt()
    std[std < 1e-7 * rms] = 0.0  # what is left of a constant column is rounding
    moving = rms.clone()
    moving[rms == 0] = math.inf  # a column of zeros has no scale
    low, high, widest = int(moving.argmin()), int(rms.argmax()), int(std.argmax())
    offsets = mean.abs()[std > 0] / std[std > 0]
    return {
        "smallest": names[low],
        "smallest_rms": rms[low].item(),
        "largest": names[high],
        "largest_rms": rms[high].item(),
        "widest": names[widest],
        "widest_mean": mean[widest].item(),
        "widest_std": std[widest].item(),
        "least_offset": offsets.min().item() if len(offsets) else None,
    }


def _target_scale(targets: Tensor, target_names: Sequence[str]) -> dict[str, Any]:
    """Mean and deviation of the target (N, T) that is farthest from a deviation of 1 and a mean of 0."""
    exact = targets.cpu().double()
    mean, std = exact.mean(dim=0), exact.std(dim=0, correction=0)
    size = (mean.square() + std.square()).sqrt().log().abs()
    worst = int(torch.maximum(size, std.log().abs()).nan_to_num(posinf=0.0).argmax())
    name = target_names[worst] if worst < len(target_names) else f"target {worst}"
    return {"name": name, "mean": mean[worst].item(), "std": std[worst].item()}


@torch.no_grad()
def _first_outputs(model: nn.Module, loss: Loss, batch: Batch, *, piece_size: int) -> dict[str, Any]:
    """The loss of the untrained model on some samples, how far its outputs differ, and its silent ReLU layers."""
    count = _FIRST_ROWS["image" if batch.inputs.dim() == 4 else "table"]
    place = next((parameter.device for parameter in model.parameters()), batch.inputs.device)
    training = model.training
    model.eval()
    with count_silent_units(model) as silent:
        pieces = batch.inputs[:count].split(max(1, piece_size))
        outputs = torch.cat([model(piece.to(place)).float().cpu() for piece in pieces])
        layers = silent()
    model.train(training)
    return {
        "loss": loss.mean(outputs, batch.targets[:count].cpu()).item() * loss.unit,
        "spread": outputs.double().std(dim=0, correction=0).max().item(),
        "size": outputs.double().square().mean().sqrt().item(),
        "samples": len(outputs),
        "silent": [[layer.name, layer.key, layer.dead, layer.total] for layer in layers if layer.is_mostly_dead],
    }


@torch.no_grad()
def _losses_of_knowing_nothing(
    loss: Loss, targets: Tensor, num_classes: int, weights: Tensor | None
) -> dict[str, float]:
    """The loss of the best constant outputs, and of outputs 0 (of equal scores for all classes)."""
    if loss.is_classification:
        share = torch.bincount(targets, weights, minlength=num_classes).cpu().double()  # MPS has no float64
        share = share / (len(targets) if weights is None else share.sum())
        share = share.clamp(min=1e-6).float().to(targets.device)
        even = torch.full_like(share, 1 / num_classes)
        constant, zero = (_outputs_for(loss, rates) for rates in (share, even))
    else:
        constant, zero = targets.mean(dim=0), torch.zeros_like(targets[0])
        if loss.quantile is not None:
            constant = torch.from_numpy(np.quantile(targets.cpu().numpy(), loss.quantile, axis=0)).to(targets)
        if weights is not None and loss.quantile is None:
            constant = (targets * weights[:, None]).sum(dim=0) / weights.sum()
    rows = (row.expand(len(targets), -1) for row in (constant, zero))
    if weights is None:
        losses = [loss.mean(row, targets).item() * loss.unit for row in rows]
    else:
        total = float(loss.normalizer(targets, weights))
        losses = [loss.sum(row, targets, weights).item() / total * loss.unit for row in rows]
    return dict(zip(("constant_loss", "zero_loss"), losses, strict=True))


def _outputs_for(loss: Loss, rates: Tensor) -> Tensor:
    """The outputs (K,) or (1,) that stand for these probabilities (K,)."""
    match loss.expects:
        case "probabilities":
            return rates[1:2] if loss.is_binary else rates
        case _ if loss.is_binary:
            return torch.logit(rates[1:2])
        case _:
            return rates.log()
