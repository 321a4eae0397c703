"""A forward pass without values, on PyTorch's meta device: the layers it calls, in order, and the shapes around them.

It needs no memory and takes any ``nn.Module``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trainkit.errors import TrainkitError
from trainkit.models.layer_shapes import KNOWN_LAYERS, Shape, check_shortcut, fail, known_output_shape, shape_text
from trainkit.models.network import Network, Residual, ResidualBlock, config_key
from trainkit.plugins import blame

_WITHOUT_KERNELS = {*KNOWN_LAYERS, Residual, ResidualBlock}


@dataclass
class LayerCall:
    """One call of a module during the forward pass."""

    name: str
    layer: nn.Module
    input: Tensor | None
    """The first tensor among the arguments."""
    output: Any = None
    is_container: bool = False
    """Whether it called other modules."""
    flops: int = 0
    """Of the kernels that ran for it and for the modules that it called; 0 where they were not counted."""
    flops_inside: int = 0
    """The part of it that ran for the modules that it called."""


class MetaForward(NamedTuple):
    """The record of a forward pass."""

    calls: list[LayerCall]
    """In the order in which they began: the model's own call is the first."""
    key: str
    """The model's config key, for messages."""

    @property
    def output_shape(self) -> Shape:
        """The batch first.

        Raises:
            ProblemsError: the model returns something else than one tensor.
        """
        layer, output = self.calls[0].layer, self.calls[0].output
        if not isinstance(output, Tensor):
            fail(f"{type(layer).__name__} returns {type(output).__name__}; a layer has to return one tensor", self.key)
        return tuple(output.shape)


def meta_forward(
    model: nn.Module, shape: Shape, *, key_of: Callable[[str], str] | None = None, count_flops: bool = False
) -> MetaForward:
    """Run the model in training mode on an input of ``shape``, the batch first; the model is not changed.

    Layers with a formula (``layer_shapes``) don't run: their output gets its shape. A forward pass that fails on the
    meta device, because it looks at values or holds tensors that are no buffers, runs on the CPU, with zeros for all
    weights.

    Args:
        key_of: the config key of a module by its name, for messages; by default the one that the model has for it.
        count_flops: count the operations of what runs.

    Raises:
        ProblemsError: a layer does not take its input; names its config key, its type and the shape.
    """
    key_of = key_of or partial(config_key, model)
    for device in ("meta", "cpu"):
        record = _Record()
        error = _run(model, shape, torch.device(device), record, key_of=key_of, count_flops=count_flops)
        if error is None:
            return MetaForward(record.calls, key_of(""))
    running = record.open[-1]
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    given = "" if running.input is None else f" {shape_text(tuple(running.input.shape))}"
    place = None if error is None else blame(error)
    own = "" if place is None else f"{place}: "
    fail(f"{own}{type(running.layer).__name__} does not take its input{given}: {reason}", key_of(running.name))


def _run(
    model: nn.Module,
    shape: Shape,
    device: torch.device,
    record: _Record,
    *,
    key_of: Callable[[str], str],
    count_flops: bool,
) -> Exception | None:
    """Fill the record. Returns the error, raised in the innermost call that is still open."""
    tensors = {
        name: torch.zeros(tensor.shape, dtype=tensor.dtype, device=device)
        for name, tensor in chain(model.named_parameters(), model.named_buffers())
    }
    dtype = next((tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()), torch.float32)
    call: Callable[..., Any] = torch.func.functional_call
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings(action="ignore"))  # they come again when the model runs
        stack.enter_context(_training(model))
        for name, module in model.named_modules():
            stack.enter_context(_watched(module, name, record, key=key_of(name)))
        if count_flops and not _is_known(model):
            from torch.utils.flop_counter import FlopCounterMode  # 0.5 s

            record.total_flops = stack.enter_context(FlopCounterMode(display=False)).get_total_flops
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.no_grad())
        stack.enter_context(device)
        try:
            call(model, tensors, (torch.zeros(shape, dtype=dtype),))
        except TrainkitError:
            raise
        except Exception as error:
            if isinstance(error, RuntimeError | ValueError | IndexError | TypeError) or blame(error) is not None:
                return error
            raise
    return None


