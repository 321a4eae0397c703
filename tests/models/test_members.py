"""Members that share weights, against the formulas of BatchEnsemble and of the mean of probabilities."""

import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainkit.data.tables import TableLayout
from trainkit.models import build_tabular_mlp, check_output, layer_table, mean_of_members, suit_to_data
from trainkit.models.members import MemberLinear, MemberOutputs, Members

LAYOUT = TableLayout(2, ((4, True), (30, False)))
K = 5


def rows(count: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    codes = [torch.randint(0, size, (count, 1), generator=generator) for size in LAYOUT.sizes]
    return torch.cat([torch.randn(count, 2, generator=generator), *codes], 1)


def model_of(task: Any = "classification", outputs: int = 3, **knobs: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_tabular_mlp(LAYOUT, outputs, task=task, members=K, hidden_sizes=[16, 8], dropout=0.0, **knobs)


def filled(layer: nn.Module) -> Any:
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def test_each_member_has_its_own_factors_and_bias() -> None:
    layer, x = filled(MemberLinear(K, 7, 4)), torch.randn(6, K, 7)
    for member in range(K):
        shared = (x[:, member] * layer.before[member]) @ layer.weight.T / 7**0.5
        torch.testing.assert_close(layer(x)[:, member], shared * layer.after[member] + layer.bias[member])
    last = filled(MemberOutputs(K, 7, 4))
    for member in range(K):
        torch.testing.assert_close(
            last(x)[:, member], x[:, member] @ last.weight[member].T / 7**0.5 + last.bias[member]
        )


def test_features_of_one_column_begin_with_one_factor() -> None:
    torch.manual_seed(0)
    factors = Members(K, [0, 0, 1, 1, 1, 0]).weight
    assert torch.equal(factors[:, 0], factors[:, 1])
    assert torch.equal(factors[:, 0], factors[:, 5])
    assert torch.equal(factors[:, 2], factors[:, 4])
    assert len(factors.unique()) == 2 * K
    features = model_of().features
    assert features.sources == [0] * 3 + [1] * 3 + [0, 1] + [2] * 5 + [3] * 8


def test_the_answer_is_the_mean_of_the_probabilities_or_values() -> None:
    scores = 5 * torch.randn(9, K, 3)
    torch.testing.assert_close(mean_of_members(scores, "logits").softmax(1), scores.softmax(2).mean(1))
    torch.testing.assert_close(mean_of_members(scores, "logits").exp(), scores.softmax(2).mean(1))
    one = 30 * torch.randn(9, K, 1)
    torch.testing.assert_close(mean_of_members(one, "logit").sigmoid(), one.sigmoid().mean(1))
    torch.testing.assert_close(mean_of_members(scores, "values"), scores.mean(1))
    assert torch.isfinite(mean_of_members(torch.full((1, K, 1), 500.0), "logit")).all()


@pytest.mark.parametrize(("task", "outputs"), [("classification", "logits"), ("regression", "values")])
def test_training_gives_each_member_and_evaluation_the_mean(task: Any, outputs: Any) -> None:
    model = model_of(task, outputs=3)
    model = build_tabular_mlp(LAYOUT, 3, task=task, members=K, hidden_sizes=[16], dropout=0.0, outputs=outputs)
    suit_to_data(model, rows())
    every = model.train()(rows())
    assert every.shape == (40, K, 3)
    assert every.std(dim=1).min() > 0
    torch.testing.assert_close(model.eval()(rows()), mean_of_members(every, outputs))


def test_shapes_are_those_of_the_mean() -> None:
    model = model_of()
    check_output(model, (LAYOUT.width,), output_size=3)
    table = layer_table(model, (LAYOUT.width,))
    assert sum(row.parameters for row in table) == sum(parameter.numel() for parameter in model.parameters())
    assert {row.name: row.output_shape for row in table}["linear1"] == (K, 16)
    assert {row.name: row.multiply_adds for row in table}["linear2"] == K * 16 * 8
    assert table[-1].output_shape == (3,)


def test_first_weights_suit_the_data_for_every_member() -> None:
    model = model_of()
    suit_to_data(model, rows())
    values = rows()
    for name, layer in model.eval().named_children():
        made = layer(values)
        if name == "linear1":
            spread = made.flatten(0, 1)
        if name == "output":
            torch.testing.assert_close(made.std(0, correction=0), torch.ones(K, 3), atol=1e-4, rtol=0)
        values = made
    assert torch.isfinite(spread).all()


def test_programs_compute_the_same() -> None:
    model = model_of(outputs=1).eval()
    model.mean.outputs = "logit"  # type: ignore[union-attr]
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(model), buffer)  # type: ignore[no-untyped-call]
    buffer.seek(0)
    torch.testing.assert_close(torch.jit.load(buffer)(rows()), model(rows()))  # type: ignore[no-untyped-call]
    exported = torch.export.export(model, (rows(),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    torch.testing.assert_close(exported.module()(rows(7)), model(rows(7)))


def test_a_member_is_what_one_network_with_its_factors_would_be() -> None:
    model = model_of().eval()
    children = dict(model.named_children())
    member = 2
    values = children["scale"](children["features"](rows())) * children["members"].weight[member]
    for position in (1, 2):
        layer: Any = children[f"linear{position}"]
        made = F.linear(values * layer.before[member], layer.weight * layer.gain) * layer.after[member]
        values = children[f"activation{position}"](made + layer.bias[member])
    last: Any = children["output"]
    expected = F.linear(values, last.weight[member] * last.gain, last.bias[member])
    torch.testing.assert_close(model.train()(rows())[:, member], expected)
