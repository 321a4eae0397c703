"""The shapes of a model, layer by layer: the check before training, and the table of ``trainkit inspect``."""

from __future__ import annotations

import inspect
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from trainkit.models.layer_shapes import Shape, check_output_shape, has_weights
from trainkit.models.meta_forward import LayerCall, meta_forward
from trainkit.models.network import call_name, config_key
from trainkit.models.table_layers import NtkLinear, PeriodicEmbedding


@dataclass(frozen=True)
class LayerRow:
    """One call of a layer. Shapes, multiply-adds and bytes are for one sample."""

    name: str
    """The layer's name in the model; ``relu (call 2)`` for a second call of the same one."""
    type: str
    key: str
    """Where it comes from in the config, such as ``model.blocks[1]``."""
    input_shape: Shape
    output_shape: Shape
    parameters: int
    """Those of the layer, in the row of its first call."""
    trainable: int
    """How many of the parameters are trained."""
    multiply_adds: int
    """Of matrix products and convolutions, without bias; one an element for norms; 0 for the rest."""
    activation_bytes: int
    """Memory of the output that training keeps for the backward pass; 0 for a view of the input (Flatten)."""
    source: str | None = None
    """``file:line`` of the layer's class."""


def check_shapes(model: nn.Module, input_shape: Sequence[int], batch_size: int = 2) -> Shape:
    """The shape of the output for a training batch of this size, the batch first; no memory is taken.

    Raises:
        ProblemsError: a layer does not take its input: its config key, its type, both shapes, the remedy.
    """
    return meta_forward(model, (batch_size, *input_shape)).output_shape


def check_output(model: nn.Module, input_shape: Sequence[int], *, output_size: int) -> None:
    """Check that the output is (N, output_size), as data and loss need it.

    Raises:
        ProblemsError: the output has another shape.
    """
    forward = meta_forward(model, (2, *input_shape))
    weighted = [call.name for call in forward.calls if has_weights(call.layer)]
    check_output_shape(forward.output_shape, output_size, key=config_key(model, weighted[-1] if weighted else ""))


def layer_table(model: nn.Module, input_shape: Sequence[int], *, source: bool = False) -> list[LayerRow]:
    """A row for each call of a layer, in the order of the forward pass; every parameter is counted once.

    A module that calls others gets a row only where it has parameters or matrix products of its own.

    Raises:
        ProblemsError: as ``check_shapes``.
    """
    calls = meta_forward(model, (2, *input_shape), count_flops=True).calls
    called = {call.layer for call in calls}
    numbers: Counter[nn.Module] = Counter()
    counted: set[nn.Parameter] = set()
    rows = []
    for call in calls:
        numbers[call.layer] += 1
        parameters = set(own_parameters(call.layer, called)) - counted
        counted |= parameters
        if not _gets_row(call, parameters):
            continue
        rows.append(
            LayerRow(
                name=call_name(call.name, numbers[call.layer]),
                type=type(call.layer).__name__,
                key=config_key(model, call.name),
                input_shape=_sample_shape(call.input),
                output_shape=_sample_shape(call.output),
                parameters=sum(p.numel() for p in parameters),
                trainable=sum(p.numel() for p in parameters if p.requires_grad),
                multiply_adds=_multiply_adds(call),
                activation_bytes=_activation_bytes(call),
                source=_source_of(type(call.layer)) if source else None,
            )
        )
    return rows


def block_table(model: nn.Module, rows: Sequence[LayerRow]) -> list[LayerRow]:
    """The table with one row for each numbered block of layers (``layer1.0`` of a resnet); other layers as they are."""
    table = []
    known = {_block_of(row.name) for row in rows}  # a block may have a row of its own, for parameters in no layer
    for block, members in groupby(rows, key=lambda row: row.name if row.name in known else _block_of(row.name)):
        inside = list(members)
        if not block:
            table += inside
            continue
        table.append(
            LayerRow(
                name=block,
                type=type(model.get_submodule(block)).__name__,
                key=config_key(model, block),
                input_shape=inside[0].input_shape,
                output_shape=inside[-1].output_shape,
                parameters=sum(row.parameters for row in inside),
                trainable=sum(row.trainable for row in inside),
                multiply_adds=sum(row.multiply_adds for row in inside),
                activation_bytes=sum(row.activation_bytes for row in inside),
            )
        )
    return table


def _block_of(layer: str) -> str:
    """The name of the module around a layer up to its first numbers: ``features.1.0`` for ``features.1.0.block.2``."""
    around = layer.partition(" ")[0].split(".")[:-1]
    numbered = [re.search(r"\d[a-z]?$", piece) is not None for piece in around]
    if True not in numbered:
        return ""
    end = numbered.index(True)
    while end < len(numbered) and numbered[end]:
        end += 1
    return ".".join(around[:end])


def own_parameters(layer: nn.Module, called: Set[nn.Module]) -> Iterator[nn.Parameter]:
    """A layer's own, and those of modules in it that are never called (attention reads its projections' weights)."""
    yield from layer.parameters(recurse=False)
    for child in layer.children():
        if child not in called:
            yield from own_parameters(child, called)


def _gets_row(call: LayerCall, parameters: Set[nn.Parameter]) -> bool:
    if call.is_container:
        return bool(parameters) or call.flops > call.flops_inside
    return not (isinstance(call.layer, nn.Identity | nn.Sequential) and call.output is call.input)


def _sample_shape(value: Any) -> Shape:
    """Of the first tensor among the values, without the batch."""
    match value:
        case Tensor():
            return tuple(value.shape[1:])
        case tuple() | list() if value:
            return _sample_shape(value[0])
        case _:
            return ()


def _multiply_adds(call: LayerCall) -> int:
    after = math.prod(_sample_shape(call.output))
    match call.layer:
        case _ if call.flops:
            return (call.flops - call.flops_inside) // (2 * 2)  # two operations each, of a batch of two
        case nn.Linear() | NtkLinear():
            return after * call.layer.in_features
        case PeriodicEmbedding():
            return call.layer.frequency.numel() + call.layer.weight.numel()
        case nn.Conv2d():
            return after * (call.layer.in_channels // call.layer.groups) * math.prod(call.layer.kernel_size)
        case nn.Bilinear():
            return after * call.layer.in1_features * call.layer.in2_features
        case _NormBase() | nn.LayerNorm() | nn.GroupNorm():
            return after
        case _:
            return 0


def _activation_bytes(call: LayerCall) -> int:
    """A container's output is that of a layer in it; a Flatten's, and one written in place, is the input's memory."""
    if call.is_container or isinstance(call.layer, nn.Flatten) or call.output is call.input:
        return 0
    output = call.output if isinstance(call.output, Tensor) else None
    return math.prod(_sample_shape(call.output)) * (4 if output is None else output.element_size())


def _source_of(cls: type) -> str | None:
    try:
        return f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        return None
