"""Materialize the static transforms: images on disk become arrays in the cache, once.

A part that is an array already and meets no static transform is used as it is. Everything else is decoded and
transformed once, in threads, into memory-mapped arrays that later runs open without decoding.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit.data import cache
from trainkit.data.cache_arrays import BLOCK_BYTES, ArrayWriter, DamagedEntryError
from trainkit.data.dataset import Dataset, Part, hash_array
from trainkit.data.images.colors import BadImageError
from trainkit.data.images.decode import printable, probe_file
from trainkit.data.images.decode_pool import MemoryWriter, decode_files, transform_array
from trainkit.data.images.decoded_dataset import Job, TrainingRows, with_decoded_arrays
from trainkit.data.images.layout import Shape
from trainkit.data.images.own_sizes import decode_own_sizes, probe_sizes
from trainkit.data.images.quick_look import look_at_files
from trainkit.data.images.value_range import with_value_range
from trainkit.data.transforms.static import StaticTransform, has_uint8_kernel, output_shape, static_transforms_to_json
from trainkit.errors import DataError, Interrupted, ProblemsError
from trainkit.runtime import free_host_bytes
from trainkit.system import durable
from trainkit.wording import counted

HASHED_BYTES = 64 << 20
"""Up to this many bytes of image files, the key holds the files' contents; for larger sets it holds their times."""
_MEMORY_SHARE = 0.5
"""The share of the free memory that an array may take where the cache has no room for it."""


