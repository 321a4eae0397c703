"""A few samples of a data set, decoded and transformed in memory: enough to try a model, and nothing is written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.builders import build_static_transforms, build_training_transforms, load_source
from trainkit.config.schema import Config
from trainkit.config.schema.data import Downloaded
from trainkit.config.schema.splits import DatasetInfo
from trainkit.config.schema.transforms import RandomHorizontalFlip, RandomResizedCrop, height_and_width
from trainkit.data.cache import cache_root
from trainkit.data.dataset import Dataset, Part, Split
from trainkit.data.images import (
    BadImageError,
    decode_image,
    few_are_fine,
    look_at_files,
    probe_sizes,
    sample_rules,
    spread,
    stack_images,
)
from trainkit.data.ragged import Ragged, from_images
from trainkit.data.splits import most_for_one_of_each
from trainkit.data.transforms import StaticTransform, apply_static_transforms, output_shape
from trainkit.errors import ProblemsError
from trainkit.system import Frontend
from trainkit.wording import counted, listed, size_text
from trainkit.workflows.check.problems import fail

_SIDED = re.compile(
    r"\d+|[a-z]|zero|one|two|three|four|five|six|seven|eight|nine|"
    r".*\b(left|right|clockwise|counterclockwise|anticlockwise|east|west|digit|letter)\b.*"
)
"""Names of classes whose pictures mean something else in a mirror: digits, letters, directions."""
_WORDS = re.compile(r"[_-]+|(?<=[a-z])(?=[A-Z])")
"""Between two words of a name: turn_left, turn-left, turnLeft."""
SAMPLES = 64
PROBED = 256
"""Image files whose headers are read to estimate the room for all."""
DECODED = 8
"""Image files that are decoded to try the model on."""


def load_read_only(config: Config, *, stored: Mapping[str, Any] | None = None) -> Dataset:
    """The data set, without writing anything; a placeholder of the same shape where it is not downloaded yet.

    Raises:
        as ``load_source``.
    """
    load = partial(load_source, config, cache_dir=cache_root(), read_only=True, stored=stored)
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


def take_sample(data: Dataset, config: Config, *, size: int = SAMPLES, decoded: int = DECODED) -> Dataset:
    """The training split cut down to ``size`` samples, spread evenly over it, after the static transforms.

    Of image files, which have to be decoded first, ``decoded`` are taken.

    Raises:
        ProblemsError: no image can be decoded.
    """
    split = data.splits["train"]
    part = data.parts[split.part]
    static_transforms, inputs = build_static_transforms(config, data), part.inputs
    own_sizes = build_training_transforms(config, data)
    if isinstance(inputs, tuple):
        tried = split.indices[spread(len(split), min(size, decoded))]
        data = replace(data, rules=sample_rules(data.rules, [inputs[index] for index in tried]))
        steps = static_transforms if own_sizes is None else own_sizes
        images, chosen = _decode_some(data, inputs, tried, steps, any_size=own_sizes is not None)
        stacked: NDArray[Any] | Ragged
        if own_sizes is None:
            stacked = stack_images(images)
        else:
            _, height, width = output_shape(static_transforms, images[0].shape)
            stacked = from_images(images, tuple(inputs[index] for index in chosen), (height, width))
    else:
        chosen = split.indices[spread(len(split), size)]
        assert isinstance(inputs, np.ndarray), "not decoded yet"
        stacked = np.ascontiguousarray(inputs[chosen])
        if static_transforms:
            stacked = stack_images([apply_static_transforms(image, static_transforms) for image in stacked])
    few = Part(stacked, part.targets[chosen])
    return replace(
        data,
        own_sizes=own_sizes is not None,
        parts={"sample": few},
        splits={"train": Split("sample", np.arange(len(few), dtype=np.int64))},
    )


def _decode_some(
    data: Dataset,
    paths: tuple[Path, ...],
    indices: NDArray[np.int64],
    static_transforms: Sequence[StaticTransform],
    *,
    any_size: bool,
) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
    """The images among these that can be decoded and their indices; those of another size than the first only with
    ``any_size``."""
    images: list[NDArray[Any]] = []
    kept = []
    for index in indices:
        try:
            decoded = decode_image(paths[index], channels=data.channels or 3, rules=data.rules)
            image = apply_static_transforms(decoded, static_transforms)
        except BadImageError:
            continue  # ``without_unreadable`` names it
        if not images or any_size or image.shape == images[0].shape:  # ``without_unreadable`` names the others
            images.append(image)
            kept.append(index)
    if not images:
        fail("none of the images that were tried can be decoded", "dataset")
    return images, np.array(kept, dtype=np.int64)


def without_unreadable(data: Dataset, config: Config, *, everything: bool, frontend: Frontend) -> Dataset:
    """The data set without the image files that cannot be used; notes say what was not looked at.

    Args:
        everything: look at all files; else only where a few of them are not as they should be, as training decodes all.

    Raises:
        ProblemsError: files that cannot be used, or of different sizes.
    """
    static_transforms = build_static_transforms(config, data)
    if not everything and few_are_fine(data, static_transforms):
        return data
    looked = look_at_files(data, static_transforms, progress=frontend.progress, should_stop=frontend.stop)
    return replace(looked, notes=(*looked.notes, *_cached_size(looked, config))) if everything else data


def _cached_size(data: Dataset, config: Config) -> list[str]:
    """A note on the room that training images of their own sizes will take, by some of their headers."""
    own_sizes, split = build_training_transforms(config, data), data.splits["train"]
    paths = data.parts[split.part].inputs
    if own_sizes is None or not isinstance(paths, tuple):
        return []
    probed = [paths[index] for index in split.indices[spread(len(split), PROBED)]]
    pixels = probe_sizes(probed, lambda _: own_sizes, should_stop=None).prod(1).mean()
    num_bytes = int(pixels * (data.channels or 3) * data.rules.dtype.itemsize * len(split))
    height, width = next(
        height_and_width(spec.size) for spec in config.transforms if isinstance(spec, RandomResizedCrop)
    )
    enlarged = f"; crops are enlarged to {height} x {width}" if pixels < height * width else ""
    return [
        f"the training images will take about {size_text(num_bytes)} in their own sizes, {pixels**0.5:.0f} x "
        f"{pixels**0.5:.0f} pixels on average by {counted(len(probed), 'header')}{enlarged}; "
        "dataset.cache_size makes it less"
    ]


def missing_classes(data: Dataset, *, by_seed: bool) -> list[str]:
    """A note for each split without samples of some classes, whose scores do not cover them, and what to do.

    A source of image folders says which classes a folder does not have.

    Args:
        by_seed: the seed and the fractions decide which samples of a part are held out.
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
            notes.append(f"{_larger_split(data, name, rest)}: {what}" if taken and by_seed else what)
        rest -= len(split) if taken else 0
    return notes


