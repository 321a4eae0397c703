"""The deterministic front of the transforms, done once: images on disk become arrays in the cache.

A part that is an array already and has no front is used as it is. Everything else is decoded and transformed once, in
threads, into memory-mapped arrays that later runs open without decoding.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit.data.dataset import Dataset, Part
from trainkit.data.images import cache
from trainkit.data.images.cache_arrays import BLOCK_BYTES, ArrayWriter, DamagedEntryError
from trainkit.data.images.decode import BadImageError, decode_image, printable
from trainkit.data.images.decode_pool import MemoryWriter, decode_files, first_size, transform_array
from trainkit.data.images.decoded_dataset import Job, assemble
from trainkit.data.images.layout import Shape, stored_shape
from trainkit.data.transforms.static import StaticTransform, has_uint8_kernel, output_shape, static_transforms_to_json
from trainkit.errors import DataError, Interrupted
from trainkit.runtime.device import free_host_bytes
from trainkit.system import durable

HASHED_BYTES = 64 << 20
"""Image files that are together no larger than this are known by their contents, larger sets by their time stamps."""
_MEMORY_SHARE = 0.5
"""Of the free memory, what an array may take that finds no place in the cache."""


def materialize(
    dataset: Dataset,
    front: Sequence[StaticTransform] = (),
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
    return assemble(dataset, jobs, notes)


def image_shape(dataset: Dataset, front: Sequence[StaticTransform]) -> Shape:
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


def _plan(dataset: Dataset, name: str, part: Part, front: Sequence[StaticTransform]) -> Job | None:
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
        "front": static_transforms_to_json(front),
        # The resampling is torch's, and float arithmetic may round otherwise than the uint8 kernel.
        "torch": torch.__version__ if front else None,
        "uint8_kernel": has_uint8_kernel() if front else None,
    }
    return Job(name, part, shape, raw[0], description, f"{dataset.name} {name} {'x'.join(map(str, shape))}")


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


def _open(job: Job, cache_dir: Path | None, notes: list[str]) -> bool:
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
    job: Job,
    front: Sequence[StaticTransform],
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


def _lacks_space(job: Job, cache_dir: Path) -> str:
    free = durable.free_bytes(cache_dir)
    if free is None or job.num_bytes * 1.01 + (16 << 20) <= free:
        return ""
    return f"{cache_dir} has {free:,} bytes free, {job.num_bytes:,} are needed; see trainkit data clear"


def _build_in_cache(
    job: Job,
    front: Sequence[StaticTransform],
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
    job: Job,
    front: Sequence[StaticTransform],
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
