"""Whether inputs say anything about labels, by two models without training: ridge regression and nearest neighbors.

Each sample is predicted from the others, so a relation that is found carries over to new samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from trainkit.data.loading import Batch

_SAMPLE = 1024
_FEWEST = 100
"""Samples: with fewer, a relation that is there may not show."""
_RARE = (10, 30)
"""Samples of a class: of fewer it is left out; with fewer, a relation that is there may not show."""
_GRID = 8
"""Images are looked at by the mean and the mean square of each cell of a grid of 8 x 8."""
_NEIGHBORS = 10
_RIDGE = (0.03, 0.3, 3.0)
"""Penalty, as a share of the mean eigenvalue."""
_CHANCE = 0.001
"""A correlation that is as rare as this without a relation is one."""


@torch.inference_mode()
def measure_relation(batches: Iterable[Batch], *, num_classes: int) -> dict[str, Any]:
    """Correlate left-out predictions with the targets, as plain values.

    Args:
        batches: of the training split, shuffled, without the random transforms.
        num_classes: 0 for regression.

    Returns:
        ``related``: True, False, or None where the samples are too few to say; ``linear`` and ``neighbors``: the
        highest correlation over classes or targets; ``score``: the better accuracy or R² of the two; ``samples``.
    """
    inputs, targets = _sample(batches)
    columns = _columns(targets, num_classes)
    count = len(inputs)
    if columns.shape[1] == 0 or inputs.shape[1] == 0 or count < _RARE[0]:
        return {"related": None, "linear": None, "neighbors": None, "score": None, "samples": count}
    gram = inputs @ inputs.T / inputs.shape[1]
    exact = torch.nn.functional.one_hot(targets, num_classes).double() if num_classes else targets.double()
    both = torch.cat([columns, exact - exact.mean(dim=0)], dim=1)
    kinds, width = (_ridge(gram, both), _nearest(gram, both)), columns.shape[1]
    linear, neighbors = (_correlation([each[:, :width] for each in kind], columns) for kind in kinds)
    score = max(_score(each[:, width:], exact, targets, num_classes) for kind in kinds for each in kind)
    # Without a relation: nearly normal, with twice the variance of a plain correlation, since sample i helps to predict
    # sample j and j helps to predict i.
    tries = columns.shape[1] * (1 + len(_RIDGE))
    enough = NormalDist().inv_cdf(1 - _CHANCE / tries) * math.sqrt(2 / count)
    few = count < _FEWEST or bool(num_classes and (targets.bincount().topk(2).values < _RARE[1]).any())
    related = True if max(linear, neighbors) > enough else None if few else False
    return {"related": related, "linear": linear, "neighbors": neighbors, "score": score, "samples": count}


def _sample(batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Inputs as standardized columns, float64 (N, F) without constant ones, and targets."""
    inputs, targets, seen = [], [], 0
    for batch in batches:
        values = batch.inputs[: _SAMPLE - seen].float().cpu()
        if values.dim() == 4:
            cells = [torch.nn.functional.adaptive_avg_pool2d(each, _GRID) for each in (values, values.square())]
            values = torch.cat(cells, dim=1)
        inputs.append(values.flatten(1).double())
        targets.append(batch.targets[: len(values)].cpu())
        seen += len(values)
        if seen >= _SAMPLE:
            break
    columns = torch.cat(inputs).nan_to_num(posinf=0.0, neginf=0.0)
    columns = columns - columns.mean(dim=0)
    std = columns.square().mean(dim=0).sqrt()
    moving = std > 1e-9 * columns.abs().max().clamp(min=1e-300)
    return (columns[:, moving] / std[moving]).clamp(-5, 5), torch.cat(targets)


def _columns(targets: Tensor, num_classes: int) -> Tensor:
    """What is predicted, centered: an indicator of each class that is not rare, or the ranks of each target."""
    if num_classes:
        shown = torch.nn.functional.one_hot(targets, num_classes).double()
        counts = shown.sum(dim=0)
        shown = shown[:, (counts >= _RARE[0]) & (counts <= len(targets) - _RARE[0])]
    else:
        shown = targets.double().argsort(dim=0).argsort(dim=0).double()
        shown = shown[:, (targets != targets[0]).any(dim=0)]
    return shown - shown.mean(dim=0)


def _score(predicted: Tensor, exact: Tensor, targets: Tensor, num_classes: int) -> float:
    """The accuracy, or R² as a mean over targets, of centered predictions (N, T)."""
    if num_classes:
        return ((predicted + exact.mean(dim=0)).argmax(dim=1) == targets).double().mean().item()
    centered = exact - exact.mean(dim=0)
    spread = centered.square().sum(dim=0)
    missed = (centered - predicted).square().sum(dim=0)
    return (1 - missed[spread > 0] / spread[spread > 0]).mean().item()


def _ridge(gram: Tensor, columns: Tensor) -> list[Tensor]:
    """Left-out predictions of ridge regression (N, T), for each penalty; in closed form."""
    values, vectors = torch.linalg.eigh(gram)
    predictions = []
    for share in _RIDGE:
        kept = values.clamp(min=0) / (values.clamp(min=0) + share * values.mean())
        hat = (vectors.square() * kept).sum(dim=1, keepdim=True)
        fitted = vectors @ (kept[:, None] * (vectors.T @ columns))
        predictions.append(columns - (columns - fitted) / (1 - hat).clamp(min=1e-9))
    return predictions


def _nearest(gram: Tensor, columns: Tensor) -> list[Tensor]:
    """The mean of each sample's nearest others (N, T)."""
    square = gram.diagonal()
    distance = square[:, None] + square - 2 * gram
    distance.fill_diagonal_(math.inf)
    nearest = distance.topk(min(_NEIGHBORS, len(gram) - 1), largest=False).indices
    return [columns[nearest].mean(dim=1)]


def _correlation(predictions: list[Tensor], columns: Tensor) -> float:
    """The highest correlation of a prediction with its column; 0 where all are the same."""
    highest = 0.0
    for predicted in predictions:
        moved = predicted - predicted.mean(dim=0)
        norm = (moved.square().sum(dim=0) * columns.square().sum(dim=0)).sqrt()
        found = (moved * columns).sum(dim=0)[norm > 1e-12] / norm[norm > 1e-12]
        highest = max(highest, *found.tolist(), 0.0)
    return highest
