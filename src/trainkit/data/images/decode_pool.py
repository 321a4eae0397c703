"""Fill an array with images, block by block, in threads.

Threads, not processes: Pillow's decoders and torch's kernels release the interpreter lock. On 2 cores two threads
decoded and resized 300 x 260 JPEGs 1.5 times as fast as one, two forked processes 1.6 times, and a process that is not
forked needs seconds to import torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit.data.images.decode import BadImageError, decode_bytes, printable, probe_bytes, read_image_bytes
from trainkit.data.images.layout import Shape, pixel_size, stored_shape, to_nchw, to_storage
from trainkit.data.transforms.static import (
    StaticTransform,
    apply_static_transforms,
    apply_static_transforms_to_batch,
    fixes_size,
)
from trainkit.errors import Interrupted, Problem, ProblemsError

Result = TypeVar("Result")


class BlockWriter(Protocol):
    """Where rows go, as they are stored: ``cache.ArrayWriter``, or ``MemoryWriter``."""

    rows_per_block: int

    def write_block(self, block: int, rows: NDArray[Any]) -> None: ...


class MemoryWriter:
    """An array in memory."""

    def __init__(self, shape: Sequence[int], rows_per_block: int) -> None:
        self.rows_per_block = rows_per_block
        self.array = np.zeros(shape, dtype=np.uint8)

    def write_block(self, block: int, rows: NDArray[Any]) -> None:
        start = block * self.rows_per_block
        self.array[start : start + len(rows)] = rows


@dataclass
class Decoded:
    """Facts about the files of a part, beside their pixels."""

    hashes: NDArray[np.uint64]
    """uint64 (N,): of the bytes of each file, 0 where it could not be read."""
    bad: list[tuple[int, str]] = field(default_factory=list)
    """(index, reason) of files that cannot be used, by index; their rows are zeros."""


@dataclass
class _Block:
    rows: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    bad: list[tuple[int, str]]
    other_size: tuple[int, Shape] | None


def decode_files(
    paths: Sequence[Path],
    static_transforms: Sequence[StaticTransform],
    *,
    channels: int,
    shape: Shape,
    writer: BlockWriter,
    tick: Callable[[int], None],
    should_stop: Callable[[], bool] | None,
) -> Decoded:
    """Decode and transform files, and write the rows, each of ``shape`` (C, H, W), stored as ``layout`` says.

    Raises:
        ProblemsError: Images have different sizes after the static transforms.
        Interrupted: ``should_stop`` said so.
    """
    decoded = Decoded(np.zeros(len(paths), dtype=np.uint64))

    def make(start: int, stop: int) -> _Block:
        block = _decode_block(paths, start, stop, static_transforms, channels=channels, shape=shape)
        if block.other_size is None:
            writer.write_block(start // writer.rows_per_block, to_storage(block.rows))
        block.rows = block.rows[:0]  # written: the memory can go
        return block

    def collect(start: int, stop: int, block: _Block) -> None:
        if block.other_size is not None:
            raise _sizes_differ(paths, static_transforms, shape, *block.other_size)
        decoded.hashes[start:stop] = block.hashes
        decoded.bad += block.bad
        tick(stop - start)

    _run_blocks(len(paths), writer.rows_per_block, make, collect, should_stop)
    decoded.bad.sort()
    return decoded


def transform_array(
    images: NDArray[np.uint8],
    static_transforms: Sequence[StaticTransform],
    *,
    writer: BlockWriter,
    tick: Callable[[int], None],
    should_stop: Callable[[], bool] | None,
) -> None:
    """Transform images that are an array already, uint8 (N, C, H, W), and write the rows as ``decode_files`` does.

    Raises:
        Interrupted: ``should_stop`` said so.
    """

    def make(start: int, stop: int) -> None:
        rows = apply_static_transforms_to_batch(torch.from_numpy(np.array(images[start:stop])), static_transforms)
        writer.write_block(start // writer.rows_per_block, to_storage(rows.numpy()))

    def collect(start: int, stop: int, _: None) -> None:
        tick(stop - start)

    _run_blocks(len(images), writer.rows_per_block, make, collect, should_stop)


def _decode_block(
    paths: Sequence[Path],
    start: int,
    stop: int,
    static_transforms: Sequence[StaticTransform],
    *,
    channels: int,
    shape: Shape,
) -> _Block:
    rows = to_nchw(np.zeros((stop - start, *stored_shape(shape)), dtype=np.uint8), shape)
    block = _Block(rows, np.zeros(stop - start, dtype=np.uint64), [], None)
    for row, index in enumerate(range(start, stop)):
        try:
            data = read_image_bytes(paths[index])
            image = apply_static_transforms(decode_bytes(data, channels=channels), static_transforms)
        except BadImageError as error:
            block.bad.append((index, str(error)))
            continue
        if image.shape != shape:
            block.other_size = (index, (int(image.shape[0]), int(image.shape[1]), int(image.shape[2])))
            break
        block.rows[row] = image
        block.hashes[row] = int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
    return block


def _run_blocks(
    num_rows: int,
    rows_per_block: int,
    make: Callable[[int, int], Result],
    collect: Callable[[int, int, Result], None],
    should_stop: Callable[[], bool] | None,
) -> None:
    """``make(start, stop)`` for every block in threads, ``collect`` for each as it is done, in this thread."""
    blocks = ((start, min(start + rows_per_block, num_rows)) for start in range(0, num_rows, rows_per_block))
    num_threads = count_cores()
    running: dict[Future[Result], tuple[int, int]] = {}
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
    try:
        while True:
            # Only a few blocks wait for each thread: each costs memory and delays a stop.
            while len(running) < 3 * num_threads and (block := next(blocks, None)) is not None:
                running[pool.submit(make, *block)] = block
            if not running:
                return
            if should_stop is not None and should_stop():
                raise Interrupted("stopped while the images were being prepared", exit_code=130)
            done, _ = wait(running, timeout=0.1, return_when=FIRST_COMPLETED)
            for future in done:
                collect(*running.pop(future), future.result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def count_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def first_size(paths: Sequence[Path]) -> tuple[int, int] | None:
    """(H, W) of the first file whose header can be read; None where there is none."""
    for path in paths:
        try:
            return probe_bytes(read_image_bytes(path))[1]
        except BadImageError:
            continue
    return None


def _sizes_differ(
    paths: Sequence[Path], static_transforms: Sequence[StaticTransform], shape: Shape, index: int, other: Shape
) -> ProblemsError:
    assert not fixes_size(static_transforms), (static_transforms, shape, other)
    after = " after the transforms" if static_transforms else ""
    sizes = f"{pixel_size(shape)} as the first, but {printable(paths[index])} is {pixel_size(other)}"
    hint = f"add {{type: resize, size: [{shape[1]}, {shape[2]}]}} or a center_crop"
    message = f"the images have different heights x widths{after}: {sizes}; {hint}"
    return ProblemsError([Problem(message, key="transforms")])
