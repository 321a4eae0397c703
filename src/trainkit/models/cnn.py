"""Convolutional networks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from trainkit.models.layer_shapes import Shape, check_shortcut, fail, pair
from trainkit.models.meta_forward import output_shape
from trainkit.models.network import (
    Activation,
    GlobalAvgPool2d,
    GroupNorm,
    Network,
    OutputActivation,
    Residual,
    ResidualBlock,
    activation_layer,
    output_layer,
)

ConvNorm = Literal["none", "batch", "group"]
Layers = OrderedDict[str, nn.Module]


@dataclass(frozen=True)
class BlockSpec:
    """One block; None takes the model's value."""

    channels: int
    kernel_size: int | Sequence[int] = 3
    stride: int | Sequence[int] = 1
    padding: Literal["same", "valid"] | int = "same"
    norm: ConvNorm | None = None
    activation: Activation | None = None
    pool: int = 1
    pool_type: Literal["max", "avg"] = "max"
    dropout: float | None = None
    residual: bool = False
    convs: int = 1


def build_cnn(
    input_shape: Sequence[int],
    output_size: int,
    *,
    blocks: Sequence[BlockSpec],
    norm: ConvNorm = "none",
    norm_groups: int = 32,
    bias: bool = True,
    activation: Activation = "relu",
    dropout: float = 0.0,
    global_pool: Literal["none", "avg", "max"] = "none",
    head_sizes: Sequence[int] = (),
    head_dropout: float = 0.0,
    output: OutputActivation = "none",
) -> Network:
    """Blocks of conv -> norm -> activation -> pool -> dropout, then linear layers: (N, C, H, W) to (N, output_size).

    A block of several convolutions has conv -> norm -> activation for each. Convolutions keep PyTorch's default bias
    also before a norm (which makes it redundant), as the usual network written by hand has it. A part that is switched
    off adds no layer.

    Raises:
        ProblemsError: a block does not take its input; names ``model.blocks[i]`` and the shapes.
    """
    if len(input_shape) != 3:
        fail(
            f"a cnn takes images (N, C, H, W), but a sample of this data set is {tuple(input_shape)}; use model: mlp",
            "model.type",
        )
    shape: Shape = (2, *input_shape)
    keys: dict[str, str] = {"blocks": "model.blocks", "head": "model"}
    built: Layers = OrderedDict()
    for i, block in enumerate(blocks):
        key = f"model.blocks[{i}]"
        complete = replace(
            block,
            norm=block.norm or norm,
            activation=block.activation or activation,
            dropout=dropout if block.dropout is None else block.dropout,
        )
        built[str(i)], shape, inside = _build_block(complete, shape, norm_groups=norm_groups, bias=bias, key=key)
        keys |= {f"blocks.{i}": key, **{f"blocks.{i}.{part}": place for part, place in inside.items()}}

    head: Layers = OrderedDict()
    if global_pool != "none":
        head["global_pool"] = GlobalAvgPool2d() if global_pool == "avg" else nn.AdaptiveMaxPool2d(1)
        keys["head.global_pool"] = "model.global_pool"
    head["flatten"] = nn.Flatten()
    features = shape[1] if global_pool != "none" else shape[1] * shape[2] * shape[3]
    for position, size in enumerate([*head_sizes, output_size], start=1):
        if head_dropout > 0:
            head[f"dropout{position}"] = nn.Dropout(head_dropout)
            keys[f"head.dropout{position}"] = "model.head_dropout"
        if position > len(head_sizes):
            head["output"] = nn.Linear(features, output_size)
        else:
            head[f"linear{position}"] = nn.Linear(features, size)
            head[f"activation{position}"] = activation_layer(activation)
            keys[f"head.linear{position}"] = f"model.head_sizes[{position - 1}]"
            keys[f"head.activation{position}"] = "model.activation"
            features = size
    last = output_layer(output)
    if last is not None:
        head["output_activation"] = last
        keys["head.output_activation"] = "model.output"
    return Network([("blocks", nn.Sequential(built)), ("head", nn.Sequential(head))], config_keys=keys)


