"""The NumPy version of the static transforms in a bundle gives the bytes of data/transforms/static.py."""

import importlib.util
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

import trainkit.exports
from trainkit.data.transforms.static import (
    CenterCrop,
    Grayscale,
    Resize,
    Shrink,
    StaticTransform,
    apply_static_transforms,
    static_transforms_from_json,
    static_transforms_to_json,
)

EXAMPLES = [
    [Resize(36), CenterCrop((36, 36)), CenterCrop((32, 32))],
    [Resize((20, 31))],
    [Resize((40, 7), "bicubic"), Grayscale(1)],
    [Resize((77, 50), "nearest")],
    [Resize(9, "nearest")],
    [CenterCrop((40, 41)), Grayscale(3)],
]
SIZES = [(50, 60), (33, 32), (7, 90), (91, 37), (36, 36)]


@pytest.fixture(scope="module")
def bundled():
    path = Path(trainkit.exports.__file__).parent / "templates" / "static_transforms.py"
    spec = importlib.util.spec_from_file_location("bundled_static_transforms", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_static_transform_is_among_the_examples():
    shrink = {Shrink}  # of training images alone, so no bundle has it
    found = {type(transform) for example in EXAMPLES for transform in example}
    assert found == set(get_args(StaticTransform)) - shrink


@pytest.mark.parametrize("static_transforms", EXAMPLES, ids=str)
def test_the_numpy_of_a_bundle(static_transforms, bundled):
    for height, width in SIZES:
        generator = torch.Generator().manual_seed(height * 100 + width)
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator).numpy()
        found = bundled.apply_front(image.transpose(1, 2, 0), static_transforms_to_json(static_transforms))
        np.testing.assert_array_equal(found.transpose(2, 0, 1), apply_static_transforms(image, static_transforms))


def test_one_number_for_a_crop_is_a_square_and_for_a_resize_the_shorter_side(bundled):
    """As a config may have it, in the words that its bundle keeps."""
    transforms = [{"type": "resize", "size": 20, "interpolation": "bilinear"}, {"type": "center_crop", "size": 18}]
    image = np.random.default_rng(0).integers(0, 256, (3, 40, 48), dtype=np.uint8)
    found = bundled.apply_front(image.transpose(1, 2, 0), transforms)
    np.testing.assert_array_equal(
        found.transpose(2, 0, 1), apply_static_transforms(image, static_transforms_from_json(transforms))
    )
    assert bundled.size_after((40, 48), transforms) == [18, 18]


def test_a_transform_that_numpy_does_not_know_is_refused(bundled):
    with pytest.raises(ValueError, match="solarize is not written in numpy here; use a TorchScript program"):
        bundled.apply_front(np.zeros((4, 4, 3), dtype=np.uint8), [{"type": "solarize", "threshold": 0.5}])


@pytest.mark.parametrize("static_transforms", EXAMPLES, ids=str)
def test_the_numpy_of_a_bundle_on_floats(static_transforms, bundled):
    for height, width in SIZES:
        image = np.random.default_rng(height).random((3, height, width), dtype=np.float32)
        found = bundled.apply_front(image.transpose(1, 2, 0), static_transforms_to_json(static_transforms))
        assert found.dtype == np.float32
        np.testing.assert_allclose(
            found.transpose(2, 0, 1), apply_static_transforms(image, static_transforms), atol=1e-5
        )