def _larger_split(data: Dataset, name: str, num_samples: int) -> str:
    """How each class gets into a split that is taken from ``num_samples`` by fraction."""
    needed = math.ceil(100 * data.num_classes / most_for_one_of_each(1.0, num_samples)) / 100
    if needed * num_samples + 0.5 <= len(data.splits[name]) or needed >= 0.5:
        return "add samples"  # the classes are too small, not the split
    return f"add samples, or raise dataset.{name}_fraction to {needed:g} (the seed decides which classes are in it now)"


def mirrored(class_names: tuple[str, ...]) -> str | None:
    """Why pictures of these classes must not be mirrored, by their names; None where they may be."""
    sided = [name for name in class_names if _SIDED.fullmatch(_WORDS.sub(" ", name).lower())]
    if not sided:
        return None
    return f"{listed(sided[:3], quoted=False)} would mean something else in a mirror"


def class_notes(config: Config, data: Dataset) -> list[str]:
    """Notes on the classes: those that a split lacks, and those whose pictures are mirrored though they have sides."""
    notes = missing_classes(data, by_seed=config.dataset.split_type in ("random", "group"))
    flips = any(isinstance(spec, RandomHorizontalFlip) and spec.p > 0 for spec in config.transforms)
    stands_in = not data.fingerprint  # its classes have numbers for names
    if flips and not stands_in and (why := mirrored(data.class_names)):
        notes.append(f"random_horizontal_flip: {why}; leave it out unless these are only names")
    return notes