def materialize_images(
    dataset: Dataset,
    static_transforms: Sequence[StaticTransform] = (),
    *,
    training_transforms: Sequence[StaticTransform] | None = None,
    cache_dir: Path | None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Dataset:
    """Decode and transform all images: uint8 (N, C, H, W), stored as ``layout`` says; float32 in [0, 1] where training
    images have more than 8 bits. Tables come back unchanged.

    Arrays come from ``cache_dir`` (``cache.cache_root()``) or are built there. With None, and where the cache cannot be
    written or is full, they are built in memory (noted). A part that fits in neither stays a tuple of files (noted),
    to be decoded in every epoch.

    Unreadable files keep their row, of zeros, and leave the splits, if there are at most ``dataset.max_bad_files``.

    Args:
        training_transforms: of the training images, in the place of the others, where they are files that keep sizes of
            their own until training crops them; their part becomes a ``Ragged``.
        progress: called with (images done, images in all) while building; never where everything is cached.
        should_stop: called several times a second while building.

    Raises:
        DataError: More unreadable files than allowed (the first ten and the count).
        ProblemsError: Images of different sizes and no transform that makes them equal.
        Interrupted: ``should_stop`` returned true; nothing half-built is kept.
    """
    if dataset.kind != "image":
        return dataset
    notes: list[str] = []
    hashes = {
        name: _hash_sources(part.inputs) for name, part in dataset.parts.items() if isinstance(part.inputs, tuple)
    }
    try:
        jobs = _make_jobs(dataset, hashes, static_transforms, training_transforms)
    except DataError:  # no file of a part can be read: say it as ``check`` does, of all files
        look_at_files(dataset, static_transforms, should_stop=should_stop)
        raise
    missing = [job for job in jobs if not _load_from_cache(job, cache_dir, notes)]
    if any(job.part.is_files for job in missing) and dataset.rules.value_range is None:
        # Not before: where all parts are in the cache with 8 bits, no file has more.
        sources = hashes.get(dataset.splits["train"].part, "")
        ranged = with_value_range(dataset, sources=sources, cache_dir=cache_dir, should_stop=should_stop)
        if ranged is not dataset:
            dataset, jobs = ranged, _make_jobs(ranged, hashes, static_transforms, training_transforms)
            missing = [job for job in jobs if not _load_from_cache(job, cache_dir, notes)]
    total, done = sum(len(job.part) for job in missing), 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(min(done, total), total)

    for job in missing:
        try:
            _build(job, cache_dir, notes, tick, should_stop)
        except InterruptedError:
            raise Interrupted("stopped while waiting for another process to prepare the images", 130) from None
        except ProblemsError:  # of different sizes: as above
            look_at_files(dataset, static_transforms, should_stop=should_stop)
            raise
    return with_decoded_arrays(dataset, jobs, notes)


def image_shape(dataset: Dataset, static_transforms: Sequence[StaticTransform]) -> Shape:
    """(C, H, W) of the training images after the static transforms, by the first readable header.

    Raises:
        DataError: No training image can be read.
    """
    part = dataset.parts[dataset.splits["train"].part]
    return output_shape(static_transforms, _raw_shape(dataset, part))


def _raw_shape(dataset: Dataset, part: Part) -> Shape:
    """(C, H, W) of the images before the static transforms; of files, by the first header that can be read."""
    if not isinstance(part.inputs, tuple):
        _, channels, height, width = part.inputs.shape
        return int(channels), int(height), int(width)
    reasons = []
    for path in part.inputs:
        try:
            return dataset.channels or 3, *probe_file(path).size
        except BadImageError as error:
            reasons.append(str(error))
    first = f"{printable(part.inputs[0])}: {reasons[0]}"
    raise DataError(f"none of {counted(len(part), 'image')} can be read; the first is {first}")


def _make_jobs(
    dataset: Dataset,
    hashes: dict[str, str],
    static_transforms: Sequence[StaticTransform],
    training_transforms: Sequence[StaticTransform] | None,
) -> list[Job]:
    """A job for each part that has to be decoded or transformed; ``hashes``: of its files."""
    train = dataset.splits["train"].part
    return [
        _make_job(
            dataset, name, part, static_transforms, hashes.get(name), training_transforms if name == train else None
        )
        for name, part in dataset.parts.items()
        if part.is_files or static_transforms
    ]


def _make_job(
    dataset: Dataset,
    name: str,
    part: Part,
    static_transforms: Sequence[StaticTransform],
    files: str | None,
    training_transforms: Sequence[StaticTransform] | None,
) -> Job:
    raw = _raw_shape(dataset, part)
    if files is not None:
        source: dict[str, Any] = {"files": files, "channels": raw[0], "pillow": version("pillow")}
        source["pixels"] = dataset.rules.to_json()
    else:
        source = {"inputs": dataset.fingerprint["parts"][name]["inputs"], "shape": list(raw)}
    shape = output_shape(static_transforms, raw)
    description = {
        "kind": "images",
        "source": source,
        "samples": len(part),
        "shape": list(shape),
        # Older entries are NCHW in color too; the key keeps them apart.
        "axes": "NHWC" if shape[0] > 1 else "NCHW",
        "front": static_transforms_to_json(static_transforms),
        # The resampling is torch's, and float arithmetic may round otherwise than the uint8 kernel.
        "torch": torch.__version__ if static_transforms else None,
        "uint8_kernel": has_uint8_kernel() if static_transforms else None,
    }
    size = "x".join(map(str, shape))
    job = Job(
        name, part, tuple(static_transforms), raw[0], dataset.rules, shape, description, f"{dataset.name} {name} {size}"
    )
    if training_transforms is not None and part.is_files:
        rows = np.zeros(len(part), dtype=bool)
        rows[dataset.splits["train"].indices] = True
        job.training = TrainingRows(tuple(training_transforms), rows, np.empty((0, 2), dtype=np.int64))
        job.label = f"{dataset.name} {name} own sizes"
        which = {"front": static_transforms_to_json(training_transforms), "rows": hash_array(rows)}
        description |= {"training": which, "axes": "HWC, one after the other"}
        description |= {"torch": torch.__version__, "uint8_kernel": has_uint8_kernel()}
    return job


def _hash_sources(paths: tuple[Path, ...]) -> str:
    """A hash of paths, sizes and contents; for a large set, of the times of the last change of bytes and name."""
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


def _load_from_cache(job: Job, cache_dir: Path | None, notes: list[str]) -> bool:
    """Load the arrays from the cache. Returns False where they are missing or damaged (noted)."""
    if cache_dir is None:
        return False
    try:
        entry = cache.open_entry(cache_dir, job.key)
    except DamagedEntryError as error:
        notes.append(f"the cached images of {job.label} were damaged ({error}) and are built again")
        return False
    if entry is None:
        return False
    job.arrays, job.info = cache.load_arrays(entry), entry.info
    return True


def _build(
    job: Job,
    cache_dir: Path | None,
    notes: list[str],
    tick: Callable[[int], None],
    should_stop: Callable[[], bool] | None,
) -> None:
    """Build the arrays in the cache, else in memory, else leave them out; the notes say why."""
    if job.training is not None and isinstance(job.part.inputs, tuple):
        job.training.sizes = probe_sizes(job.part.inputs, job.transforms_of, should_stop=should_stop)
    reason = "" if cache_dir is None else _shortage(job, cache_dir)
    if cache_dir is not None and not reason:
        try:
            _build_in_cache(job, cache_dir, tick, should_stop)
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
    rows_per_block = max(1, BLOCK_BYTES // (int(np.prod(job.shape)) * job.dtype.itemsize))
    writer = MemoryWriter(job.stored_shape, rows_per_block, job.dtype)
    job.info, others = _write_images(job, writer, tick, should_stop)
    job.arrays = {"inputs": writer.array, **others}


def _shortage(job: Job, cache_dir: Path) -> str:
    """Why the disk of the cache has no room for the arrays; empty where it has."""
    free = durable.free_bytes(cache_dir)
    if free is None or job.num_bytes * 1.01 + (16 << 20) <= free:
        return ""
    less = "" if job.training is None else ", or lower dataset.cache_size"
    return f"{cache_dir} has {free:,} bytes free, {job.num_bytes:,} are needed; see trainkit data clear{less}"


def _build_in_cache(
    job: Job, cache_dir: Path, tick: Callable[[int], None], should_stop: Callable[[], bool] | None
) -> None:
    with cache.draft_entry(cache_dir, job.key, job.label, should_stop=should_stop) as draft:
        if draft is None:  # another process was faster
            _load_from_cache(job, cache_dir, [])
            tick(len(job.part))
            return
        writer = draft.add_array("inputs", job.stored_shape, job.dtype)
        info, others = _write_images(job, writer, tick, should_stop)
        for name, array in others.items():
            draft.add_array(name, array.shape, array.dtype).write_all(array)
        entry = draft.publish(job.description, info)
        job.arrays, job.info = cache.load_arrays(entry), entry.info


def _write_images(
    job: Job,
    writer: ArrayWriter | MemoryWriter,
    tick: Callable[[int], None],
    should_stop: Callable[[], bool] | None,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Write the images. Returns plain JSON and further arrays to store with them."""
    inputs = job.part.inputs
    if isinstance(inputs, np.ndarray):
        transform_array(inputs, job.static_transforms, writer, tick=tick, should_stop=should_stop)
        return {}, {}
    assert isinstance(inputs, tuple), "not decoded yet"
    others: dict[str, NDArray[Any]] = {}
    how: dict[str, Any] = {"channels": job.channels, "rules": job.rules, "tick": tick, "should_stop": should_stop}
    if job.training is None:
        found = decode_files(inputs, job.static_transforms, writer, shape=job.shape, **how)
    else:
        others = {"sizes": job.training.sizes}
        found = decode_own_sizes(inputs, job.transforms_of, job.training.sizes, writer, **how)
    info = {"bad": [list(pair) for pair in found.bad], "traits": dict(Counter(found.traits))}
    return info, {"hashes": found.hashes, "contents": found.contents, **others}
