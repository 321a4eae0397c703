"""A quick look at all image files of a data set, without decoding them all: a few kB of each are read.

Where that does not say enough, some files are decoded: those that do not end as their format does, those of formats
without an end that is known, and those of more than 8 bits. What was not looked at is said.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import Dataset
from trainkit.data.images.colors import BadImageError
from trainkit.data.images.decode import Header, decode_image, printable, probe_file, read_image_bytes
from trainkit.data.images.decode_pool import digest
from trainkit.data.images.decoded_dataset import (
    check_not_all_the_same,
    describe_shared,
    describe_two_classes,
    without_bad_files,
)
from trainkit.data.images.value_range import sample_rules, with_value_range
from trainkit.data.pixel_rules import PixelRules
from trainkit.data.transforms.static import (
    StaticTransform,
    apply_static_transforms,
    fixes_size,
    output_shape,
    same_size_hint,
)
from trainkit.errors import Interrupted, Problem, ProblemsError, UserError
from trainkit.system import count_cores
from trainkit.wording import counted

SPREAD = 8
"""Files of every split that are decoded in any case."""
DECODED = 256
"""Further files that are decoded, of those whose header does not say enough."""
PROBED = 256
"""Files of every split whose headers are read where not all are."""
COMPARED_BYTES = 256 << 20
"""Files of equal length are compared by their bytes, up to so many of them."""
ROOM = "whether cache or memory have room for the images after the transforms"


@dataclass
class Looked:
    """What is known of the files of one part."""

    paths: tuple[Path, ...]
    headers: list[Header | None]
    """None of a file that cannot be used."""
    bad: dict[int, str]
    """Why, by index."""
    hashes: NDArray[np.uint64]
    """The same for files that are known to be the same byte for byte, and only for them: (N,)."""


def few_are_fine(dataset: Dataset, static_transforms: Sequence[StaticTransform]) -> bool:
    """Whether a few files of every split can be used, and have one size where no transform gives them one."""
    num_bad, sizes = 0, set()
    for split in dataset.splits.values():
        paths = dataset.parts[split.part].inputs
        if not isinstance(paths, tuple):
            continue
        tried = [paths[index] for index in split.indices[spread(len(split), SPREAD)]]
        rules = sample_rules(dataset.rules, tried)
        num_bad += sum(_why_bad(path, dataset.channels, rules) is not None for path in tried)
        if fixes_size(static_transforms):
            continue
        for index in split.indices[spread(len(split), PROBED)]:
            header = _probe(paths[index])
            if isinstance(header, Header):
                sizes.add(output_shape(static_transforms, (1, *header.size)))
    return num_bad <= dataset.max_bad_files and len(sizes) < 2


def look_at_files(
    dataset: Dataset,
    static_transforms: Sequence[StaticTransform],
    *,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Dataset:
    """Read the header and the end of every image file, and decode those few of which that does not say enough.

    Returns:
        The data set without the files that cannot be used. Its notes say what is special, and what was not looked at.

    Raises:
        ProblemsError: Files that cannot be used, more than allowed, or of different sizes; all images are the same.
        Interrupted: ``should_stop`` returned true.
    """
    parts = {
        name: Looked(part.inputs, [], {}, np.zeros(len(part), dtype=np.uint64))
        for name, part in dataset.parts.items()
        if isinstance(part.inputs, tuple)
    }
    if not parts and static_transforms and dataset.kind == "image":
        return replace(dataset, notes=(*dataset.notes, f"not looked at: {ROOM}"))
    if not parts:
        return dataset
    in_threads = _Threads(sum(len(part.paths) for part in parts.values()), progress, should_stop)
    for part in parts.values():
        for index, found in enumerate(in_threads.map(_probe, part.paths)):
            part.headers.append(found if isinstance(found, Header) else None)
            if not isinstance(found, Header):
                part.bad[index] = found
    dataset, rules = _with_rules(dataset, parts)
    num_decoded, num_doubtful = _decode_doubtful(replace(dataset, rules=rules), parts, in_threads)
    not_compared = _compare(parts, in_threads)
    notes: list[str] = []
    problems: list[Problem] = []
    try:
        left = without_bad_files(dataset, {name: sorted(part.bad.items()) for name, part in parts.items()}, notes)
    except UserError as error:
        problems.append(Problem(str(error), key="dataset"))
    if differ := _sizes_differ(parts, static_transforms):
        problems.append(Problem(differ, key="transforms"))
    if problems:
        raise ProblemsError(problems)
    notes += describe_shared(left, {name: part.hashes for name, part in parts.items()})
    train = left.splits["train"].part
    check_not_all_the_same(
        left,
        parts[train].hashes,
        lambda index: _decoded(parts[train].paths[index], dataset, rules, static_transforms),
        static_transforms,
    )
    notes += describe_two_classes(left, {name: part.hashes for name, part in parts.items()})
    notes.append(_not_looked_at(in_threads.total, num_decoded, num_doubtful, not_compared))
    return replace(left, notes=(*dataset.notes, *notes))


def spread(length: int, size: int) -> NDArray[np.int64]:
    """Up to ``size`` positions, from the first to the last."""
    positions: NDArray[np.int64] = np.unique(np.linspace(0, length - 1, min(size, length)).astype(np.int64))
    return positions


class _Threads:
    """Works through files, a few at a time, in all threads."""

    def __init__(
        self, total: int, progress: Callable[[int, int], None] | None, should_stop: Callable[[], bool] | None
    ) -> None:
        self.total = total
        self._progress, self._should_stop = progress, should_stop
        self._done = 0

    def map(self, function: Callable[[Path], Any], paths: Iterable[Path]) -> Iterable[Any]:
        rest = iter(paths)
        with ThreadPoolExecutor(count_cores(), thread_name_prefix="look") as pool:
            while chunk := list(islice(rest, 512)):
                if self._should_stop is not None and self._should_stop():
                    raise Interrupted("stopped while the images were looked at", exit_code=130)
                yield from pool.map(function, chunk, chunksize=32)
                self._done += len(chunk)
                if self._progress is not None:
                    self._progress(min(self._done, self.total), self.total)


def _probe(path: Path) -> Header | str:
    try:
        return probe_file(path)
    except BadImageError as error:
        return str(error)


def _why_bad(path: Path, channels: int | None, rules: PixelRules) -> str | None:
    try:
        decode_image(path, channels=channels or 3, rules=rules)
    except BadImageError as error:
        return str(error)
    return None


def _with_rules(dataset: Dataset, parts: dict[str, Looked]) -> tuple[Dataset, PixelRules]:
    """The data set with the range of its gray values of more than 8 bits, where few have such; rules to decode by."""
    train = dataset.splits["train"]
    headers = [parts[train.part].headers[index] for index in train.indices]
    deep = [index for index, header in zip(train.indices, headers, strict=True) if header is not None and header.deep]
    if len(deep) <= DECODED:
        dataset = with_value_range(dataset, sources="", cache_dir=None, should_stop=None)
        return dataset, dataset.rules
    chosen = [parts[train.part].paths[deep[at]] for at in spread(len(deep), DECODED)]
    rules = sample_rules(dataset.rules, chosen)
    return dataset, replace(rules, allow_8_bit=dataset.rules.allow_8_bit or len(deep) < len(train))


def _decode_doubtful(dataset: Dataset, parts: dict[str, Looked], in_threads: _Threads) -> tuple[int, int]:
    """Decode a few files; returns how many were decoded, and how many more should have been."""
    any_deep = any(header is not None and header.deep for part in parts.values() for header in part.headers)
    doubtful = [
        (name, index)
        for name, part in parts.items()
        for index, header in enumerate(part.headers)
        if header is not None and (header.doubtful or any_deep)
    ]
    chosen = {doubtful[at] for at in spread(len(doubtful), DECODED)} if doubtful else set()
    left = len(doubtful) - len(chosen)
    for split in dataset.splits.values():
        if split.part in parts:
            chosen |= {(split.part, int(index)) for index in split.indices[spread(len(split), SPREAD)]}
    ordered = sorted(chosen - {(name, index) for name, part in parts.items() for index in part.bad})
    paths = [parts[name].paths[index] for name, index in ordered]
    reasons = in_threads.map(lambda path: _why_bad(path, dataset.channels, dataset.rules), paths)
    for (name, index), reason in zip(ordered, reasons, strict=True):
        if reason is not None:
            parts[name].bad[index] = reason
            parts[name].headers[index] = None
    return len(ordered), left


def _compare(parts: dict[str, Looked], in_threads: _Threads) -> int:
    """Fill in the hashes; returns how many files of equal length were not compared."""
    sizes = Counter(header.num_bytes for part in parts.values() for header in part.headers if header is not None)
    alike = sorted(
        (header.num_bytes, name, index)
        for name, part in parts.items()
        for index, header in enumerate(part.headers)
        if header is not None and sizes[header.num_bytes] > 1
    )
    room = int(np.searchsorted(np.cumsum([size for size, _, _ in alike]), COMPARED_BYTES, side="right")) if alike else 0
    own = 0
    for part in parts.values():  # small numbers, of which no hash is one
        part.hashes[:] = np.arange(own + 1, own + 1 + len(part.paths))
        own += len(part.paths)
    paths = [parts[name].paths[index] for _, name, index in alike[:room]]
    for (_, name, index), value in zip(alike[:room], in_threads.map(_hash, paths), strict=True):
        if value is not None:
            parts[name].hashes[index] = value
    return len(alike) - room


def _hash(path: Path) -> int | None:
    try:
        return digest(read_image_bytes(path))
    except BadImageError:  # gone since its header was read
        return None


def _sizes_differ(parts: dict[str, Looked], static_transforms: Sequence[StaticTransform]) -> str | None:
    """Without a transform that makes them equal, sizes must be the same: what to say where they are not."""
    if fixes_size(static_transforms):
        return None
    first: dict[tuple[int, int], Path] = {}
    counts: Counter[tuple[int, int]] = Counter()
    for part in parts.values():
        for path, header in zip(part.paths, part.headers, strict=True):
            if header is not None:
                counts[header.size] += 1
                first.setdefault(header.size, path)
    after: dict[tuple[int, int], Path] = {}
    sizes: Counter[tuple[int, int]] = Counter()
    for size, path in first.items():
        _, height, width = output_shape(static_transforms, (1, *size))
        after.setdefault((height, width), path)
        sizes[height, width] += counts[size]
    if len(after) < 2:
        return None
    smallest, largest = (pick(after, key=math.prod) for pick in (min, max))
    where = " after the transforms" if static_transforms else ""
    return (
        f"the images have different sizes{where}: {printable(after[smallest])} is {smallest[0]} x {smallest[1]} "
        f"(height x width), but {printable(after[largest])} is {largest[0]} x {largest[1]}; "
        f"{same_size_hint(static_transforms, sizes.elements())}"
    )


def _decoded(
    path: Path, dataset: Dataset, rules: PixelRules, static_transforms: Sequence[StaticTransform]
) -> NDArray[Any]:
    image = decode_image(path, channels=dataset.channels or 3, rules=rules)
    return apply_static_transforms(image, static_transforms)


def _not_looked_at(total: int, num_decoded: int, num_doubtful: int, not_compared: int) -> str:
    """What training will find that this look cannot."""
    rest = [f"damage inside the other {total - num_decoded:,}" if num_decoded < total else ""]
    rest.append(f"whether {num_doubtful:,} that need decoding are whole" if num_doubtful else "")
    rest.append(f"whether {not_compared:,} of equal length are the same" if not_compared else "")
    rest += ["pictures that are the same only once decoded", ROOM]
    return (
        f"of {counted(total, 'image file')} the header and the end were read, and {num_decoded:,} were decoded; not "
        f"looked at, and found when training decodes them: {'; '.join(text for text in rest if text)}"
    )
