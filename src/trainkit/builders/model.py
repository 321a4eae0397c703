"""``model:`` and ``loss:`` as objects."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import nn

from trainkit.builders.data import knobs_of
from trainkit.builders.own_parts import build_module, build_part, name_of
from trainkit.config.schema import Config
from trainkit.config.schema import losses as losses_schema
from trainkit.config.schema import model as schema
from trainkit.config.schema import pretrained as published
from trainkit.config.schema.base import Section, is_own
from trainkit.config.schema.presets import TORCHVISION
from trainkit.data.dataset import Dataset, Task
from trainkit.data.loading import evaluation_batch_size
from trainkit.data.tables import TableLayout
from trainkit.engine import EXPECTS, Loss, LossName, auto_loss, build_loss, build_own_loss, output_size, outputs_of
from trainkit.models import (
    BlockSpec,
    HeadSpec,
    LayerSpec,
    begin_as_identity,
    build_cnn,
    build_mlp,
    build_sequential,
    build_tabular_mlp,
    build_timm,
    build_torchvision,
    initialize,
    is_timm_convolutional,
    one_hot_layer,
    schedule_dropout,
)
from trainkit.runtime import Choice, seed_default_generators


def build_model(
    config: Config,
    *,
    input_shape: Sequence[int],
    output_size: int,
    layout: TableLayout | None = None,
    loss: LossName = "cross_entropy",
) -> nn.Module:
    """The network with its first weights, which depend on the seed alone; on the CPU.

    Args:
        layout: the columns of a table, see ``layout_of``.
        loss: what the outputs mean, which some models need to know.

    Raises:
        ProblemsError: a layer does not take its input.
    """
    seed_default_generators(config.seed, "init", device=torch.device("cpu"))
    spec = config.model
    knobs = knobs_of(spec)
    init, dropout_schedule = knobs.pop("init", None), knobs.pop("dropout_schedule", None)
    model: nn.Module
    match spec:
        case schema.TabularMlp():
            task: Task = "regression" if EXPECTS[loss] == "values" else "classification"
            model = build_tabular_mlp(
                layout or TableLayout(input_shape[0]), output_size, task=task, outputs=outputs_of(loss), **knobs
            )
        case schema.Mlp():
            model = build_mlp(input_shape, output_size, layout=layout, **knobs)
        case schema.Cnn():
            blocks = [BlockSpec(**dict(block)) for block in knobs.pop("blocks")]
            model = build_cnn(input_shape, output_size, blocks=blocks, **knobs)
        case schema.Sequential():
            model = build_sequential(input_shape, output_size, layers=_layer_specs(spec.layers), layout=layout)
        case published.Torchvision():
            preset = TORCHVISION[spec.name].get(published.published_weights(spec) or "")
            model = build_torchvision(
                spec.name,
                output_size,
                input_shape=input_shape,
                head=_head_spec(spec),
                side=None if preset is None else preset.crop,
                scaled_inputs=spec.weights != "none",
            )
        case published.Timm():
            of_weights = published.published_weights(spec) is not None
            model = build_timm(
                spec.name, output_size, input_shape=input_shape, head=_head_spec(spec), side_of_weights=of_weights
            )
        case _:
            init, dropout_schedule = None, None  # knobs of its own
            model = _own_model(spec, input_shape, output_size, layout=layout)
    if isinstance(init, schema.Whiten):
        begin_as_identity(model)
    elif init is not None:
        initialize(model, init.type, **knobs_of(init))
    if dropout_schedule == "flat_cos":
        schedule_dropout(model)
    return model


def _layer_specs(layers: Sequence[schema.Layer]) -> list[LayerSpec]:
    specs = []
    for layer in layers:
        knobs = knobs_of(layer)
        if isinstance(layer, schema.ResidualLayers):
            knobs = {name: _layer_specs(inner) for name, inner in knobs.items()}
        make = partial(build_module, layer) if is_own(layer) else None
        specs.append(LayerSpec(layer.type, knobs, make))
    return specs


def _head_spec(spec: published.Pretrained) -> HeadSpec | None:
    return None if spec.head == "keep" else HeadSpec(**knobs_of(spec.head))


def _own_model(spec: Section, input_shape: Sequence[int], output_size: int, *, layout: TableLayout | None) -> nn.Module:
    """A plug-in's model; categories of a table become one-hot before it."""
    if layout is None or not layout.categories:
        return build_module(spec, tuple(input_shape), output_size, key="model")
    inner = build_module(spec, (layout.one_hot_width,), output_size, key="model")
    return nn.Sequential(OrderedDict([("one_hot", one_hot_layer(layout)), ("model", inner)]))


