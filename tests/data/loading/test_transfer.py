"""What lies between a gathered chunk and a batch: memory that starts at a boundary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from flat_batches import make_batches
from hypothesis import given, settings
from hypothesis import strategies as st

from trainkit.data.dataset import Part
from trainkit.data.loading import Batch, aligned
from trainkit.data.transforms.normalize import Normalize, Standardize
from trainkit.data.transforms.pipeline import BatchTransform

BOUNDARY = 64


def part_of(num_samples: int, shape: tuple[int, ...], num_targets: int) -> Part:
    rng = np.random.default_rng(0)
    targets = (
        rng.normal(size=(num_samples, num_targets)).astype(np.float32)
        if num_targets
        else rng.integers(0, 9, num_samples)
    )
    weights = rng.random(num_samples, dtype=np.float32)
    if len(shape) == 3:
        return Part(rng.integers(0, 256, (num_samples, *shape), dtype=np.uint8), targets, weights)
    return Part(rng.normal(size=(num_samples, *shape)).astype(np.float32), targets, weights)


def starts_at_a_boundary(batch: Batch) -> bool:
    assert batch.weights is not None
    return all(tensor.data_ptr() % BOUNDARY == 0 for tensor in (batch.inputs, batch.targets, batch.weights))


@settings(deadline=None, max_examples=100)
@given(
    num_features=st.integers(1, 70),
    batch_size=st.integers(1, 70),
    num_samples=st.integers(1, 300),
    num_targets=st.integers(0, 3),
    kind=st.sampled_from(
        ["table", "scaled table", "images", "images in channels-last", "gray images in channels-last"]
    ),
    residency=st.sampled_from(["host", "map", "device"]),
    data=st.data(),
)
def test_every_batch_is_aligned_wherever_an_epoch_starts(
    num_features: int,
    batch_size: int,
    num_samples: int,
    num_targets: int,
    kind: str,
    residency: str,
    data: st.DataObject,
) -> None:
    shape = (1 if "gray" in kind else 3, 1 + num_features // 9, 5) if "images" in kind else (num_features,)
    transforms: dict[str, tuple[BatchTransform, ...]] = {
        "table": (),
        "scaled table": (Standardize((0.5,) * num_features, (2.0,) * num_features),),
        "images": (),
        "images in channels-last": (Normalize((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)),),
        "gray images in channels-last": (Normalize((0.1,), (2.0,)),),
    }
    knobs: dict[str, Any] = {"batch_transforms": transforms[kind], "shuffle": True, "seed": 7, "random": True}
    knobs |= {"channels_last": "last" in kind, "residency": residency}
    part, indices = part_of(num_samples, shape, num_targets), np.arange(num_samples)
    batches = make_batches(part, indices, batch_size=batch_size, **knobs)
    together = next(make_batches(part, indices, batch_size=num_samples, **knobs).epoch(1))
    whole = list(batches.epoch(1))
    start = data.draw(st.integers(0, batches.batches_per_epoch))
    rest = list(batches.epoch(1, start=start))
    assert all(map(starts_at_a_boundary, whole + rest))
    for resumed, batch in zip(rest, whole[start:], strict=True):
        assert all(map(torch.equal, resumed[:3], batch[:3]))
        assert resumed.inputs.stride() == batch.inputs.stride()
    assert all(
        torch.equal(torch.cat(parts), all_of)
        for parts, all_of in zip(list(zip(*whole, strict=True))[:3], together[:3], strict=True)
    )


@pytest.mark.parametrize("shape", [(64, 13), (64, 1, 3, 5), (64, 3, 4, 5)])
def test_an_aligned_part_is_not_copied_and_another_keeps_its_layout(shape: tuple[int, ...]) -> None:
    tensor = torch.rand(shape)
    for whole in (tensor, tensor.to(memory_format=torch.channels_last) if len(shape) == 4 else tensor.T.contiguous().T):
        assert aligned(whole) is whole
        part = whole[1:]
        copy = aligned(part)
        assert part.data_ptr() % BOUNDARY
        assert copy.data_ptr() % BOUNDARY == 0
        assert torch.equal(copy, part)
        if len(shape) == 4:
            assert copy.stride() == part.stride()
