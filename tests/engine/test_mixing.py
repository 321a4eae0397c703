"""Mixup and cutmix: the loss is that of soft targets, and a batch depends on seed, epoch and its number alone."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flat_batches import make_batches
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trainkit.data.dataset import Part
from trainkit.data.loading import Batch
from trainkit.engine import Best, MixedBatches, Mixing, Plan, TrainState, build_loss, build_optimizer, build_schedule
from trainkit.engine.mixing import Draws, draw, loss_normalizer, loss_sum, mix
from trainkit.engine.pieces import own_pieces
from trainkit.engine.step import compute_gradients
from trainkit.runtime import Ranks, piece_bounds

BOTH = Mixing(mixup_alpha=0.4, cutmix_alpha=1.0, p=0.9)
K = 4


def batch_of(count, *, shape=(3, 6, 5), classes=K, weighted=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, *shape, generator=generator)
    targets = torch.randint(classes, (count,), generator=generator)
    weights = torch.rand(count, generator=generator) * 2 if weighted else None
    return Batch(inputs, targets, torch.arange(count), weights)


def soft_targets(batch, draws, classes=K):
    """Each target with its share, as PyTorch's cross-entropy takes probabilities: (N, K)."""
    own, shares = F.one_hot(batch.targets, classes).double(), draws.shares.double()[:, None]
    return shares * own + (1 - shares) * own[draws.partners]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 33),
    alpha=st.sampled_from([0.2, 1.0, 8.0]),
    smoothing=st.sampled_from([0.0, 0.1]),
    weight=st.sampled_from([None, [0.5, 2.0, 0.0, 1.25]]),
    seed=st.integers(0, 1000),
)
def test_the_loss_is_the_cross_entropy_of_soft_targets(count, alpha, smoothing, weight, seed):
    batch = batch_of(count, seed=seed)
    draws = draw(Mixing(mixup_alpha=alpha, cutmix_alpha=1.0), batch.inputs.shape, seed=seed, epoch=1, batch=2)
    mixed, loss = mix(batch, draws), build_loss("cross_entropy", label_smoothing=smoothing, weight=weight)
    outputs = torch.randn(count, K, generator=torch.Generator().manual_seed(seed + 1))
    soft = soft_targets(batch, draws)
    of_class = None if weight is None else torch.tensor(weight).double()
    expected = F.cross_entropy(outputs.double(), soft, weight=of_class, label_smoothing=smoothing, reduction="sum")
    assert loss_sum(loss, outputs, mixed).item() == pytest.approx(expected.item(), rel=1e-6, abs=1e-6)
    total = count if weight is None else (soft * of_class).sum().item()
    assert float(loss_normalizer(loss, mixed)) == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "nll", "bce", "bce_with_logits"])
def test_weights_of_samples_go_with_their_share(name):
    loss, batch = build_loss(name), batch_of(13, classes=2, weighted=True)
    draws = draw(BOTH, batch.inputs.shape, seed=0, epoch=0, batch=0)
    mixed = mix(batch, draws)
    raw = torch.randn(13, 1 if loss.is_binary else 2)
    outputs = {"logits": raw, "log_probabilities": raw.log_softmax(1), "probabilities": raw.sigmoid()}[loss.expects]
    shares, partners = draws.shares, draws.partners
    own = loss.of_each(outputs, batch.targets) * batch.weights * shares
    other = loss.of_each(outputs, batch.targets[partners]) * batch.weights[partners] * (1 - shares)
    torch.testing.assert_close(loss_sum(loss, outputs, mixed), (own + other).sum())
    expected = (shares * batch.weights + (1 - shares) * batch.weights[partners]).sum()
    torch.testing.assert_close(loss_normalizer(loss, mixed), expected)


def test_pictures_are_mixed_as_the_papers_say():
    batch = batch_of(40)
    batch = batch._replace(inputs=batch.inputs.to(memory_format=torch.channels_last))
    draws = draw(BOTH, batch.inputs.shape, seed=4, epoch=3, batch=2)
    mixed = mix(batch, draws)
    kinds = set()
    for at, (top, bottom, left, right) in enumerate(draws.boxes.tolist()):
        own, partner, share = batch.inputs[at], batch.inputs[draws.partners[at]], draws.shares[at].item()
        if bottom > top and right > left:
            expected = own.clone()
            expected[:, top:bottom, left:right] = partner[:, top:bottom, left:right]
            assert share == pytest.approx(1 - (bottom - top) * (right - left) / 30)
            assert torch.equal(mixed.inputs[at], expected)
            kinds.add("cutmix")
        elif share == 1:
            assert torch.equal(mixed.inputs[at], own)
            kinds.add("as it is")
        else:
            torch.testing.assert_close(mixed.inputs[at], share * own + (1 - share) * partner)
            kinds.add("mixup")
        larger, smaller = batch.targets[at], batch.targets[draws.partners[at]]
        if share < 0.5:
            larger, smaller = smaller, larger
        assert mixed.targets[at] == larger
        assert share in (0, 1) or mixed.other_targets[at] == smaller
        assert mixed.weights[at] == max(share, 1 - draws.shares[at])
    assert kinds == {"cutmix", "mixup", "as it is"}
    assert mixed.inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(mixed.weights + mixed.other_weights, torch.ones(40))


