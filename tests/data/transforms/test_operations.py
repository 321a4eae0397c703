"""Operations on levels, drawn with a probability: torchvision's functions on one uint8 image are the reference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torchvision.transforms.v2 as transforms
import torchvision.transforms.v2.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainkit.data.transforms import operations, warps
from trainkit.data.transforms.operations import LevelsTransform

CASES: list[tuple[LevelsTransform, Callable[[Tensor], Tensor]]] = [
    (operations.RandomInvert(0.7), reference.invert),
    (operations.RandomEqualize(0.7), reference.equalize),
    (operations.RandomAutocontrast(0.7), reference.autocontrast),
    (operations.RandomPosterize(0.7, 0), partial(reference.posterize, bits=0)),
    (operations.RandomPosterize(0.7, 3), partial(reference.posterize, bits=3)),
    (operations.RandomPosterize(0.7, 8), partial(reference.posterize, bits=8)),
    (operations.RandomSolarize(0.7, 0.0), partial(reference.solarize, threshold=0)),
    (operations.RandomSolarize(0.7, 0.6), partial(reference.solarize, threshold=0.6 * 255)),
    (operations.RandomSolarize(0.7, 0.5), partial(reference.solarize, threshold=128)),
    (operations.RandomSolarize(0.7, 1.0), partial(reference.solarize, threshold=255)),
    (operations.RandomAdjustSharpness(0.7, 0.0), partial(reference.adjust_sharpness, sharpness_factor=0.0)),
    (operations.RandomAdjustSharpness(0.7, 2.0), partial(reference.adjust_sharpness, sharpness_factor=2.0)),
]


def images_of(count: int, shape: tuple[int, int, int], seed: int = 1) -> Tensor:
    """Bytes (N, C, H, W) with noise, narrow ranges, constant channels and grays, color images as they lie in memory."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    images[1::4] = images[1::4] // 5 + 90
    images[2::8, 0] = 77
    images[3::8] = images[3::8, :1]
    return images.contiguous(memory_format=torch.channels_last)


def draws_for(transform: LevelsTransform, count: int, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, transform.num_draws, dtype=torch.float64, generator=generator)


def applied(transform: LevelsTransform, images: Tensor, draws: Tensor) -> Tensor:
    """The images after the transform; its parameters are what it promises."""
    shape = images.shape[1], images.shape[2], images.shape[3]
    assert transform.output_shape(shape) == shape
    parameters = transform.parameters(draws, shape)
    assert parameters.shape == (len(images), transform.num_parameters)
    assert parameters.dtype == torch.float32
    results = transform.apply(images.clone(), parameters)
    assert results.dtype == torch.uint8
    return results


@settings(deadline=None, max_examples=40)
@given(
    case=st.sampled_from(CASES),
    count=st.integers(1, 24),
    shape=st.tuples(st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40)),
)
def test_operations_are_torchvisions(case: Any, count: int, shape: tuple[int, int, int]) -> None:
    transform, function = case
    images, draws = images_of(count, shape), draws_for(transform, count)
    for image, draw, result in zip(images, draws[:, 0].tolist(), applied(transform, images, draws), strict=True):
        assert torch.equal(result, function(image) if draw < 0.7 else image)


def test_grayscale_is_torchvisions_on_every_tenth_color() -> None:
    steps = torch.arange(0, 256, 2, dtype=torch.uint8)
    colors = torch.cartesian_prod(steps, steps, steps).T.reshape(1, 3, 128, -1)
    result = applied(operations.RandomGrayscale(1.0), colors, torch.zeros(1, 1, dtype=torch.float64))
    apart = (result.int() - reference.rgb_to_grayscale(colors, 3).int()).abs()
    assert apart.max() <= 1
    assert (apart > 0).sum() <= 3 * 3  # of 2 million colors, in three channels


def test_gray_images_stay_gray() -> None:
    images = images_of(9, (1, 8, 7))
    draws = draws_for(operations.RandomGrayscale(), 9)
    assert torch.equal(applied(operations.RandomGrayscale(1.0), images, draws), images)


