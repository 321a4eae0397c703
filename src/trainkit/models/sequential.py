"""Lists of ``torch.nn`` layers, with their sizes inferred."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from trainkit.data.tables import TableLayout
from trainkit.models.layer_shapes import (
    KNOWN_LAYERS,
    Shape,
    check_output_shape,
    check_shortcut,
    fail,
    has_weights,
    shape_text,
)
from trainkit.models.meta_forward import output_shape
from trainkit.models.network import Network, Residual, config_key
from trainkit.models.table_layers import one_hot_layer

_LAYERS = {layer.__name__: layer for layer in KNOWN_LAYERS if hasattr(nn, layer.__name__)}


@dataclass(frozen=True)
class LayerSpec:
    """A layer by its name in ``torch.nn``, with its constructor's arguments; one that is None counts as left out.

    ``residual`` is layers plus their input: its arguments ``residual`` and ``shortcut`` are lists of ``LayerSpec``.
    """

    type: str
    arguments: dict[str, Any] = field(default_factory=dict)
    make: Callable[..., nn.Module] | None = None
    """Of a layer that is not PyTorch's: makes it for the shape of one sample; ``key=`` is for messages."""


def build_sequential(
    input_shape: Sequence[int], output_size: int, *, layers: Sequence[LayerSpec], layout: TableLayout | None = None
) -> Network:
    """The layers one after the other: (N, *input_shape) to (N, output_size).

    Categories of a table with this ``layout`` become one-hot before the first of them.

    Input sizes (``in_features``, ``in_channels``, ``num_features``, ``num_channels``, ``normalized_shape``) that are
    left out are inferred, and so is ``out_features`` of the last Linear that is in no residual part. No layer is added:
    a Linear on images is an error.

    Raises:
        ProblemsError: a layer does not take its input, or the output is not what data and loss need; names
            ``model.layers[i]`` and the shapes.
    """
    front: list[tuple[str, nn.Module]] = []
    if layout is not None and layout.categories:
        front = [("one_hot", one_hot_layer(layout))]
        input_shape = (layout.one_hot_width,)
    built, keys, shape = _build_list(layers, (2, *input_shape), key="model.layers", output_size=output_size)
    model = Network([*front, *built], config_keys=keys)
    weighted = [config_key(model, name) for name, layer in model.named_modules() if has_weights(layer)]
    check_output_shape(shape, output_size, key=weighted[-1] if weighted else "model.layers")
    return model


def _build_list(
    specs: Sequence[LayerSpec], shape: Shape, *, key: str, output_size: int | None = None
) -> tuple[list[tuple[str, nn.Module]], dict[str, str], Shape]:
    """The layers by name, the config keys of all modules in them, and the shape that they make."""
    linears = [i for i, spec in enumerate(specs) if spec.type == "Linear"]
    last_linear = linears[-1] if linears else -1
    built: list[tuple[str, nn.Module]] = []
    keys: dict[str, str] = {}
    for i, spec in enumerate(specs):
        keys[str(i)] = here = f"{key}[{i}]"
        if spec.type == "residual":
            layer, inside, shape = _build_residual(spec, shape, key=here)
            keys |= {f"{i}.{name}": place for name, place in inside.items()}
        elif spec.make is not None:
            layer = spec.make(shape[1:], key=here)
            before, shape = shape, output_shape(layer, shape, key=here)
            if len(shape) < 2 or shape[0] != before[0]:
                made = f"{spec.type} makes {tuple(shape)} of {tuple(before)}"
                fail(f"{made}; the first dimension of a layer's output is that of the batch", here)
        else:
            given = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in spec.arguments.items()
                if value is not None
            }
            arguments = _infer(spec.type, given, shape, key=here, output_size=output_size if i == last_linear else None)
            layer = _make_layer(spec.type, arguments, key=here)
            shape = output_shape(layer, shape, key=here)
        built.append((str(i), layer))
    return built, keys, shape


def _build_residual(spec: LayerSpec, shape: Shape, *, key: str) -> tuple[nn.Module, dict[str, str], Shape]:
    branch, keys, after = _build_list(spec.arguments["residual"], shape, key=f"{key}.residual")
    shortcut, more, through = _build_list(spec.arguments.get("shortcut", []), shape, key=f"{key}.shortcut")
    check_shortcut(through, after, remedy=_shortcut_remedy(shape, after) if not shortcut else _SAME, key=key)
    both = Residual(
        branch=nn.Sequential(OrderedDict(branch)),
        shortcut=nn.Sequential(OrderedDict(shortcut)) if shortcut else nn.Identity(),
    )
    names = {f"branch.{name}": place for name, place in keys.items()}
    return both, names | {f"shortcut.{name}": place for name, place in more.items()}, after


_SAME = "let residual and shortcut make the same shape"


def _shortcut_remedy(before: Shape, after: Shape) -> str:
    """A shortcut that makes ``after`` of ``before``, where one layer can."""
    if len(before) == len(after) == 2:
        return f"add shortcut: [{{type: Linear, out_features: {after[1]}}}]"
    if len(before) == len(after) == 4:
        for step in range(1, before[2] + 1):
            if all((size - 1) // step + 1 == new for size, new in zip(before[2:], after[2:], strict=True)):
                stride = f", stride: {step}" if step > 1 else ""
                return f"add shortcut: [{{type: Conv2d, out_channels: {after[1]}, kernel_size: 1{stride}}}]"
        return (
            "give its convolutions a padding of half of their kernel_size, or add a shortcut that makes the same shape"
        )
    return _SAME


def _infer(kind: str, given: dict[str, Any], shape: Shape, *, key: str, output_size: int | None) -> dict[str, Any]:
    """The arguments, completed from the shape of the input; ``output_size`` only for the last Linear."""
    match kind:
        case "Linear":
            if "in_features" not in given and len(shape) > 2:
                fail(
                    f"Linear takes rows (N, F), but its input is {shape_text(shape)}; put a Flatten layer before it",
                    key,
                )
            if "out_features" not in given and output_size is None:
                fail("out_features is missing; it may be left out in the last Linear layer only", f"{key}.out_features")
            return {"in_features": shape[-1], "out_features": output_size, **given}
        case "Conv2d":
            arguments = {"in_channels": shape[1], **given}
            _check_conv(arguments, key=key)
            return arguments
        case "BatchNorm1d" | "BatchNorm2d":
            return {"num_features": shape[1], **given}
        case "GroupNorm":
            return {"num_channels": shape[1], **given}
        case "LayerNorm":
            return {"normalized_shape": shape[-1], **given}
        case "Softmax" | "LogSoftmax":
            return {"dim": 1, **given}
        case _:
            return given


def _check_conv(arguments: dict[str, Any], *, key: str) -> None:
    groups, stride = arguments.get("groups", 1), arguments.get("stride", 1)
    for name in ("in_channels", "out_channels"):
        if name in arguments and arguments[name] % groups:
            fail(f"groups must divide {name} {arguments[name]}, got {groups}", f"{key}.groups")
    if arguments.get("padding") == "same" and stride not in (1, (1, 1)):
        fail(
            f"padding same keeps the size and so needs stride 1, got stride {stride}; give the padding as a number", key
        )


def _make_layer(kind: str, arguments: dict[str, Any], *, key: str) -> nn.Module:
    if kind not in _LAYERS:
        fail(f"unknown layer, got {kind}; known: {', '.join(_LAYERS)}", f"{key}.type")
    try:
        return _LAYERS[kind](**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        fail(f"torch.nn.{kind} does not take these arguments: {error}", key)