def test_a_target_without_a_share_costs_nothing_even_where_its_loss_is_infinite():
    batch = Batch(torch.zeros(2, 3), torch.tensor([0, 1]), torch.arange(2))
    mixed = mix(batch, Draws(torch.tensor([1, 0]), torch.tensor([1.0, 0.0]), None))
    assert mixed.targets.tolist() == [0, 0]
    outputs = torch.tensor([[0.0, -torch.inf], [0.0, -torch.inf]])
    assert loss_sum(build_loss("nll"), outputs, mixed) == 0


@pytest.mark.parametrize(("alpha", "mean_of_smaller"), [(0.2, 0.1), (1.0, 0.25)])
def test_shares_come_from_the_beta_distribution(alpha, mean_of_smaller):
    shares = draw(Mixing(mixup_alpha=alpha), torch.Size([20_000, 3]), seed=0, epoch=0, batch=0).shares
    assert shares.mean().item() == pytest.approx(0.5, abs=0.01)
    assert shares.var().item() == pytest.approx(0.25 / (2 * alpha + 1), rel=0.03)
    assert torch.minimum(shares, 1 - shares).mean().item() == pytest.approx(mean_of_smaller, abs=0.015)


def images(count=23, batch_size=5):
    draws = np.random.default_rng(0)
    part = Part(draws.integers(0, 256, (count, 3, 6, 5), dtype=np.uint8), draws.integers(0, K, count))
    return make_batches(
        part, np.arange(count), batch_transforms=[], batch_size=batch_size, shuffle=True, seed=3, random=True
    )


def test_a_batch_depends_on_seed_epoch_and_its_number_alone():
    mixed = MixedBatches(images(), BOTH, seed=3, num_steps=100)
    whole = list(mixed.epoch(1))
    for one, other in zip(whole[2:], mixed.epoch(1, start=2), strict=True):
        assert all(torch.equal(first, second) for first, second in zip(one, other, strict=True) if first is not None)
    again = next(iter(MixedBatches(images(), BOTH, seed=4, num_steps=100).epoch(1)))
    assert not torch.equal(again.inputs, whole[0].inputs)


def test_the_last_batches_of_the_run_stay_as_they_are():
    plain, mixed = list(images().epoch(1)), list(MixedBatches(images(), BOTH, seed=3, num_steps=7).epoch(1))
    assert [batch.other_targets is not None for batch in mixed] == [True, True, False, False, False]
    assert torch.equal(mixed[2].inputs, plain[2].inputs)
    assert mixed[2].weights is None


@pytest.mark.parametrize("count", [2, 4])
def test_pieces_do_not_change_what_is_mixed(count):
    whole = mix(batch_of(13), draw(BOTH, torch.Size([13, 3, 6, 5]), seed=0, epoch=0, batch=0))
    parts = [piece for _, piece in own_pieces(whole, piece_bounds(13, count), Ranks())]
    for name in ("inputs", "targets", "weights", "other_targets", "other_weights"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    gradients = []
    for number in (1, count):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(90, K))
        loss = build_loss("cross_entropy", weight=[0.5, 2.0, 1.0, 1.25], label_smoothing=0.1)
        plan = Plan(0, 1, loss, new_metrics=lambda: None, forward=model, accumulation_steps=number)
        state = TrainState(
            model=model,
            optimizer=build_optimizer("sgd", model.parameters(), device="cpu", lr=0.1),
            schedule=build_schedule("constant", base_lr=0.1, total_steps=1, steps_per_epoch=1),
            best=Best("train_loss", "min"),
        )
        total, normalizer, predicted = compute_gradients(state, plan, whole)
        gradients.append((*(copy.deepcopy(p.grad) for p in model.parameters()), total, normalizer))
        assert torch.equal(predicted, model(whole.inputs).argmax(1))
    torch.testing.assert_close(*gradients)
