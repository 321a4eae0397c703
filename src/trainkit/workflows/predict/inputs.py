"""Samples to predict, from images, folders, globs, tables and .npy arrays: read ahead in threads, in bounded memory.

A broken input gets a reason beside its name, and the others go on.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.dataset import Kind
from trainkit.data.images import (
    BadImageError,
    decode_bytes,
    is_image_file,
    is_junk,
    read_image_bytes,
    stack_images,
)
from trainkit.data.sources import identity, parents
from trainkit.data.tables import encode_table, is_table_name
from trainkit.data.transforms import apply_static_transforms
from trainkit.errors import UserError
from trainkit.system import count_cores, launched
from trainkit.wording import listed
from trainkit.workflows.predict.arrays import as_samples, names_of, slice_chunk
from trainkit.workflows.predict.samples import Chunk, InputSpec, Item, Job, slice_rows, steps_for

_CHUNKS_AHEAD = 3
"""Per thread: enough to keep it busy while a batch is worked on, few enough to bound the memory."""
SMALL_FILE = 2500
"""Bytes. Decoding a smaller image is mostly Python code, and threads that take the interpreter's lock from each other
for every call get less done than one: 20,000 gray PNGs of 28 px came at 9,200 and 10,000 a second from one thread, at
5,900 and 6,100 from two (2 cores, n = 2). Somewhere between JPEGs of 1,900 and of 3,500 bytes it turns."""


def find_inputs(inputs: Iterable[str | Path], *, kind: Kind, others: list[str] | None = None) -> Iterator[Item]:
    """Files as they are named, the files in folders (in order of their names) and those that a glob matches.

    Args:
        others: gets the names of files in folders that are no inputs of this kind.
    """
    others = [] if others is None else others
    for given in inputs:
        name = os.path.expanduser(given)
        if os.path.lexists(name):
            yield from _look_at(name, kind, others)
        elif glob.has_magic(name):
            matches = sorted(glob.glob(name, recursive=True))
            if not matches:
                yield Item(name, "broken", "no file matches this pattern")
            for match in matches:
                yield from _look_at(match, kind, others)
        else:
            yield Item(name, "broken", "no such file or folder")


def _look_at(path: str, kind: Kind, others: list[str]) -> Iterator[Item]:
    if os.path.isdir(path):
        found, before = False, len(others)
        unreadable: list[OSError] = []
        for file in _walk(path, unreadable):
            if is_image_file(file) if kind == "image" else file.lower().endswith(".npy") or is_table_name(file):
                found = True
                yield _item(file, kind)
            else:
                others.append(file)
        yield from (Item(error.filename, "broken", f"cannot be read ({error.strerror})") for error in unreadable)
        if not found and not unreadable:
            what = "images" if kind == "image" else "tables or .npy files"
            rest = [os.path.basename(file) for file in others[before:]]
            del others[before:]
            has = f", only {listed(rest, limit=5, quoted=False)}" if rest else ""
            yield Item(path, "broken", f"no {what} in this folder{has}")
    else:
        yield _item(path, kind)


def _item(path: str, kind: Kind) -> Item:
    lower = path.lower()
    if lower.endswith(".npy"):
        return Item(path, "npy")
    if kind == "table":
        return Item(path, "table")  # its contents say what it is
    if is_table_name(path):
        return Item(path, "broken", "a table, and the model is for images")
    return Item(path, "image")


def _walk(folder: str, unreadable: list[OSError]) -> Iterator[str]:
    """The files under a folder without those of operating systems; each real folder once, whatever links lead to it."""
    seen = parents(Path(folder)) - {identity(folder)}
    for path, folders, names in os.walk(folder, onerror=unreadable.append, followlinks=True):
        if (here := identity(path)) in seen:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(name for name in folders if not is_junk(name))
        names.sort()
        start = os.path.join(path, "")
        for name in names:
            if not is_junk(name):
                yield start + name


def count_samples(items: Iterable[Item]) -> int:
    """About how many samples there are: rows of CSV files by their line ends. For a progress bar."""
    total = 0
    for item in items:
        try:
            if item.kind == "memory":
                total += item.num_samples
            elif item.kind == "table":
                with open(item.name, "rb") as file:
                    total += sum(chunk.count(b"\n") for chunk in iter(partial(file.read, 1 << 20), b"")) - 1
            elif item.kind == "npy":
                total += len(np.load(item.name, mmap_mode="r"))
            else:
                total += 1
        except (OSError, ValueError, TypeError):
            total += 1
    return total


def read_chunks(
    items: Iterable[Item], spec: InputSpec, *, pick: Callable[[Iterator[Job]], Iterator[Job]] = iter
) -> Generator[Chunk, None, None]:
    """The samples, decoded and transformed, in order: in a thread for each core, or here where that is faster.

    Args:
        pick: which of them.
    """
    num_threads = max(1, count_cores() // launched.ranks_here())
    waiting: deque[Future[Chunk]] = deque()
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
    here = False
    try:
        for job in pick(_jobs(items, spec)):
            if here:
                while waiting:
                    yield waiting.popleft().result()
                chunk = job.run()
            else:
                waiting.append(pool.submit(job.run))
                if len(waiting) < _CHUNKS_AHEAD * num_threads:
                    continue
                chunk = waiting.popleft().result()
            here = chunk.one_thread
            yield chunk
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _jobs(items: Iterable[Item], spec: InputSpec) -> Iterator[Job]:
    for kind, group in itertools.groupby(items, key=lambda item: item.kind):
        match kind:
            case "image":
                names = (item.name for item in group)
                while images := list(itertools.islice(names, spec.chunk_size)):
                    yield Job(images, partial(_decode_chunk, images, spec))
            case "table":
                for item in group:
                    yield from _table_jobs(item.name, spec)
            case "npy":
                for item in group:
                    yield from _npy_jobs(item.name, spec)
            case "memory":
                for item in group:
                    yield from (Job((), job) for job in item.jobs)
            case _:
                yield from (_broken(item.name, item.reason) for item in group)


def _broken(name: str, reason: str) -> Job:
    return Job([name], lambda: Chunk([name], [], {0: reason}))


def _decode_chunk(paths: list[str], spec: InputSpec) -> Chunk:
    bad: dict[int, str] = {}
    images: list[NDArray[Any]] = []
    met: list[str] = []
    size, waited = 0, 0.0
    for position, path in enumerate(paths):
        traits: set[str] = set()
        try:
            opened = time.perf_counter()
            data = read_image_bytes(path)
            waited += time.perf_counter() - opened
            size += len(data)
            decoded = decode_bytes(data, channels=spec.channels, rules=spec.rules, traits=traits)
            image = apply_static_transforms(decoded, steps_for(decoded.shape, spec))
        except BadImageError as error:
            bad[position] = str(error)
            continue
        images.append(image)
        met.extend(traits)
    # Where the disk is slow (1 ms a file), several threads wait for it at the same time.
    one_thread = size < SMALL_FILE * len(paths) and waited < 0.001 * len(paths)
    return Chunk(
        paths, images if spec.any_size or not images else stack_images(images), bad, met, one_thread=one_thread
    )


def _table_jobs(path: str, spec: InputSpec) -> Iterator[Job]:
    """Chunks of a table, read block by block."""
    assert spec.encoding is not None, "a model for tables knows its columns"
    try:
        for rows in encode_table(path, spec.encoding):
            for start in range(0, len(rows.inputs), spec.chunk_size):
                names = rows.names[start : start + spec.chunk_size]
                yield Job(names, partial(slice_rows, rows, start, spec.chunk_size))
    except UserError as error:
        named = re.match(rf"{re.escape(str(Path(path)))}(:\d+)?(?::? )(.*)", str(error), re.DOTALL)
        yield _broken(f"{path}{named[1] or ''}", named[2]) if named else _broken(path, str(error))


def _npy_jobs(path: str, spec: InputSpec) -> Iterator[Job]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        samples = as_samples(array, spec)
    except (OSError, ValueError, EOFError) as error:
        yield _broken(path, str(error).partition("\n")[0] or "not a .npy file")
        return
    for start in range(0, len(samples), spec.chunk_size):
        names = names_of(path, samples, start, spec)
        yield Job(names, partial(slice_chunk, path, samples, start, spec))