def output_shape(layer: nn.Module, shape: Shape, *, key: str) -> Shape:
    """The output shape of a layer for an input of ``shape`` in training.

    Raises:
        ProblemsError: the layer does not take this input, or returns something else than one tensor; names ``key``.
    """
    known = known_output_shape(layer, shape, key=key)
    if known is not None:
        return known
    return meta_forward(layer, shape, key_of=lambda name: key).output_shape


@dataclass
class _Record:
    calls: list[LayerCall] = field(default_factory=list)
    open: list[LayerCall] = field(default_factory=list)
    """The calls that have not returned yet, the innermost last."""
    total_flops: Callable[[], int] = lambda: 0

    def begin(self, name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        # Counted from the start of the pass, so what ran before this call is taken off.
        call = LayerCall(name, layer, tensors[0] if tensors else None, flops=-self.total_flops())
        if self.open:
            self.open[-1].is_container = True
        self.calls.append(call)
        self.open.append(call)

    def end(self, layer: nn.Module, args: Any, output: Any) -> None:
        call = self.open.pop()
        call.output = output
        call.flops += self.total_flops()
        if self.open:
            self.open[-1].flops_inside += call.flops


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """In training mode, as the checks are about training: batch norm refuses one value a feature."""
    before = {module: module.training for module in model.modules()}
    try:
        model.train()
        yield
    finally:
        for module, training in before.items():
            module.training = training


@contextmanager
def _watched(module: nn.Module, name: str, record: _Record, *, key: str) -> Iterator[None]:
    """Record the calls of a module, and give it a forward of its own where no kernel has to run."""
    with ExitStack() as stack:
        before = module.register_forward_pre_hook(
            lambda layer, args, kwargs: record.begin(name, layer, args, kwargs), with_kwargs=True
        )
        stack.callback(before.remove)
        stack.callback(module.register_forward_hook(record.end).remove)
        if type(module) in _WITHOUT_KERNELS and "forward" not in vars(module):
            own = {Residual: _residual, ResidualBlock: _residual_block}.get(type(module), _known)
            module.forward = partial(own, module, key)
            stack.callback(delattr, module, "forward")
        yield


def _is_known(model: nn.Module) -> bool:
    """Whether all of a model's layers have a formula, so that no kernel will run."""
    known = _WITHOUT_KERNELS | {nn.Sequential, Network}
    return all(type(module) in known for module in model.modules())


def _known(layer: nn.Module, key: str, input: Tensor) -> Tensor:
    if not isinstance(input, Tensor):
        raise TypeError(f"it takes one tensor, but got {type(input).__name__}")
    shape = known_output_shape(layer, tuple(input.shape), key=key)
    if shape is None:
        return type(layer).forward(layer, input)  # type: ignore[no-any-return]
    if isinstance(layer, nn.Identity) or getattr(layer, "inplace", False):
        return input
    return torch.zeros(shape, dtype=input.dtype)


def _residual_block(block: nn.Module, key: str, images: Tensor) -> Tensor:
    """``ResidualBlock.forward`` without the kernel of its sum."""
    assert isinstance(block, ResidualBlock)
    return block.rest(_sum(block.norm(block.conv(images)), block.shortcut(images), key))  # type: ignore[no-any-return]


def _residual(block: nn.Module, key: str, inputs: Tensor) -> Tensor:
    """``Residual.forward`` without the kernel of its sum."""
    assert isinstance(block, Residual)
    return _sum(block.branch(inputs), block.shortcut(inputs), key)


def _sum(branch: Tensor, shortcut: Tensor, key: str) -> Tensor:
    remedy = "let both make the same shape"
    check_shortcut(tuple(shortcut.shape), tuple(branch.shape), remedy=remedy, key=key)
    return branch
