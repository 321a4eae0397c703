"""Multilayer perceptrons: fully connected layers, one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import nn

from trainkit.data.tables import TableLayout
from trainkit.models.network import Activation, Network, OutputActivation, activation_layer, output_layer
from trainkit.models.table_layers import one_hot_layer


def build_mlp(
    input_shape: Sequence[int],
    output_size: int,
    *,
    hidden_sizes: Sequence[int] = (128,),
    activation: Activation = "relu",
    norm: Literal["none", "batch", "layer"] = "none",
    dropout: float = 0.0,
    output: OutputActivation = "none",
    layout: TableLayout | None = None,
) -> Network:
    """linear -> norm -> activation -> dropout for each hidden size, then a linear output.

    Takes (N, *input_shape) to (N, output_size): images are flattened first, and categories of a table with this
    ``layout`` become one-hot. A part that is switched off adds no layer.
    """
    layers: list[tuple[str, nn.Module]] = []
    keys: dict[str, str] = {}

    def add(name: str, layer: nn.Module | None, key: str) -> None:
        if layer is not None:
            layers.append((name, layer))
            keys[name] = key

    if len(input_shape) > 1:
        add("flatten", nn.Flatten(), "model")
    features = math.prod(input_shape)
    if layout is not None and layout.categories:
        add("one_hot", one_hot_layer(layout), "model")
        features = layout.one_hot_width
    for position, size in enumerate(hidden_sizes, start=1):
        add(f"linear{position}", nn.Linear(features, size), f"model.hidden_sizes[{position - 1}]")
        match norm:
            case "batch":
                add(f"norm{position}", nn.BatchNorm1d(size), "model.norm")
            case "layer":
                add(f"norm{position}", nn.LayerNorm(size), "model.norm")
        add(f"activation{position}", activation_layer(activation), "model.activation")
        if dropout > 0:
            add(f"dropout{position}", nn.Dropout(dropout), "model.dropout")
        features = size
    add("output", nn.Linear(features, output_size), "model")
    add("output_activation", output_layer(output), "model.output")
    return Network(layers, config_keys=keys)
