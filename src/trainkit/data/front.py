"""The deterministic front of the transforms, done once: images on disk become arrays in the cache.

A part that is an array already and has no front is used as it is. Everything else is decoded and transformed once, in
threads, into memory-mapped arrays that later runs open without decoding.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit import durable
from trainkit.data import cache
from trainkit.data.cache_files import BLOCK_BYTES, ArrayWriter, DamagedEntryError
from trainkit.data.dataset import Dataset, Part, Split
from trainkit.data.decoding import MemoryWriter, decode_files, first_size, transform_array
from trainkit.data.images import BadImageError, decode_image, printable
from trainkit.data.layout import Shape, as_seen, stored_shape
from trainkit.data.resizing import (
    CenterCrop,
    FrontStep,
    Grayscale,
    Resize,
    apply_front,
    front_from_json,
    front_to_json,
    has_uint8_kernel,
    output_shape,
)
from trainkit.device import free_host_bytes
from trainkit.errors import DataError, Interrupted

__all__ = [
    "BadImageError",
    "CenterCrop",
    "FrontStep",
    "Grayscale",
    "Resize",
    "apply_front",
    "decode_image",
    "front_from_json",
    "front_to_json",
    "image_shape",
    "materialise",
    "quick_look",
]

HASHED_BYTES = 64 << 20
"""Image files that are together no larger than this are known by their contents, larger sets by their time stamps."""
_MEMORY_SHARE = 0.5
"""Of the free memory, what an array may take that finds no place in the cache."""


@dataclass
class _Job:
    """A part that has to become an array: where it is, and what came out."""

    name: str
    part: Part
    shape: Shape
    channels: int
    description: dict[str, Any]
    label: str
    arrays: dict[str, NDArray[Any]] | None = None
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        return len(self.part) * int(np.prod(self.shape, dtype=object))


def materialise(
    dataset: Dataset,
    front: Sequence[FrontStep] = (),
    *,
    cache_dir: Path | None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Dataset:
    """The data set with every image as uint8 (N, C, H, W) after the front, stored as in ``layout``; tables unchanged.

    Arrays come from ``cache_dir`` (``cache.cache_root()``) or are built there; with None, and where the cache cannot be
    written or is full, they are built in memory (noted). What fits in neither stays a tuple of files (noted): it has
    to be decoded in every epoch.

    Unreadable files keep their row, of zeros, and leave the splits, if there are at most ``dataset.max_bad_files``.

    Args:
        progress: called with (images done, images in all) while building; not at all where everything is cached.
        should_stop: asked several times a second while building.

    Raises:
        DataError: More unreadable files than allowed (the first ten and the count).
        ProblemsError: Images of different sizes and no transform that makes them equal.
        Interrupted: ``should_stop`` said so; nothing half-built is kept.
    """
    if dataset.kind != "image":
        return dataset
    notes: list[str] = []
    jobs = [job for name, part in dataset.parts.items() if (job := _plan(dataset, name, part, front)) is not None]
    waiting = [job for job in jobs if not _open(job, cache_dir, notes)]
    total, done = sum(len(job.part) for job in waiting), 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(min(done, total), total)

    for job in waiting:
        try:
            _build(job, front, cache_dir, notes, tick, should_stop)
        except InterruptedError:
            raise Interrupted("stopped while waiting for another process to prepare the images", 130) from None
    return _assemble(dataset, jobs, notes)


def image_shape(dataset: Dataset, front: Sequence[FrontStep]) -> Shape:
    """(C, H, W) of the training images after the front, from the first readable header: nothing is decoded.

    Raises:
        DataError: No training image can be read.
    """
    part = dataset.parts[dataset.splits["train"].part]
    return output_shape(front, _raw_shape(dataset, part))


def quick_look(dataset: Dataset, *, per_split: int = 8) -> list[str]:
    """Decode a few files of every split, spread evenly: what is wrong with them, one line each; [] for arrays."""
    problems = []
    for name, split in dataset.splits.items():
        paths = dataset.parts[split.part].inputs
        if not isinstance(paths, tuple):
            continue
        spread = np.unique(np.linspace(0, len(split) - 1, min(per_split, len(split))).astype(np.int64))
        for index in split.indices[spread]:
            try:
                decode_image(paths[index], channels=dataset.channels or 3)
            except BadImageError as error:
                problems.append(f"{name}: {printable(paths[index])}: {error}")
    return problems


def _raw_shape(dataset: Dataset, part: Part) -> Shape:
    if isinstance(part.inputs, tuple):
        size = first_size(part.inputs)
        if size is None:
            reason = _reason(part.inputs[0])
            raise DataError(
                f"none of {len(part)} images can be read; the first is {printable(part.inputs[0])}: {reason}"
            )
        return dataset.channels or 3, *size
    _, channels, height, width = part.inputs.shape
    return int(channels), int(height), int(width)


def _reason(path: Path) -> str:
    try:
        decode_image(path, channels=3)
    except BadImageError as error:
        return str(error)
    return "it changed while it was read"


def _plan(dataset: Dataset, name: str, part: Part, front: Sequence[FrontStep]) -> _Job | None:
    """What to build for a part; None where it can be used as it is."""
    if not isinstance(part.inputs, tuple) and not front:
        return None
    raw = _raw_shape(dataset, part)
    if isinstance(part.inputs, tuple):
        source: dict[str, Any] = {"files": _hash_sources(part.inputs), "channels": raw[0], "pillow": version("pillow")}
    else:
        source = {"inputs": dataset.fingerprint["parts"][name]["inputs"], "shape": list(raw)}
    shape = output_shape(front, raw)
    description = {
        "kind": "images",
        "source": source,
        "samples": len(part),
        "shape": list(shape),
        # Colour images were stored by plane once: what was is not read as what is.
        "axes": "NHWC" if shape[0] > 1 else "NCHW",
        "front": front_to_json(front),
        # The resampling is torch's, and float arithmetic may round otherwise than the uint8 kernel.
        "torch": torch.__version__ if front else None,
        "uint8_kernel": has_uint8_kernel() if front else None,
    }
    return _Job(name, part, shape, raw[0], description, f"{dataset.name} {name} {'x'.join(map(str, shape))}")


def _hash_sources(paths: tuple[Path, ...]) -> str:
    """Paths and sizes with, for a small set, the contents, else the times of the last change of bytes and of name."""
    digest = hashlib.sha256()
    stats: list[os.stat_result | None] = []
    for path in paths:
        try:
            stats.append(os.stat(path))
        except OSError:
            stats.append(None)
    small = sum(status.st_size for status in stats if status) <= HASHED_BYTES
    for path, status in zip(paths, stats, strict=True):
        digest.update(os.fsencode(os.path.abspath(path)))
        if status is None:
            digest.update(b"\0missing\0")
            continue
        digest.update(b"\0%d\0" % status.st_size)
        if small and os.path.isfile(path):
            digest.update(_content(path))
        else:
            digest.update(b"%d\0%d\0" % (status.st_mtime_ns, status.st_ctime_ns))
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b"unreadable"


def _open(job: _Job, cache_dir: Path | None, notes: list[str]) -> bool:
    """Take the arrays from the cache, if they are there and whole."""
    if cache_dir is None:
        return False
    try:
        entry = cache.open_entry(cache_dir, cache.make_key(job.description))
    except DamagedEntryError as error:
        notes.append(f"the cached images of {job.label} were damaged ({error}) and are built again")
        return False
    if entry is None:
        return False
    job.arrays, job.info = cache.load_arrays(entry), entry.info
    return True


def _build(
    job: _Job,
    front: Sequence[FrontStep],
    cache_dir: Path | None,
    notes: list[str],
    tick: Callable[[int], None],
    should_stop: Callable[[], bool] | None,
) -> None:
    reason = "" if cache_dir is None else _lacks_space(job, cache_dir)
    if cache_dir is not None and not reason:
        try:
            _build_in_cache(job, front, cache_dir, tick, should_stop)
            return
        except durable.WriteError as error:
            reason = str(error)
    if job.num_bytes > _MEMORY_SHARE * free_host_bytes():
        size = f"{job.num_bytes / 1e9:.1f} GB"
        if not job.part.is_files:
            raise DataError(f"{job.label} takes {size} after the transforms, more than fits in memory; {reason}")
        notes.append(f"{job.label} takes {size}: not cached ({reason}), decoded in every epoch")
        return
    if reason:
        notes.append(f"{job.label} is kept in memory, not cached: {reason}")
    writer = MemoryWriter(
        (len(job.part), *stored_shape(job.shape)), rows_per_block=max(1, BLOCK_BYTES // int(np.prod(job.shape)))
    )
    job.info, others = _fill(job, front, writer, tick, should_stop)
    job.arrays = {"inputs": writer.array, **others}


def _lacks_space(job: _Job, cache_dir: Path) -> str:
    free = durable.free_bytes(cache_dir)
    if free is None or job.num_bytes * 1.01 + (16 << 20) <= free:
        return ""
    return f"{cache_dir} has {free:,} bytes free, {job.num_bytes:,} are needed; see trainkit data clear"


def _build_in_cache(
    job: _Job,
    front: Sequence[FrontStep],
    cache_dir: Path,
    tick: Callable[[int], None],
    should_stop: Callable[[], bool] | None,
) -> None:
    key = cache.make_key(job.description)
    with cache.building(cache_dir, key, should_stop=should_stop):
        if _open(job, cache_dir, []):  # another process was faster
            tick(len(job.part))
            return
        cache.remove_damaged(cache_dir, key)
        with cache.EntryDraft(cache_dir, key, job.label) as draft:
            writer = draft.add_array("inputs", (len(job.part), *stored_shape(job.shape)), np.uint8)
            info, others = _fill(job, front, writer, tick, should_stop)
            for name, array in others.items():
                draft.add_array(name, array.shape, array.dtype).write_all(array)
            entry = draft.publish(job.description, info)
        job.arrays, job.info = cache.load_arrays(entry), entry.info


def _fill(
    job: _Job,
    front: Sequence[FrontStep],
    writer: ArrayWriter | MemoryWriter,
    tick: Callable[[int], None],
    should_stop: Callable[[], bool] | None,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Write the images; returns what to store with them: (plain JSON, further arrays)."""
    if not isinstance(job.part.inputs, tuple):
        transform_array(job.part.inputs, front, writer=writer, tick=tick, should_stop=should_stop)
        return {}, {}
    decoded = decode_files(
        job.part.inputs,
        front,
        channels=job.channels,
        shape=job.shape,
        writer=writer,
        tick=tick,
        should_stop=should_stop,
    )
    return {"bad": [list(found) for found in decoded.bad]}, {"hashes": decoded.hashes}


