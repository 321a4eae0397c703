"""Decode image files into one array with the pixels of all: those of training in their own sizes, shrunk to a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.cache_arrays import ArrayWriter
from trainkit.data.images.colors import BadImageError
from trainkit.data.images.decode import probe_file
from trainkit.data.images.decode_pool import DecodedFiles, InOrder, MemoryWriter, digest, write_blocks
from trainkit.data.images.layout import pixel_size
from trainkit.data.pixel_rules import PixelRules
from trainkit.data.transforms.static import StaticTransform, output_shape
from trainkit.errors import Interrupted
from trainkit.system import count_cores

_PER_BLOCK = 8
"""Images that are decoded at a time."""
_PER_PROBE = 1024


def probe_sizes(
    paths: Sequence[Path],
    transforms_of: Callable[[int], Sequence[StaticTransform]],
    *,
    should_stop: Callable[[], bool] | None,
) -> NDArray[np.int64]:
    """(N, 2): height and width of each image after its static transforms, by its header; 1 x 1 where it has none.

    Raises:
        ProblemsError: A side would have no pixel left.
        Interrupted: ``should_stop`` returned true.
    """

    def size_of(index: int) -> tuple[int, int]:
        try:
            found = probe_file(paths[index]).size
        except BadImageError:  # decoding it says why
            return 1, 1
        _, height, width = output_shape(transforms_of(index), (1, *found))
        return height, width

    sizes = np.ones((len(paths), 2), dtype=np.int64)
    with ThreadPoolExecutor(count_cores(), thread_name_prefix="probe") as pool:
        for start in range(0, len(paths), _PER_PROBE):
            if should_stop is not None and should_stop():
                raise Interrupted("stopped while the images were being prepared", exit_code=130)
            some = range(start, min(start + _PER_PROBE, len(paths)))
            sizes[some.start : some.stop] = list(pool.map(size_of, some, chunksize=32))
    return sizes


def decode_own_sizes(
    paths: Sequence[Path],
    transforms_of: Callable[[int], Sequence[StaticTransform]],
    sizes: NDArray[np.int64],
    writer: ArrayWriter | MemoryWriter,
    *,
    channels: int,
    rules: PixelRules,
    tick: Callable[[int], None],
    should_stop: Callable[[], bool] | None,
) -> DecodedFiles:
    """Decode files, and write their pixels one after the other. An image that cannot be used is of zeros.

    Args:
        transforms_of: gives the static transforms of an image by its index.
        sizes: of the results, as ``probe_sizes`` found them.

    Raises:
        Interrupted: ``should_stop`` returned true.
    """
    found = DecodedFiles.of(len(paths))

    def decode_one(index: int) -> NDArray[Any]:
        height, width = sizes[index]
        shape = channels, int(height), int(width)
        image = found.decode(index, paths[index], transforms_of(index), channels=channels, rules=rules)
        if image is not None and image.shape != shape:
            found.bad.append((index, f"its header says another size: it has {pixel_size(image.shape)} pixels"))
            found.hashes[index] = 0
            image = None
        if image is None:
            return np.zeros(height * width * channels, dtype=rules.dtype)
        pixels = np.ascontiguousarray(image.transpose(1, 2, 0)).reshape(-1)
        found.contents[index] = digest(pixels.data.cast("B"))
        return pixels

    def decode_block(start: int, stop: int) -> NDArray[Any]:
        return np.concatenate([decode_one(index) for index in range(start, stop)])

    write_blocks(len(paths), decode_block, InOrder(writer, _PER_BLOCK), tick, should_stop)
    found.bad.sort()
    return found
