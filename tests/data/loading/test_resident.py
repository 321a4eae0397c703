"""Batches from memory: what a plain loop over indexed tensors gives, bit for bit, from any batch on."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flat_batches import make_batches
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainkit.data.dataset import Part
from trainkit.data.loading import ResidentBatches, evaluation_batch_size
from trainkit.data.loading import resident as module
from trainkit.data.loading.resident import Batch, choose_residency
from trainkit.data.transforms.geometry import (
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    RandomRotation,
    RandomVerticalFlip,
)
from trainkit.data.transforms.normalize import Normalize, Standardize
from trainkit.data.transforms.pipeline import BatchTransform
from trainkit.data.transforms.pixels import ColorJitter, RandomErasing
from trainkit.data.transforms.policies import RandAugment, TrivialAugment
from trainkit.runtime import seeding

NORMALIZE = Normalize((0.1307,), (0.3081,))
MOVED: tuple[BatchTransform, ...] = (RandomCrop(padding=1), RandomHorizontalFlip(), RandomAffine((-9.0, 9.0)))
RANDOM = (*MOVED, TrivialAugment(), RandAugment(magnitude=20), NORMALIZE)
CPU = torch.device("cpu")


def part_of(num_samples: int, channels: int = 1) -> Part:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_samples, channels, 5, 6), dtype=np.uint8)
    return Part(images, rng.integers(0, 10, num_samples))


def batches_of(part: Part, indices: NDArray[np.int64] | None = None, **changes: Any) -> ResidentBatches:
    knobs: dict[str, Any] = {
        "batch_transforms": (NORMALIZE,),
        "batch_size": 4,
        "shuffle": True,
        "seed": 7,
        "random": True,
    }
    batches = make_batches(part, np.arange(len(part)) if indices is None else indices, **(knobs | changes))
    assert isinstance(batches, ResidentBatches)
    return batches


def same(first: Batch, second: Batch) -> bool:
    tensors = all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))
    return tensors and first.weights is None and second.weights is None


@settings(deadline=None, max_examples=40)
@given(
    num_samples=st.integers(1, 60),
    batch_size=st.integers(1, 17),
    shuffle=st.booleans(),
    chunk_bytes=st.integers(1, 4000),
    epoch=st.integers(0, 3),
    channels_last=st.booleans(),
)
def test_batches_are_those_of_a_plain_loop(
    num_samples: int, batch_size: int, shuffle: bool, chunk_bytes: int, epoch: int, channels_last: bool
) -> None:
    part = part_of(90)
    chosen = np.sort(np.random.default_rng(1).choice(90, num_samples, replace=False))
    knobs = {"batch_size": batch_size, "shuffle": shuffle, "chunk_bytes": chunk_bytes, "channels_last": channels_last}
    batches = batches_of(part, chosen, **knobs)
    images, targets = torch.from_numpy(part.inputs), torch.from_numpy(part.targets)
    order = seeding.permutation(7, epoch, num_samples) if shuffle else torch.arange(num_samples)
    expected = torch.from_numpy(chosen)[order].split(batch_size)
    got = list(batches.epoch(epoch))
    assert len(got) == batches.batches_per_epoch == len(expected)
    for batch, indices in zip(got, expected, strict=True):
        assert torch.equal(batch.indices, indices)
        assert torch.equal(batch.targets, targets[indices])
        plain = images[indices].to(torch.float32).div_(255).sub_(torch.tensor(0.1307)).div_(torch.tensor(0.3081))
        assert torch.equal(batch.inputs, plain)
        assert batch.inputs.dtype == torch.float32


@settings(deadline=None, max_examples=40)
@given(batch_size=st.integers(1, 12), drop_last=st.booleans(), chunk_bytes=st.integers(1, 4000), data=st.data())
def test_an_epoch_goes_on_from_any_batch(
    batch_size: int, drop_last: bool, chunk_bytes: int, data: st.DataObject
) -> None:
    batches = batches_of(part_of(31), batch_transforms=RANDOM, batch_size=batch_size, drop_last=drop_last)
    whole = list(batches.epoch(2))
    assert sum(len(batch.targets) for batch in whole) == (31 - 31 % batch_size if drop_last else 31)
    start = data.draw(st.integers(0, batches.batches_per_epoch))
    other = batches_of(
        part_of(31), batch_transforms=RANDOM, batch_size=batch_size, drop_last=drop_last, chunk_bytes=chunk_bytes
    )
    rest = list(other.epoch(2, start=start))
    assert len(rest) == len(whole) - start
    assert all(same(a, b) for a, b in zip(rest, whole[start:], strict=True))


def test_each_epoch_shows_every_sample_once_in_another_order() -> None:
    batches = batches_of(part_of(30))
    orders = [torch.cat([batch.indices for batch in batches.epoch(epoch)]) for epoch in range(3)]
    assert all(torch.equal(order.sort().values, torch.arange(30)) for order in orders)
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[1], orders[2])


def test_a_batch_that_was_kept_is_never_overwritten() -> None:
    batches = batches_of(part_of(40), chunk_bytes=500)
    kept = [(batch, batch.inputs.clone()) for batch in batches.epoch(0)]
    assert all(torch.equal(batch.inputs, then) for batch, then in kept)


def test_augmentation_does_not_depend_on_the_batch_size() -> None:
    first, second = (batches_of(part_of(30), batch_transforms=RANDOM, batch_size=size) for size in (3, 30))
    small = torch.cat([batch.inputs for batch in first.epoch(1)])
    assert torch.equal(small, next(second.epoch(1)).inputs)


def test_tables_with_several_targets() -> None:
    rng = np.random.default_rng(0)
    part = Part(rng.normal(size=(11, 3)).astype(np.float32), rng.normal(size=(11, 2)).astype(np.float32))
    batches = batches_of(part, batch_transforms=(Standardize((0.0, 1.0, 2.0), (1.0, 2.0, 3.0)),), shuffle=False)
    table = (torch.from_numpy(part.inputs) - torch.tensor([0.0, 1.0, 2.0])) / torch.tensor([1.0, 2.0, 3.0])
    got = list(batches.epoch(0))
    assert torch.equal(torch.cat([batch.inputs for batch in got]), table)
    assert torch.equal(torch.cat([batch.targets for batch in got]), torch.from_numpy(part.targets))
    assert got[0].inputs.shape == (4, 3)


@pytest.mark.parametrize("size", [6, 120])
@pytest.mark.parametrize("residency", ["host", "map", "device"])
def test_images_stored_by_pixel_give_the_batches_of_those_stored_by_plane(residency: str, size: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 3, size, size), dtype=np.uint8)
    by_pixel = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    before, targets = by_pixel.copy(), np.arange(20)
    transforms = (RandomCrop(padding=1), RandomHorizontalFlip(), Normalize((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)))
    for knobs in ({}, {"channels_last": True}):
        plain = batches_of(Part(images, targets), np.arange(0, 20, 2), batch_transforms=transforms, **knobs)
        other = batches_of(
            Part(by_pixel, targets), np.arange(0, 20, 2), batch_transforms=transforms, residency=residency, **knobs
        )
        for got, expected in zip(other.epoch(1), plain.epoch(1), strict=True):
            assert same(got, expected)
            assert got.inputs.stride() == expected.inputs.stride()
    assert np.array_equal(by_pixel, before)


def test_the_samples_are_not_copied() -> None:
    by_pixel = Part(np.zeros((10, 5, 6, 3), dtype=np.uint8).transpose(0, 3, 1, 2), np.zeros(10, dtype=np.int64))
    transforms = (Normalize((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)),)
    assert batches_of(by_pixel, batch_transforms=transforms)._inputs.data_ptr() == by_pixel.inputs.ctypes.data  # type: ignore[union-attr]
    part = part_of(10)
    assert batches_of(part)._inputs.data_ptr() == part.inputs.ctypes.data  # type: ignore[union-attr]


@pytest.mark.parametrize("residency", ["host", "map"])
def test_a_read_only_memory_map_gives_the_same_batches(tmp_path: Path, residency: str) -> None:
    part = part_of(50, channels=3)
    np.save(tmp_path / "images.npy", part.inputs)
    mapped = Part(np.load(tmp_path / "images.npy", mmap_mode="r"), part.targets)
    chosen = np.arange(0, 50, 3)
    transforms = (Normalize((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)),)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = batches_of(mapped, chosen, batch_transforms=transforms, residency=residency)
        got = list(batches.epoch(0))
    expected = list(batches_of(part, chosen, batch_transforms=transforms).epoch(0))
    assert all(same(a, b) for a, b in zip(got, expected, strict=True))


def test_drop_last_with_too_few_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="3 samples cannot fill one batch of 4, and no other is left"):
        batches_of(part_of(3), drop_last=True)


def test_residency_on_the_cpu_is_the_map_only_where_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_host_bytes", lambda: 10_000_000_000)
    for mapped, num_bytes, expected in (
        (True, 47_000_000, "host"),
        (True, 9_000_000_000, "map"),
        (False, 9_000_000_000, "host"),
    ):
        assert choose_residency(num_bytes, device=CPU, mapped=mapped).value == expected
    choice = choose_residency(9_000_000_000, device=CPU, mapped=True)
    assert choice.reason == "9.0 GB, and 10 GB of memory are free: rows are read from the file"
    assert choose_residency(47_040_000, device=CPU, mapped=True).reason == "47 MB, and 10 GB of memory are free"


def test_residency_on_an_accelerator_prefers_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_host_bytes", lambda: 60_000_000_000)
    monkeypatch.setattr(module, "free_device_bytes", lambda device: 8_000_000_000)
    cuda = torch.device("cuda:0")
    choice = choose_residency(47_000_000, device=cuda, mapped=True)
    assert (choice.value, choice.reason) == ("device", "47 MB, and 8.0 GB are free on cuda:0")
    choice = choose_residency(5_000_000_000, device=cuda, mapped=True)
    assert choice.value == "host"
    assert choice.reason == "5.0 GB, too much for the 8.0 GB that are free on cuda:0"
    assert choose_residency(50_000_000_000, device=cuda, mapped=True).value == "map"
    assert choose_residency(1, device=cuda, mapped=False, requested="host").reason == "as asked for"
    choice = choose_residency(2_000_000_000, device=cuda, mapped=True, reserved=5_000_000_000)
    assert (choice.value, choice.reason) == (
        "device",
        "2.0 GB, and 8.0 GB are free on cuda:0 beside 5.0 GB for the model",
    )
    choice = choose_residency(2_000_000_000, device=cuda, mapped=True, reserved=6_000_000_000)
    assert (choice.value, choice.reason) == (
        "host",
        "2.0 GB, too much for the 8.0 GB that are free on cuda:0 beside 6.0 GB for the model",
    )


def test_device_residency_holds_the_split_only() -> None:
    part, chosen = part_of(50), np.arange(0, 50, 3)
    batches = batches_of(part, chosen, batch_transforms=RANDOM, residency="device")
    assert len(batches._inputs) == len(chosen)
    expected = batches_of(part, chosen, batch_transforms=RANDOM)
    assert all(same(a, b) for a, b in zip(batches.epoch(1), expected.epoch(1), strict=True))


@pytest.mark.parametrize(
    ("shape", "device", "convolutional", "expected"),
    [
        ((1, 28, 28), "cpu", True, 128),
        ((1, 28, 28), "cpu", False, 1024),
        ((3, 32, 32), "cpu", True, 32),
        ((3, 224, 224), "cpu", True, 16),
        ((4,), "cpu", False, 1024),
        ((3, 32, 32), "cuda", True, 2048),
        ((3, 224, 224), "cuda", True, 32),
    ],
)
def test_evaluation_batches_are_sized_by_bytes(
    shape: tuple[int, ...], device: str, convolutional: bool, expected: int
) -> None:
    assert evaluation_batch_size(shape, device=torch.device(device), convolutional=convolutional) == expected


COLOR: tuple[BatchTransform, ...] = (
    RandomCrop(size=(4, 5), padding=1, padding_mode="reflect"),
    RandomVerticalFlip(),
    RandomRotation((-20.0, 20.0), "bilinear", 0.3),
    ColorJitter(0.3, 0.3, 0.3, 0.1),
    Normalize((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)),
    RandomErasing(),
)


@pytest.mark.gpu
@pytest.mark.parametrize("residency", ["device", "host", "map"])
@pytest.mark.parametrize(
    ("transforms", "channels"), [((NORMALIZE,), 1), ((*MOVED, NORMALIZE, RandomErasing()), 1), (COLOR, 3), ((), 3)]
)
def test_cuda_gives_the_batches_of_the_cpu(
    residency: str, transforms: tuple[BatchTransform, ...], channels: int
) -> None:
    part, device = part_of(500, channels), torch.device("cuda:0")
    batches = batches_of(
        part, batch_transforms=transforms, device=device, residency=residency, chunk_bytes=2000, channels_last=True
    )
    for batch, expected in zip(batches.epoch(1), batches_of(part, batch_transforms=transforms).epoch(1), strict=True):
        assert batch.inputs.device == batch.targets.device == device
        assert torch.equal(batch.indices, expected.indices)
        assert torch.equal(batch.targets.cpu(), expected.targets)
        assert batch.inputs.data_ptr() % 256 == batch.targets.data_ptr() % 256 == 0
        torch.testing.assert_close(batch.inputs.cpu(), expected.inputs, rtol=0, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("residency", ["device", "host", "map"])
def test_no_batch_waits_for_cuda(residency: str) -> None:
    device = torch.device("cuda:0")
    batches = batches_of(part_of(500, 3), batch_transforms=COLOR, device=device, residency=residency, chunk_bytes=2000)
    list(batches.epoch(0))
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(batches.epoch(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif("TRAINKIT_TEST_DATA" not in os.environ, reason="needs TRAINKIT_TEST_DATA with MNIST")
def test_mnist_as_a_plain_loop_sees_it() -> None:
    raw = Path(os.environ["TRAINKIT_TEST_DATA"]) / "MNIST" / "raw"
    images = np.memmap(raw / "train-images-idx3-ubyte", np.uint8, "r", offset=16, shape=(60000, 1, 28, 28))
    targets = np.fromfile(raw / "train-labels-idx1-ubyte", np.uint8, offset=8).astype(np.int64)
    batches = batches_of(Part(images, targets), batch_size=64, seed=0)
    assert batches.batches_per_epoch == 938
    order = seeding.permutation(0, 0, 60000)
    everything = torch.from_numpy(np.array(images)).to(torch.float32).div_(255)
    everything = everything.sub_(torch.tensor(0.1307)).div_(torch.tensor(0.3081))
    for batch, indices in zip(batches.epoch(0), order.split(64), strict=True):
        assert torch.equal(batch.indices, indices)
        assert torch.equal(batch.inputs, everything[indices])
