"""Weights from a file: whole, or an error that names what does not fit; only a new head may differ."""

import pytest
import torch
from torchvision import models

from trainkit.builders.pretrained import load_weights
from trainkit.errors import ProblemsError
from trainkit.models import HeadSpec, build_torchvision


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(1)
    return models.mobilenet_v3_small().state_dict()


def build(head, outputs=7, name="mobilenet_v3_small"):
    return build_torchvision(name, outputs, input_shape=(3, 64, 64), head=head)


def test_the_backbone_is_loaded_and_the_head_stays(published):
    model = build(HeadSpec())
    before = model.classifier[3].weight.clone()
    left_out = load_weights(model, published, source="w.pth", head_is_new=True)
    assert left_out == ["classifier.3.weight", "classifier.3.bias"]
    assert torch.equal(model.classifier[3].weight, before)
    own = model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in published.items() if name not in left_out)


def test_a_head_of_other_layers(published):
    left_out = load_weights(build(HeadSpec(0.5, [8])), published, source="w.pth", head_is_new=True)
    assert left_out == ["classifier.3.weight", "classifier.3.bias"]


def test_keep_takes_all(published):
    model = build(None, 1000)
    assert load_weights(model, published, source="w.pth", head_is_new=False) == []
    assert torch.equal(model.classifier[3].weight, published["classifier.3.weight"])


def test_counts_of_batches_may_be_missing(published):
    old = {name: tensor for name, tensor in published.items() if not name.endswith("num_batches_tracked")}
    load_weights(build(HeadSpec()), old, source="w.pth", head_is_new=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop("features.0.0.weight"), r"missing: features\.0\.0\.weight"),
        (lambda weights: weights.update(more=torch.zeros(1)), "not in the model: more"),
        (
            lambda weights: weights.update({"features.0.0.weight": torch.zeros(1, 3)}),
            r"of another shape: features\.0\.0\.weight \(\[1, 3\] in the file, \[16, 3, 3, 3\] in the model\)",
        ),
    ],
)
def test_what_does_not_fit(published, change, words):
    weights, model = dict(published), build(HeadSpec())
    change(weights)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ProblemsError, match=words):
        load_weights(model, weights, source="w.pth", head_is_new=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
