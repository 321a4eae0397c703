"""The output shapes of the usual layers, and the messages where a layer does not take its input.

By each layer's own formula (torch's documentation): a first kernel on the meta device makes PyTorch import its symbolic
shapes and its compiler, which takes longer than a second. Every other layer runs there (``meta_forward``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

from torch import nn

from trainkit.errors import Problem, ProblemsError
from trainkit.models.members import MeanOfMembers, MemberLinear, MemberOutputs, Members
from trainkit.models.network import GlobalAvgPool2d, GroupNorm
from trainkit.models.table_layers import (
    CategoryEmbedding,
    NtkLinear,
    OneHot,
    ParametricActivation,
    PeriodicEmbedding,
    Scale,
    Signs,
)

Shape = tuple[int, ...]
"""With the batch first: (N, C, H, W) or (N, F)."""

KNOWN_LAYERS: tuple[type[nn.Module], ...] = (
    *(nn.Linear, nn.Conv2d, nn.Flatten),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, GroupNorm),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, GlobalAvgPool2d),
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softmax, nn.LogSoftmax),
    *(nn.Dropout, nn.Dropout2d, nn.Identity),
    *(OneHot, Signs, CategoryEmbedding, PeriodicEmbedding, Scale, NtkLinear, ParametricActivation),
    *(Members, MemberLinear, MemberOutputs, MeanOfMembers),
)
"""Exact types: a subclass may have a forward pass of its own."""


def shape_text(shape: Shape) -> str:
    """``(N, 3, 32, 32)``, with N for the batch."""
    return f"({', '.join(['N', *map(str, shape[1:])])})"


def fail(message: str, key: str) -> NoReturn:
    raise ProblemsError([Problem(message, key)])


def known_output_shape(layer: nn.Module, shape: Shape, *, key: str) -> Shape | None:
    """The output shape of ``layer`` for an input of ``shape`` in training; None where there is no formula.

    Raises:
        ProblemsError: the layer does not take this input; names ``key``, the layer, both shapes and the remedy.
    """
    if type(layer) not in KNOWN_LAYERS or getattr(layer, "return_indices", False):
        return None
    match layer:
        case nn.Linear():
            return _linear(layer, shape, key)
        case nn.Conv2d():
            return _conv(layer, shape, key)
        case nn.MaxPool2d() | nn.AvgPool2d():
            return _pool(layer, shape, key)
        case nn.AdaptiveAvgPool2d() | nn.AdaptiveMaxPool2d():
            _need_images(layer, shape, key)
            size = pair(layer.output_size)
            return (*shape[:2], *(given or old for given, old in zip(size, shape[2:], strict=True)))
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return _batch_norm(layer, shape, key)
        case nn.LayerNorm():
            return _layer_norm(layer, shape, key)
        case nn.GroupNorm():
            return _group_norm(layer, shape, key)
        case nn.Dropout2d():
            _need_images(layer, shape, key, instead="Dropout")
            return shape
        case nn.Softmax() | nn.LogSoftmax():
            return _softmax(layer, shape, key)
        case OneHot() | Signs() | CategoryEmbedding() | PeriodicEmbedding():
            return (shape[0], layer.width)
        case Members():
            return (shape[0], layer.members, shape[1])
        case MeanOfMembers():  # as in evaluation
            return (shape[0], shape[2])
        case NtkLinear():
            return (*shape[:-1], layer.out_features)
        case nn.Flatten():
            return (shape[0], math.prod(shape[1:])) if (layer.start_dim, layer.end_dim) == (1, -1) else None
        case _:
            return shape


def _linear(layer: nn.Linear, shape: Shape, key: str) -> Shape:
    if shape[-1] == layer.in_features:
        return (*shape[:-1], layer.out_features)
    if len(shape) > 2:
        flat = math.prod(shape[1:])
        fail(
            f"Linear takes rows (N, {layer.in_features}), but its input is {shape_text(shape)}; "
            f"put a Flatten layer before it, which makes it (N, {flat}), and set in_features to {flat} or leave it out",
            key,
        )
    fail(
        f"Linear takes (N, {layer.in_features}), but its input is {shape_text(shape)}; "
        f"set in_features to {shape[-1]} or leave it out",
        key,
    )


def _conv(layer: nn.Conv2d, shape: Shape, key: str) -> Shape:
    _need_images(layer, shape, key)
    if shape[1] != layer.in_channels:
        fail(
            f"Conv2d takes {layer.in_channels} channels, (N, {layer.in_channels}, H, W), but its input is "
            f"{shape_text(shape)}; set in_channels to {shape[1]} or leave it out",
            key,
        )
    kernel, stride, dilation = pair(layer.kernel_size), pair(layer.stride), pair(layer.dilation)
    if layer.padding == "same":
        return (shape[0], layer.out_channels, *shape[2:])
    padding = (0, 0) if isinstance(layer.padding, str) else pair(layer.padding)
    span = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    padded = tuple(size + 2 * p for size, p in zip(shape[2:], padding, strict=True))
    if any(s > size for s, size in zip(span, padded, strict=True)):
        dilated = f" (over {_size_text(span)} with its dilation)" if span != kernel else ""
        with_padding = f", {_size_text(padded)} with padding" if padded != shape[2:] else ""
        fail(
            f"Conv2d has a kernel of {_size_text(kernel)}{dilated}, larger than its input "
            f"{shape_text(shape)}{with_padding}; make kernel_size smaller, "
            "add padding, or pool and stride less before it",
            key,
        )
    sizes = ((size - s) // step + 1 for size, s, step in zip(padded, span, stride, strict=True))
    return (shape[0], layer.out_channels, *sizes)


def _pool(layer: nn.MaxPool2d | nn.AvgPool2d, shape: Shape, key: str) -> Shape | None:
    if layer.ceil_mode:
        return None
    kind = type(layer).__name__
    _need_images(layer, shape, key)
    kernel, stride, padding = pair(layer.kernel_size), pair(layer.stride), pair(layer.padding)
    dilation = pair(layer.dilation) if isinstance(layer, nn.MaxPool2d) else (1, 1)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        fail(
            f"{kind} has padding {padding[0]}, more than half of its window {_size_text(kernel)}; make padding smaller",
            key,
        )
    span = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    sizes = tuple(
        (size + 2 * p - s) // step + 1 for size, p, s, step in zip(shape[2:], padding, span, stride, strict=True)
    )
    if min(sizes) < 1:
        fail(
            f"{kind} has a window of {_size_text(kernel)}, larger than its input {shape_text(shape)}: nothing is left; "
            "make the window smaller, or pool and stride less before it",
            key,
        )
    return (*shape[:2], *sizes)


def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, shape: Shape, key: str) -> Shape:
    kind = type(layer).__name__
    if isinstance(layer, nn.BatchNorm1d) and len(shape) == 4:
        fail(
            f"BatchNorm1d takes rows (N, {layer.num_features}), but its input is {shape_text(shape)}; use BatchNorm2d",
            key,
        )
    if isinstance(layer, nn.BatchNorm2d) and len(shape) != 4:
        fail(f"BatchNorm2d takes images (N, C, H, W), but its input is {shape_text(shape)}; use BatchNorm1d", key)
    if shape[1] != layer.num_features:
        fail(
            f"{kind} takes {layer.num_features} features, but its input is {shape_text(shape)}; "
            f"set num_features to {shape[1]} or leave it out",
            key,
        )
    if shape[0] * math.prod(shape[2:]) == 1:
        fail(
            f"{kind} gets one value a feature in a batch of 1 sample {shape_text(shape)} and cannot take their spread; "
            "make the batch larger, or drop the last batch (training.drop_last: true) where only that one has 1 sample",
            key,
        )
    return shape


def _layer_norm(layer: nn.LayerNorm, shape: Shape, key: str) -> Shape:
    ending = tuple(layer.normalized_shape)
    if shape[-len(ending) :] != ending:
        fail(
            f"LayerNorm takes inputs that end in {_size_text(ending)}, but its input is {shape_text(shape)}; "
            f"set normalized_shape to {shape[-1]} or leave it out",
            key,
        )
    return shape


def _group_norm(layer: nn.GroupNorm, shape: Shape, key: str) -> Shape:
    if shape[1] != layer.num_channels:
        fail(
            f"GroupNorm takes {layer.num_channels} channels, but its input is {shape_text(shape)}; "
            f"set num_channels to {shape[1]} or leave it out",
            key,
        )
    if math.prod(shape[1:]) == layer.num_groups:
        fail(
            f"GroupNorm has {layer.num_groups} groups for {shape_text(shape)}, one value in each, and would make all "
            "outputs 0; use fewer groups",
            key,
        )
    return shape


def _softmax(layer: nn.Softmax | nn.LogSoftmax, shape: Shape, key: str) -> Shape | None:
    if layer.dim is None:
        return None
    if not -len(shape) <= layer.dim < len(shape):
        kind = type(layer).__name__
        fail(f"{kind} is over dimension {layer.dim}, but its input is {shape_text(shape)}; set dim to 1", key)
    return shape


def _need_images(layer: nn.Module, shape: Shape, key: str, *, instead: str = "") -> None:
    if len(shape) == 4:
        return
    remedy = (
        f"use {instead}" if instead else "put it before the Flatten layer, or use Linear layers where the data are rows"
    )
    fail(f"{type(layer).__name__} takes images (N, C, H, W), but its input is {shape_text(shape)}; {remedy}", key)


def check_shortcut(shortcut: Shape, branch: Shape, *, remedy: str, key: str) -> None:
    """Raise where the two sides of a residual block cannot be added: broadcasting would add them silently."""
    if shortcut != branch:
        fail(
            f"a residual block adds its input to the output of its layers, but the shortcut is {shape_text(shortcut)} "
            f"and the layers make {shape_text(branch)}; {remedy}",
            key,
        )


def check_output_shape(shape: Shape, output_size: int, *, key: str) -> None:
    """Raise where the model's output is not (N, output_size)."""
    needed = f"data and loss need (N, {output_size})"
    if len(shape) != 2:
        fail(
            f"the output of the model is {shape_text(shape)}, but {needed}; "
            f"end it with Flatten and a Linear layer (out_features {output_size}, or left out)",
            key,
        )
    if shape[1] != output_size:
        fail(
            f"the output of the model is {shape_text(shape)}, but {needed}; "
            f"let the last layer have {output_size} outputs (out_features of a Linear may be left out)",
            key,
        )


def has_weights(layer: nn.Module) -> bool:
    """Whether a layer mixes its inputs, so that its arguments decide how many outputs there are."""
    return any(p.dim() > 1 for p in layer.parameters(recurse=False)) and not isinstance(layer, nn.LayerNorm)


def pair(value: int | Sequence[int | None] | None) -> tuple[int, int]:
    """(H, W) of a size that may be one number for both; None counts as 0."""
    if isinstance(value, Sequence):
        return (value[0] or 0, value[-1] or 0)
    return (value or 0, value or 0)


def _size_text(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
