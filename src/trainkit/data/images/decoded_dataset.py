"""Replace the image files of a data set by decoded arrays, and drop the unreadable ones from its splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.cache import make_key
from trainkit.data.dataset import Dataset, Part, Split
from trainkit.data.images.colors import describe_traits
from trainkit.data.images.decode import printable
from trainkit.data.images.layout import Shape, stored_shape, to_nchw
from trainkit.data.pixel_rules import PixelRules
from trainkit.data.ragged import Ragged
from trainkit.data.transforms.static import StaticTransform
from trainkit.errors import DataError
from trainkit.wording import counted, first_lines


@dataclass
class TrainingRows:
    """The images of a part that training crops from their own sizes."""

    static_transforms: tuple[StaticTransform, ...]
    """In the place of those of the other images."""
    rows: NDArray[np.bool_]
    """(N,): which ones."""
    sizes: NDArray[np.int64]
    """(N, 2): height and width of all images of the part as they are stored; () before they are needed."""


@dataclass
class Job:
    """A part to decode and transform, and the arrays once that is done."""

    name: str
    """Of the part."""
    part: Part
    static_transforms: tuple[StaticTransform, ...]
    channels: int
    """Of the images as they are decoded, 1 or 3."""
    rules: PixelRules
    shape: Shape
    """(C, H, W) after the static transforms."""
    description: dict[str, Any]
    """Plain JSON: everything that the arrays depend on. The cache key is its hash."""
    label: str
    training: TrainingRows | None = None
    """The images that keep sizes of their own, for training; None: all have ``shape``."""
    arrays: dict[str, NDArray[Any]] | None = None
    """``inputs``, and of files their ``hashes`` and ``contents`` (see ``DecodedFiles``); None before they are built and
    where nothing has room for them."""
    info: dict[str, Any] = field(default_factory=dict)
    """Plain JSON; of files ``bad``: [index, reason] of each unreadable one, and ``traits``: how many images have each,
    see ``colors``."""

    @property
    def key(self) -> str:
        return make_key(self.description)

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.stored_shape, dtype=object)) * self.dtype.itemsize

    def transforms_of(self, index: int) -> tuple[StaticTransform, ...]:
        """The static transforms of an image."""
        own = self.training is not None and self.training.rows[index]
        return self.training.static_transforms if own and self.training is not None else self.static_transforms

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Of the array ``inputs``."""
        if self.training is not None:
            return (int(self.training.sizes.prod(1).sum()) * self.shape[0],)
        return len(self.part), *stored_shape(self.shape)

    @property
    def inputs(self) -> NDArray[Any] | Ragged:
        """The built arrays as the inputs of a part."""
        assert self.arrays is not None, "built"
        if self.training is None:
            return to_nchw(self.arrays["inputs"], self.shape)
        assert isinstance(self.part.inputs, tuple), "only files have sizes of their own"
        pixels, sizes = self.arrays["inputs"], self.arrays["sizes"]
        return Ragged(pixels, sizes, self.shape[0], self.shape[1:], self.training.rows, self.part.inputs)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self.rules.dtype if self.part.is_files else np.dtype(np.uint8)


def with_decoded_arrays(dataset: Dataset, jobs: Sequence[Job], notes: list[str]) -> Dataset:
    """Put the arrays of the jobs in place of their parts. Unreadable files leave the splits; ``notes`` are added.

    Raises:
        DataError: More unreadable files than allowed, a split or a class without any readable image, or training
            images that are all the same.
    """
    built = [job for job in jobs if job.arrays is not None]
    files = [job for job in built if job.part.is_files]
    left = without_bad_files(dataset, {job.name: job.info["bad"] for job in files}, notes)
    parts = dict(dataset.parts)
    fingerprint = {**dataset.fingerprint, "parts": dict(dataset.fingerprint["parts"])}
    for job in built:
        assert job.arrays is not None
        parts[job.name] = Part(job.inputs, job.part.targets)
        if job.part.is_files:
            contents = hashlib.sha256(job.arrays["hashes"].tobytes()).hexdigest()[:32]
            skipped = {"contents": contents, "skipped": len(job.info["bad"])}
            fingerprint["parts"][job.name] = {**fingerprint["parts"][job.name], **skipped}
    notes += _describe_traits(dataset, built)
    notes += describe_shared(left, {job.name: job.arrays["hashes"] for job in files if job.arrays is not None})
    train = dataset.splits["train"].part
    for job in files:
        if job.name == train and job.arrays is not None:
            check_not_all_the_same(left, job.arrays["contents"], job.inputs.__getitem__, job.static_transforms)
    notes += describe_two_classes(left, {job.name: job.arrays["contents"] for job in files if job.arrays is not None})
    return replace(left, parts=parts, fingerprint=fingerprint, notes=(*dataset.notes, *notes))


def without_bad_files(dataset: Dataset, bad: Mapping[str, Sequence[tuple[int, str]]], notes: list[str]) -> Dataset:
    """The data set without the files that cannot be used; ``notes`` gets a line for each part that has some.

    Args:
        bad: by part, index and reason of each.

    Raises:
        DataError: They are more than ``max_bad_files``, or nothing is left of a split or of a class.
    """
    lines = [f"{_path(dataset, part, index)}: {reason}" for part in bad for index, reason in bad[part]]
    if len(lines) > dataset.max_bad_files:
        total = sum(len(dataset.parts[part]) for part in bad)
        advice = (
            f"{len(lines)} of {counted(total, 'image')} cannot be read; repair or remove them, or skip them with "
            f"dataset.max_bad_files: {len(lines)} (now {dataset.max_bad_files})"
        )
        raise DataError("\n".join([*first_lines(lines), advice]))
    splits = dict(dataset.splits)
    for part, pairs in bad.items():
        if not pairs:
            continue
        shown = "; ".join(f"{_path(dataset, part, index)}: {reason}" for index, reason in pairs[:3])
        more = f" and {len(pairs) - 3} more" if len(pairs) > 3 else ""
        notes.append(f"skipped {len(pairs)} unreadable images of part {part!r} ({shown}{more})")
        indices = np.array([index for index, _ in pairs], dtype=np.int64)
        for name, split in splits.items():
            if split.part == part:
                splits[name] = Split(part, np.setdiff1d(split.indices, indices, assume_unique=True))
    left = replace(dataset, splits=splits)
    _check_none_is_empty(dataset, left, bad)
    return left


