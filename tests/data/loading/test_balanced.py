"""The balanced order: shares by power, no sample again before the others of its class, a function of seed and epoch."""

from collections import Counter

import numpy as np
import pytest
import torch
from flat_batches import make_batches
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.data.dataset import Part
from trainkit.data.loading.balanced import Balance
from trainkit.data.transforms.geometry import RandomCrop

splits = st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any)


def classes_of(counts, seed=0):
    classes = np.repeat(np.arange(len(counts)), counts)
    return torch.from_numpy(np.random.default_rng(seed).permutation(classes))


@settings(deadline=None, max_examples=200)
@given(counts=splits, power=st.floats(0, 1), seed=st.integers(0, 99), epochs=st.integers(1, 7))
def test_no_sample_comes_again_before_the_others_of_its_class(counts, power, seed, epochs):
    classes = classes_of(counts, seed)
    balance, seen = Balance(classes, power), Counter(dict.fromkeys(range(len(classes)), 0))
    for epoch in range(epochs):
        order = balance.order(seed, epoch)
        assert order.dtype == torch.int64
        assert len(order) == len(classes)
        seen.update(order.tolist())
        found = torch.bincount(classes[order], minlength=len(counts)).tolist()
        assert found == [balance.quotas().get(label, 0) for label in range(len(counts))]
        for label in set(classes.tolist()):
            times = [seen[at] for at in torch.nonzero(classes == label).flatten().tolist()]
            assert max(times) - min(times) <= 1
    assert sum(seen.values()) == epochs * len(classes)


@settings(deadline=None)
@given(counts=splits, power=st.floats(0, 1))
def test_shares_are_powers_of_the_counts(counts, power):
    shares = np.array([count ** (1 - power) if count else 0.0 for count in counts])
    exact = sum(counts) * shares / shares.sum()
    quotas = Balance(classes_of(counts), power).quotas()
    assert sum(quotas.values()) == sum(counts)
    assert all(abs(quotas.get(label, 0) - exact[label]) < 1 for label in range(len(counts)))


def test_equal_shares_and_those_of_the_data():
    classes = classes_of([95, 5])
    assert Balance(classes, 1.0).quotas() == {0: 50, 1: 50}
    assert Balance(classes, 0.0).quotas() == {0: 95, 1: 5}
    assert sorted(Balance(classes, 0.0).order(0, 3).tolist()) == list(range(100))


def test_an_epoch_is_a_function_of_seed_and_epoch():
    balance = Balance(classes_of([30, 7, 3]), 1.0)
    whole = [balance.order(5, epoch) for epoch in range(4)]
    assert torch.equal(balance.order(5, 3), whole[3])
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(balance.order(6, 0), whole[0])
    mixed = balance.classes[whole[0]]  # classes do not come in blocks
    assert (mixed[1:] != mixed[:-1]).sum() > 10


@pytest.mark.parametrize("residency", ["host", "device", "map"])
def test_batches_follow_it_from_any_batch_on(residency):
    targets = classes_of([30, 7, 3]).numpy()
    part, chosen = Part(np.arange(40, dtype=np.float32)[:, None], targets), np.arange(1, 40)
    make = dict(batch_transforms=[], batch_size=6, seed=5, random=True, residency=residency)
    batches = make_batches(part, chosen, shuffle=True, balance=1.0, **make)
    expected = chosen[Balance(torch.from_numpy(targets[chosen]), 1.0).order(5, 2).numpy()]
    assert torch.cat([batch.indices for batch in batches.epoch(2)]).tolist() == expected.tolist()
    assert torch.cat([batch.inputs for batch in batches.epoch(2, start=3)]).flatten().tolist() == expected[18:].tolist()
    in_order = make_batches(part, chosen, shuffle=False, **make)
    assert torch.cat([batch.indices for batch in in_order.epoch(2)]).tolist() == chosen.tolist()


@pytest.mark.parametrize("residency", ["host", "device"])
def test_a_sample_that_comes_again_is_augmented_anew(residency):
    targets = np.array([0] * 60 + [1] * 2)
    images = np.random.default_rng(0).integers(0, 256, (62, 1, 9, 9), dtype=np.uint8)
    make = dict(batch_transforms=[RandomCrop((5, 5))], batch_size=7, seed=5, random=True, residency=residency)
    batches = make_batches(Part(images, targets), np.arange(62), shuffle=True, balance=1.0, **make)
    indices = torch.cat([batch.indices for batch in batches.epoch(0)])
    crops = torch.cat([batch.inputs for batch in batches.epoch(0)])
    rare = {crop.numpy().tobytes() for crop in crops[indices == 60]}
    assert len(crops[indices == 60]) > 10
    assert len(rare) > 5
    rest = torch.cat([batch.inputs for batch in batches.epoch(0, start=4)])
    assert torch.equal(rest, crops[28:])
    plain = make_batches(Part(images, targets), np.arange(62), shuffle=True, **make)
    first = {
        index: crop
        for batch in plain.epoch(0)
        for index, crop in zip(batch.indices.tolist(), batch.inputs, strict=True)
    }
    seen = set()
    for index, crop in zip(indices.tolist(), crops, strict=True):  # the first time it is what it is without the sampler
        assert index in seen or torch.equal(first[index], crop)
        seen.add(index)
