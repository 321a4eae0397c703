"""Fill an array with images, block by block, in threads.

Threads, not processes: Pillow's decoders and torch's kernels release the interpreter lock. On 2 cores two threads
decoded and resized 300 x 260 JPEGs 1.5 times as fast as one, two forked processes 1.6 times, and a process that is not
forked needs seconds to import torch.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit.data.cache_arrays import ArrayWriter
from trainkit.data.images.colors import BadImageError
from trainkit.data.images.decode import decode_bytes, printable, read_image_bytes
from trainkit.data.images.layout import Shape, pixel_size, stored_shape, to_nchw, to_storage
from trainkit.data.pixel_rules import PixelRules
from trainkit.data.transforms.static import (
    StaticTransform,
    apply_static_transforms,
    apply_static_transforms_to_batch,
    fixes_size,
    same_size_hint,
)
from trainkit.errors import Interrupted, Problem, ProblemsError
from trainkit.system import count_cores


class MemoryWriter:
    """An array in memory, written as ``cache.ArrayWriter`` writes a file."""

    def __init__(self, shape: Sequence[int], rows_per_block: int, dtype: Any) -> None:
        self.rows_per_block = rows_per_block
        self.array = np.zeros(shape, dtype=dtype)
        self._appended = 0

    def write_block(self, block: int, rows: NDArray[Any]) -> None:
        start = block * self.rows_per_block
        self.array[start : start + len(rows)] = rows

    def append(self, rows: NDArray[Any]) -> None:
        self.array[self._appended : self._appended + len(rows)] = rows
        self._appended += len(rows)


class InOrder:
    """Blocks that come in any order, appended to an array in theirs."""

    def __init__(self, writer: ArrayWriter | MemoryWriter, rows_per_block: int) -> None:
        self.rows_per_block = rows_per_block
        self._writer, self._waiting, self._next = writer, dict[int, NDArray[Any]](), 0
        self._lock = threading.Lock()

    def write_block(self, block: int, rows: NDArray[Any]) -> None:
        with self._lock:
            self._waiting[block] = rows
            while self._next in self._waiting:
                self._writer.append(self._waiting.pop(self._next))
                self._next += 1


@dataclass
class DecodedFiles:
    """What decoding says of files besides their pixels."""

    hashes: NDArray[np.uint64]
    """Of the bytes of each file: (N,). 0 where it cannot be used, and its row is zeros."""
    contents: NDArray[np.uint64]
    """Of the pixels of each row, as ``hashes``."""
    bad: list[tuple[int, str]] = field(default_factory=list)
    """(index, reason) of each file that cannot be used, by index."""
    traits: list[str] = field(default_factory=list)
    """Of every image: what is special about it, see ``colors``. Threads only append."""

    @staticmethod
    def of(count: int) -> DecodedFiles:
        """Nothing said yet, of so many files."""
        return DecodedFiles(np.zeros(count, dtype=np.uint64), np.zeros(count, dtype=np.uint64))

    def decode(
        self, index: int, path: Path, static_transforms: Sequence[StaticTransform], *, channels: int, rules: PixelRules
    ) -> NDArray[Any] | None:
        """One image (C, H, W) after the static transforms; None where the file cannot be used, which is noted."""
        traits: set[str] = set()
        try:
            data = read_image_bytes(path)
            decoded = decode_bytes(data, channels=channels, rules=rules, traits=traits)
            image = apply_static_transforms(decoded, static_transforms)
        except BadImageError as error:
            self.bad.append((index, str(error)))
            return None
        self.hashes[index] = digest(data)
        self.traits.extend(traits)
        return image


def decode_files(
    paths: Sequence[Path],
    static_transforms: Sequence[StaticTransform],
    writer: ArrayWriter | MemoryWriter,
    *,
    channels: int,
    rules: PixelRules,
    shape: Shape,
    tick: Callable[[int], None],
    should_stop: Callable[[], bool] | None,
) -> DecodedFiles:
    """Decode and transform files, and write the rows, each of ``shape`` (C, H, W), stored as ``layout`` says.

    Raises:
        ProblemsError: Images have different sizes after the static transforms.
        Interrupted: ``should_stop`` returned true.
    """
    found = DecodedFiles.of(len(paths))

    def decode_block(start: int, stop: int) -> NDArray[Any]:
        stored = np.zeros((stop - start, *stored_shape(shape)), dtype=rules.dtype)
        rows = to_nchw(stored, shape)
        for row, index in enumerate(range(start, stop)):
            image = found.decode(index, paths[index], static_transforms, channels=channels, rules=rules)
            if image is None:
                continue
            if image.shape != shape:
                raise _sizes_differ(static_transforms, shape, paths[index], image.shape)
            rows[row] = image
            found.contents[index] = digest(stored[row].data)
        return stored

    write_blocks(len(paths), decode_block, writer, tick, should_stop)
    found.bad.sort()
    return found


def digest(data: bytes | memoryview) -> int:
    """A hash of 64 bits."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little")


def transform_array(
    images: NDArray[np.uint8],
    static_transforms: Sequence[StaticTransform],
    writer: ArrayWriter | MemoryWriter,
    *,
    tick: Callable[[int], None],
    should_stop: Callable[[], bool] | None,
) -> None:
    """Transform images that are an array already, uint8 (N, C, H, W), and write the rows as ``decode_files`` does.

    Raises:
        Interrupted: ``should_stop`` returned true.
    """

    def transform_block(start: int, stop: int) -> NDArray[np.uint8]:
        block = torch.from_numpy(np.array(images[start:stop]))
        return to_storage(apply_static_transforms_to_batch(block, static_transforms).numpy())

    write_blocks(len(images), transform_block, writer, tick, should_stop)


def write_blocks(
    num_rows: int,
    make_block: Callable[[int, int], NDArray[Any]],
    writer: ArrayWriter | MemoryWriter | InOrder,
    tick: Callable[[int], None],
    should_stop: Callable[[], bool] | None,
) -> None:
    """Make and write the stored rows ``start`` to ``stop`` of every block in threads; ``tick`` runs in this thread."""

    def work(start: int, stop: int) -> int:
        writer.write_block(start // writer.rows_per_block, make_block(start, stop))
        return stop - start

    size = writer.rows_per_block
    blocks = ((start, min(start + size, num_rows)) for start in range(0, num_rows, size))
    num_threads = count_cores()
    running: deque[Future[int]] = deque()
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
    try:
        while True:
            if should_stop is not None and should_stop():
                raise Interrupted("stopped while the images were being prepared", exit_code=130)
            # Only a few blocks wait for each thread, or for a slow one: each costs memory and delays a stop.
            running.extend(pool.submit(work, *block) for block in islice(blocks, 3 * num_threads - len(running)))
            if not running:
                return
            wait([running[0]], timeout=0.1)
            while running and running[0].done():
                tick(running.popleft().result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _sizes_differ(
    static_transforms: Sequence[StaticTransform], shape: Shape, path: Path, other: tuple[int, ...]
) -> ProblemsError:
    assert not fixes_size(static_transforms), (static_transforms, shape, other)
    after = " after the transforms" if static_transforms else ""
    sizes = f"{pixel_size(shape)} as the first, but {printable(path)} is {pixel_size(other)}"
    hint = same_size_hint(static_transforms, [(shape[1], shape[2]), (other[1], other[2])])
    message = f"the images have different heights x widths{after}: {sizes}; {hint}"
    return ProblemsError([Problem(message, key="transforms")])