def _path(dataset: Dataset, part: str, index: int) -> str:
    """A file of a part, for messages."""
    paths = dataset.parts[part].inputs
    assert isinstance(paths, tuple)
    return printable(paths[index])


def _describe_traits(dataset: Dataset, jobs: Sequence[Job]) -> list[str]:
    """One note on all that is special about the images of all parts."""
    counts: Counter[str] = Counter()
    for job in jobs:
        counts.update(job.info.get("traits", {}))
    total = sum(len(job.part) - len(job.info["bad"]) for job in jobs if job.part.is_files)
    text = describe_traits(counts, total, channels=dataset.channels or 3, rules=dataset.rules)
    return [text] if text else []


def _check_none_is_empty(before: Dataset, dataset: Dataset, bad: Mapping[str, Sequence[tuple[int, str]]]) -> None:
    for name, split in dataset.splits.items():
        if not len(split):
            index, reason = bad[split.part][0]
            first = f"the first is {_path(dataset, split.part, index)}: {reason}"
            raise DataError(f"none of {counted(len(before.splits[name]), f'{name} image')} can be read; {first}")
    lost = np.setdiff1d(before.split_targets("train"), dataset.split_targets("train"))
    if len(lost):
        names = ", ".join(repr(dataset.class_names[label]) for label in lost[:10])
        raise DataError(f"no training image of {counted(len(lost), 'class')} can be read: {names}")


def describe_shared(dataset: Dataset, hashes: Mapping[str, NDArray[np.uint64]]) -> list[str]:
    """Notes on files that are in two splits: scores on the second one would be too good.

    Args:
        hashes: by part, of the bytes of each file, (N,).
    """
    splits = {name: split for name, split in dataset.splits.items() if split.part in hashes}
    of_split = {name: hashes[split.part][split.indices] for name, split in splits.items()}
    notes = []
    for name, other in (("val", "train"), ("test", "train"), ("test", "val")):
        shared = np.flatnonzero(np.isin(of_split.get(name, []), of_split.get(other, [])))
        if not len(shared):
            continue
        pairs = []
        for row in shared[:3]:
            twin = np.flatnonzero(of_split[other] == of_split[name][row])[0]
            first = _path(dataset, splits[other].part, int(splits[other].indices[twin]))
            pairs.append(f"{first} = {_path(dataset, splits[name].part, int(splits[name].indices[row]))}")
        more = f" and {len(shared) - 3} more" if len(shared) > 3 else ""
        found = f"{counted(len(shared), 'image')} of {name} {'is' if len(shared) == 1 else 'are'} in {other} too"
        notes.append(f"{found}, byte for byte: {'; '.join(pairs)}{more}")
    return notes


def describe_two_classes(dataset: Dataset, contents: Mapping[str, NDArray[np.uint64]]) -> list[str]:
    """A note on pictures that two classes share.

    Args:
        contents: by part, hashes of the pixels after the static transforms, or of the bytes of each file, (N,).
    """
    used = [split for split in dataset.splits.values() if split.part in contents]
    if not used or dataset.task != "classification":
        return []
    places = [(split.part, int(index)) for split in used for index in split.indices]
    values = np.concatenate([contents[split.part][split.indices] for split in used])
    labels = np.concatenate([dataset.parts[split.part].targets[split.indices] for split in used])
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=~values[order[:1]]))
    groups = [rows for rows in np.split(order, starts[1:]) if len(np.unique(labels[rows])) > 1]
    if not groups:
        return []
    pairs = []
    for rows in groups[:5]:
        other = rows[labels[rows] != labels[rows[0]]][0]
        pairs.append(" = ".join(_path(dataset, *places[row]) for row in (rows[0], other)))
    more = f" and {len(groups) - 5} more" if len(groups) > 5 else ""
    shared = "1 picture is" if len(groups) == 1 else f"{len(groups)} pictures are"
    return [f"{shared} in two classes, the same once decoded: {'; '.join(pairs)}{more}"]


def check_not_all_the_same(
    dataset: Dataset,
    contents: NDArray[np.uint64],
    pixels_of: Callable[[int], NDArray[Any]],
    static_transforms: Sequence[StaticTransform],
) -> None:
    """Raise DataError where all training images are the same, by the hashes of their pixels or of their files.

    Args:
        contents: of the part of the training split, (N,).
        pixels_of: gives the pixels of an image of that part by its index, after the static transforms.
    """
    train = dataset.splits["train"]
    if len(train) < 2 or len(np.unique(contents[train.indices])) > 1:
        return
    first, last = int(train.indices[0]), int(train.indices[-1])
    pixels = np.asarray(pixels_of(first))
    what = f"every pixel is {pixels.flat[0]:g}" if (pixels == pixels.flat[0]).all() else "pixel by pixel"
    after = " and the static transforms" if static_transforms else ""
    raise DataError(
        f"all {len(train)} training images are the same after decoding{after} ({what}): there is nothing to learn; "
        f"compare {_path(dataset, train.part, first)} with {_path(dataset, train.part, last)}"
    )
