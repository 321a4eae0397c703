"""The one module from raw samples to answers equals the steps that training and evaluation take."""

import pytest
import torch
from torch import nn

from trainkit.data.transforms.normalize import Normalize, Standardize
from trainkit.data.transforms.pipeline import build_pipeline
from trainkit.data.transforms.static import (
    CenterCrop,
    Grayscale,
    Resize,
    apply_static_transforms_to_batch,
    static_transforms_to_json,
)
from trainkit.engine.losses import build_loss
from trainkit.errors import UserError
from trainkit.exports.program import build_prepare, build_program, describe_program

STATISTICS = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.247, 0.2435, 0.2616]}
IMAGES = {
    "kind": "image",
    "channels": 3,
    "front": [],
    "scale": 255,
    "normalize": STATISTICS,
    "input_shape": [3, 8, 8],
}
ROWS = {
    "kind": "table",
    "feature_names": ["a", "b"],
    "table_encoding": None,
    "standardize": {"mean": [1.5, -200.0], "std": [0.1, 30.0]},
    "input_shape": [2],
}


def bytes_like_images(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def convolutional(outputs=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Dropout(0.5), nn.Flatten(), nn.Linear(180, outputs))


@pytest.mark.parametrize("normalize", [STATISTICS, None])
def test_images_become_what_the_pipeline_makes_of_them(normalize):
    rows = bytes_like_images(6, 3, 8, 8)
    steps = [] if normalize is None else [Normalize(tuple(normalize["mean"]), tuple(normalize["std"]))]
    pipeline = build_pipeline(steps, input_shape=(3, 8, 8), seed=0, random=False)
    expected = pipeline(rows)
    prepare = build_prepare({**IMAGES, "normalize": normalize})
    assert torch.equal(prepare(rows), expected)
    assert torch.equal(prepare(rows.float() / 255), expected)


@pytest.mark.parametrize("standardize", [ROWS["standardize"], None])
def test_rows_become_what_the_pipeline_makes_of_them(standardize):
    rows = torch.tensor([[1.0, -170.0], [2.0, 3.0]])
    steps = [] if standardize is None else [Standardize(tuple(standardize["mean"]), tuple(standardize["std"]))]
    pipeline = build_pipeline(steps, input_shape=(2,), seed=0, random=False)
    expected = pipeline(rows)
    assert torch.equal(build_prepare({**ROWS, "standardize": standardize})(rows), expected)


@pytest.mark.parametrize(
    ("loss", "outputs"), [("cross_entropy", 4), ("nll", 4), ("bce", 1), ("bce_with_logits", 1), ("mse", 2)]
)
def test_outputs_are_what_the_loss_says(loss, outputs):
    model = convolutional(outputs)
    if loss == "nll":
        model.append(nn.LogSoftmax(dim=1))
    if loss == "bce":
        model.append(nn.Sigmoid())
    rows = bytes_like_images(5, 3, 8, 8)
    program = build_program(model, IMAGES, loss=loss)
    own = model.eval()(build_prepare(IMAGES)(rows))
    expected = own if loss == "mse" else build_loss(loss).probabilities(own)
    assert torch.equal(program(rows), expected)
    if loss != "mse":
        torch.testing.assert_close(program(rows).sum(dim=1), torch.ones(5))


def test_the_model_is_copied_into_eval_mode_float32_and_plain_layout():
    model = convolutional().to(torch.bfloat16).to(memory_format=torch.channels_last).train()
    program = build_program(model, IMAGES, loss="cross_entropy")
    assert model.training
    assert model[0].weight.dtype == torch.bfloat16
    assert not program.training
    assert program.model[0].weight.dtype == torch.float32
    assert program.model[0].weight.is_contiguous()
    assert not any(parameter.requires_grad for parameter in program.parameters())
    rows = bytes_like_images(3, 3, 8, 8)
    assert torch.equal(program(rows), program(rows))  # no dropout


def test_logits_on_request():
    model = convolutional().eval()
    rows = bytes_like_images(3, 3, 8, 8)
    probabilities, logits = build_program(model, IMAGES, loss="cross_entropy", logits=True)(rows)
    assert torch.equal(probabilities, logits.softmax(dim=1))
    assert describe_program(IMAGES, loss="cross_entropy", logits=True).output_names == ("probabilities", "logits")
    with pytest.raises(UserError, match="a model trained with mse has no logits; leave --logits out"):
        build_program(model, IMAGES, loss="mse", logits=True)


def test_static_transforms_inside_take_images_of_any_size():
    transforms = [Resize(10), CenterCrop((8, 8)), Grayscale(3)]
    preprocessing = {**IMAGES, "front": static_transforms_to_json(transforms)}
    model = convolutional()
    rows = bytes_like_images(3, 3, 21, 34)
    inside = build_program(model, preprocessing, loss="cross_entropy", with_static_transforms=True)
    outside = build_program(model, preprocessing, loss="cross_entropy")
    assert torch.equal(inside(rows), outside(apply_static_transforms_to_batch(rows, transforms)))
    assert describe_program(preprocessing, loss="cross_entropy", with_static_transforms=True).input_shape == (
        3,
        None,
        None,
    )
    assert describe_program(preprocessing, loss="cross_entropy").input_shape == (3, 8, 8)


def test_half_computes_in_float16_between_floats():
    model = convolutional()
    rows = bytes_like_images(4, 3, 8, 8)
    half = build_program(model, IMAGES, loss="cross_entropy", half=True)
    assert half.model.model[0].weight.dtype == torch.float16
    answer = half(rows)
    assert answer.dtype == torch.float32
    full = build_program(model, IMAGES, loss="cross_entropy")(rows)
    assert 0 < (answer - full).abs().max() < 5e-3
