import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_pinball_loss
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from trainkit.engine.losses import EXPECTS, auto_loss, build_loss, focal, output_size, pinball
from trainkit.errors import ProblemsError


class Focal(nn.Module):
    """Written down from the paper, in float64, with the smoothing of PyTorch's cross-entropy."""

    def __init__(self, gamma, weight=None, smoothing=0.0):
        super().__init__()
        self.gamma, self.smoothing = gamma, smoothing
        self.weight = None if weight is None else torch.tensor(weight).double()

    def forward(self, outputs, targets):
        log_p = outputs.double().log_softmax(1)
        weight = torch.ones(outputs.shape[1]).double() if self.weight is None else self.weight
        soft = (1 - self.smoothing) * F.one_hot(targets, outputs.shape[1]) + self.smoothing / outputs.shape[1]
        losses = -(soft * weight * (1 - log_p.exp()) ** self.gamma * log_p).sum(1)
        return losses.sum() / weight[targets].sum()


K = 4
COUNTS = [5, 1, 9, 3]
WEIGHT = [0.5, 2.0, 0.0, 1.25]
CASES = {
    "cross_entropy": ({}, nn.CrossEntropyLoss()),
    "smoothed": ({"label_smoothing": 0.2}, nn.CrossEntropyLoss(label_smoothing=0.2)),
    "weighted": ({"weight": WEIGHT}, nn.CrossEntropyLoss(weight=torch.tensor(WEIGHT))),
    "weighted_smoothed": (
        {"weight": WEIGHT, "label_smoothing": 0.1},
        nn.CrossEntropyLoss(weight=torch.tensor(WEIGHT), label_smoothing=0.1),
    ),
    "nll": ({}, nn.NLLLoss()),
    "nll_weighted": ({"weight": WEIGHT}, nn.NLLLoss(weight=torch.tensor(WEIGHT))),
    "bce": ({}, nn.BCELoss()),
    "bce_with_logits": ({}, nn.BCEWithLogitsLoss()),
    "bce_with_logits_weighted": ({"pos_weight": 2.5}, nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.5]))),
    "mse": ({}, nn.MSELoss()),
    "l1": ({}, nn.L1Loss()),
    "smooth_l1": ({"beta": 0.3}, nn.SmoothL1Loss(beta=0.3)),
    "huber": ({"delta": 0.4}, nn.HuberLoss(delta=0.4)),
}
NAMES = {"smoothed": "cross_entropy", "weighted": "cross_entropy", "weighted_smoothed": "cross_entropy"}


FOCAL = {
    "focal": ({}, Focal(2.0)),
    "focal_weighted": (
        {"gamma": 0.5, "weight": WEIGHT, "label_smoothing": 0.1},
        Focal(0.5, WEIGHT, 0.1),
    ),
}


def build(case):
    name = NAMES.get(case, case.removesuffix("_weighted"))
    return build_loss(name, **(CASES | FOCAL)[case][0])


def sample(loss, size, seed=0):
    """Outputs as the loss expects them, and targets as data have them."""
    generator = torch.Generator().manual_seed(seed)
    if loss.is_binary:
        outputs = torch.randn(size, 1, generator=generator)
        return outputs.sigmoid() if loss.expects == "probabilities" else outputs, torch.randint(
            2, (size,), generator=generator
        )
    if not loss.is_classification:
        return torch.randn(size, 3, generator=generator), torch.randn(size, 3, generator=generator)
    outputs = torch.randn(size, K, generator=generator)
    return (
        outputs.log_softmax(dim=1) if loss.expects == "log_probabilities" else outputs,
        torch.randint(K, (size,), generator=generator),
    )


