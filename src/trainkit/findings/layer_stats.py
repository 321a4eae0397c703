"""Statistics of one batch inside a model, layer by layer, and flags for values that look wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from trainkit.engine import Loss
from trainkit.findings.probes import DeadUnits, all_but_channels, count_silent_units, watch_calls
from trainkit.findings.scale import INPUT_SCALE
from trainkit.models import LayerRow, call_name, own_parameters

VANISHING = 1e-3
"""The gradient of a layer's weights, relative to the weights, as a share of that of the layer with the largest."""
EXPLODING = 100.0
"""The gradient of a layer's weights, relative to the weights: with a learning rate of 0.01, a step replaces them."""
OFF_CENTER = {"image": 1.0, "table": 10.0}
"""Mean of an input channel or column over its deviation; rare categories of a table are far off by nature."""


@dataclass(frozen=True)
class Activity:
    """A layer's outputs over the batch, and the gradient of its parameters."""

    mean: float
    std: float
    zeros: float
    """Share of the outputs that are exactly 0."""
    grad_norm: float | None = None
    """L2 norm; None for layers without parameters."""
    weight_norm: float | None = None


@dataclass(frozen=True)
class Flag:
    """Something that looks wrong."""

    kind: str
    """``inputs``, ``dead``, ``vanishing``, ``exploding`` or ``non-finite``."""
    key: str
    """The config key of the layer."""
    message: str


@dataclass(frozen=True)
class Diagnosis:
    """A model on one batch."""

    num_samples: int
    loss: float
    activities: dict[str, Activity]
    """By the name of the row in the layer table."""
    flags: tuple[Flag, ...]


def diagnose(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    loss: Loss,
    rows: Sequence[LayerRow],
    kind: str,
    quantities: Sequence[str] | None = None,
    scaled: bool = False,
) -> Diagnosis:
    """Run a batch forward and backward in training mode, without changing a weight.

    Args:
        inputs: (N, C, H, W) or (N, F), as the model gets them.
        rows: the layer table of the model.
        kind: ``image`` or ``table``.
        quantities: the names of a table's numeric columns, the first ones: only they have a scale. None for images.
        scaled: whether a scaling one is among the transforms already.
    """
    model.train()
    model.zero_grad(set_to_none=True)
    with record_activities(model) as recorded, count_silent_units(model) as dead_units:
        predictions = model(inputs).float()
        units = dead_units()
    value = loss.mean(predictions, targets)
    value.backward()
    layers = {name: layer for name, (layer, _) in recorded.items()}
    called = set(layers.values())
    activities = {
        row.name: _with_gradients(recorded[row.name][1], list(own_parameters(layers[row.name], called)))
        for row in rows
        if row.name in recorded
    }
    model.zero_grad(set_to_none=True)
    keys = {row.name: row.key for row in rows}
    broken = _flag_non_finite(activities, keys)
    flags = _flag_inputs(inputs, kind, quantities, scaled=scaled) + _flag_dead(units)
    flags += broken or _flag_gradients(activities, layers, keys)
    return Diagnosis(len(targets), value.item(), activities, tuple(flags))


@contextmanager
def record_activities(model: nn.Module) -> Iterator[dict[str, tuple[nn.Module, Activity]]]:
    """All modules and their outputs while the block runs the model once, by the names of the layer table's rows."""
    recorded: dict[str, tuple[nn.Module, Activity]] = {}

    def look(name: str, call: int, layer: nn.Module, output: Tensor) -> None:
        values = output.cpu().double()  # MPS has no float64
        zeros = (values == 0).double().mean()
        activity = Activity(values.mean().item(), values.std(correction=0).item(), zeros.item())
        recorded[call_name(name, call)] = layer, activity

    with watch_calls(model, dict(model.named_modules()), look):
        yield recorded


def _with_gradients(activity: Activity, parameters: Sequence[nn.Parameter]) -> Activity:
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return replace(
        activity,
        grad_norm=torch.nn.utils.get_total_norm(grads).item() if grads else None,
        weight_norm=torch.nn.utils.get_total_norm(parameters).item() if parameters else None,
    )


