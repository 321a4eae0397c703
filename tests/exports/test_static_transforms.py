"""Resize, crop and grey inside a program give the bytes of data/resizing.py; so does the numpy of a bundle."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import trainkit.exports
from trainkit.data.transforms.static import (
    CenterCrop,
    Grayscale,
    Resize,
    apply_static_transforms,
    apply_steps,
    static_transforms_to_json,
)
from trainkit.exports.static_transforms import build_static_transforms

FRONTS = [
    [Resize(36), CenterCrop((36, 36)), CenterCrop((32, 32))],
    [Resize((20, 31))],
    [Resize((40, 7), "bicubic"), Grayscale(1)],
    [Resize((77, 50), "nearest")],
    [Resize(9, "nearest")],
    [CenterCrop((40, 41)), Grayscale(3)],
]
SIZES = [(50, 60), (33, 32), (7, 90), (91, 37), (36, 36)]


def images(height, width, count=2):
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def bundled_front():
    path = Path(trainkit.exports.__file__).parent / "templates" / "static_transforms.py"
    spec = importlib.util.spec_from_file_location("bundled_front", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize("front", FRONTS, ids=str)
def test_a_script_takes_any_size(front):
    script = torch.jit.script(build_static_transforms(front, channels=3))
    for size in SIZES:
        rows = images(*size)
        assert torch.equal(script(rows), apply_steps(rows, front)), size


@pytest.mark.parametrize("front", FRONTS, ids=str)
def test_the_numpy_of_a_bundle(front, bundled_front):
    for size in SIZES:
        image = images(*size)[0].numpy()
        found = bundled_front.apply_front(image.transpose(1, 2, 0), static_transforms_to_json(front))
        np.testing.assert_array_equal(found.transpose(2, 0, 1), apply_static_transforms(image, front))


def test_floats_are_the_bytes_but_for_rounding():
    front = [Resize(36), CenterCrop((32, 32)), Grayscale(1)]
    steps = build_static_transforms(front, channels=3)
    rows = images(50, 60)
    floats = steps(rows.float() / 255)
    assert floats.dtype == torch.float32
    assert (floats * 255 - steps(rows).float()).abs().max() <= 2  # half a grey value for each of the two, and the cut


def test_bicubic_floats_stay_in_range():
    extremes = torch.zeros(1, 3, 12, 12)
    extremes[:, :, ::3] = 1.0
    resized = build_static_transforms([Resize((31, 31), "bicubic")], channels=3)(extremes)
    assert resized.min() >= 0.0
    assert resized.max() <= 1.0
