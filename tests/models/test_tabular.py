"""tabular_mlp against the formulas of its paper, and its first weights."""

import io
import math
from typing import Any

import pytest
import torch
from torch import nn

from trainkit.data.tables import TableLayout
from trainkit.engine import group_parameters
from trainkit.models import build_tabular_mlp, check_output, is_tabular, layer_table, suit_to_data
from trainkit.models.table_layers import CategoryEmbedding, NtkLinear, PeriodicEmbedding, Signs

LAYOUT = TableLayout(3, ((2, False), (4, True), (30, True), (12, False), (2, True)))


def rows(count: int = 50, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    codes = [torch.randint(0, size, (count, 1), generator=generator) for size in LAYOUT.sizes]
    return torch.cat([torch.randn(count, 3, generator=generator), *codes], 1)


def model_of(task: Any = "classification", size: int = 4, **knobs: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_tabular_mlp(LAYOUT, size, task=task, **knobs)


def test_a_number_stands_beside_a_map_of_its_cosines() -> None:
    torch.manual_seed(0)
    layer = PeriodicEmbedding(3)
    found = layer(rows())
    for column in range(3):
        x = rows()[:, column : column + 1]
        waves = torch.cos(2 * math.pi * x * layer.frequency[column] + layer.phase[column])
        expected = waves @ layer.weight[column] + layer.shift[column]
        torch.testing.assert_close(found[:, 3 * column : 3 * column + 3], expected)
    assert torch.equal(found[:, 9:], rows()[:, :3])
    assert 0.05 < layer.frequency.std() < 0.15


def test_categories_by_their_number() -> None:
    features = model_of().features
    assert {name: part.width for name, part in features.parts.items()} == {  # type: ignore[union-attr]
        "numbers": 12,
        "two": 1,
        "few": 5 + 3,
        "many": 2 * 8,
    }
    all_embedded = model_of(max_one_hot=0, embedding_dim=2).features
    assert all_embedded.parts["many"].width == 4 * 2  # type: ignore[union-attr]
    assert model_of(max_one_hot=99).features.parts["few"].width == 5 + 31 + 12 + 3  # type: ignore[union-attr]


def test_a_code_that_counts_for_nothing_is_zeros() -> None:
    signs = Signs([1])
    assert signs(torch.tensor([[9.0, 0.0], [9.0, 1.0], [9.0, 2.0]])).tolist() == [[-1], [1], [0]]
    embedding = CategoryEmbedding([0, 1], [12, 30], dim=8)
    found = embedding(torch.tensor([[11.0, 29.0], [12.0, 30.0], [0.0, 0.0]]))
    assert torch.equal(found[0], embedding.weight[[11, 41]].flatten())
    assert (found[1] == 0).all()
    assert torch.equal(found[2], embedding.weight[[0, 12]].flatten())


def test_linear_layers_are_divided_by_the_root_of_their_inputs() -> None:
    layer = NtkLinear(100, 7)
    x = torch.randn(5, 100)
    torch.testing.assert_close(layer(x), x @ layer.weight.T / 10 + layer.bias)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_activation_and_the_learning_rates_follow_the_task(task: Any) -> None:
    model = model_of(task)
    kind = nn.SELU if task == "classification" else nn.Mish
    assert sum(isinstance(module, kind) for module in model.modules()) == 3
    factor = 1 if task == "classification" else 5
    scales = {
        name: group.lr_scale / factor
        for group in group_parameters(model, weight_decay=0.0)
        for name in group.parameters
    }
    assert scales["scale.weight"] == 6
    assert scales["linear1.weight"] == scales["output.weight"] == scales["features.parts.many.weight"] == 1
    slow = ("linear1.bias", "output.bias", "activation2.weight", "features.parts.numbers.frequency")
    assert [scales[name] for name in slow] == pytest.approx([0.1] * 4)
    assert isinstance(model_of(task, activation="relu").activation1.function, nn.ReLU)  # type: ignore[union-attr]


def test_first_weights_suit_the_data() -> None:
    model = model_of()
    model.eval()
    before = model(rows()).clone()
    suit_to_data(model, rows())
    assert not torch.equal(model(rows()), before)
    values = rows()
    for name, layer in model.named_children():
        made = layer(values)
        if isinstance(layer, NtkLinear):
            torch.testing.assert_close(made.std(dim=0, correction=0), torch.ones(layer.out_features), atol=1e-4, rtol=0)
            centers = -layer.bias
            plain = made + centers
            assert (centers <= plain.max(dim=0).values + 1e-5).all(), name
            assert (centers >= plain.min(dim=0).values - 1e-5).all(), name
        values = made


def test_first_weights_of_one_row_and_of_equal_rows_are_finite() -> None:
    for some in (rows(1), rows(1).expand(20, -1)):
        model = model_of()
        suit_to_data(model, some)
        assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.parametrize(
    "layout", [LAYOUT, TableLayout(4), TableLayout(0, ((3, True),)), TableLayout(1, ((2, False),))]
)
def test_every_mix_of_columns_has_known_shapes(layout: TableLayout) -> None:
    model = build_tabular_mlp(layout, 3, task="classification", hidden_sizes=[16, 8])
    check_output(model, (layout.width,), output_size=3)
    table = layer_table(model, (layout.width,))
    assert sum(row.parameters for row in table) == sum(parameter.numel() for parameter in model.parameters())
    assert table[-1].output_shape == (3,)
    assert is_tabular(model)


def test_programs_compute_the_same() -> None:
    model = model_of().eval()
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(model), buffer)  # type: ignore[no-untyped-call]
    buffer.seek(0)
    torch.testing.assert_close(torch.jit.load(buffer)(rows()), model(rows()))  # type: ignore[no-untyped-call]
    exported = torch.export.export(model, (rows(),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    torch.testing.assert_close(exported.module()(rows(7)), model(rows(7)))


@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_bf16_trains_and_gives_outputs_in_fp32(task: Any, members: int) -> None:
    outputs: Any = "logits" if task == "classification" else "values"
    model = model_of(task, members=members, outputs=outputs) if members > 1 else model_of(task)
    exact = model.eval()(rows())
    with torch.autocast("cpu", torch.bfloat16):
        found = model(rows())
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, exact, atol=0.1, rtol=0.1)
        model.train()(rows()).square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