def _assemble(dataset: Dataset, jobs: Sequence[_Job], notes: list[str]) -> Dataset:
    """The data set with the arrays in place of the files, without what could not be read."""
    built = [job for job in jobs if job.arrays is not None]
    _check_bad_files(dataset, built)
    parts, splits = dict(dataset.parts), dict(dataset.splits)
    fingerprint = {**dataset.fingerprint, "parts": dict(dataset.fingerprint["parts"])}
    for job in built:
        assert job.arrays is not None
        parts[job.name] = Part(as_seen(job.arrays["inputs"], job.shape), job.part.targets)
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
    _check_still_filled(changed)
    notes += _describe_shared(dataset, built, splits)
    return replace(changed, notes=(*dataset.notes, *notes))


def _check_bad_files(dataset: Dataset, jobs: Sequence[_Job]) -> None:
    bad = [(_path(job, index), reason) for job in jobs for index, reason in job.info.get("bad", [])]
    if len(bad) <= dataset.max_bad_files:
        return
    total = sum(len(job.part) for job in jobs)
    lines = [f"{path}: {reason}" for path, reason in bad[:10]]
    if len(bad) > 10:
        lines.append(f"and {len(bad) - 10} more")
    lines.append(
        f"{len(bad)} of {total} images cannot be read; repair or remove them, or skip them with "
        f"dataset.max_bad_files: {len(bad)} (now {dataset.max_bad_files})"
    )
    raise DataError("\n".join(lines))


