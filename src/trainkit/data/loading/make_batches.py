"""The batches of a split, from memory or from image files, and how many samples they have in evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from trainkit.data.dataset import Part
from trainkit.data.loading.resident import ResidentBatches, Sampler
from trainkit.data.loading.workers import DecodedImages, Decoding, WorkerBatches
from trainkit.data.ragged import Ragged
from trainkit.data.transforms.pipeline import BatchTransform, build_pipeline


def make_batches(
    part: Part,
    sampler: Sampler,
    transforms: Sequence[BatchTransform],
    *,
    random: bool,
    device: torch.device | None = None,
    channels_last: bool = False,
    residency: str = "host",
    chunk_bytes: int | None = None,
    decoding: Decoding | None = None,
) -> ResidentBatches | WorkerBatches:
    """The batches of some samples of a part, for any epoch: the same ones from arrays and from files.

    Args:
        sampler: which samples a batch has.
        transforms: random and scaling transforms, in order; ``random=False`` leaves the random ones out.
        device: where the batches are made; the CPU when left out.
        channels_last: give images in this memory layout.
        residency: of arrays: ``device``, ``host`` or ``map``, see ``choose_residency``.
        chunk_bytes: of arrays: bytes of model inputs made at a time; they never change a batch.
        decoding: of image files.

    Raises:
        DataError: The first image file cannot be read.
        ValueError: A transform does not fit the samples.
    """
    inputs, images = part.inputs, None
    if isinstance(inputs, Ragged) and not random and inputs.training[sampler.indices.numpy()].any():
        inputs = inputs.paths  # evaluation does not start from images that were shrunk for training
    if isinstance(inputs, tuple):
        assert decoding is not None, "images in files are decoded"
        images = DecodedImages(inputs, decoding)
        input_shape = images.shape(int(sampler.indices[0]))
    else:
        input_shape = inputs.shape[1:]
    pipeline = build_pipeline(
        transforms,
        input_shape=input_shape,
        seed=sampler.seed,
        random=random,
        device=device,
        channels_last=channels_last,
        own_sizes=decoding is not None and decoding.training_transforms is not None,
    )
    if images is not None:
        if pipeline.crop is not None:
            images = DecodedImages(images.paths, images.decoding, pipeline.crop)
        return WorkerBatches(part, sampler, pipeline, images)
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
