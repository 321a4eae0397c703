"""The batches of a split, from memory or from image files, and how many samples they have in evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit.data.dataset import Part
from trainkit.data.loading.balanced import Balance
from trainkit.data.loading.resident import ResidentBatches, Sampler
from trainkit.data.loading.workers import DecodedImages, WorkerBatches
from trainkit.data.pixel_rules import DEFAULT_RULES, PixelRules
from trainkit.data.ragged import Ragged
from trainkit.data.transforms.pipeline import BatchTransform, build_pipeline
from trainkit.data.transforms.static import StaticTransform
from trainkit.runtime import Ranks
from trainkit.wording import counted


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
    balance: float | None = None,
    device: torch.device | None = None,
    channels_last: bool = False,
    residency: str = "host",
    chunk_bytes: int | None = None,
    static_transforms: Sequence[StaticTransform] = (),
    training_transforms: Sequence[StaticTransform] | None = None,
    channels: int | None = None,
    rules: PixelRules = DEFAULT_RULES,
    num_workers: int = 0,
    ranks: Ranks | None = None,
    pieces: int | None = None,
) -> ResidentBatches | WorkerBatches:
    """The batches of some samples of a part, for any epoch: the same ones from arrays and from files.

    Args:
        indices: the samples: int64 (n,).
        batch_transforms: random and scaling transforms, in order; ``random=False`` leaves the random ones out.
        balance: the power by which rare classes come more often, see ``Balance``; None: each sample once an epoch.
        device: where the batches are made; the CPU when left out.
        channels_last: give images in this memory layout.
        residency: of arrays: ``device``, ``host`` or ``map``, see ``choose_residency``.
        chunk_bytes: of arrays: bytes of model inputs made at a time; they never change a batch.
        static_transforms: of files: applied to each image after decoding. Arrays have them applied already.
        training_transforms: of images that keep sizes of their own until training crops them: applied to files instead.
        channels: of files: of the decoded images, 1 or 3.
        rules: of files: how they become pixels.
        num_workers: of files: processes that decode; 0 decodes in this process.
        ranks: the processes that share the batches: their ``pieces``, or whole batches in turn where that is None.

    Raises:
        DataError: The first image file cannot be read.
        ValueError: A transform does not fit the samples, or there is no whole batch.
    """
    assert len(indices) > 0, "an empty split"
    if drop_last and len(indices) < batch_size:
        raise ValueError(
            f"{counted(len(indices), 'sample')} cannot fill one batch of {batch_size}, and no other is left"
        )
    batches_per_epoch = len(indices) // batch_size if drop_last else -(-len(indices) // batch_size)
    rows = torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64))
    balanced = None if balance is None else Balance(torch.from_numpy(part.targets[indices]), balance)
    sampler = Sampler(rows, batch_size, seed, shuffle, batches_per_epoch, balanced, ranks or Ranks(), pieces)
    inputs, images = part.inputs, None
    if isinstance(inputs, Ragged) and not random and inputs.training[indices].any():
        inputs = inputs.paths  # evaluation does not start from images that were shrunk for training
    if isinstance(inputs, tuple):
        assert channels is not None, "images have channels"
        images = DecodedImages(inputs, channels, tuple(static_transforms), rules)
        input_shape = images.shape(int(indices[0]))
    else:
        input_shape = inputs.shape[1:]
    pipeline = build_pipeline(
        batch_transforms,
        input_shape=input_shape,
        seed=seed,
        random=random,
        device=device,
        channels_last=channels_last,
        own_sizes=training_transforms is not None,
    )
    if images is not None:
        if pipeline.crop is not None and training_transforms is not None:
            images = DecodedImages(images.paths, images.channels, tuple(training_transforms), rules, pipeline.crop)
        return WorkerBatches(part, sampler, pipeline, images, num_workers=num_workers)
    return ResidentBatches(part, sampler, pipeline, residency=residency, chunk_bytes=chunk_bytes)


def evaluation_batch_size(input_shape: tuple[int, ...], *, device: torch.device, convolutional: bool) -> int:
    """Samples of a forward pass without gradients: a power of two that keeps the inputs under a size.

    CPU: 512 KB for convolutions, since activations must fit in its caches (the CNN on MNIST takes 290 ms for 8192
    images in batches of 128 and 865 ms in batches of 512); 4 MB for fully connected layers, whose activations are
    smaller than their inputs (10,000 images take the MLP 56 ms in batches of 128 and 34 ms in batches of 1024).
    Accelerators: 32 MB.
    """
    sample_bytes = 4 * math.prod(input_shape)
    limit, most = ((512 if convolutional else 4096) << 10, 1024) if device.type == "cpu" else (32 << 20, 2048)
    return int(min(most, max(16, 2 ** (max(1, limit // sample_bytes).bit_length() - 1))))
