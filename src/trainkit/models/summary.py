"""What a network does to shapes, layer by layer: the check before training, and the table of ``trainkit inspect``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import nn

from trainkit.models.cnn import check_shortcut
from trainkit.models.layer_shapes import Shape, fail, output_shape
from trainkit.models.network import ResidualBlock, config_key
from trainkit.models.sequential import check_output_shape

Expected = Literal["logits", "log_probabilities", "probabilities", "values"]


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


def check_output(
    model: nn.Module, input_shape: Sequence[int], *, output_size: int, expects: Expected, loss: str
) -> None:
    """Whether the model ends in what the loss takes: (N, output_size) values of the kind that it ``expects``.

    Raises:
        ProblemsError: the wrong size, or softmax before cross_entropy, no log_softmax before nll, and the like.
    """
    steps, shape = _walk(model, (2, *input_shape))
    weighted = [step.name for step in steps if isinstance(step.layer, nn.Linear | nn.Conv2d)]
    check_output_shape(shape, output_size, key=config_key(model, weighted[-1] if weighted else ""))
    speaking = [step for step in steps if not isinstance(step.layer, nn.Flatten | nn.Identity)]
    name, last = (speaking[-1].name, speaking[-1].layer) if speaking else ("", model)
    _check_kind(last, expects=expects, loss=loss, key=config_key(model, name), output_size=output_size)


def _check_kind(last: nn.Module, *, expects: Expected, loss: str, key: str, output_size: int) -> None:
    kind = type(last).__name__
    squashes = isinstance(last, nn.Softmax | nn.LogSoftmax | nn.Sigmoid)
    if isinstance(last, nn.Softmax | nn.LogSoftmax) and output_size == 1:
        fail(
            f"{kind} over one output is always the same value; use Sigmoid with loss: bce, or no output activation", key
        )
    match expects:
        case "logits" if squashes:
            fitting = (
                {"LogSoftmax": "nll", "Sigmoid": "bce"}.get(kind) if (output_size == 1) == (kind == "Sigmoid") else None
            )
            instead = f", or use loss: {fitting}" if fitting else ""
            fail(
                f"the model ends in {kind}, but loss: {loss} takes raw scores (logits) and applies its own "
                f"{'sigmoid' if output_size == 1 else 'log_softmax'}; leave {kind} out{instead}",
                key,
            )
        case "log_probabilities" if not isinstance(last, nn.LogSoftmax):
            fail(
                f"loss: {loss} takes log-probabilities, but the model ends in {kind}; "
                "end it with log_softmax (output: log_softmax, or a LogSoftmax layer), or use loss: cross_entropy",
                key,
            )
        case "probabilities" if not isinstance(last, nn.Sigmoid):
            fail(
                f"loss: {loss} takes a probability, but the model ends in {kind}; "
                "end it with sigmoid (output: sigmoid, or a Sigmoid layer), or use loss: bce_with_logits",
                key,
            )


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
