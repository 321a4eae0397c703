"""Samples to predict, from files, folders, globs, CSV files and .npy arrays: read ahead in threads, in bounded memory.

A broken input gets a reason beside its name, and the others go on.
"""

from __future__ import annotations

import csv
import glob
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit.data.dataset import Kind
from trainkit.data.images import (
    BadImageError,
    count_cores,
    decode_bytes,
    is_image_file,
    is_junk,
    read_image_bytes,
    stack_images,
)
from trainkit.data.pixel_rules import DEFAULT_RULES, PixelRules, scale_values
from trainkit.data.sources import (
    Encoding,
    Row,
    RowReader,
    columns_to_read,
    encode_features,
    identity,
    parents,
    parse_rows,
    ragged_rows,
)
from trainkit.data.transforms import (
    Resize,
    StaticTransform,
    apply_static_transforms,
    apply_static_transforms_to_batch,
    output_shape,
)
from trainkit.wording import listed

TABLE_EXTENSIONS = (".csv", ".npy")
_CHUNKS_AHEAD = 3
"""Per thread: enough to keep it busy while a batch is worked on, few enough to bound the memory."""
SMALL_FILE = 2500
"""Bytes. Decoding a smaller image is mostly Python code, and threads that take the interpreter's lock from each other
for every call get less done than one: 20,000 gray PNGs of 28 px came at 9,200 and 10,000 a second from one thread, at
5,900 and 6,100 from two (2 cores, n = 2). Somewhere between JPEGs of 1,900 and of 3,500 bytes it turns."""


@dataclass(frozen=True)
class Item:
    """One input."""

    name: str
    kind: Literal["image", "csv", "npy", "broken"]
    reason: str = ""
    """Why a broken one cannot be used."""


@dataclass
class Chunk:
    """A few samples, in the order of the inputs."""

    names: list[str]
    """One for each sample: a path, ``file.csv:line``, ``file.npy[index]``."""
    rows: NDArray[Any] | list[NDArray[Any]]
    """The samples that can be used: uint8 or float32 (n, C, H, W), or float32 (n, F); a list where sizes may differ."""
    bad: dict[int, str] = field(default_factory=dict)
    """Why a sample cannot be used, by its position in ``names``."""
    traits: list[str] = field(default_factory=list)
    """What is special about its images, a word for each."""
    one_thread: bool = False
    """Whether more like these come faster from one thread than from several."""


@dataclass(frozen=True)
class InputSpec:
    """How samples become rows."""

    kind: Kind
    input_shape: tuple[int, ...]
    """The shape of a row: (C, H, W) or (F,)."""
    channels: int = 0
    rules: PixelRules = DEFAULT_RULES
    static_transforms: tuple[StaticTransform, ...] = ()
    any_size: bool = False
    """Leave the images as decoded: the program resizes them."""
    resize: bool = False
    """Resize images that would not have the size of a row after the static transforms."""
    encoding: Encoding | None = None
    """How the columns of a CSV file become features."""
    delimiter: str = ","
    chunk_size: int = 64


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
            if is_image_file(file) if kind == "image" else file.lower().endswith(TABLE_EXTENSIONS):
                found = True
                yield _item(file, kind)
            else:
                others.append(file)
        yield from (Item(error.filename, "broken", f"cannot be read ({error.strerror})") for error in unreadable)
        if not found and not unreadable:
            what = "images" if kind == "image" else "CSV or .npy files"
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
    if lower.endswith(".csv"):
        if kind == "image":
            return Item(path, "broken", "a CSV file, and the model is for images")
        return Item(path, "csv")
    if kind == "table":
        return Item(path, "broken", "the model is for tables: give a .csv or .npy file")
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
            if item.kind == "csv":
                with open(item.name, "rb") as file:
                    total += sum(chunk.count(b"\n") for chunk in iter(partial(file.read, 1 << 20), b"")) - 1
            elif item.kind == "npy":
                total += len(np.load(item.name, mmap_mode="r"))
            else:
                total += 1
        except (OSError, ValueError, TypeError):
            total += 1
    return total


