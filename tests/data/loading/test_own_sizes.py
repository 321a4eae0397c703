"""Images of their own sizes: the same batches from memory, the cache and files, which torchvision would make too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference
from flat_batches import make_batches
from flat_sources import load_image_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from trainkit.data.dataset import Dataset
from trainkit.data.images.decode import decode_image
from trainkit.data.images.materialize import materialize_images
from trainkit.data.loading import ResidentBatches, WorkerBatches, is_mapped
from trainkit.data.ragged import Ragged
from trainkit.data.transforms.crops import RandomResizedCrop
from trainkit.data.transforms.geometry import RandomHorizontalFlip
from trainkit.data.transforms.normalize import Normalize
from trainkit.data.transforms.pipeline import BatchTransform
from trainkit.data.transforms.pixels import ColorJitter
from trainkit.data.transforms.policies import TrivialAugment
from trainkit.data.transforms.static import Shrink, StaticTransform
from trainkit.runtime import seeding

CROP = RandomResizedCrop((12, 10), (0.3, 1.0), eval_resize=14)
TRANSFORMS: tuple[BatchTransform, ...] = (
    CROP,
    RandomHorizontalFlip(),
    TrivialAugment(),
    ColorJitter(0.3, 0.3, 0.3, 0.1),
    Normalize((0.4, 0.5, 0.6), (0.2, 0.2, 0.3)),
)
STATIC: tuple[StaticTransform, ...] = CROP.in_evaluation()
TRAINING: tuple[StaticTransform, ...] = (Shrink(24),)
COUNT = 30


def write_pictures(root: Path, *, mode: str = "RGB") -> None:
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        height, width = rng.integers(9, 41, 2)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        folder = root / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert(mode).save(folder / f"{index:02}.png")


@pytest.fixture(scope="module", params=["RGB", "L"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("photos")
    write_pictures(root, mode=request.param)
    return load_image_folder(root, val_fraction=0.2, test_fraction=0.1, seed=0)


@pytest.fixture(scope="module")
def cached(source: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return materialized(source, tmp_path_factory.mktemp("cache"))


def materialized(source: Dataset, cache_dir: Path | None) -> Dataset:
    data = materialize_images(source, STATIC, training_transforms=TRAINING, cache_dir=cache_dir)
    assert isinstance(data.parts["all"].inputs, Ragged)
    return data


def transforms_of(data: Dataset) -> tuple[BatchTransform, ...]:
    gray = Normalize((0.4,), (0.2,))
    return TRANSFORMS if data.channels == 3 else (CROP, RandomHorizontalFlip(), gray)


def batches_of(data: Dataset, split: str = "train", **changes: Any) -> ResidentBatches | WorkerBatches:
    chosen = data.splits[split]
    knobs: dict[str, Any] = {"batch_size": 5, "shuffle": True, "random": split == "train", "seed": 7}
    knobs |= {"batch_transforms": transforms_of(data), "channels": data.channels, "rules": data.rules}
    knobs |= {"static_transforms": STATIC, "training_transforms": TRAINING}
    return make_batches(data.parts[chosen.part], chosen.indices, **(knobs | changes))


def inputs_by_index(
    batches: ResidentBatches | WorkerBatches, epoch: int = 0, start: int = 0
) -> dict[int, torch.Tensor]:
    found = [(batch.indices.tolist(), batch.inputs) for batch in batches.epoch(epoch, start=start)]
    return {index: row for indices, rows in found for index, row in zip(indices, rows, strict=True)}


def same(first: dict[int, torch.Tensor], second: dict[int, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[index], second[index]) for index in first)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_same_batches_from_memory_cache_and_files(
    source: Dataset, cached: Dataset, num_workers: int, channels_last: bool
) -> None:
    expected = batches_of(cached, channels_last=channels_last)
    assert isinstance(expected, ResidentBatches)
    ragged = cached.parts["all"].inputs
    assert isinstance(ragged, Ragged)
    assert is_mapped(ragged.pixels)
    others = [
        batches_of(cached, channels_last=channels_last, residency="map"),
        batches_of(cached, channels_last=channels_last, chunk_bytes=1),
        batches_of(materialized(source, None), channels_last=channels_last),
        batches_of(source, channels_last=channels_last, num_workers=num_workers),
    ]
    assert isinstance(others[-1], WorkerBatches)
    for epoch, start in ((0, 0), (1, 2)):
        rows = inputs_by_index(expected, epoch, start)
        for other in others:
            assert same(rows, inputs_by_index(other, epoch, start))


@pytest.mark.parametrize("split", ["val", "test", "train"])
def test_evaluation_takes_the_same_from_cache_and_files(source: Dataset, cached: Dataset, split: str) -> None:
    knobs: dict[str, Any] = {"random": False, "shuffle": False, "batch_transforms": (CROP,)}
    rows = inputs_by_index(batches_of(cached, split, **knobs))
    assert same(rows, inputs_by_index(batches_of(source, split, **knobs)))
    paths = source.parts["all"].inputs
    assert isinstance(paths, tuple)
    for index, row in rows.items():
        image = torch.from_numpy(decode_image(paths[index], channels=source.channels or 3).copy())
        resized = reference.resize(image, [14], antialias=True)
        assert torch.equal(row, reference.center_crop(resized, [12, 10]) / 255)


def test_crops_are_torchvisions(source: Dataset, cached: Dataset) -> None:
    """Of the shrunk image, with the box of the sample's own uniform numbers."""
    rows = inputs_by_index(batches_of(cached, batch_transforms=(CROP,)), epoch=3)
    paths, ragged = source.parts["all"].inputs, cached.parts["all"].inputs
    assert isinstance(paths, tuple)
    assert isinstance(ragged, Ragged)
    indices = np.array(list(rows))
    draws = torch.from_numpy(seeding.uniforms(7, "augment.0.random_resized_crop", 3, indices, CROP.num_draws))
    for index, row, draw in zip(indices.tolist(), rows.values(), draws, strict=True):
        image = torch.from_numpy(decode_image(paths[index], channels=source.channels or 3).copy())
        height, width = image.shape[1:]
        if height * width > 24**2:
            factor = 24 / (height * width) ** 0.5
            image = reference.resize(image, [round(height * factor), round(width * factor)], antialias=True)
        assert torch.equal(torch.from_numpy(ragged[index].copy()), image)
        [box] = CROP.parameters(draw[None], image.shape).long().tolist()
        expected = reference.resized_crop(image, *box, [12, 10], antialias=True)
        assert torch.equal(row, expected / 255)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch_size=st.integers(1, 30), chunk_bytes=st.integers(1, 100_000), epoch=st.integers(0, 3), data=st.data())
def test_a_sample_depends_on_no_batch_and_no_order(
    cached: Dataset, batch_size: int, chunk_bytes: int, epoch: int, data: Any
) -> None:
    whole = inputs_by_index(batches_of(cached), epoch)
    some = np.array(data.draw(st.lists(st.sampled_from(sorted(whole)), min_size=1, unique=True)))
    chosen = replace(cached, splits={"train": replace(cached.splits["train"], indices=some)})
    found = inputs_by_index(batches_of(chosen, batch_size=batch_size, chunk_bytes=chunk_bytes), epoch)
    assert sorted(found) == sorted(some.tolist())
    assert all(torch.equal(row, whole[index]) for index, row in found.items())
    again = batches_of(chosen, batch_size=batch_size)
    start = data.draw(st.integers(0, again.batches_per_epoch))
    rest = inputs_by_index(again, epoch, start)
    assert list(rest) == list(inputs_by_index(again, epoch))[start * batch_size :]
    assert all(torch.equal(row, whole[index]) for index, row in rest.items())
