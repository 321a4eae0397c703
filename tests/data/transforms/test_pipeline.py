"""The pipeline of random and scaling transforms: each sample on its own, checked before it runs."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from trainkit.data.transforms import pipeline as module
from trainkit.data.transforms.geometry import (
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    RandomRotation,
    RandomVerticalFlip,
)
from trainkit.data.transforms.normalize import Normalize, Standardize
from trainkit.data.transforms.operations import (
    GaussianBlur,
    RandomAdjustSharpness,
    RandomAutocontrast,
    RandomEqualize,
    RandomGrayscale,
    RandomInvert,
    RandomPerspective,
    RandomPosterize,
    RandomSolarize,
)
from trainkit.data.transforms.own import OwnTransform
from trainkit.data.transforms.pipeline import BatchTransform, Pipeline, build_pipeline
from trainkit.data.transforms.pixels import ColorJitter, RandomErasing
from trainkit.data.transforms.policies import RandAugment, TrivialAugment
from trainkit.runtime import seeding

EVERY_TRANSFORM: tuple[BatchTransform, ...] = (
    RandomCrop(size=(13, 17), padding=2),
    RandomHorizontalFlip(),
    RandomVerticalFlip(0.3),
    RandomRotation((-20.0, 20.0)),
    RandomAffine((-10.0, 10.0), (0.1, 0.1), (0.8, 1.2), (-5.0, 5.0), "bilinear", 0.5),
    ColorJitter(0.3, 0.3, 0.3, 0.1),
    Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)),
    RandomErasing(),
)
ON_LEVELS: tuple[BatchTransform, ...] = (
    TrivialAugment(),
    RandomHorizontalFlip(),
    RandomPerspective(),
    GaussianBlur((5, 3), p=0.5),
    RandAugment(3, "bilinear", num_ops=2, magnitude=2),
    RandomGrayscale(0.3),
    RandomInvert(),
    RandomPosterize(),
    RandomSolarize(),
    RandomEqualize(),
    RandomAutocontrast(),
    RandomAdjustSharpness(),
    ColorJitter(0.3),
    TrivialAugment(fill=0.5),
    Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)),
)
IMAGES = torch.randint(0, 256, (40, 3, 14, 18), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
INDICES = np.arange(100, 140)


def inputs_of(pipeline: Pipeline, rows: Tensor, indices: NDArray[np.int64], *, epoch: int) -> Tensor:
    return pipeline(rows, pipeline.parameters(indices, epoch=epoch))


@settings(deadline=None, max_examples=25)
@given(
    rows=st.lists(st.integers(0, 39), min_size=1, max_size=40),
    epoch=st.integers(0, 3),
    transforms=st.sampled_from([EVERY_TRANSFORM, ON_LEVELS]),
)
def test_a_sample_does_not_depend_on_its_neighbors(
    rows: list[int], epoch: int, transforms: tuple[BatchTransform, ...]
) -> None:
    pipeline = build_pipeline(transforms, input_shape=(3, 14, 18), seed=3, random=True)
    together = inputs_of(pipeline, IMAGES.clone(), INDICES, epoch=epoch)
    apart = inputs_of(pipeline, IMAGES[rows], INDICES[rows], epoch=epoch)
    assert torch.equal(apart, together[rows])


@pytest.mark.parametrize(
    "transform",
    [
        ColorJitter(contrast=0.5),
        RandomAffine((-30.0, 30.0), interpolation="bilinear"),
        RandAugment(num_ops=4, interpolation="bilinear", fill=0.5),
        GaussianBlur((9, 7)),
    ],
)
def test_a_large_image_alone_is_split_over_threads_without_a_trace(transform: BatchTransform) -> None:
    images = torch.randint(0, 256, (3, 1, 300, 301), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pipeline = build_pipeline((transform,), input_shape=(1, 300, 301), seed=3, random=True)
    together = inputs_of(pipeline, images.clone(), np.arange(3), epoch=0)
    for index in range(3):
        assert torch.equal(inputs_of(pipeline, images[[index]], np.array([index]), epoch=0)[0], together[index])


@pytest.mark.parametrize("transforms", [EVERY_TRANSFORM, ON_LEVELS])
@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_the_number_of_threads_changes_nothing(
    num_threads: int, transforms: tuple[BatchTransform, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = build_pipeline(transforms, input_shape=(3, 14, 18), seed=3, random=True)
    expected, before = inputs_of(pipeline, IMAGES.clone(), INDICES, epoch=0), torch.get_num_threads()
    try:
        torch.set_num_threads(num_threads)
        assert torch.equal(inputs_of(pipeline, IMAGES.clone(), INDICES, epoch=0), expected)
        monkeypatch.setattr(module, "_GROUP_BYTES", 3 * 4 * 3 * 14 * 18)  # threads take three images at a time
        assert torch.equal(inputs_of(pipeline, IMAGES.clone(), INDICES, epoch=0), expected)
    finally:
        torch.set_num_threads(before)


def test_code_of_a_plugin_sees_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def function(images: Tensor, draws: Tensor) -> Tensor:
        threads.append(threading.get_ident())
        return images

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(module, "_GROUP_BYTES", 3 * 4 * 3 * 14 * 18)
    try:
        pipeline = build_pipeline((OwnTransform("own", 1, function),), input_shape=(3, 14, 18), seed=3, random=True)
        inputs_of(pipeline, IMAGES.clone(), INDICES, epoch=0)
    finally:
        torch.set_num_threads(before)
    assert threads == [threading.get_ident()] * 14


def test_each_epoch_each_sample_and_each_seed_draws_anew() -> None:
    transforms = (RandomRotation((-90.0, 90.0), "bilinear"),)
    pipeline = build_pipeline(transforms, input_shape=(3, 14, 18), seed=3, random=True)
    first = inputs_of(pipeline, IMAGES[:1].clone(), INDICES[:1], epoch=0)
    assert torch.equal(first, inputs_of(pipeline, IMAGES[:1].clone(), INDICES[:1], epoch=0))
    assert not torch.equal(first, inputs_of(pipeline, IMAGES[:1].clone(), INDICES[:1], epoch=1))
    assert not torch.equal(first, inputs_of(pipeline, IMAGES[:1].clone(), INDICES[1:2], epoch=0))
    other = build_pipeline(transforms, input_shape=(3, 14, 18), seed=4, random=True)
    assert not torch.equal(first, inputs_of(other, IMAGES[:1].clone(), INDICES[:1], epoch=0))


@pytest.mark.parametrize("p", [0.5, 0.25, 0.3, 1.0])
def test_flips_in_turn_come_as_evenly_as_they_can(p: float) -> None:
    flips = build_pipeline((RandomHorizontalFlip(p, alternate=True),), input_shape=(3, 4, 4), seed=1, random=True)
    indices = np.arange(2000)
    flipped = torch.stack([flips.parameters(indices, epoch=epoch)[:, 0] for epoch in range(40)])
    assert abs(flipped[7].mean() - p) < 0.05
    assert flipped.cumsum(0).sub(p * torch.arange(1, 41)[:, None]).abs().max() <= 1  # of each image, at any time
    if p == 0.5:
        assert torch.equal(flipped[1:], 1 - flipped[:-1])


def test_two_transforms_of_a_kind_draw_apart() -> None:
    flip = RandomHorizontalFlip()
    twice = build_pipeline((flip, flip), input_shape=(3, 14, 18), seed=0, random=True)
    assert not torch.equal(inputs_of(twice, IMAGES.clone(), INDICES, epoch=0), IMAGES / 255)


def test_the_transforms_run_in_order_with_their_own_draws() -> None:
    transforms = EVERY_TRANSFORM[:4]
    images, shape = IMAGES.clone(), (3, 14, 18)
    for index, transform in enumerate(transforms):
        assert not isinstance(transform, (Normalize, Standardize))
        draws = seeding.uniforms(5, f"augment.{index}.{transform.name}", 2, INDICES, transform.num_draws)
        parameters = transform.parameters(torch.from_numpy(draws), shape)
        images = transform.apply(images if transform.works_on_bytes() else images / 255, parameters)
        shape = transform.output_shape(shape)
    pipeline = build_pipeline(transforms, input_shape=(3, 14, 18), seed=5, random=True)
    assert torch.equal(inputs_of(pipeline, IMAGES.clone(), INDICES, epoch=2), images)


@pytest.mark.parametrize("transforms", [EVERY_TRANSFORM, ON_LEVELS])
def test_bytes_and_floats_give_the_same(transforms: tuple[BatchTransform, ...]) -> None:
    pipeline = build_pipeline(transforms, input_shape=(3, 14, 18), seed=3, random=True)
    assert torch.equal(
        inputs_of(pipeline, IMAGES.clone(), INDICES, epoch=0), inputs_of(pipeline, IMAGES / 255, INDICES, epoch=0)
    )


def test_evaluation_leaves_the_given_rows_as_they_are() -> None:
    for rows in (IMAGES.clone(), IMAGES / 255):
        before = rows.clone()
        build_pipeline((*EVERY_TRANSFORM[:6], *ON_LEVELS), input_shape=(3, 14, 18), seed=3, random=False)(rows)
        assert torch.equal(rows, before)


def test_evaluation_takes_the_fixed_transforms_and_the_center_of_a_random_crop() -> None:
    pipeline = build_pipeline(EVERY_TRANSFORM, input_shape=(3, 14, 18), seed=3, random=False)
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
    training = build_pipeline(EVERY_TRANSFORM, input_shape=(3, 14, 18), seed=3, random=True)
    assert pipeline.output_shape == training.output_shape == (3, 13, 17)
    center = torchvision.transforms.v2.functional.center_crop(IMAGES, [13, 17])
    assert torch.equal(
        inputs_of(pipeline, IMAGES.clone(), INDICES, epoch=0), center.float().div_(255).sub_(mean).div_(std)
    )


TRANSFORMS_OF_EACH_KIND: tuple[tuple[BatchTransform, ...], ...] = (
    EVERY_TRANSFORM,
    (),
    EVERY_TRANSFORM[6:7],
    (RandomHorizontalFlip(), EVERY_TRANSFORM[6]),
    (RandomVerticalFlip(), EVERY_TRANSFORM[6]),
    (RandomCrop(padding=3, padding_mode="reflect"), RandomHorizontalFlip(), EVERY_TRANSFORM[6]),
    (EVERY_TRANSFORM[6], RandomCrop(size=(9, 8)), RandomHorizontalFlip()),
    (RandomRotation((-20.0, 20.0), "bilinear"), ColorJitter(0.3, 0.3, 0.3, 0.1), EVERY_TRANSFORM[6], RandomErasing()),
    ON_LEVELS,
    (RandomGrayscale(), EVERY_TRANSFORM[6]),
)


@pytest.mark.parametrize("size", [(14, 18), (120, 121)])  # of the larger, each image is flipped by itself
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("transforms", TRANSFORMS_OF_EACH_KIND)
def test_groups_and_layouts_cannot_be_seen(
    transforms: tuple[BatchTransform, ...],
    random: bool,
    channels_last: bool,
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = torch.randint(0, 256, (7, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    indices = np.arange(50, 57)
    knobs = {"seed": 3, "random": random, "channels_last": channels_last}
    pipeline = build_pipeline(transforms, input_shape=(3, *size), **knobs)  # type: ignore[arg-type]
    expected = inputs_of(pipeline, images.clone(), indices, epoch=1)
    by_pixel = images.contiguous(memory_format=torch.channels_last)
    for rows in (images, by_pixel, images.float().div_(255), by_pixel.float().div_(255)):
        for group_bytes in (1, 3 * 4 * 3 * 14 * 18, 1 << 40):
            monkeypatch.setattr(module, "_GROUP_BYTES", group_bytes)
            inputs = inputs_of(pipeline, rows.clone(), indices, epoch=1)
            assert torch.equal(inputs, expected)
            assert inputs.stride() == expected.stride()


@pytest.mark.parametrize("transforms", TRANSFORMS_OF_EACH_KIND)
def test_off_the_cpu_nothing_is_read_back(transforms: tuple[BatchTransform, ...]) -> None:
    # The meta device has shapes only: a number that the host asks for is an error there, as is a tensor left behind.
    device = torch.device("meta")
    pipeline = build_pipeline(transforms, input_shape=(3, 14, 18), seed=3, random=True, device=device)
    drawn = pipeline.parameters(INDICES, epoch=0)
    inputs = pipeline(IMAGES.to(device), drawn.to(device), drawn)
    assert inputs.shape == (40, *pipeline.output_shape)
    assert inputs.device == device
    assert inputs.dtype == torch.float32


def test_without_transforms_pixels_become_floats() -> None:
    pipeline = build_pipeline((), input_shape=(3, 14, 18), seed=3, random=True)
    assert torch.equal(inputs_of(pipeline, IMAGES.clone(), INDICES, epoch=0), IMAGES.float() / 255)


def test_the_output_shape_is_known_beforehand() -> None:
    pipeline = build_pipeline(EVERY_TRANSFORM, input_shape=(3, 14, 18), seed=3, random=True)
    assert pipeline.output_shape == (3, 13, 17)
    assert inputs_of(pipeline, IMAGES.clone(), INDICES, epoch=0).shape == (40, 3, 13, 17)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_has_the_strides_that_torch_gives(channels: int) -> None:
    first, last = (
        build_pipeline((), input_shape=(channels, 14, 18), seed=0, random=True, channels_last=asked)
        for asked in (False, True)
    )
    plain, strided = (inputs_of(p, IMAGES[:, :channels].contiguous(), INDICES, epoch=0) for p in (first, last))
    assert torch.equal(plain, strided)
    assert plain.is_contiguous()
    assert strided.stride() == plain.to(memory_format=torch.channels_last).stride()


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (RandomCrop(size=(20, 17)), r"the crop \(20, 17\) is larger than the padded image \(14, 18\)"),
        (Normalize((0.5,), (0.5,)), r"expected 3 values, got 1 and 1"),
        (Normalize((0.5, 0.5, 0.5), (0.5, 0.0, 0.5)), "standard deviations must be positive numbers, got 0.0"),
        (TrivialAugment(), r"trivial_augment needs pixel values in \[0, 1\], and the images are normalized"),
        (ColorJitter(brightness=0.1), r"color_jitter needs pixel values in \[0, 1\], and the images are normalized"),
    ],
)
def test_a_transform_that_does_not_fit_is_refused(transform: BatchTransform, message: str) -> None:
    transforms = (Normalize((0.5,) * 3, (0.5,) * 3), transform)
    with pytest.raises(ValueError, match=message):
        build_pipeline(transforms, input_shape=(3, 14, 18), seed=0, random=True)


def test_random_transforms_on_a_table_are_refused() -> None:
    with pytest.raises(ValueError, match=r"random_horizontal_flip works on images, and the samples have shape \(4,\)"):
        build_pipeline((RandomHorizontalFlip(),), input_shape=(4,), seed=0, random=True)


def test_tables_are_standardized_by_column() -> None:
    table = torch.randn(9, 2)
    pipeline = build_pipeline((Standardize((1.0, 2.0), (3.0, 0.5)),), input_shape=(2,), seed=0, random=True)
    expected = (table - torch.tensor([1.0, 2.0])) / torch.tensor([3.0, 0.5])
    assert torch.equal(inputs_of(pipeline, table, np.arange(9), epoch=0), expected)


@pytest.mark.parametrize("transform", [*EVERY_TRANSFORM, *ON_LEVELS])
def test_transforms_are_plain_values(transform: Any) -> None:
    assert replace(transform) == transform
    assert hash(transform) == hash(replace(transform))