def _flag_inputs(inputs: Tensor, kind: str, quantities: Sequence[str] | None, *, scaled: bool) -> list[Flag]:
    """Channels or columns that are far from mean 0 and deviation 1; constant ones have no scale."""
    if quantities is not None:
        inputs = inputs[:, : len(quantities)]
    across = all_but_channels(inputs)
    values = inputs.cpu().double()
    mean, std = values.mean(dim=across), values.std(dim=across, correction=0)
    rms = values.square().mean(dim=across).sqrt()
    low, high = INPUT_SCALE
    off = (std > 0) & ((rms < low) | (rms > high) | (mean.abs() > OFF_CENTER[kind] * std))
    if not off.any():
        return []
    worst = int((off * (rms + mean.abs() / std.clamp(min=1e-12))).argmax())
    name = f"channel {worst}" if quantities is None else quantities[worst]
    what, transform = ("channels", "normalize") if kind == "image" else ("columns", "standardize")
    advice = f"add {transform} to the transforms"
    if scaled:
        advice = (
            "set mean and std of normalize to auto" if kind == "image" else "look at the samples far from the others"
        )
    message = (
        f"inputs are out of scale: {int(off.sum())} of {len(off)} {what}, such as {name} with mean "
        f"{mean[worst].item():.3g} and spread {std[worst].item():.3g}; {advice}"
    )
    return [Flag("inputs", "transforms", message)]


def _flag_dead(units: Sequence[DeadUnits]) -> list[Flag]:
    return [
        Flag(
            "dead",
            layer.key,
            f"{layer.dead} of {layer.total} ReLU units of {layer.name} are 0 for every sample and cannot learn; "
            "lower the learning rate, choose another init, or leaky_relu",
        )
        for layer in units
        if layer.is_mostly_dead
    ]


def _flag_non_finite(activities: Mapping[str, Activity], keys: Mapping[str, str]) -> list[Flag]:
    """Where the first value that is not finite comes up: forwards in the outputs, else backwards in the gradients."""
    outputs = [name for name, seen in activities.items() if not math.isfinite(seen.mean)]
    grads = [n for n, seen in activities.items() if seen.grad_norm is not None and not math.isfinite(seen.grad_norm)]
    if not outputs and not grads:
        return []
    name, what = (outputs[0], "output") if outputs else (grads[-1], "gradient")
    return [Flag("non-finite", keys[name], f"the {what} of {name} is the first that is not finite")]


def _flag_gradients(
    activities: Mapping[str, Activity], layers: Mapping[str, nn.Module], keys: Mapping[str, str]
) -> list[Flag]:
    """Gradients of linear layers and convolutions, each relative to the weights that it would change."""
    first_rows: dict[nn.Module, str] = {}
    for name, layer in layers.items():
        first_rows.setdefault(layer, name)
    relative = {
        name: seen.grad_norm / seen.weight_norm
        for name, seen in activities.items()
        if isinstance(layers[name], nn.Linear | _ConvNd)
        and first_rows[layers[name]] == name
        and seen.grad_norm is not None
        and seen.weight_norm
    }
    if not relative:
        return []
    flags = []
    largest = max(relative, key=relative.__getitem__)
    small = [name for name in relative if relative[name] < VANISHING * relative[largest]]
    if small:
        share = relative[small[0]] / relative[largest] if relative[largest] else 0.0
        flags.append(
            Flag(
                "vanishing",
                keys[small[0]],
                f"gradients vanish: {', '.join(small[:5])} get {share:.1g} of what {largest} gets; use relu or silu "
                "instead of sigmoid or tanh, batch norm, residual blocks, or fewer layers",
            )
        )
    if relative[largest] > EXPLODING:
        many = [name for name in relative if relative[name] > EXPLODING]
        flags.append(
            Flag(
                "exploding",
                keys[largest],
                f"gradients explode: that of {largest} is {relative[largest]:.3g} times its weights"
                f"{f' ({len(many)} layers)' if len(many) > 1 else ''}; choose another init, a batch norm, "
                "training.clip_grad_norm, or scale the values to predict",
            )
        )
    return flags
