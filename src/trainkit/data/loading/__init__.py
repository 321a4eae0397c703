"""The batches of a split: from memory (``resident``), or from image files decoded while training (``workers``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit.data.dataset import Part
from trainkit.data.loading.resident import (
    Batch,
    ResidentBatches,
    choose_residency,
    count_batches,
    evaluation_batch_size,
)
from trainkit.data.loading.workers import WorkerBatches, worker_failure
from trainkit.data.transforms.pipeline import BatchTransform
from trainkit.data.transforms.static import StaticTransform

__all__ = [
    "Batch",
    "BatchTransform",
    "Part",
    "ResidentBatches",
    "StaticTransform",
    "WorkerBatches",
    "choose_residency",
    "count_batches",
    "evaluation_batch_size",
    "make_batches",
    "worker_failure",
]


def make_batches(
    part: Part,
    indices: NDArray[np.int64],
    *,
    batch_transforms: Sequence[BatchTransform],
    batch_size: int,
    shuffle: bool,
    seed: int,
    random: bool,
    drop_last: bool = False,
    device: torch.device | None = None,
    channels_last: bool = False,
    batch_transform_keys: Sequence[str] | None = None,
    residency: str = "auto",
    static_transforms: Sequence[StaticTransform] = (),
    channels: int | None = None,
    num_workers: int = 0,
) -> ResidentBatches | WorkerBatches:
    """The batches of some samples of a part, for any epoch. The batches are the same ones from arrays and from files.

    Args:
        indices: the samples: int64 (n,).
        batch_transforms: random and scaling transforms, in order; the random ones act only where ``random`` is true.
        device: where the batches are made; the CPU when left out.
        channels_last: give images in this memory layout.
        batch_transform_keys: the config key of each batch transform, for messages.
        residency: of arrays: ``device``, ``host``, ``map``, or ``auto`` to choose by size.
        static_transforms: of files: what each image goes through after decoding. Arrays have been through it.
        channels: of files: of the decoded images, 1 or 3.
        num_workers: of files: processes that decode; 0 decodes in this process.

    Raises:
        DataError: The first image file cannot be read.
        ProblemsError: A transform does not fit the samples, or there is no whole batch.
    """
    shared: dict[str, Any] = {
        "batch_transforms": batch_transforms,
        "batch_size": batch_size,
        "shuffle": shuffle,
        "seed": seed,
        "random": random,
        "drop_last": drop_last,
        "device": device,
        "channels_last": channels_last,
        "batch_transform_keys": batch_transform_keys,
    }
    if not part.is_files:
        return ResidentBatches(part, indices, residency=residency, **shared)
    assert channels is not None, "images have channels"
    return WorkerBatches(
        part, indices, channels=channels, static_transforms=static_transforms, num_workers=num_workers, **shared
    )
