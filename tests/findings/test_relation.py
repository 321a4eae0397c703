"""A relation between inputs and labels is found where there is one, and not where labels were shuffled."""

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from trainkit.data.loading.resident import Batch
from trainkit.findings.relation import _correlation, _nearest, _ridge, measure_relation


def relation(inputs, targets, *, num_classes=0):
    rows = torch.arange(len(targets))
    batches = [Batch(inputs[part], targets[part], part) for part in rows.split(100)]
    return measure_relation(batches, num_classes=num_classes)


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(5))
def test_a_line_and_its_shuffled_targets(seed):
    inputs = drawn(seed, 400, 8)
    targets = 1e6 + 1e4 * (inputs[:, :1] + drawn(seed + 100, 400, 1))
    assert relation(inputs, targets)["related"] is True
    assert relation(inputs, targets[torch.randperm(400)])["related"] is False


@pytest.mark.parametrize("seed", range(5))
def test_neighbors_see_what_no_line_does(seed):
    inputs = drawn(seed, 400, 2)
    labels = ((inputs[:, 0] > 0) ^ (inputs[:, 1] > 0)).long()
    found = relation(inputs, labels, num_classes=2)
    assert found["related"] is True
    assert found["neighbors"] > 0.7
    assert found["linear"] < 0.3


def test_images_that_differ_by_their_contrast():
    images, labels = drawn(0, 200, 1, 32, 32), torch.arange(200) % 2
    images[labels == 1] *= 1.5
    assert relation(images, labels, num_classes=2)["related"] is True


def test_a_rare_class_is_found_or_left_open():
    inputs, labels = drawn(0, 800, 4), torch.zeros(800, dtype=torch.int64)
    labels[:20] = 1
    assert relation(inputs, labels, num_classes=2)["related"] is None, "20 samples may hide a relation"
    inputs[:20] += 2
    assert relation(inputs, labels, num_classes=2)["related"] is True


@pytest.mark.parametrize("inputs", [torch.zeros(50, 3), torch.full((50, 1, 4, 4), 7.0)])
def test_constant_inputs_and_constant_targets_leave_it_open(inputs):
    assert relation(inputs, torch.arange(50) % 2, num_classes=2)["related"] is None
    assert relation(drawn(0, 50, 3), torch.ones(50, 1))["related"] is None


def test_the_closed_form_leaves_each_sample_out():
    inputs, columns = drawn(0, 12, 3).double(), one_hot(torch.arange(12) % 3).double()
    gram = inputs @ inputs.T
    expected = []
    for row in range(12):
        rest = [other for other in range(12) if other != row]
        penalty = 0.3 * torch.linalg.eigvalsh(gram).mean() * torch.eye(11)
        weights = torch.linalg.solve(gram[rest][:, rest] + penalty, columns[rest])
        expected.append(gram[row, rest] @ weights)
    torch.testing.assert_close(_ridge(gram, columns)[1], torch.stack(expected))


def test_no_sample_is_its_own_neighbor():
    inputs = torch.arange(30.0, dtype=torch.float64)[:, None]
    [means] = _nearest(inputs @ inputs.T, inputs)
    assert means[0].item() == np.mean(range(1, 11))
    assert _correlation([torch.ones(30, 1, dtype=torch.float64)], inputs) == 0.0


def test_the_score_is_that_of_the_better_model_without_training():
    inputs = drawn(0, 400, 2)
    far = (inputs.square().sum(dim=1) > 1.4).long()
    assert relation(inputs, far, num_classes=2)["score"] > 0.9
    noisy = 100 + 10 * (inputs[:, :1] + drawn(1, 400, 1))
    assert relation(inputs, noisy)["score"] == pytest.approx(0.5, abs=0.1), "half of the variance is noise"