@pytest.mark.parametrize("shape", [(3, 33, 20), (1, 12, 40)])
@pytest.mark.parametrize(("kernel", "sigma"), [((5, 5), (0.1, 2.0)), ((3, 9), (1.5, 1.5)), ((1, 23), (0.5, 9.0))])
def test_blur_is_torchvisions(shape: tuple[int, int, int], kernel: tuple[int, int], sigma: tuple[float, float]) -> None:
    transform = operations.GaussianBlur(kernel, sigma, p=0.8)
    images, draws = images_of(40, shape), draws_for(transform, 40)
    apart = []
    for image, (width, taken), result in zip(images, draws.tolist(), applied(transform, images, draws), strict=True):
        chosen = sigma[0] + (sigma[1] - sigma[0]) * width
        expected = reference.gaussian_blur(image, list(kernel), [chosen, chosen]) if taken < 0.8 else image
        apart.append((result.int() - expected.int()).abs())
    assert torch.stack(apart).max() <= 1
    assert (torch.stack(apart) > 0).double().mean() < 0.001


def test_a_kernel_wider_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="half of the kernel 9 x 17 must be smaller than the image 8 x 8"):
        operations.GaussianBlur((9, 17)).output_shape((3, 8, 8))
    assert operations.GaussianBlur((15, 15)).output_shape((3, 8, 8)) == (3, 8, 8)


def theirs_in_place(image: Tensor, draw: list[float], scale: float, interpolation: str, fill: float) -> Tensor:
    """One image as RandomPerspective.make_params and .transform change it."""
    _, height, width = image.shape
    across, down = int(scale * (width // 2)) + 1, int(scale * (height // 2)) + 1
    firsts = [(0, 0), (width - across, 0), (width - across, height - down), (0, height - down)]
    ends = [
        [left + int(draw[2 * i] * across), top + int(draw[2 * i + 1] * down)] for i, (left, top) in enumerate(firsts)
    ]
    starts = [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]
    mode = transforms.InterpolationMode(interpolation)
    return reference.perspective(image, starts, ends, interpolation=mode, fill=fill)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 21, 35), (3, 224, 30)])
@pytest.mark.parametrize(
    ("interpolation", "fill"), [("nearest", 0.0), ("nearest", 0.4), ("bilinear", 0.0), ("bilinear", 0.4)]
)
def test_perspective_is_torchvisions(shape: tuple[int, int, int], interpolation: Any, fill: float) -> None:
    transform = operations.RandomPerspective(0.6, 0.8, interpolation, fill)
    images, draws = images_of(40, shape), draws_for(transform, 40)
    apart = []
    for image, (taken, *corners), result in zip(images, draws.tolist(), applied(transform, images, draws), strict=True):
        expected = theirs_in_place(image, corners, 0.6, interpolation, 255 * fill) if taken < 0.8 else image
        apart.append((result.int() - expected.int()).abs())
    far = torch.stack(apart)
    assert (far > (0 if interpolation == "nearest" else 1)).double().mean() < 1e-4, "a position between two pixels"
    assert (far > 0).double().mean() < 0.001


def test_corners_on_a_line_leave_the_image() -> None:
    images = images_of(6, (3, 1, 9))
    assert torch.equal(
        applied(operations.RandomPerspective(p=1.0), images, draws_for(operations.RandomPerspective(), 6)), images
    )


def test_floats_are_rounded_to_levels_first() -> None:
    images = images_of(10, (3, 9, 9))
    transform, draws = operations.RandomEqualize(0.5), draws_for(operations.RandomEqualize(), 10)
    parameters = transform.parameters(draws, (3, 9, 9))
    assert torch.equal(transform.apply(images / 255 + 0.001, parameters), transform.apply(images.clone(), parameters))


@pytest.mark.parametrize("transform", [case[0] for case in CASES])
def test_other_numbers_of_channels_are_refused(transform: LevelsTransform) -> None:
    with pytest.raises(ValueError, match=f"{transform.name} needs 1 or 3 channels, got 4"):
        transform.output_shape((4, 8, 8))


def test_images_with_more_pixels_than_float32_can_number_are_refused() -> None:
    with pytest.raises(ValueError, match="random_invert takes at most 16777215 pixels, got 4096 x 4096"):
        operations.RandomInvert().output_shape((3, 4096, 4096))


def test_many_images_are_warped_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    images, transform = images_of(7, (3, 9, 8)), operations.RandomPerspective(p=1.0, interpolation="nearest")
    parameters = transform.parameters(draws_for(transform, 7), (3, 9, 8))
    together = transform.apply(images.clone(), parameters)
    monkeypatch.setattr(warps, "MOST_PIXELS", 2 * 9 * 8 + 1)
    assert torch.equal(transform.apply(images.clone(), parameters), together)
