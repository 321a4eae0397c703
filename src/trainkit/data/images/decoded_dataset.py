"""Replace the image files of a data set by decoded arrays, and drop the unreadable ones from its splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.cache import make_key
from trainkit.data.dataset import Dataset, Part, Split
from trainkit.data.images.colors import describe_traits
from trainkit.data.images.decode import printable
from trainkit.data.images.layout import Shape, to_nchw
from trainkit.data.pixel_rules import PixelRules
from trainkit.data.transforms.static import StaticTransform
from trainkit.errors import DataError
from trainkit.wording import counted, first_lines


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
    arrays: dict[str, NDArray[Any]] | None = None
    """``inputs``, and of files their ``hashes`` and ``contents`` (see ``DecodedFiles``); None before they are built and
    where nothing has room for them."""
    info: dict[str, Any] = field(default_factory=dict)
    """Plain JSON; of files ``bad``: [index, reason] of each unreadable one, and ``traits``: how many images have each,
    see ``colors``."""

    def path(self, index: int) -> str:
        """The file of a row, for messages."""
        assert isinstance(self.part.inputs, tuple)
        return printable(self.part.inputs[index])

    @property
    def key(self) -> str:
        return make_key(self.description)

    @property
    def num_bytes(self) -> int:
        return len(self.part) * int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

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
    _check_bad_files(dataset, built)
    parts, splits = dict(dataset.parts), dict(dataset.splits)
    fingerprint = {**dataset.fingerprint, "parts": dict(dataset.fingerprint["parts"])}
    for job in built:
        assert job.arrays is not None
        parts[job.name] = Part(to_nchw(job.arrays["inputs"], job.shape), job.part.targets)
        if not job.part.is_files:
            continue
        bad = np.array([index for index, _ in job.info["bad"]], dtype=np.int64)
        contents = hashlib.sha256(job.arrays["hashes"].tobytes()).hexdigest()[:32]
        fingerprint["parts"][job.name] = {**fingerprint["parts"][job.name], "contents": contents, "skipped": len(bad)}
        if len(bad):
            notes.append(_describe_bad(job))
            for name, split in splits.items():
                if split.part == job.name:
                    splits[name] = Split(split.part, np.setdiff1d(split.indices, bad, assume_unique=True))
    changed = replace(dataset, parts=parts, splits=splits, fingerprint=fingerprint)
    _check_none_is_empty(dataset, changed)
    notes += _describe_traits(dataset, built)
    notes += _describe_shared(dataset, built, splits)
    notes += compare_contents(changed, built)
    return replace(changed, notes=(*dataset.notes, *notes))


def _check_bad_files(dataset: Dataset, jobs: Sequence[Job]) -> None:
    bad = [(job.path(index), reason) for job in jobs for index, reason in job.info.get("bad", [])]
    if len(bad) <= dataset.max_bad_files:
        return
    total = sum(len(job.part) for job in jobs)
    advice = (
        f"{len(bad)} of {counted(total, 'image')} cannot be read; repair or remove them, or skip them with "
        f"dataset.max_bad_files: {len(bad)} (now {dataset.max_bad_files})"
    )
    raise DataError("\n".join([*first_lines([f"{path}: {reason}" for path, reason in bad]), advice]))


def _describe_bad(job: Job) -> str:
    bad = job.info["bad"]
    shown = "; ".join(f"{job.path(index)}: {reason}" for index, reason in bad[:3])
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return f"skipped {len(bad)} unreadable images of part {job.name!r} ({shown}{more})"


def _describe_traits(dataset: Dataset, jobs: Sequence[Job]) -> list[str]:
    """One note on all that is special about the images of all parts."""
    counts: Counter[str] = Counter()
    for job in jobs:
        counts.update(job.info.get("traits", {}))
    total = sum(len(job.part) - len(job.info["bad"]) for job in jobs if job.part.is_files)
    text = describe_traits(counts, total, channels=dataset.channels or 3, rules=dataset.rules)
    return [text] if text else []


def _check_none_is_empty(before: Dataset, dataset: Dataset) -> None:
    for name, split in dataset.splits.items():
        if not len(split):
            raise DataError(f"no image of the {name} split can be read")
    lost = np.setdiff1d(before.split_targets("train"), dataset.split_targets("train"))
    if len(lost):
        names = ", ".join(repr(dataset.class_names[label]) for label in lost[:10])
        raise DataError(f"no training image of {counted(len(lost), 'class')} can be read: {names}")


def _describe_shared(dataset: Dataset, jobs: Sequence[Job], splits: dict[str, Split]) -> list[str]:
    """Notes on files of the training split that are in another split too: scores on it would be too good."""
    by_part = {job.name: job for job in jobs}
    of_part = {job.name: job.arrays["hashes"] for job in jobs if job.arrays is not None and job.part.is_files}
    hashes = {name: of_part[split.part][split.indices] for name, split in splits.items() if split.part in of_part}
    notes = []
    for name in ("val", "test"):
        shared = np.flatnonzero(np.isin(hashes.get(name, []), hashes.get("train", [])))
        if not len(shared):
            continue
        pairs = []
        for row in shared[:3]:
            twin = np.flatnonzero(hashes["train"] == hashes[name][row])[0]
            first = by_part[splits["train"].part].path(int(splits["train"].indices[twin]))
            pairs.append(f"{first} = {by_part[splits[name].part].path(int(splits[name].indices[row]))}")
        more = f" and {len(shared) - 3} more" if len(shared) > 3 else ""
        found = f"{counted(len(shared), 'image')} of {name} {'is' if len(shared) == 1 else 'are'} in train too"
        notes.append(f"{found}, byte for byte: {'; '.join(pairs)}{more}")
    return notes


def compare_contents(dataset: Dataset, jobs: Sequence[Job]) -> list[str]:
    """A note on pictures that two classes share, by their pixels after the static transforms.

    Raises:
        DataError: All training images are the same.
    """
    built = {job.name: job for job in jobs if job.arrays is not None and job.part.is_files}
    contents = {name: job.arrays["contents"] for name, job in built.items() if job.arrays is not None}
    train = dataset.splits["train"]
    if train.part in contents and len(train) > 1 and len(np.unique(contents[train.part][train.indices])) == 1:
        raise _all_the_same(built[train.part], train)
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
        pairs.append(" = ".join(built[places[row][0]].path(places[row][1]) for row in (rows[0], other)))
    more = f" and {len(groups) - 5} more" if len(groups) > 5 else ""
    shared = "1 picture is" if len(groups) == 1 else f"{len(groups)} pictures are"
    return [f"{shared} in two classes, the same once decoded: {'; '.join(pairs)}{more}"]


def _all_the_same(job: Job, train: Split) -> DataError:
    assert job.arrays is not None
    pixels = np.asarray(job.arrays["inputs"][train.indices[0]])
    what = f"every pixel is {pixels.flat[0]:g}" if (pixels == pixels.flat[0]).all() else "pixel by pixel"
    after = " and the static transforms" if job.static_transforms else ""
    return DataError(
        f"all {len(train)} training images are the same after decoding{after} ({what}): there is nothing to learn; "
        f"compare {job.path(int(train.indices[0]))} with {job.path(int(train.indices[-1]))}"
    )