def _path(job: _Job, index: int) -> str:
    assert isinstance(job.part.inputs, tuple)
    return printable(job.part.inputs[index])


def _describe_bad(job: _Job) -> str:
    bad = job.info["bad"]
    shown = "; ".join(f"{_path(job, index)}: {reason}" for index, reason in bad[:3])
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return f"skipped {len(bad)} unreadable images of part {job.name!r} ({shown}{more})"


def _check_still_filled(dataset: Dataset) -> None:
    for name, split in dataset.splits.items():
        if not len(split):
            raise DataError(f"no image of the {name} split can be read")
    lost = np.setdiff1d(np.arange(dataset.num_classes), dataset.split_targets("train"))
    if len(lost):
        names = ", ".join(repr(dataset.class_names[label]) for label in lost[:10])
        raise DataError(f"no training image of {len(lost)} classes can be read: {names}")


def _describe_shared(dataset: Dataset, jobs: Sequence[_Job], splits: dict[str, Split]) -> list[str]:
    """The same file contents in the training split and in another: scores on it would be too good."""
    by_part = {job.name: job for job in jobs if job.part.is_files}
    hashes = {}
    for name, split in splits.items():
        if split.part in by_part:
            job = by_part[split.part]
            assert job.arrays is not None
            hashes[name] = job.arrays["hashes"][split.indices]
    notes = []
    for name in ("val", "test"):
        if name not in hashes or "train" not in hashes:
            continue
        shared = np.flatnonzero(np.isin(hashes[name], hashes["train"]))
        if not len(shared):
            continue
        pairs = []
        for row in shared[:3]:
            twin = np.flatnonzero(hashes["train"] == hashes[name][row])[0]
            first = _path(by_part[splits["train"].part], int(splits["train"].indices[twin]))
            pairs.append(f"{first} = {_path(by_part[splits[name].part], int(splits[name].indices[row]))}")
        more = f" and {len(shared) - 3} more" if len(shared) > 3 else ""
        notes.append(f"{len(shared)} images of {name} are in train too, byte for byte: {'; '.join(pairs)}{more}")
    return notes