@pytest.mark.parametrize("case", CASES)
def test_mean_is_bitwise_that_of_torch(case):
    loss, module = build(case), CASES[case][1]
    outputs, targets = sample(loss, 37)
    for_torch = targets.float()[:, None] if loss.is_binary else targets
    ours, theirs = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    value, expected = loss.mean(ours, targets), module(theirs, for_torch)
    value.backward()
    expected.backward()
    assert torch.equal(value, expected)
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("case", [*CASES, *FOCAL])
@settings(deadline=None, max_examples=12)
@given(cuts=st.lists(st.integers(1, 39), max_size=6, unique=True), seed=st.integers(0, 1000))
def test_ragged_batches_add_up_to_the_big_batch(case, cuts, seed):
    loss = build(case)
    outputs, targets = sample(loss, 40, seed)
    total, weight = 0.0, 0.0
    for part in torch.arange(40).tensor_split(sorted(cuts)):
        total += loss.sum(outputs[part], targets[part]).item()
        weight += float(loss.normalizer(targets[part]))
    assert total / weight == pytest.approx(loss.mean(outputs, targets).item(), rel=1e-5)
    assert weight == pytest.approx(float(loss.normalizer(targets)), rel=1e-6)


@pytest.mark.parametrize("case", [*CASES, *FOCAL])
def test_accumulated_gradients_are_those_of_the_big_batch(case):
    loss = build(case)
    outputs, targets = sample(loss, 40)
    whole, parts = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    loss.mean(whole, targets).backward()
    normalizer = loss.normalizer(targets)
    for start, stop in ((0, 16), (16, 32), (32, 40)):
        (loss.sum(parts[start:stop], targets[start:stop]) / normalizer).backward()
    torch.testing.assert_close(parts.grad, whole.grad)


@pytest.mark.parametrize("case", FOCAL)
def test_focal_is_the_formula_of_the_paper(case):
    loss, module = build(case), FOCAL[case][1]
    outputs, targets = sample(loss, 37)
    ours, theirs = (outputs * 5).requires_grad_(), (outputs * 5).requires_grad_()
    value, expected = loss.mean(ours, targets), module(theirs, targets)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(loss.of_each(outputs, targets).sum(), loss.sum(outputs, targets))


def test_focal_of_two_classes_is_that_of_torchvision_and_without_gamma_cross_entropy():
    outputs, targets = torch.randn(50, 2), torch.randint(2, (50,))
    expected = sigmoid_focal_loss(outputs[:, 1] - outputs[:, 0], targets.float(), alpha=-1, gamma=3, reduction="mean")
    torch.testing.assert_close(build_loss("focal", gamma=3.0).mean(outputs, targets), expected)
    plain = build_loss("focal", gamma=0.0, weight=[1.0, 3.0], label_smoothing=0.1)
    module = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0]), label_smoothing=0.1)
    torch.testing.assert_close(plain.mean(outputs, targets), module(outputs, targets))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_of_certain_outputs_has_finite_gradients(gamma):
    outputs = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    loss = focal(outputs, torch.tensor([0, 0]), gamma=gamma, reduction="none")
    loss.sum().backward()
    assert loss.tolist() == [0, 200]
    assert torch.isfinite(outputs.grad).all()
    assert outputs.grad[1].tolist() == [-1, 1]


def test_a_piece_whose_weights_are_all_zero_adds_nothing():
    loss = build("weighted_smoothed")
    outputs, targets = torch.randn(3, K), torch.tensor([2, 2, 2])
    assert float(loss.normalizer(targets)) == 0
    assert math.isnan(loss.mean(outputs, targets).item())
    assert math.isfinite(loss.sum(outputs, targets).item())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("case", [case for case in CASES if case != "bce"])  # torch refuses what is no probability
def test_non_finite_outputs_are_what_torch_makes_of_them(case, bad):
    loss, module = build(case), CASES[case][1]
    outputs, targets = sample(loss, 6)
    outputs[2, 0] = bad
    for_torch = targets.float()[:, None] if loss.is_binary else targets
    assert torch.equal(
        torch.nan_to_num(loss.mean(outputs, targets), 1e3), torch.nan_to_num(module(outputs, for_torch), 1e3)
    )


