"""Crops, flips, rotations and affine maps: torchvision's functions, one sample at a time, are the reference."""

from __future__ import annotations

import pytest
import torch
import torchvision.transforms.v2 as transforms
import torchvision.transforms.v2.functional as reference
from torch import Tensor

from trainkit.data.transforms import geometry
from trainkit.data.transforms.geometry import (
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    RandomRotation,
    RandomVerticalFlip,
)
from trainkit.data.transforms.random_transform import RandomTransform

COORDINATES = 1e-5
"""Pixels: float32 coordinates near 30 are rounded at 2e-6, one way or another with each kind of CPU."""
SHAPES = [(1, 28, 28), (3, 32, 32), (3, 17, 23), (1, 8, 8), (3, 40, 31)]
NUM_IMAGES = 30


def images_of(shape: tuple[int, int, int]) -> Tensor:
    """Bytes (N, C, H, W)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (NUM_IMAGES, *shape), dtype=torch.uint8, generator=generator)


def draws_for(count: int) -> Tensor:
    return torch.rand(NUM_IMAGES, count, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def floats(images: Tensor) -> Tensor:
    return images.to(torch.float32) / 255


def interpolation_of(name: str) -> transforms.InterpolationMode:
    return transforms.InterpolationMode(name)


def applied(transform: RandomTransform, images: Tensor, draws: Tensor) -> Tensor:
    """The images after the transform; its parameters are what it promises."""
    parameters = transform.parameters(draws, (images.shape[1], images.shape[2], images.shape[3]))
    assert parameters.shape == (len(images), transform.num_parameters)
    assert parameters.dtype == torch.float32
    return transform.apply(images, parameters)


def whole(share: float, count: int) -> int:
    return int(share * count)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize(("size", "padding"), [(None, 3), ((7, 5), 0), ((6, 9), 2), (None, 0)])
@pytest.mark.parametrize("as_bytes", [True, False])
def test_crop_is_torchvisions(
    shape: tuple[int, int, int], mode: str, size: tuple[int, int] | None, padding: int, as_bytes: bool
) -> None:
    channels, height, width = shape
    transform = RandomCrop(size=size, padding=padding, padding_mode=mode, fill=51 / 255)  # type: ignore[arg-type]
    images, draws = images_of(shape), draws_for(2)
    assert transform.works_on_bytes()
    given = images if as_bytes else floats(images)
    cropped = applied(transform, given, draws)
    crop_height, crop_width = size or (height, width)
    assert transform.output_shape(shape) == (channels, crop_height, crop_width) == cropped.shape[1:]
    for image, draw, result in zip(floats(images), draws.tolist(), cropped, strict=True):
        padded = reference.pad(image, [padding], fill=51 / 255, padding_mode=mode)
        top = whole(draw[0], padded.shape[1] - crop_height + 1)
        left = whole(draw[1], padded.shape[2] - crop_width + 1)
        expected = reference.crop(padded, top, left, crop_height, crop_width)
        assert torch.equal(floats(result) if as_bytes else result, expected)


@pytest.mark.parametrize("cut", [geometry._windows_by_strides, geometry._windows_by_index])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("as_bytes", [True, False])
def test_windows_of_the_cpu_and_of_accelerators(shape, layout, as_bytes, cut) -> None:  # type: ignore[no-untyped-def]
    images = images_of(shape).contiguous(memory_format=layout)
    images = images if as_bytes else floats(images)
    first = torch.randint(0, 4, (NUM_IMAGES, 2), generator=torch.Generator().manual_seed(3))
    first[0], first[-1] = 0, 3
    size = shape[1] - 3, shape[2] - 3
    expected = [reference.crop(image, *place, *size) for image, place in zip(images, first.tolist(), strict=True)]
    assert torch.equal(cut(images, first, size), torch.stack(expected))


def test_every_crop_is_as_likely_as_the_others() -> None:
    ramp = torch.arange(64, dtype=torch.float32).reshape(1, 1, 8, 8).expand(9000, 1, 8, 8)
    draws = torch.rand(9000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    corners = applied(RandomCrop(size=(6, 6)), ramp, draws)[:, 0, 0, 0].long()
    counts = torch.bincount(corners, minlength=64).reshape(8, 8)
    assert counts[3:].sum() == counts[:, 3:].sum() == 0
    assert counts[:3, :3].sum() == 9000
    assert (counts[:3, :3] - 1000).abs().max() < 150  # five standard deviations


def test_a_fill_between_two_bytes_needs_floats() -> None:
    assert RandomCrop(padding=1, fill=1.0).works_on_bytes()
    assert not RandomCrop(padding=1, fill=0.5).works_on_bytes()
    assert RandomCrop(padding=1, fill=0.5, padding_mode="edge").works_on_bytes()


def test_a_crop_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the crop \(30, 28\) is larger than the padded image \(28, 28\)"):
        RandomCrop(size=(30, 28)).output_shape((1, 28, 28))
    assert RandomCrop(size=(30, 28), padding=1).output_shape((1, 28, 28)) == (1, 30, 28)


def test_reflection_beyond_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="reflection needs padding below 8 x 12, got 8"):
        RandomCrop(padding=8, padding_mode="reflect").output_shape((1, 8, 12))
    assert RandomCrop(padding=7, padding_mode="reflect").output_shape((1, 8, 12)) == (1, 8, 12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 120, 121)])  # large images are flipped one by one
@pytest.mark.parametrize(
    ("transform", "flip"),
    [(RandomHorizontalFlip(0.3), reference.horizontal_flip), (RandomVerticalFlip(0.3), reference.vertical_flip)],
)
def test_flips_are_torchvisions(shape, transform, flip, layout) -> None:  # type: ignore[no-untyped-def]
    images, draws = images_of(shape).contiguous(memory_format=layout), draws_for(1)
    for image, draw, result in zip(
        images, draws[:, 0].tolist(), applied(transform, images.clone(), draws), strict=True
    ):
        assert torch.equal(result, flip(image) if draw < 0.3 else image)


@pytest.mark.parametrize("flip", [geometry._flip_in_place, geometry._flip_by_choice])
@pytest.mark.parametrize("dim", [2, 3])
def test_flips_of_the_cpu_and_of_accelerators(dim: int, flip) -> None:  # type: ignore[no-untyped-def]
    images, flipped = images_of((3, 9, 7)), torch.arange(NUM_IMAGES) % 3 == 0
    expected = [image.flip(dim - 1) if turn else image for image, turn in zip(images, flipped, strict=True)]
    assert torch.equal(flip(images.clone(), flipped, dim), torch.stack(expected))


@pytest.mark.parametrize("transform", [RandomHorizontalFlip, RandomVerticalFlip])
def test_flips_happen_never_and_always(transform) -> None:  # type: ignore[no-untyped-def]
    images, draws = images_of((3, 5, 4)), draws_for(1)
    assert torch.equal(applied(transform(0.0), images.clone(), draws), images)
    turned = applied(transform(1.0), images.clone(), draws)
    assert not torch.equal(turned[:1], images[:1])
    assert torch.equal(applied(transform(1.0), turned, draws), images)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("fill", [0.0, 0.3])
def test_rotation_is_torchvisions(shape: tuple[int, int, int], interpolation: str, fill: float) -> None:
    images, draws = floats(images_of(shape)), draws_for(1)
    transform = RandomRotation((-180.0, 200.0), interpolation, fill)  # type: ignore[arg-type]
    for image, draw, result in zip(images, draws[:, 0].tolist(), applied(transform, images, draws), strict=True):
        angle = -180 + 380 * draw
        expected = reference.rotate(image, angle, interpolation=interpolation_of(interpolation), fill=fill)
        torch.testing.assert_close(result, expected, rtol=0, atol=0 if interpolation == "nearest" else COORDINATES)


@pytest.mark.parametrize("angle", [0.0, 90.0, 180.0, -90.0, 450.0])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 9)])
def test_quarter_turns_move_whole_pixels(shape: tuple[int, int, int], interpolation: str, angle: float) -> None:
    images = floats(images_of(shape))
    turned = applied(RandomRotation((angle, angle), interpolation), images, draws_for(1))  # type: ignore[arg-type]
    expected = torch.rot90(images, round(angle / 90), (2, 3))
    torch.testing.assert_close(turned, expected, rtol=0, atol=0 if interpolation == "nearest" else 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("fill", [0.0, 0.3])
def test_affine_is_torchvisions(shape: tuple[int, int, int], interpolation: str, fill: float) -> None:
    _, height, width = shape
    images, draws = floats(images_of(shape)), draws_for(5)
    transform = RandomAffine((-30.0, 70.0), (0.2, 0.1), (0.5, 1.7), (-20.0, 10.0), interpolation, fill)  # type: ignore[arg-type]
    for image, draw, result in zip(images, draws.tolist(), applied(transform, images, draws), strict=True):
        expected = reference.affine(
            image,
            angle=-30 + 100 * draw[0],
            translate=[round(width * (0.4 * draw[1] - 0.2)), round(height * (0.2 * draw[2] - 0.1))],
            scale=0.5 + 1.2 * draw[3],
            shear=[-20 + 30 * draw[4], 0.0],
            interpolation=interpolation_of(interpolation),
            fill=fill,
        )
        torch.testing.assert_close(result, expected, rtol=0, atol=0 if interpolation == "nearest" else COORDINATES)


def test_affine_knobs_that_are_left_out_change_nothing() -> None:
    images, draws = floats(images_of((3, 17, 23))), draws_for(5)
    assert torch.equal(applied(RandomAffine((0.0, 0.0)), images, draws), images)


def test_translations_are_distributed_as_torchvisions() -> None:
    torch.manual_seed(4)
    drawn = transforms.RandomAffine(0, translate=(0.3, 0.2))
    dots = torch.zeros(2000, 1, 11, 15)
    dots[:, :, 5, 7] = 1
    draws = torch.rand(2000, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    ours = applied(RandomAffine((0.0, 0.0), translate=(0.3, 0.2)), dots, draws).flatten(1).argmax(1)
    theirs = [drawn.make_params([dots[0]])["translate"] for _ in range(2000)]
    for ours_axis, theirs_axis, middle in (
        (ours % 15, torch.tensor([t[0] for t in theirs]), 7),
        (ours // 15, torch.tensor([t[1] for t in theirs]), 5),
    ):
        first, second = (torch.bincount(axis, minlength=12) for axis in (ours_axis - middle + 5, theirs_axis + 5))
        assert torch.equal(first > 0, second > 0)
        assert (first - second).abs().max() < 150  # five standard deviations of a difference
