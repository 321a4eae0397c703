"""TrivialAugmentWide and RandAugment: torchvision's own dispatch on one uint8 image at a time is the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision.transforms.v2 as transforms
from torch import Tensor

from trainkit.data.transforms import policies
from trainkit.data.transforms.policies import NAMES, RandAugment, TrivialAugment

THEIRS = {
    "identity": "Identity",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "color": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
}


def images_of(count: int, shape: tuple[int, int, int]) -> Tensor:
    """Bytes (N, C, H, W) with noise, smooth parts, narrow ranges and constant channels."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    images[1::4] = images[1::4] // 5 + 90
    images[2::4] = torch.arange(shape[2], dtype=torch.uint8) * 3
    images[3::16, 0] = 77
    images[7::16] = images[7::16, :1]
    return images


def every_draw(magnitudes: int, *, signed: bool = True) -> Tensor:
    """Draws (operation, bin, sign) for each operation, bin and sign."""
    centers = [(torch.arange(count, dtype=torch.float64) + 0.5) / count for count in (len(NAMES), magnitudes, 2)]
    return torch.cartesian_prod(*centers)


def theirs(policy: Any, image: Tensor, name: str, magnitude: float) -> Tensor:
    done: Tensor = policy._apply_image_or_video_transform(
        image, THEIRS[name], magnitude, interpolation=policy.interpolation, fill=policy._fill
    )
    return done


FUSED = ("color", "contrast", "sharpness")
"""Operations that processors round in two ways."""


def compare(results: Tensor, expected: Tensor, names: list[str], *, exact: bool) -> None:
    for name in NAMES:
        rows = [index for index, one in enumerate(names) if one == name]
        apart = (results[rows].int() - expected[rows].int()).abs()
        inexact = FUSED if exact else (*FUSED, *policies._WARPS)
        assert apart.max() <= (1 if name in inexact else 0), name
        assert (apart > 0).double().mean() < 0.002, name


@pytest.mark.parametrize(
    ("shape", "channels_last", "interpolation", "fill"),
    [
        ((3, 32, 32), True, "nearest", 0.0),
        ((1, 28, 28), False, "nearest", 0.0),
        ((3, 45, 37), False, "nearest", 0.5),
        ((3, 2, 3), True, "nearest", 0.0),
        ((3, 33, 32), True, "bilinear", 0.0),
        ((1, 21, 28), False, "bilinear", 0.3),
    ],
)
def test_trivial_augment_is_torchvisions(
    shape: tuple[int, int, int], channels_last: bool, interpolation: Any, fill: float
) -> None:
    draws = every_draw(31)
    images = images_of(len(draws), shape).contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
    ours = TrivialAugment(interpolation=interpolation, fill=fill)
    policy = transforms.TrivialAugmentWide(interpolation=interpolation, fill=255 * fill if fill else None)
    expected, names = [], []
    for image, (which, bin_, sign) in zip(images, draws.tolist(), strict=True):
        name = NAMES[int(which * len(NAMES))]
        table, signed = policy._AUGMENTATION_SPACE[THEIRS[name]]
        found = table(31, *shape[1:])
        magnitude = 0.0 if found is None else float(found[int(bin_ * 31)])
        expected.append(theirs(policy, image, name, -magnitude if signed and sign < 0.5 else magnitude))
        names.append(name)
    results = ours.apply(images.clone(), ours.parameters(draws, shape))
    assert results.dtype == torch.uint8
    compare(results, torch.stack(expected), names, exact=interpolation == "nearest")