def _block_layers(
    block: BlockSpec, shape: Shape, *, norm_groups: int, bias: bool, key: str
) -> tuple[Layers, nn.Module, Layers]:
    """The layers of a block that are switched on, by name, in their order: those up to the last norm, and the rest.

    Between them stands the shortcut of a residual block.
    """
    kernel, stride = pair(block.kernel_size), pair(block.stride)
    padding: str | int | tuple[int, int] = block.padding
    if padding == "same":
        if stride != (1, 1):
            half = max(kernel) // 2
            fail(
                f"padding same keeps the size and so needs stride 1, got stride {block.stride}; "
                f"write padding: {half} (half of the kernel) to divide the size by the stride",
                f"{key}.padding",
            )
        if kernel[0] % 2 and kernel[1] % 2:
            padding = (kernel[0] // 2, kernel[1] // 2)  # the same zeros; the text form is slower and exports worse
    branch: Layers = OrderedDict()
    rest: Layers = OrderedDict()
    for number in range(1, block.convs + 1):
        end = str(number) if block.convs > 1 else ""
        channels, step = (shape[1], stride) if number == 1 else (block.channels, (1, 1))
        branch[f"conv{end}"] = nn.Conv2d(channels, block.channels, kernel, stride=step, padding=padding, bias=bias)
        branch |= {f"norm{end}": layer for layer in _norm_layers(block, norm_groups)}
        (branch if number < block.convs else rest)[f"activation{end}"] = activation_layer(block.activation or "relu")
    shortcut: nn.Module = nn.Identity()
    if block.residual and (shape[1] != block.channels or stride != (1, 1)):
        shortcut = nn.Conv2d(shape[1], block.channels, 1, stride=stride, bias=bias)
        if norms := _norm_layers(block, norm_groups):
            shortcut = nn.Sequential(shortcut, *norms)
    if block.pool > 1:
        rest["pool"] = nn.MaxPool2d(block.pool) if block.pool_type == "max" else nn.AvgPool2d(block.pool)
        name, activation = next(iter(rest.items()))
        if block.pool_type == "max" and isinstance(activation, nn.ReLU):
            # The same values and gradients, bit for bit, from a ReLU of fewer numbers: a step of the MNIST CNN takes
            # 13.7 ms instead of 15.7.
            rest.move_to_end(name)
    if block.dropout:
        rest["dropout"] = nn.Dropout2d(block.dropout)
    return branch, shortcut, rest


def _norm_layers(block: BlockSpec, groups: int) -> list[nn.Module]:
    """A norm layer, or none."""
    match block.norm:
        case "batch":
            return [nn.BatchNorm2d(block.channels)]
        case "group":
            return [GroupNorm(groups, block.channels)]
        case _:
            return []


def _build_block(
    block: BlockSpec, shape: Shape, *, norm_groups: int, bias: bool, key: str
) -> tuple[nn.Module, Shape, dict[str, str]]:
    """One module of the block's layers, the shape it makes, and the config keys of its parts."""
    branch, shortcut, rest = _block_layers(block, shape, norm_groups=norm_groups, bias=bias, key=key)
    after = shape
    for layer in branch.values():
        after = output_shape(layer, after, key=key)
    if block.residual:
        remedy = "choose padding: same (stride 1) or half of an odd kernel_size"
        check_shortcut(output_shape(shortcut, shape, key=key), after, remedy=remedy, key=key)
    for name, layer in rest.items():
        after = output_shape(layer, after, key=f"{key}.pool" if name == "pool" else key)
    keys = {part: f"{key}.{part}" for part in ("pool", "dropout") if part in rest}
    if not block.residual:
        return nn.Sequential(branch | rest), after, keys
    if block.convs == 1:  # as a class of its own, whose names older checkpoints have
        norm = branch.get("norm", nn.Identity())
        module = ResidualBlock(conv=branch["conv"], norm=norm, shortcut=shortcut, rest=rest)
        return module, after, {f"rest.{part}": place for part, place in keys.items()}
    sum_of_both: Layers = OrderedDict(residual=Residual(branch=nn.Sequential(branch), shortcut=shortcut))
    return nn.Sequential(sum_of_both | rest), after, keys
