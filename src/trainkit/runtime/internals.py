"""What trainkit uses of PyTorch beyond its documented interface, each with a trial and a plain way to do the same.

A trial runs once a process, on a tensor or two: where a later PyTorch renames or changes something, the plain way is
taken, never a silent wrong result.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim


def any_non_finite(tensors: Sequence[Tensor]) -> Tensor:
    """1 where an element of any tensor is NaN or Inf, else 0: float32 (1,) on their device, without a sync.

    By the kernel of PyTorch's GradScaler with a scale of 1, which changes nothing: 7 us for the gradients of a small
    network on the CPU, against 27 for ``get_total_norm``.
    """
    device = tensors[0].device
    return _unscale_and_check(tensors) if _unscale_checks(device) else _plain_check(tensors)


def _unscale_and_check(tensors: Sequence[Tensor]) -> Tensor:
    found = torch.zeros(1, device=tensors[0].device)
    torch._amp_foreach_non_finite_check_and_unscale_(list(tensors), found, _one(found.device))
    return found


def _plain_check(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.isfinite().all() for tensor in tensors]).all().logical_not().float().reshape(1)


@functools.cache
def _one(device: torch.device) -> Tensor:
    """The scale of 1, made once."""
    return torch.ones(1, device=device)


@functools.cache
def _unscale_checks(device: torch.device) -> bool:
    good = torch.tensor([1.0, -3e38], device=device)
    try:
        with torch.no_grad():
            found = [_unscale_and_check([good, good * bad]).item() for bad in (1, float("inf"), float("nan"))]
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
    return found == [0, 1, 1] and good.tolist()[0] == 1


@torch.no_grad()
def take_step(optimizer: optim.Optimizer) -> None:
    """``optimizer.step()`` itself, without the hooks, the profiler's label and the compiler's marks around it.

    The same kernels on the same numbers. In an epoch of 938 steps of a small network (SGD, six tensors, two cores,
    torch 2.15, timed call by call) it took 126 ms, and ``optimizer.step()`` 202.
    """
    _bare_step(type(optimizer))(optimizer)  # type: ignore[arg-type]  # a class can be hashed


@functools.cache
def _bare_step(kind: type[optim.Optimizer]) -> Callable[[optim.Optimizer], Any]:
    """The function inside ``step``, if around it is nothing but the two known wrappers and it does work; else ``step``.

    Running the whole ``step`` to compare would import the compiler.
    """
    step: Callable[[optim.Optimizer], Any] = kind.step
    bare, around = inspect.unwrap(step), step
    while around is not bare:
        if getattr(around, "__code__", None) is None or around.__code__.co_name not in _KNOWN_WRAPPERS:
            return step
        around = around.__wrapped__  # type: ignore[attr-defined]
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    parameter.grad = torch.tensor([0.5, -3.0])
    with torch.no_grad():
        bare(kind([parameter], lr=0.1))  # type: ignore[call-arg]
    moved = parameter.detach() - torch.tensor([1.0, -2.0])
    return bare if moved[0] < 0 < moved[1] else step


_KNOWN_WRAPPERS = ("wrapper", "_use_grad")
"""``Optimizer.profile_hook_step`` (hooks and the profiler's label) and ``_use_grad_for_differentiable``."""


def leaves_out_updates(optimizer: optim.Optimizer) -> bool:
    """Whether a step with ``found_inf`` of 1 leaves weights and state alone, as GradScaler has it with fused kernels.

    If PyTorch renames the attribute, NaN would reach the weights without a word: so it is tried on a parameter of one
    element, with an optimizer of the same class and form.
    """
    group = optimizer.param_groups[0]
    if not group.get("fused"):
        return False
    device = group["params"][0].device
    parameter = nn.Parameter(torch.ones(1, device=device))
    knobs = {name: value for name, value in group.items() if name in inspect.signature(type(optimizer)).parameters}
    trial = type(optimizer)(**(knobs | {"params": [parameter], "lr": 0.1}))
    values = []
    for found in (0.0, 1.0, 0.0):
        parameter.grad = torch.full((1,), float("nan") if found else 1.0, device=device)
        halt_updates(trial, torch.full((), found, device=device))
        try:
            take_step(trial)
        except (RuntimeError, TypeError, AttributeError):
            return False
        values.append(parameter.item())
    return 1.0 != values[0] == values[1] != values[2] == values[2]


def halt_updates(optimizer: optim.Optimizer, halted: Tensor) -> None:
    """Leave out the updates of a fused optimizer where ``halted``, a float32 () on its device, is not 0."""
    optimizer.found_inf = halted  # type: ignore[attr-defined]
    optimizer.grad_scale = None  # type: ignore[attr-defined]


def lerp_(tensors: Sequence[Tensor], ends: Sequence[Tensor], weight: float) -> None:
    """``tensor += weight * (end - tensor)``, for each, in one call where PyTorch has it."""
    if hasattr(torch, "_foreach_lerp_"):
        torch._foreach_lerp_(list(tensors), list(ends), weight)
    else:
        for tensor, end in zip(tensors, ends, strict=True):
            tensor.lerp_(end, weight)


def copy_(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy each value into its tensor, in one call where PyTorch has it."""
    if hasattr(torch, "_foreach_copy_"):
        torch._foreach_copy_(list(tensors), list(values))
    else:
        for tensor, value in zip(tensors, values, strict=True):
            tensor.copy_(value)


@functools.cache
def spare_the_compiler() -> None:
    """Keep ``torch._dynamo`` from being imported where nothing is compiled: 1.4 s of each start.

    PyTorch marks methods of its optimizers as not to be compiled (``torch._compile._disable_dynamo``), and imports the
    compiler for the mark when they are first called. The mark is set here: the method itself. No part of trainkit
    compiles an optimizer; a program that imports trainkit may, so this is for the command line only. A PyTorch that
    does this in another way just imports its compiler.
    """
    for method in (optim.Optimizer.add_param_group, optim.Optimizer.state_dict, optim.Optimizer.load_state_dict):
        inner = inspect.unwrap(method)
        if inner is not method and not hasattr(inner, "__dynamo_disable"):
            setattr(inner, "__dynamo_disable", inner)
