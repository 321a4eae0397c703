"""A few samples of a data set, decoded and transformed in memory: enough to try a model, and nothing is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.builders import load_source
from trainkit.config.schema import Config
from trainkit.config.schema.data import DatasetInfo, Downloaded
from trainkit.data.cache import cache_root
from trainkit.data.dataset import Dataset, Part, Split
from trainkit.data.images import BadImageError, decode_image, probe_file, quick_look, sample_rules, stack_images
from trainkit.data.splits import most_for_one_of_each
from trainkit.data.transforms import StaticTransform, apply_static_transforms, fixes_size, output_shape, same_size_hint
from trainkit.errors import ProblemsError
from trainkit.wording import listed
from trainkit.workflows.check.problems import fail

SAMPLES = 64
DECODED = 8
"""Image files that are decoded to try the model on."""
PROBED = 256
"""Image files whose headers are read to see whether their sizes are equal."""


def load_read_only(config: Config) -> Dataset:
    """The data set, without writing anything; a placeholder of the same shape where it is not downloaded yet.

    Raises:
        as ``load_source``.
    """
    load = partial(load_source, config, cache_dir=cache_root(), read_only=True)
    if not (isinstance(config.dataset, Downloaded) and config.dataset.download):
        return load()
    try:
        return load()
    except ProblemsError as error:  # DataError: the files are there, and damaged
        stand_in = placeholder_dataset(config)
        if stand_in is None or any(problem.key != "dataset.root" for problem in error.problems):
            raise
        reason = f"{config.dataset.type} is not in {config.dataset.root} yet: training downloads it"
        return replace(stand_in, notes=(f"{reason}; its samples could not be looked at",))


def placeholder_dataset(config: Config) -> Dataset | None:
    """A data set of zeros with the shape, the classes and the split sizes that are known from the config alone."""
    info = config.dataset.known_info()
    if not info.num_train or info.task != "classification" or not info.num_classes or info.kind != "image":
        return None
    sizes = {"train": info.num_train, "val": info.num_val, "test": info.num_test}
    return Dataset(
        name=config.dataset.type,
        kind="image",
        task="classification",
        parts={name: _zeros(info, size) for name, size in sizes.items() if size},
        splits={name: Split(name, np.arange(size, dtype=np.int64)) for name, size in sizes.items() if size},
        class_names=tuple(str(label) for label in range(info.num_classes)),
        feature_names=(),
        target_names=(),
        fingerprint={},
        channels=info.image_shape[0],
    )


def _zeros(info: DatasetInfo, size: int) -> Part:
    """One image of zeros, repeated ``size`` times without memory."""
    assert info.num_classes is not None
    shape = tuple(length or 1 for length in info.image_shape)
    inputs = np.broadcast_to(np.zeros((1, *shape), dtype=np.uint8), (size, *shape))
    return Part(inputs, np.arange(size, dtype=np.int64) % info.num_classes)


def take_sample(
    data: Dataset, static_transforms: Sequence[StaticTransform], *, size: int = SAMPLES, decoded: int = DECODED
) -> Dataset:
    """The training split cut down to ``size`` samples, spread evenly over it, after the static transforms.

    Of image files, which have to be decoded first, ``decoded`` are taken.

    Raises:
        ProblemsError: no image can be decoded.
    """
    split = data.splits["train"]
    part = data.parts[split.part]
    if isinstance(part.inputs, tuple):
        tried = split.indices[_spread(len(split), min(size, decoded))]
        data = replace(data, rules=sample_rules(data.rules, [part.inputs[index] for index in tried]))
        images, chosen = _decode_some(data, part.inputs, tried, static_transforms)
        stacked: NDArray[Any] = stack_images(images)
    else:
        chosen = split.indices[_spread(len(split), size)]
        stacked = np.ascontiguousarray(part.inputs[chosen])
        if static_transforms:
            stacked = stack_images([apply_static_transforms(image, static_transforms) for image in stacked])
    few = Part(stacked, part.targets[chosen])
    return replace(
        data,
        parts={"sample": few},
        splits={"train": Split("sample", np.arange(len(few), dtype=np.int64))},
    )


def _decode_some(
    data: Dataset, paths: tuple[Path, ...], indices: NDArray[np.int64], static_transforms: Sequence[StaticTransform]
) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
    """The images among these that can be decoded and have the size of the first, and their indices."""
    images: list[NDArray[Any]] = []
    kept = []
    for index in indices:
        try:
            decoded = decode_image(paths[index], channels=data.channels or 3, rules=data.rules)
            image = apply_static_transforms(decoded, static_transforms)
        except BadImageError:
            continue  # ``skipped_files`` names it
        if not images or image.shape == images[0].shape:  # ``check_sizes`` names the others
            images.append(image)
            kept.append(index)
    if not images:
        fail("none of the images that were tried can be decoded", "dataset")
    return images, np.array(kept, dtype=np.int64)


def check_sizes(data: Dataset, static_transforms: Sequence[StaticTransform]) -> None:
    """Compare the headers of some image files: without a transform that makes them equal, sizes must be the same.

    Raises:
        ProblemsError: they are of different sizes.
    """
    if fixes_size(static_transforms):
        return
    sizes: dict[Path, tuple[int, int]] = {}
    for split in data.splits.values():
        paths = data.parts[split.part].inputs
        if not isinstance(paths, tuple):
            return
        for index in split.indices[_spread(len(split), PROBED)]:
            try:
                height, width = probe_file(paths[index]).size
            except BadImageError:
                continue
            sizes[paths[index]] = output_shape(static_transforms, (1, height, width))[1:]
    if len(set(sizes.values())) > 1:
        after = " after the transforms" if static_transforms else ""
        ends = (pick(sizes, key=lambda path: math.prod(sizes[path])) for pick in (min, max))
        smallest, largest = (f"{path} is {sizes[path][0]} x {sizes[path][1]}" for path in ends)
        message = (
            f"the images have different sizes{after}: {smallest} (height x width), but {largest}; "
            f"{same_size_hint(static_transforms, sizes.values())}"
        )
        fail(message, "transforms")


def skipped_files(data: Dataset) -> list[str]:
    """A note for each of some image files that cannot be read and will be skipped.

    Raises:
        ProblemsError: they are more than ``max_bad_files``.
    """
    found = quick_look(data)
    if len(found) > data.max_bad_files:
        shown = "; ".join(found[:10]) + (f"; and {len(found) - 10} more" if len(found) > 10 else "")
        message = f"{len(found)} of the images that were tried cannot be read: {shown}; repair or remove them"
        fail(message, "dataset")
    return [f"will be skipped: {line}" for line in found]


def missing_classes(data: Dataset) -> list[str]:
    """A note for each split without samples of some classes, whose scores do not cover them, and what to do.

    A source of image folders says which classes a folder does not have.
    """
    notes = []
    rest = len(data.parts[data.splits["train"].part])
    for name in ("test", "val"):  # as they are taken
        if data.task != "classification" or name not in data.splits:
            continue
        split = data.splits[name]
        taken = split.part == data.splits["train"].part
        empty = [data.class_names[label] for label, count in enumerate(data.class_counts(name)) if not count]
        if empty and (taken or not data.parts[split.part].is_files):
            what = f"the {name} split has no sample of {listed(empty, limit=5, quoted=False)}"
            notes.append(f"{_larger_split(data, name, rest)}: {what}" if taken else what)
        rest -= len(split) if taken else 0
    return notes


def _larger_split(data: Dataset, name: str, num_samples: int) -> str:
    """How each class gets into a split that is taken from ``num_samples`` by fraction."""
    needed = math.ceil(100 * data.num_classes / most_for_one_of_each(1.0, num_samples)) / 100
    if needed * num_samples + 0.5 <= len(data.splits[name]) or needed >= 0.5:
        return "add samples"  # the classes are too small, not the split
    return f"add samples, or raise dataset.{name}_fraction to {needed:g} (the seed decides which classes are in it now)"


def _spread(length: int, size: int) -> NDArray[np.int64]:
    """Up to ``size`` positions, from the first to the last."""
    positions: NDArray[np.int64] = np.unique(np.linspace(0, length - 1, min(size, length)).astype(np.int64))
    return positions
