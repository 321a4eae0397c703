"""What a network does to shapes, layer by layer: the check before training, and the table of ``trainkit inspect``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from trainkit.models.cnn import check_shortcut
from trainkit.models.layer_shapes import Shape, output_shape
from trainkit.models.network import ResidualBlock, config_key
from trainkit.models.sequential import check_output_shape


@dataclass(frozen=True)
class LayerRow:
    """One layer. Shapes, multiply-adds and bytes are for one sample."""

    name: str
    type: str
    key: str
    """Where it comes from in the config, such as ``model.blocks[1]``."""
    input_shape: Shape
    output_shape: Shape
    parameters: int
    trainable: int
    """How many of the parameters are trained."""
    multiply_adds: int
    """Multiply-adds of linear layers and convolutions without bias; one an element for norms; 0 for the rest."""
    activation_bytes: int
    """Memory of the output that training keeps for the backward pass; 0 for a view of the input (Flatten)."""
    source: str | None = None
    """``file:line`` of the layer's class."""


def check_shapes(model: nn.Module, input_shape: Sequence[int], batch_size: int = 2) -> Shape:
    """The shape of the output for a training batch of this size, the batch first; no layer is run, no memory taken.

    Raises:
        ProblemsError: a layer does not fit its input: its config key, its type, the shapes on both sides, the way out.
    """
    return _walk(model, (batch_size, *input_shape))[1]


def check_output(model: nn.Module, input_shape: Sequence[int], *, output_size: int) -> None:
    """Whether the model gives what data and loss need: (N, output_size).

    Raises:
        ProblemsError: it gives another shape.
    """
    steps, shape = _walk(model, (2, *input_shape))
    weighted = [step.name for step in steps if isinstance(step.layer, nn.Linear | nn.Conv2d)]
    check_output_shape(shape, output_size, key=config_key(model, weighted[-1] if weighted else ""))


def layer_table(model: nn.Module, input_shape: Sequence[int], *, source: bool = False) -> list[LayerRow]:
    """A row for each layer in the order of the forward pass; parameters that layers share are counted once.

    Raises:
        ProblemsError: as ``check_shapes``.
    """
    rows = []
    seen: set[int] = set()
    for name, layer, before, after in _walk(model, (2, *input_shape))[0]:
        if isinstance(layer, nn.Identity):
            continue
        parameters = [p for p in layer.parameters() if id(p) not in seen]
        seen |= {id(p) for p in parameters}
        element_bytes = parameters[0].element_size() if parameters else 4
        rows.append(
            LayerRow(
                name=name,
                type=type(layer).__name__,
                key=config_key(model, name),
                input_shape=before[1:],
                output_shape=after[1:],
                parameters=sum(p.numel() for p in parameters),
                trainable=sum(p.numel() for p in parameters if p.requires_grad),
                multiply_adds=_multiply_adds(layer, after[1:]),
                activation_bytes=0 if isinstance(layer, nn.Flatten) else math.prod(after[1:]) * element_bytes,
                source=_source_of(type(layer)) if source else None,
            )
        )
    return rows


class _Step(NamedTuple):
    """One layer of a forward pass, with the shapes on both sides of it."""

    name: str
    layer: nn.Module
    before: Shape
    after: Shape


def _walk(model: nn.Module, shape: Shape) -> tuple[list[_Step], Shape]:
    """The layers in the order of the forward pass, and the shape of the output."""
    steps: list[_Step] = []

    def visit(name: str, module: nn.Module, before: Shape) -> Shape:
        match module:
            case nn.Sequential():
                after = before
                for child_name, child in module.named_children():
                    after = visit(f"{name}.{child_name}".lstrip("."), child, after)
            case ResidualBlock():
                main = visit(f"{name}.norm", module.norm, visit(f"{name}.conv", module.conv, before))
                shortcut = visit(f"{name}.shortcut", module.shortcut, before)
                check_shortcut(shortcut, main, stride=(1, 1), key=config_key(model, name))
                after = visit(f"{name}.rest", module.rest, main)
            case _:
                after = output_shape(module, before, key=config_key(model, name))
                steps.append(_Step(name, module, before, after))
        return after

    return steps, visit("", model, shape)


def _multiply_adds(layer: nn.Module, after: Shape) -> int:
    match layer:
        case nn.Linear():
            return math.prod(after) * layer.in_features
        case nn.Conv2d():
            return math.prod(after) * (layer.in_channels // layer.groups) * math.prod(layer.kernel_size)
        case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.LayerNorm():
            return math.prod(after)
        case _:
            return 0


def _source_of(cls: type) -> str | None:
    try:
        return f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        return None