def is_convolutional(config: Config) -> bool:
    """Whether the model has convolutions."""
    match config.model:
        case schema.Cnn():
            return True
        case schema.Sequential() as spec:
            return any(isinstance(layer, schema.Conv2dLayer) for _, layer in spec.torch_layers())
        case published.Torchvision(name=name):
            return not name.startswith(("vit", "swin"))
        case published.Timm(name=name):
            return is_timm_convolutional(name)
        case _:
            return False


def is_channels_last(config: Config) -> bool:
    """The memory layout of images: ``auto`` is channels-last for convolutions, which are faster in it."""
    channels_last = config.training.channels_last
    return is_convolutional(config) if channels_last == "auto" else channels_last


def place(model: nn.Module, config: Config, device: torch.device) -> nn.Module:
    """The model on the device, in the memory layout of the config."""
    model = model.to(device)
    return model.to(memory_format=torch.channels_last) if is_channels_last(config) else model


def eval_batch_size(config: Config, input_shape: tuple[int, ...], device: torch.device) -> int:
    """The batch size of evaluation, without gradients."""
    if config.training.eval_batch_size != "auto":
        return config.training.eval_batch_size
    return evaluation_batch_size(input_shape, device=device, convolutional=is_convolutional(config))


def loss_name(config: Config, data: Dataset) -> Choice:
    """The loss's name and why: ``auto`` follows the task."""
    if not isinstance(config.loss, losses_schema.AutoLoss):
        return Choice(config.loss.type, f"as asked for{_turning_point(config, data)}")
    what = "values" if data.task == "regression" else f"{data.num_classes} classes"
    return Choice(auto_loss(data.task), f"auto: the targets are {what}")


def outputs_as(config: Config, name: str) -> LossName:
    """The loss of this name; for one of a plug-in, the loss of trainkit's that takes the same outputs."""
    return cast(LossName, losses_schema.OUTPUTS_AS[config.loss.outputs] if is_own(config.loss) else name)  # type: ignore[union-attr]


def _turning_point(config: Config, data: Dataset) -> str:
    """Where huber and smooth_l1 turn from squared to absolute, for a target that is scaled: far from 1 is a mistake."""
    name = {"huber": "delta", "smooth_l1": "beta"}.get(config.loss.type)
    if name is None or data.target_scale is None:
        return ""
    value = getattr(config.loss, name)
    if len(set(data.target_std)) > 1:
        return f"; {name} is {value:g} standard deviations of each target"
    return f"; {name} {value:g} is {value / data.target_std[0]:.2g} standard deviations of the target"


def build_loss_for(config: Config, data: Dataset, *, device: torch.device) -> Loss:
    """The loss for this data set; ``balanced`` weights count the training split.

    Raises:
        ProblemsError: the weights do not fit the classes.
    """
    if is_own(config.loss):
        function = build_part(config.loss, key="loss")
        return build_own_loss(function, outputs_as=outputs_as(config, ""), name=name_of(config.loss))
    knobs, name = knobs_of(config.loss), cast(LossName, loss_name(config, data).value)
    if isinstance(config.loss, losses_schema.AutoLoss) and name != "cross_entropy":
        knobs = {}
    return build_loss(
        name,
        device=device,
        class_counts=data.class_counts("train"),
        class_names=data.class_names,
        target_std=data.target_std,
        **knobs,
    )


def output_size_for(config: Config, data: Dataset) -> int:
    """How many outputs the model must have.

    Raises:
        ProblemsError: the loss is not for this task, or not for so many classes.
    """
    name = outputs_as(config, loss_name(config, data).value)
    return output_size(name, task=data.task, num_classes=data.num_classes, num_targets=data.num_targets)
