"""The shapes of a model's layers, found without memory: from a sample of the data, on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from trainkit.builders import (
    build_batch_transforms,
    build_model,
    layout_of,
    loss_name,
    model_input_shape,
    outputs_as,
)
from trainkit.config.rules import EpochSizes
from trainkit.config.schema import Config
from trainkit.data.dataset import Dataset
from trainkit.data.transforms import BatchTransform
from trainkit.errors import ProblemsError
from trainkit.models import LayerRow, check_shapes, layer_table
from trainkit.workflows.check.probe_data import take_sample
from trainkit.workflows.check.problems import problems_of


@dataclass(frozen=True)
class ModelShapes:
    """A model on the meta device, and the sample of the data that gave its input shape."""

    sample: Dataset
    transforms: list[BatchTransform]
    input_shape: tuple[int, ...]
    model: nn.Module
    rows: list[LayerRow]
    """The layers, for one sample."""


def model_shapes(
    config: Config,
    data: Dataset,
    *,
    output_size: int,
    sizes: EpochSizes | None = None,
    stored: Mapping[str, Any] | None = None,
    source: bool = False,
) -> ModelShapes:
    """Build the model on the meta device, for a sample of the data.

    Args:
        sizes: also check that the layers take batches of these sizes.
        stored: the checkpoint whose preprocessing is used.
        source: name in the rows the place of each layer's code.

    Raises:
        ProblemsError: the data, the transforms or the layers do not fit; the keys say where.
    """
    with problems_of("dataset"):
        sample = take_sample(data, config)
    with problems_of("transforms"):
        preprocessing = None if stored is None else stored["preprocessing"]
        transforms = build_batch_transforms(config, sample, stored=preprocessing)
        input_shape = model_input_shape(config, sample, transforms)
    with problems_of("model"):
        with torch.device("meta"):
            model = build_model(
                config,
                input_shape=input_shape,
                output_size=output_size,
                layout=layout_of(sample),
                loss=outputs_as(config, loss_name(config, data).value),
            )
        if sizes is not None:
            check_batch_sizes(model, input_shape, sizes)
    return ModelShapes(sample, transforms, input_shape, model, layer_table(model, input_shape, source=source))


def check_batch_sizes(model: nn.Module, input_shape: tuple[int, ...], sizes: EpochSizes) -> None:
    """Raises ProblemsError where a layer does not take a piece of the smallest sizes that an epoch has."""
    check_shapes(model, input_shape, batch_size=sizes.smallest(min(sizes.batch_size, sizes.num_samples)))
    if sizes.drop_last or sizes.last_batch == sizes.batch_size:
        return
    smallest = sizes.smallest(sizes.last_batch)
    try:
        check_shapes(model, input_shape, batch_size=smallest)
    except ProblemsError as error:
        why = (
            f"this happens in the last batch of an epoch: {sizes.num_samples} training samples in batches of "
            f"{sizes.batch_size} leave {sizes.last_batch}"
        )
        if sizes.accumulation_steps > 1:
            why += f", cut into pieces of {smallest} at the least"
        raise ProblemsError([replace(p, message=f"{p.message} ({why})") for p in error.problems]) from None