def read_chunks(items: Iterable[Item], spec: InputSpec) -> Generator[Chunk, None, None]:
    """The samples, decoded and transformed, in order: in a thread for each core, or here where that is faster."""
    num_threads = count_cores()
    waiting: deque[Future[Chunk]] = deque()
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
    here = False
    try:
        for job in _jobs(items, spec):
            if here:
                while waiting:
                    yield waiting.popleft().result()
                chunk = job()
            else:
                waiting.append(pool.submit(job))
                if len(waiting) < _CHUNKS_AHEAD * num_threads:
                    continue
                chunk = waiting.popleft().result()
            here = chunk.one_thread
            yield chunk
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _jobs(items: Iterable[Item], spec: InputSpec) -> Iterator[Callable[[], Chunk]]:
    for kind, group in itertools.groupby(items, key=lambda item: item.kind):
        match kind:
            case "image":
                names = (item.name for item in group)
                while images := list(itertools.islice(names, spec.chunk_size)):
                    yield partial(_decode_chunk, images, spec)
            case "csv":
                for item in group:
                    yield from _csv_jobs(item.name, spec)
            case "npy":
                for item in group:
                    yield from _npy_jobs(item.name, spec)
            case _:
                yield from (partial(_broken, item.name, item.reason) for item in group)


def _broken(name: str, reason: str) -> Chunk:
    return Chunk([name], [], {0: reason})


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
            image = apply_static_transforms(decoded, _steps(decoded.shape, spec))
        except BadImageError as error:
            bad[position] = str(error)
            continue
        images.append(image)
        met.extend(traits)
    # Where the disk is slow (1 ms a file), several threads wait for it at the same time.
    one_thread = size < SMALL_FILE * len(paths) and waited < 0.001 * len(paths)
    return Chunk(paths, images if spec.any_size or not images else stack_images(images), bad, met, one_thread)


def _steps(shape: tuple[int, ...], spec: InputSpec) -> tuple[StaticTransform, ...]:
    """What makes a row of an image of ``shape`` (C, H, W).

    Raises:
        BadImageError: it has another size in the end.
    """
    own = () if spec.any_size else spec.static_transforms
    channels, height, width = shape
    found = output_shape(spec.static_transforms, (channels, height, width))
    if found == spec.input_shape:
        return own
    resize = Resize((spec.input_shape[1], spec.input_shape[2]))
    if (
        not spec.resize
        or output_shape((resize, *spec.static_transforms), (channels, height, width)) != spec.input_shape
    ):
        raise BadImageError(_other_size(found, spec))
    return (resize, *own)


def _other_size(shape: Sequence[int], spec: InputSpec) -> str:
    found, expected = (f"{size[1]} x {size[2]}" for size in (shape, spec.input_shape))
    after = " after the stored transforms" if spec.static_transforms else ""
    return f"{found} pixels{after}, and the model takes {expected} (height x width); resize it, or add --resize"


def _csv_jobs(path: str, spec: InputSpec) -> Iterator[Callable[[], Chunk]]:
    """Chunks of a CSV file, read in this thread and parsed in others."""
    encoding = spec.encoding
    assert encoding is not None, "a model for tables knows its columns"
    line = 1  # the last that is predicted, or the header
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = RowReader(file, delimiter=spec.delimiter)
            header = reader.header()
            if not header:
                raise ValueError("an empty file")
            missing = [column["name"] for column in encoding["columns"] if column["name"] not in header]
            if missing:
                raise ValueError(_missing(missing, header))
            for rows in reader.chunks(spec.chunk_size):
                line = rows[-1][0]
                yield partial(_parse_chunk, path, header, rows, encoding)
            if line == 1:
                raise ValueError("a header, but no rows")
    except UnicodeDecodeError as error:
        yield partial(_broken, path, f"not UTF-8 ({error.reason}, after line {line}); the rest is left out")
    except csv.Error as error:
        yield partial(_broken, path, f"not a CSV file after line {line} ({error}); the rest is left out")
    except OSError as error:
        yield partial(_broken, path, f"cannot be read ({error.strerror})")
    except ValueError as error:
        yield partial(_broken, path, str(error))