@pytest.mark.parametrize(
    ("shape", "magnitude", "bins"),
    [((3, 32, 32), 9, 31), ((1, 28, 28), 0, 31), ((3, 45, 37), 30, 31), ((3, 8, 9), 4, 10)],
)
def test_rand_augment_is_torchvisions(shape: tuple[int, int, int], magnitude: int, bins: int) -> None:
    names = [(first, second) for first in range(len(NAMES)) for second in range(len(NAMES))]
    draws = torch.tensor(
        [
            ((first + 0.5) / len(NAMES), 0.2 + 0.5 * (first % 2), (second + 0.5) / len(NAMES), 0.2 + 0.5 * (second % 2))
            for first, second in names
        ],
        dtype=torch.float64,
    )
    images = images_of(len(draws), shape)
    ours = RandAugment(magnitude=magnitude, num_magnitude_bins=bins)
    policy = transforms.RandAugment(magnitude=magnitude, num_magnitude_bins=bins)
    parameters = ours.parameters(draws, shape)
    assert parameters.shape == (len(draws), ours.num_parameters)
    assert draws.shape[1] == ours.num_draws
    results = ours.apply(images.clone(), parameters)
    apart = []
    for image, both, signs, result in zip(images, names, draws[:, 1::2].tolist(), results, strict=True):
        expected = image
        for which, sign in zip(both, signs, strict=True):
            table, signed = policy._AUGMENTATION_SPACE[THEIRS[NAMES[which]]]
            found = table(bins, *shape[1:])
            size = 0.0 if found is None else float(found[magnitude])
            expected = theirs(policy, expected, NAMES[which], -size if signed and sign < 0.5 else size)
        if not set(FUSED) & {NAMES[which] for which in both}:
            assert torch.equal(result, expected), [NAMES[which] for which in both]
        apart.append((result != expected).double().mean())
    assert sum(apart) / len(apart) < 0.01


@pytest.mark.parametrize(
    ("ours", "policy"), [(TrivialAugment, transforms.TrivialAugmentWide), (RandAugment, transforms.RandAugment)]
)
def test_the_operations_are_torchvisions(ours: Any, policy: Any) -> None:
    assert [THEIRS[name] for name in NAMES] == list(policy._AUGMENTATION_SPACE)
    defaults = policy()
    assert (ours().num_magnitude_bins, ours().interpolation) == (
        defaults.num_magnitude_bins,
        defaults.interpolation,
    )
    for name, signed in zip(NAMES, policies._SIGNED.tolist(), strict=True):
        assert policy._AUGMENTATION_SPACE[THEIRS[name]][1] == signed
    if ours is RandAugment:
        assert (ours().num_ops, ours().magnitude) == (defaults.num_ops, defaults.magnitude)


def test_operations_bins_and_signs_are_equally_likely() -> None:
    draws = torch.rand(28000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    drawn = TrivialAugment().parameters(draws, (3, 20, 20))
    counts = torch.bincount(drawn[:, 0].long(), minlength=11)
    assert ((counts - torch.tensor([2000, 6000, 4000, *(2000 for _ in range(8))])).abs() < 400).all()
    factors, sizes = drawn[drawn[:, 0] == 3, 1].unique(return_counts=True)
    torch.testing.assert_close(factors, 1 + 0.033 * torch.arange(-30, 31), rtol=0, atol=1e-6)
    assert sizes[30] == sizes.max(), "the bin of zero has both signs"


@pytest.mark.parametrize("width", [1, 2, 3, 331, 662])
def test_the_longest_shifts_of_rand_augment_stay_inside(width: int) -> None:
    images = images_of(8, (3, 4, width))
    ours = RandAugment(num_ops=1, magnitude=30)
    draws = torch.tensor([(3.5 / len(NAMES), 0.2 + 0.6 * (row % 2)) for row in range(8)], dtype=torch.float64)
    policy = transforms.RandAugment()
    results = ours.apply(images.clone(), ours.parameters(draws, (3, 4, width)))
    farthest = float(torch.linspace(0.0, 150.0 / 331.0 * width, 31)[30])
    for row, (image, result) in enumerate(zip(images, results, strict=True)):
        assert NAMES[3] == "translate_x"
        assert torch.equal(result, theirs(policy, image, "translate_x", farthest if row % 2 else -farthest))