def test_balanced_weights_are_those_of_scikit_learn():
    labels = [k for k, count in enumerate(COUNTS) for _ in range(count)]
    expected = compute_class_weight("balanced", classes=np.arange(K), y=labels)
    for name in ("cross_entropy", "nll"):
        weight = build_loss(name, weight="balanced", class_counts=COUNTS).class_weight
        torch.testing.assert_close(weight, torch.tensor(expected, dtype=torch.float32))


def test_balanced_pos_weight_is_first_over_second():
    loss = build_loss("bce_with_logits", pos_weight="balanced", class_counts=[30, 10])
    outputs, targets = sample(loss, 20)
    module = nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0]))
    assert torch.equal(loss.mean(outputs, targets), module(outputs, targets.float()[:, None]))


@pytest.mark.parametrize(
    ("name", "knobs", "expected"),
    [
        (
            "cross_entropy",
            {"weight": "balanced", "class_counts": [3, 0, 1], "class_names": ["a", "b", "c"]},
            "loss.weight: balanced needs training samples of every class, but class b has none",
        ),
        (
            "bce_with_logits",
            {"pos_weight": "balanced", "class_counts": [3, 0]},
            "loss.pos_weight: balanced needs training",
        ),
    ],
)
def test_balanced_needs_samples_of_every_class(name, knobs, expected):
    with pytest.raises(ProblemsError) as error:
        build_loss(name, **{"class_counts": COUNTS, **knobs})
    assert expected in str(error.value)


@pytest.mark.parametrize("weight", [[1.0, 2.0], [0.0] * 4])
def test_weights_that_do_not_fit_the_classes(weight):
    with pytest.raises(ValueError, match="one weight"):
        build_loss("nll", class_counts=COUNTS, weight=weight)


@pytest.mark.parametrize("case", ["cross_entropy", "nll", "bce", "bce_with_logits"])
def test_probabilities_add_up_to_one_and_decide(case):
    loss = build(case)
    outputs, _ = sample(loss, 50)
    probabilities = loss.probabilities(outputs)
    assert probabilities.shape == (50, 2 if loss.is_binary else K)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(50))
    assert torch.equal(loss.predicted_classes(outputs), probabilities.argmax(dim=1))


def test_one_output_means_the_second_class_above_one_half():
    assert build_loss("bce").predicted_classes(torch.tensor([[0.4], [0.5], [0.6]])).tolist() == [0, 0, 1]
    assert build_loss("bce_with_logits").predicted_classes(torch.tensor([[-1.0], [0.0], [1.0]])).tolist() == [0, 0, 1]


def test_the_first_of_equal_scores_wins():
    assert build_loss("cross_entropy").predicted_classes(torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])).tolist() == [
        1,
        0,
    ]


def test_predictions_of_a_regression_are_its_outputs():
    outputs = torch.randn(3, 2)
    assert build_loss("huber").predictions(outputs) is outputs


def test_shapes_that_torch_would_broadcast_are_refused():
    with pytest.raises(AssertionError, match=r"outputs \(5, 1\) for targets \(5,\)"):
        build_loss("mse").mean(torch.zeros(5, 1), torch.zeros(5))


@pytest.mark.parametrize(
    ("name", "data", "size"),
    [
        ("cross_entropy", {"task": "classification", "num_classes": 10}, 10),
        ("nll", {"task": "classification", "num_classes": 2}, 2),
        ("bce", {"task": "classification", "num_classes": 2}, 1),
        ("bce_with_logits", {"task": "classification", "num_classes": 2}, 1),
        ("mse", {"task": "regression", "num_targets": 3}, 3),
    ],
)
def test_output_size(name, data, size):
    assert output_size(name, **data) == size


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("cross_entropy", {"task": "regression", "num_targets": 1}),
        ("mse", {"task": "classification", "num_classes": 3}),
        ("bce", {"task": "classification", "num_classes": 3}),
    ],
)
def test_a_loss_that_is_not_for_these_targets(name, data):
    with pytest.raises(ValueError, match=f"{name} is "):
        output_size(name, **data)


