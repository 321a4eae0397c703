"""What a Python program predicts from its memory: arrays, tables by column name, pictures of Pillow."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit.data.images import BadImageError, decode_bytes, stack_images
from trainkit.data.tables import encode_columns
from trainkit.data.transforms import apply_static_transforms
from trainkit.errors import UserError
from trainkit.wording import listed
from trainkit.workflows.predict.arrays import as_samples, slice_chunk
from trainkit.workflows.predict.samples import Chunk, InputSpec, Item, slice_rows, steps_for


def find_in_memory(given: Any, spec: InputSpec) -> list[Item] | None:
    """The samples of an array, of columns by name, or of a list of pictures or rows; None where these are paths.

    Raises:
        UserError: a mixture of paths and arrays, or columns for a model of images.
    """
    columns = _columns(given)
    if columns is not None:
        return [_item("", lambda: _table_jobs(columns, spec))]
    if not isinstance(given, list | tuple):
        return [_sample_item("", given, spec)]
    paths = [isinstance(one, str | PathLike) for one in given]
    if all(paths):  # an empty list too
        return None
    if any(paths):
        raise UserError("inputs: paths and arrays in one list; predict them one after the other")
    if all(isinstance(one, Mapping) for one in given):
        names = dict.fromkeys(name for row in given for name in row)
        return find_in_memory({name: [row.get(name) for row in given] for name in names}, spec)
    if spec.kind == "table":
        return [_sample_item("", given, spec)]
    return [_sample_item(f"[{index}]", one, spec) for index, one in enumerate(given)]


def _item(name: str, make: Callable[[], tuple[list[Callable[[], Chunk]], int]]) -> Item:
    try:
        jobs, num_samples = make()
    except (ValueError, TypeError) as error:
        return Item(name or "inputs", "broken", str(error))
    return Item(name, "memory", jobs=jobs, num_samples=num_samples)


def _sample_item(name: str, given: Any, spec: InputSpec) -> Item:
    if hasattr(given, "getexif"):
        return Item(name, "memory", jobs=[partial(_picture_chunk, name or "[0]", given, spec)])
    return _item(name, lambda: _array_jobs(name, given, spec))


def _array_jobs(name: str, given: Any, spec: InputSpec) -> tuple[list[Callable[[], Chunk]], int]:
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        given = given.float() if given.dtype in (torch.bfloat16, torch.float16) else given
    samples = as_samples(np.asarray(given), spec)
    if not len(samples):
        raise ValueError("no samples")
    starts = range(0, len(samples), spec.chunk_size)
    if name and len(samples) == 1:
        return [partial(_single_chunk, name, samples, spec)], 1
    return [partial(slice_chunk, name, samples, start, spec) for start in starts], len(samples)


def _single_chunk(name: str, samples: NDArray[Any], spec: InputSpec) -> Chunk:
    chunk = slice_chunk(name, samples, 0, spec)
    chunk.names = [name]
    return chunk


def _picture_chunk(name: str, picture: Any, spec: InputSpec) -> Chunk:
    """A picture of Pillow, decoded as its file would be."""
    file = io.BytesIO()
    try:
        picture.save(file, "PNG", compress_level=0, exif=picture.getexif())
        decoded = decode_bytes(file.getvalue(), channels=spec.channels, rules=spec.rules)
        image = apply_static_transforms(decoded, steps_for(decoded.shape, spec))
    except (BadImageError, OSError) as error:
        return Chunk([name], [], {0: str(error)})
    return Chunk([name], [image] if spec.any_size else stack_images([image]))


def _columns(given: Any) -> dict[str, Any] | None:
    """The columns of a dict, of a DataFrame or of a structured array, by name; None for anything else."""
    names = getattr(given, "column_names", None) or getattr(given, "columns", None)
    if names is None and isinstance(given, np.ndarray):
        names = given.dtype.names
    if names is None and isinstance(given, Mapping):
        names = given
    return None if names is None else {str(name).strip(): given[name] for name in names}


def _table_jobs(columns: dict[str, Any], spec: InputSpec) -> tuple[list[Callable[[], Chunk]], int]:
    """Cells as a table's file has them: one way to encode them."""
    if spec.encoding is None:
        raise ValueError("columns by name, and the model is for images")
    known = [column["name"] for column in spec.encoding["columns"]]
    missing = [name for name in known if name not in columns]
    if missing:
        raise ValueError(f"no column {listed(missing)}, which the model takes; there are {listed(list(columns))}")
    values = {name: np.atleast_1d(np.asarray(columns[name])) for name in known}
    lengths = {name: len(column) for name, column in values.items()}
    if len(set(lengths.values())) > 1 or any(column.ndim > 1 for column in values.values()):
        raise ValueError(f"columns of one length are expected, got {lengths}")
    if not next(iter(lengths.values())):
        raise ValueError("no samples")
    rows = encode_columns({name: [*map(_cell, column.tolist())] for name, column in values.items()}, spec.encoding)
    starts = range(0, len(rows.inputs), spec.chunk_size)
    return [partial(slice_rows, rows, start, spec.chunk_size) for start in starts], len(rows.inputs)


def _cell(value: Any) -> Any:
    missing = str(value) in ("<NA>", "NaT") or (isinstance(value, float) and math.isnan(value))
    return None if missing else value