def _missing(missing: Sequence[str], header: Sequence[str]) -> str:
    return f"no column {listed(missing)}, which the model takes; the file has {listed(header)}"


def _parse_chunk(path: str, header: list[str], rows: list[Row], encoding: Encoding) -> Chunk:
    bad = ragged_rows(rows, header)
    whole = [position for position in range(len(rows)) if position not in bad]
    table = parse_rows(Path(path), header, [rows[position] for position in whole], *columns_to_read(encoding))
    features, problems = encode_features(table, encoding)
    for row, message in problems:
        bad.setdefault(whole[row], message.partition("; if the column holds")[0])
    names = [f"{path}:{line}" for line, _ in rows]
    return Chunk(names, features[[position not in bad for position in whole]], bad)


def _npy_jobs(path: str, spec: InputSpec) -> Iterator[Callable[[], Chunk]]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        samples = _as_samples(array, spec)
    except (OSError, ValueError, EOFError) as error:
        yield partial(_broken, path, str(error).partition("\n")[0] or "not a .npy file")
        return
    for start in range(0, len(samples), spec.chunk_size):
        yield partial(_slice_chunk, path, samples, start, spec)


def _as_samples(array: Any, spec: InputSpec) -> NDArray[Any]:
    """The array with one sample a row: uint8 (N, C, H, W), or numbers (N, F). Raises ValueError."""
    if not isinstance(array, np.ndarray):
        raise ValueError("an archive of arrays (.npz); give a single array (.npy)")
    rows: NDArray[Any] | None = None
    expected = f"rows of {spec.input_shape[0]} features"
    if spec.kind == "table":
        if array.dtype.kind not in "fiu":
            raise ValueError(f"holds {array.dtype}, not numbers")
        rows = array[None] if array.ndim == 1 else array
        rows = rows if rows.ndim == 2 and rows.shape[1:] == spec.input_shape else None
    else:
        if spec.rules.value_range is not None and array.dtype.kind not in "iuf":
            raise ValueError(f"holds {array.dtype}; images come as numbers, as in the files of the training")
        if spec.rules.value_range is None and array.dtype != np.uint8:
            raise ValueError(f"holds {array.dtype}; images come as uint8, 0 to 255")
        rows = _as_images(array, spec.channels)
        expected = f"images as N x {spec.channels} x H x W"
    if rows is None:
        shape = " x ".join(map(str, array.shape)) or "a single number"
        raise ValueError(f"has shape {shape}; the model takes {expected}")
    return rows


def _as_images(array: NDArray[Any], channels: int) -> NDArray[Any] | None:
    """(N, C, H, W) of one image or many, gray ones with or without their channel, in either layout."""
    if channels == 1 and array.ndim in (2, 3):
        many: NDArray[Any] = array[None] if array.ndim == 2 else array
        return many[:, None]
    many = array[None] if array.ndim == 3 else array
    if many.ndim != 4:
        return None
    if many.shape[1] == channels:
        return many
    return many.transpose(0, 3, 1, 2) if many.shape[3] == channels else None


def _slice_chunk(path: str, samples: NDArray[Any], start: int, spec: InputSpec) -> Chunk:
    part = samples[start : start + spec.chunk_size]
    names = [f"{path}[{start + row}]" for row in range(len(part))]
    if spec.kind == "table":
        with np.errstate(over="ignore"):
            features = np.ascontiguousarray(part, dtype=np.float32)
        good = np.isfinite(features).all(axis=1)
        return Chunk(names, features[good], {int(row): "holds NaN or infinity" for row in np.flatnonzero(~good)})
    images = np.array(part)  # a copy: torch warns of arrays that cannot be written to
    if spec.rules.value_range is not None:
        images = scale_values(images, spec.rules.value_range)
    try:
        steps = _steps(images.shape[1:], spec)
    except BadImageError as error:
        return Chunk(names, [], dict.fromkeys(range(len(names)), str(error)))
    rows = apply_static_transforms_to_batch(torch.from_numpy(images), steps).numpy()
    return Chunk(names, list(rows) if spec.any_size else rows)