def test_auto_loss():
    assert [auto_loss("classification"), auto_loss("regression")] == ["cross_entropy", "mse"]


def test_every_loss_runs_on_the_meta_device():
    for name in EXPECTS:
        loss = build_loss(name, device="meta")
        outputs = torch.empty(4, 1 if loss.is_binary else 3, device="meta", requires_grad=True)
        targets = torch.empty(4, dtype=torch.int64, device="meta") if loss.is_classification else outputs.detach()
        loss.mean(outputs, targets).backward()
        assert outputs.grad.shape == outputs.shape


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("cross_entropy", {}),
        ("cross_entropy", {"weight": [1.0, 2.0, 0.5], "label_smoothing": 0.1}),
        ("nll", {"weight": [1.0, 2.0, 0.5]}),
        ("bce_with_logits", {"pos_weight": 3.0}),
        ("mse", {}),
        ("huber", {"delta": 0.5}),
    ],
)
def test_the_samples_add_up_to_the_sum(name, knobs):
    loss = build_loss(name, **knobs)
    outputs = torch.randn(20, 1 if loss.is_binary else 3, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(20) % (2 if loss.is_binary else 3) if loss.is_classification else outputs.flip(0)
    each, weights = loss.of_each(outputs, targets), loss.weight_of_each(targets)
    assert each.shape == weights.shape == (20,)
    torch.testing.assert_close(each.sum(), loss.sum(outputs, targets))
    assert float(weights.sum()) == pytest.approx(float(loss.normalizer(targets)))


@settings(max_examples=50, deadline=None)
@given(
    case=st.sampled_from(
        [
            ("mse", {}),
            ("l1", {}),
            ("smooth_l1", {"beta": 3.0}),
            ("huber", {"delta": 3.0}),
            ("quantile", {"quantile": 0.8}),
        ]
    ),
    std=st.floats(1e-3, 1e5),
    size=st.integers(1, 20),
    columns=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_a_loss_of_standardized_targets_times_its_unit_is_the_loss_in_their_own_units(case, std, size, columns, seed):
    name, knobs = case
    generator = torch.Generator().manual_seed(seed)
    outputs, targets = torch.randn(2, size, columns, generator=generator, dtype=torch.float64)
    loss = build_loss(name, target_std=[std] * columns, **knobs)
    own = build_loss(name, **knobs)
    assert own.unit == 1
    torch.testing.assert_close(loss.mean(outputs, targets) * loss.unit, own.mean(outputs * std, targets * std))


@pytest.mark.parametrize("name", ["mse", "l1", "smooth_l1", "huber"])
def test_targets_with_different_deviations_have_the_loss_of_the_standardized_ones(name):
    outputs, targets = torch.randn(2, 8, 2, generator=torch.Generator().manual_seed(0))
    loss = build_loss(name, target_std=[2.0, 30.0])
    assert loss.unit == 1
    assert torch.equal(loss.mean(outputs, targets), build_loss(name).mean(outputs, targets))


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_the_loss_of_a_quantile_is_scikit_learns(quantile):
    loss = build_loss("quantile", quantile=quantile)
    outputs, targets = sample(loss, 40)
    expected = mean_pinball_loss(targets.numpy(), outputs.numpy(), alpha=quantile)
    assert loss.mean(outputs, targets).item() == pytest.approx(expected, rel=1e-6)
    assert (loss.sum(outputs, targets) / loss.normalizer(targets)).item() == pytest.approx(expected, rel=1e-6)
    assert loss.of_each(outputs, targets).sum().item() == pytest.approx(40 * 3 * expected, rel=1e-6)


def test_the_least_loss_is_at_the_quantile():
    targets = torch.arange(101.0)[:, None]
    values = torch.arange(0, 100.5, 0.5)
    losses = [pinball(value.expand(101, 1), targets, quantile=0.9).item() for value in values]
    assert values[int(np.argmin(losses))] == 90


def test_the_loss_of_a_quantile_of_scaled_targets_has_their_unit():
    targets, outputs = torch.randn(30, 1), torch.randn(30, 1)
    scaled = build_loss("quantile", quantile=0.8, target_std=[25.0])
    own = build_loss("quantile", quantile=0.8)
    assert scaled.mean(outputs, targets) * scaled.unit == pytest.approx(own.mean(25 * outputs, 25 * targets).item())


MEMBER_LOSSES = [
    ("cross_entropy", {"label_smoothing": 0.1, "weight": [1.0, 2.0, 0.5]}, 3),
    ("cross_entropy", {}, 3),
    ("bce_with_logits", {"pos_weight": 2.0}, 1),
    ("mse", {}, 2),
    ("huber", {"delta": 0.5}, 2),
]


@pytest.mark.parametrize(("name", "knobs", "width"), MEMBER_LOSSES)
def test_the_loss_of_members_is_the_mean_of_their_losses(name: Any, knobs: Any, width: int) -> None:
    loss = build_loss(name, **knobs)
    outputs = torch.randn(11, 4, width)
    labels = torch.arange(11) % max(2, width)
    targets = labels if loss.is_classification else torch.randn(11, width)
    each = [outputs[:, member] for member in range(4)]
    torch.testing.assert_close(loss.mean(outputs, targets), sum(loss.mean(one, targets) for one in each) / 4)
    torch.testing.assert_close(loss.sum(outputs, targets), sum(loss.sum(one, targets) for one in each) / 4)
    if not loss.is_classification:
        torch.testing.assert_close(loss.predictions(outputs), outputs.mean(1))
        return
    probabilities = torch.stack([loss.probabilities(one) for one in each]).mean(0)
    torch.testing.assert_close(loss.probabilities_of(loss.predictions(outputs)), probabilities)
    assert torch.equal(loss.predicted_classes(outputs), probabilities.argmax(1))


@pytest.mark.parametrize("case", CASES)
def test_weights_of_samples(case):
    loss = build(case)
    reduced = CASES[case][1]
    outputs, targets = sample(loss, 11)
    weights = torch.linspace(0, 3, 11)
    each = loss.of_each(outputs, targets)
    of_class = torch.tensor(WEIGHT)[targets] if "weight" in CASES[case][0] else torch.ones(11)
    elements = 1 if loss.is_classification else 3
    assert loss.sum(outputs, targets, weights).item() == pytest.approx((each * weights).sum().item())
    assert float(loss.normalizer(targets, weights)) == pytest.approx(elements * (of_class * weights).sum().item())
    ones = torch.ones(11)
    mean = loss.sum(outputs, targets, ones) / loss.normalizer(targets, ones)
    prepared = targets.view(-1, 1).float() if loss.is_binary else targets
    torch.testing.assert_close(mean, reduced(outputs, prepared))
    repeated = torch.arange(11).repeat_interleave(torch.arange(11) % 4)
    counts = (torch.arange(11) % 4).float()
    mean = loss.sum(outputs, targets, counts) / loss.normalizer(targets, counts)
    torch.testing.assert_close(mean, loss.mean(outputs[repeated], targets[repeated]))


def test_weights_of_samples_and_members():
    for case in ("cross_entropy", "mse", "weighted_smoothed"):
        loss = build(case)
        members = [sample(loss, 7, seed)[0] for seed in range(3)]
        _, targets = sample(loss, 7)
        weights = torch.linspace(0, 2, 7)
        together = loss.sum(torch.stack(members, dim=1), targets, weights)
        alone = [loss.sum(outputs, targets, weights) for outputs in members]
        torch.testing.assert_close(together, torch.stack(alone).mean())


def test_samples_without_weight_have_the_loss_0():
    loss = build("cross_entropy")
    outputs, targets = sample(loss, 5)
    outputs.requires_grad_()
    zeros = torch.zeros(5)
    mean = loss.sum(outputs, targets, zeros) / loss.normalizer(targets, zeros)
    mean.backward()
    assert mean.item() == 0
    assert torch.equal(outputs.grad, torch.zeros(5, K))
