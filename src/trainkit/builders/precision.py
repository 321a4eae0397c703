"""What is computed in: the precision of training, and that of scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trainkit.builders.model import is_convolutional
from trainkit.config.schema import Config
from trainkit.engine import Loss
from trainkit.errors import UserError
from trainkit.runtime import PRECISIONS, Choice, resolve_precision, use_tf32
from trainkit.wording import listed


def choose_precision(
    config: Config, device: torch.device, *, loss: Loss, stored: Mapping[str, Any] | None = None
) -> Choice:
    """The precision of training, set for the matrix products of CUDA; ``auto`` keeps that of the checkpoint ``stored``.

    Raises:
        ProblemsError: the device cannot compute in it.
    """
    choice = resolve_precision(
        config.training.precision,
        device,
        convolutional=is_convolutional(config),
        exact=_why_exact(config, loss),
    )
    if stored is not None and config.training.precision == "auto":
        choice = Choice(**stored["choices"]["precision"])
    use_tf32(choice.value)
    return choice


def choose_scoring_precision(device: torch.device, requested: str | None = None) -> Choice:
    """The precision of scores and predictions: fp32 unless another one is asked for, whatever the training's is.

    Raises:
        UserError: the device cannot compute in it.
    """
    if requested is None:
        return Choice("fp32", "as exported programs compute")
    if requested not in PRECISIONS:
        raise UserError(f"precision {requested!r} is not known; take {listed(PRECISIONS, quoted=False)}")
    if requested == "fp16" and device.type != "cuda":
        raise UserError(f"precision fp16 needs a CUDA device, got device {device}; take bf16 or fp32")
    return resolve_precision(requested, device, convolutional=False)


def _why_exact(config: Config, loss: Loss) -> str | None:
    """Why bf16 would spoil the training, besides its speed."""
    if config.optimizer.type == "lbfgs":
        return "the line search of lbfgs compares losses that differ in their last digits"
    if loss.expects == "values":
        return "lower precision would round the values that are predicted"
    if loss.name == "bce":
        return "a sigmoid in lower precision is 1 too early, where bce has no gradient left"
    return None
