"""``tabular_mlp``: RealMLP (Holzmüller et al., 2024), a multilayer perceptron that is good on tables by default."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from trainkit.data.tables import TableLayout
from trainkit.models.members import MeanOfMembers, MemberLinear, MemberOutputs, Members, Outputs
from trainkit.models.network import Network
from trainkit.models.table_layers import (
    CategoryEmbedding,
    NtkLinear,
    OneHot,
    ParametricActivation,
    PeriodicEmbedding,
    Scale,
    Signs,
    TableFeatures,
    initialize_on,
)

TabularActivation = Literal["auto", "selu", "mish", "relu", "gelu", "silu"]
VALUES_LR_SCALE = 5.0
"""The paper's learning rates: 0.2 for values, 0.04 for classes."""
_FUNCTIONS = {"selu": nn.SELU, "mish": nn.Mish, "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


def build_tabular_mlp(
    layout: TableLayout,
    output_size: int,
    *,
    task: Literal["classification", "regression"],
    hidden_sizes: Sequence[int] = (256, 256, 256),
    activation: TabularActivation = "auto",
    dropout: float = 0.15,
    max_one_hot: int = 9,
    embedding_dim: int = 8,
    frequencies: int = 16,
    frequency_scale: float = 0.1,
    members: int = 1,
    outputs: Outputs = "logits",
) -> Network:
    """features -> scale, linear -> activation -> dropout for each hidden size, then a linear output.

    Takes (N, layout.width) to (N, output_size). Learning rates of the layers differ: each says so in ``lr_scale``.

    Args:
        task: ``activation: auto`` is SELU for classes and Mish for values. For values, all layers learn five times as
            fast.
        members: of an ensemble that shares most weights. The output is the mean of their probabilities, or values; in
            training it is that of each member, (N, members, output_size).
        outputs: what a mean of members is taken of.
        max_one_hot: columns with more categories get embeddings, the others a column for each category.
    """
    if activation == "auto":
        activation = "selu" if task == "classification" else "mish"
    features = _features(
        layout,
        max_one_hot=max_one_hot,
        embedding_dim=embedding_dim,
        frequencies=frequencies,
        frequency_scale=frequency_scale,
    )
    width = features.width
    layers: list[tuple[str, nn.Module]] = [("features", features), ("scale", Scale(width))]
    if members > 1:
        layers.append(("members", Members(members, features.sources)))
    keys = {
        "features": "model",
        "scale": "model",
        "output": "model",
        "members": "model.members",
        "mean": "model.members",
    }
    for position, size in enumerate(hidden_sizes, start=1):
        linear = MemberLinear(members, width, size) if members > 1 else NtkLinear(width, size)
        block = [
            ("linear", linear, f"hidden_sizes[{position - 1}]"),
            ("activation", ParametricActivation(size, _FUNCTIONS[activation]()), "activation"),
            ("dropout", nn.Dropout(dropout), "dropout"),
        ]
        for name, layer, key in block:
            layers.append((f"{name}{position}", layer))
            keys[f"{name}{position}"] = f"model.{key}"
        width = size
    if members > 1:
        layers += [("output", MemberOutputs(members, width, output_size)), ("mean", MeanOfMembers(outputs))]
    else:
        layers.append(("output", NtkLinear(width, output_size)))
    model = Network(layers, config_keys=keys)
    model.lr_scale = 1.0 if task == "classification" else VALUES_LR_SCALE
    return model


def _features(
    layout: TableLayout, *, max_one_hot: int, embedding_dim: int, frequencies: int, frequency_scale: float
) -> TableFeatures:
    """Numbers with their embeddings; of categories, signs for two, a column each for a few, embeddings for many."""
    parts: list[tuple[str, nn.Module]] = []
    if layout.numeric:
        periodic = PeriodicEmbedding(layout.numeric, frequencies=frequencies, frequency_scale=frequency_scale)
        parts.append(("numbers", periodic))
    columns = list(enumerate(layout.sizes, start=layout.numeric))
    two = [column for column, size in columns if size == 2]
    few = [(column, size) for column, size in columns if size <= max_one_hot and size != 2]
    many = [(column, size) for column, size in columns if size > max_one_hot and size != 2]
    if two:
        parts.append(("two", Signs(two)))
    if few:
        parts.append(("few", OneHot(*zip(*few, strict=True))))
    if many:
        parts.append(("many", CategoryEmbedding(*zip(*many, strict=True), dim=embedding_dim)))
    return TableFeatures(parts)


def suit_to_data(model: nn.Module, rows: Tensor) -> None:
    """Replace the first weights of a ``tabular_mlp`` by those that suit these rows (N, C); see ``initialize_on``."""
    ours = copy.deepcopy(model).cpu().eval()
    initialize_on(list(ours.children()), rows.cpu())
    model.load_state_dict(ours.state_dict())


def is_tabular(model: nn.Module) -> bool:
    """Whether it is a model of ``build_tabular_mlp``."""
    return isinstance(next(model.children(), None), TableFeatures)
