"""PyTorch's optimizers by name, in their fastest form that gives the same numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn, optim

OptimizerType = Literal["sgd", "adam", "adamw", "rmsprop", "adagrad", "lbfgs"]


def build_optimizer(
    type: OptimizerType,
    params: Iterable[nn.Parameter],
    *,
    device: torch.device | str,
    fused: bool | None = None,
    **knobs: Any,
) -> optim.Optimizer:
    """The optimizer of this type over ``params``, all of them in one group, with PyTorch's argument names as ``knobs``.

    ``fused=None`` takes the fused kernels (one launch a step) on CUDA and PyTorch's default elsewhere: on the CPU the
    fused kernels are faster for small models, but round differently from the plain formula in the last bit.
    """
    if "betas" in knobs:
        knobs["betas"] = tuple(knobs["betas"])
    if fused is None:
        fused = torch.device(device).type == "cuda"
    # Given only where it is wanted: None lets PyTorch choose its own default form.
    form: dict[str, Any] = {"fused": True} if fused else {}
    match type:
        case "sgd":
            return optim.SGD(params, **knobs, **form)
        case "adam":
            return optim.Adam(params, **knobs, **form)
        case "adamw":
            return optim.AdamW(params, **knobs, **form)
        case "adagrad":
            return optim.Adagrad(params, **knobs, **form)
        case "rmsprop":
            return optim.RMSprop(params, **knobs)
        case "lbfgs":
            return optim.LBFGS(params, **knobs)


def has_momentum(type: OptimizerType) -> bool:
    """Whether a schedule can move this optimizer's momentum or first beta (``cycle_momentum`` of one_cycle)."""
    return type in ("sgd", "adam", "adamw", "rmsprop")
