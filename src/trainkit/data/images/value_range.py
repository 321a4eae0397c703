"""The range of gray values of more than 8 bits that a training split uses.

Cameras and scanners write 10, 12 or 14 bits into 16, so the type of a file does not say what white is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data import cache
from trainkit.data.dataset import Dataset, hash_array
from trainkit.data.images.colors import BadImageError
from trainkit.data.images.decode import printable, probe_file, read_deep_values, read_image_bytes
from trainkit.data.images.formats import suffix_of
from trainkit.data.pixel_rules import PixelRules, range_text
from trainkit.errors import DataError, Interrupted
from trainkit.system import count_cores

_EIGHT_BIT = (".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".avif", ".ico", ".heic", ".heif")
"""Endings of formats that Pillow reads with 8 bits: of these files only a few are opened, to see whether it is so."""
_TRIED = 64


@dataclass(frozen=True)
class FoundRange:
    """What the training files of more than 8 bits hold."""

    low: float
    high: float
    floats: bool
    num_files: int

    @property
    def used(self) -> tuple[float, float]:
        """The range in use; floats that lie in [0, 1] are as they should be, and stay."""
        return (0.0, 1.0) if self.floats and self.low >= 0 and self.high <= 1 else (self.low, self.high)

    def describe(self) -> str:
        """The note for the user."""
        bits = "32-bit floats" if self.floats else "more than 8 bits"
        where = f"the range in use in {self.num_files} training images; dataset.value_range sets another"
        return f"gray values {range_text(self.used)}, of {bits}, become 0 to 1 ({where})"


def find_value_range(paths: Sequence[Path], *, should_stop: Callable[[], bool] | None = None) -> FoundRange | None:
    """The range of gray values of more than 8 bits; None where there are none. Unreadable files are left out.

    Raises:
        DataError: Integers and floats are among them.
        Interrupted: ``should_stop`` returned true.
    """
    extremes = [found for found in _in_threads(_extremes, paths, should_stop) if found is not None]
    if not extremes:
        return None
    whole = [path for path, (_, _, is_float) in extremes if not is_float]
    floats = [path for path, (_, _, is_float) in extremes if is_float]
    if whole and floats:
        raise DataError(
            f"{printable(whole[0])} holds integers and {printable(floats[0])} floats: no range fits both; convert "
            "one of them, or give dataset.value_range"
        )
    low, high = min(low for _, (low, _, _) in extremes), max(high for _, (_, high, _) in extremes)
    return FoundRange(low, high, bool(floats), len(extremes))


def find_deep(paths: Sequence[Path], *, should_stop: Callable[[], bool] | None = None) -> list[Path]:
    """The files with gray values of more than 8 bits, by their headers."""
    tried = set(np.linspace(0, len(paths) - 1, min(_TRIED, len(paths))).astype(int).tolist())
    chosen = [path for i, path in enumerate(paths) if i in tried or suffix_of(str(path)) not in _EIGHT_BIT]
    return [path for path, deep in zip(chosen, _in_threads(_is_deep, chosen, should_stop), strict=True) if deep]


def _is_deep(path: Path) -> bool:
    if not os.path.isfile(path):  # opening a FIFO would block
        return False
    try:
        # Of the common formats the first bytes say it: opening a PNG with Pillow takes ten times as long.
        with open(path, "rb", buffering=0) as file:
            start = file.read(26)
        if start.startswith(b"\x89PNG\r\n\x1a\n") and len(start) == 26:
            return start[24] == 16 and start[25] == 0  # bits and form of the colors
        return not start.startswith((b"\xff\xd8\xff", b"GIF8")) and probe_file(path).deep
    except OSError:
        return False
    except BadImageError:
        return False  # named when the images are decoded


def _extremes(path: Path) -> tuple[Path, tuple[float, float, bool]] | None:
    """The lowest and the highest value, and whether they are floats."""
    try:
        values = read_deep_values(read_image_bytes(path))
    except BadImageError:
        return None  # named when the images are decoded
    return None if values is None else (path, (float(values.min()), float(values.max()), values.dtype.kind == "f"))


def _in_threads(function: Callable[[Path], Any], paths: Iterable[Path], stop: Callable[[], bool] | None) -> list[Any]:
    found: list[Any] = []
    rest = iter(paths)
    with ThreadPoolExecutor(count_cores(), thread_name_prefix="values") as pool:
        while chunk := list(islice(rest, 256)):
            if stop is not None and stop():
                raise Interrupted("stopped while the values of the images were being read", exit_code=130)
            found += pool.map(function, chunk)
    return found


def with_value_range(
    dataset: Dataset, *, sources: str, cache_dir: Path | None, should_stop: Callable[[], bool] | None
) -> Dataset:
    """The data set with the range of its training values in its rules, and a note; as it is where it has 8 bits.

    Args:
        sources: a hash of the training files; the range is kept in the cache under it.

    Raises:
        DataError: Every value is the same, or as for ``find_value_range``.
    """
    split = dataset.splits["train"]
    paths = dataset.parts[split.part].inputs
    if not isinstance(paths, tuple) or dataset.rules.value_range is not None:
        return dataset
    allow_8_bit = len(deep := find_deep([paths[i] for i in split.indices], should_stop=should_stop)) < len(split)
    if not deep:
        return dataset

    def build() -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        found = find_value_range(deep, should_stop=should_stop)
        return {}, {"found": None if found is None else asdict(found)}

    description = {"kind": "value range", "files": sources, "indices": hash_array(split.indices)}
    _, info = cache.cached_arrays(cache_dir, f"{dataset.name} value range", description, build)
    if info["found"] is None:
        return dataset  # none of them can be read, which is said when they are decoded
    found = FoundRange(**info["found"])
    low, high = found.used
    if low == high:
        message = f"every value of {found.num_files} training images is {low:g}: there is nothing to tell apart"
        raise DataError(f"{message}; the first is {printable(deep[0])}")
    rules = replace(dataset.rules, value_range=(low, high), allow_8_bit=allow_8_bit)
    return replace(dataset, rules=rules, notes=(*dataset.notes, found.describe()))


def sample_rules(rules: PixelRules, paths: Sequence[Path]) -> PixelRules:
    """Rules to try a model with on a few images, before the range of the whole training split is known."""
    if rules.value_range is not None:
        return rules
    try:
        found = find_value_range(find_deep(paths))
    except DataError:
        return rules  # said when the whole split is read
    if found is None:
        return rules
    low, high = found.used
    return replace(rules, value_range=(low, max(high, low + 1)), allow_8_bit=True)
