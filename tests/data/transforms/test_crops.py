"""``random_resized_crop``: boxes and pixels are torchvision's, and depend on nothing but the sample."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as transforms
import torchvision.transforms.v2.functional as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainkit.data.transforms import crops
from trainkit.data.transforms.crops import RandomResizedCrop, resize_box
from trainkit.data.transforms.geometry import RandomHorizontalFlip
from trainkit.data.transforms.normalize import Normalize
from trainkit.data.transforms.pipeline import build_pipeline

MODES = ["nearest", "bilinear", "bicubic"]


def images_of(count: int, channels: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def draws_for(count: int, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, RandomResizedCrop.num_draws, dtype=torch.float64, generator=generator)


def torchvisions_box(
    crop: RandomResizedCrop, draws: list[float], height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """The box that torchvision's own code makes of these uniform numbers."""
    uniform, places = iter(draws[:20]), iter(draws[20:])

    def fill(tensor: Tensor, low: float, high: float) -> Tensor:
        return tensor.fill_(low + (high - low) * next(uniform))

    def randint(low: int, high: int, size: Any) -> Tensor:
        return torch.tensor([int(next(places) * (high - low)) + low])

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "uniform_", fill)
        patch.setattr(torch, "randint", randint)
        given = transforms.RandomResizedCrop(crop.size, crop.scale, crop.ratio)
        made = given.make_params([torch.empty(3, 1, 1).expand(3, height, width)])
    return [made[name] for name in ("top", "left", "height", "width")]


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 1200),
    width=st.integers(1, 1200),
    scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    ratio=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted),
    seed=st.integers(0, 1000),
)
def test_boxes_are_torchvisions(height: int, width: int, scale: Any, ratio: Any, seed: int) -> None:
    crop = RandomResizedCrop((16, 16), (scale[0], scale[1]), (ratio[0], ratio[1]))
    draws = draws_for(8, seed)
    boxes = crop.parameters(draws, (3, height, width)).long().tolist()
    with pytest.MonkeyPatch.context() as patch:
        expected = [torchvisions_box(crop, list(row), height, width, patch) for row in draws.tolist()]
    assert boxes == expected


def test_boxes_of_huge_images_show_that_draws_are_rounded_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision draws in float32, whose rounding moves a side of such boxes by a pixel in one of a thousand."""
    crop, draws = RandomResizedCrop((16, 16)), draws_for(6000)
    boxes = crop.parameters(draws, (3, 30_000, 20_000)).long().tolist()
    assert boxes == [torchvisions_box(crop, list(row), 30_000, 20_000, monkeypatch) for row in draws.tolist()]


def test_a_box_is_the_largest_of_the_center_where_none_fits() -> None:
    crop, draws = RandomResizedCrop((16, 16), (0.9, 1.0)), draws_for(200)
    sizes = torch.full((200,), 40), torch.full((200,), 400)
    assert (crop.boxes(draws, *sizes) == torch.tensor([0.0, 173.0, 40.0, 53.0])).all(1).float().mean() > 0.99
    tall = crop.boxes(draws, *reversed(sizes))
    assert (tall == torch.tensor([173.0, 0.0, 53.0, 40.0])).all(1).float().mean() > 0.99


@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize("size", [(24, 24), (7, 40), (90, 80)])
@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_torchvisions(
    channels: int, layout: torch.memory_format, as_bytes: bool, size: tuple[int, int], interpolation: Any
) -> None:
    images = images_of(20, channels, 61, 47)
    images = (images if as_bytes else images / 255).contiguous(memory_format=layout)
    crop = RandomResizedCrop(size, interpolation=interpolation)
    boxes = crop.parameters(draws_for(20), (channels, 61, 47))
    given = transforms.InterpolationMode(interpolation)
    expected = torch.stack(
        [
            reference.resized_crop(image, *map(int, box), list(size), given, antialias=True)
            for image, box in zip(images, boxes.tolist(), strict=True)
        ]
    )
    found = crop.apply(images.clone(memory_format=torch.preserve_format), boxes)
    assert found.shape == (20, channels, *size)
    assert found.dtype == images.dtype
    assert (found.float() - expected.float()).abs().max() <= (0 if as_bytes else 1e-6)
    assert crop.output_shape((channels, 61, 47)) == found.shape[1:]
    products = crops._resize_by_products(images, boxes, size, interpolation)  # as accelerators compute
    assert products.dtype == images.dtype
    limit = 0 if interpolation == "nearest" else 1 if as_bytes else 1e-5
    assert (products.float() - expected.float()).abs().max() <= limit


def test_a_group_of_an_accelerator_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    images, crop = images_of(9, 3, 40, 30), RandomResizedCrop((16, 16))
    boxes = crop.parameters(draws_for(9), (3, 40, 30))
    whole = crops._resize_by_products(images, boxes, (16, 16), "bilinear")
    monkeypatch.setattr(crops, "_GROUP_BYTES", 2 * 8 * 3 * 40 * 30)
    assert torch.equal(crops._resize_by_products(images, boxes, (16, 16), "bilinear"), whole)


def test_without_the_kernel_for_bytes_a_level_may_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = images_of(1, 3, 90, 70)[0].permute(1, 2, 0).numpy()
    fast = resize_box(pixels, (3, 4, 70, 60), (24, 24), "bilinear")
    monkeypatch.setattr(crops, "has_uint8_kernel", lambda: False)
    slow = resize_box(pixels, (3, 4, 70, 60), (24, 24), "bilinear")
    assert slow.dtype == np.uint8
    assert np.abs(fast.astype(int) - slow).max() <= 1


TRANSFORMS = (
    RandomResizedCrop((12, 10), (0.2, 1.0), eval_resize=14),
    RandomHorizontalFlip(),
    Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)),
)


@settings(deadline=None, max_examples=25)
@given(
    rows=st.lists(st.integers(0, 39), min_size=1, max_size=40),
    threads=st.sampled_from([1, 2, 3]),
    epoch=st.integers(0, 3),
)
def test_a_sample_depends_on_no_batch_and_no_thread(rows: list[int], threads: int, epoch: int) -> None:
    images, indices, before = images_of(40, 3, 21, 33), np.arange(100, 140), torch.get_num_threads()
    pipeline = build_pipeline(TRANSFORMS, input_shape=(3, 21, 33), seed=3, random=True)
    together = pipeline(images.clone(), pipeline.parameters(indices, epoch=epoch))
    try:
        torch.set_num_threads(threads)
        apart = pipeline(images[rows], pipeline.parameters(indices[rows], epoch=epoch))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(apart, together[rows])


@pytest.mark.parametrize("num_threads", [1, 2])
def test_no_more_threads_crop_than_an_operation_has(num_threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    crop, threads = RandomResizedCrop((16, 16)), set()
    pixels = images_of(1, 3, 40, 30)[0].permute(1, 2, 0).numpy()

    def pixels_of(index: int) -> Any:
        if index:
            threads.add(threading.get_ident())
        return pixels

    try:
        crop.cut(pixels_of, crop.parameters(draws_for(200), (3, 40, 30)), channels_last=True, channels=3)
    finally:
        torch.set_num_threads(before)
    assert threads == {threading.get_ident()} if num_threads == 1 else 1 <= len(threads) <= 2


def test_evaluation_resizes_and_cuts_out_the_center() -> None:
    images = images_of(5, 3, 21, 33)
    found = build_pipeline(TRANSFORMS[:1], input_shape=(3, 21, 33), seed=3, random=False)(images)
    expected = reference.center_crop(reference.resize(images, [14], antialias=True), [12, 10])
    assert torch.equal(found, expected.float() / 255)
