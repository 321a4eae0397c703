"""Arrays of samples: files of NumPy, and what a program has in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainkit.data.images import BadImageError
from trainkit.data.pixel_rules import scale_values
from trainkit.data.tables import encode_rows
from trainkit.data.transforms import apply_static_transforms_to_batch
from trainkit.workflows.predict.samples import Chunk, InputSpec, steps_for


def as_samples(array: Any, spec: InputSpec) -> NDArray[Any]:
    """The array with one sample a row: uint8 (N, C, H, W), or numbers (N, F). Raises ValueError."""
    if not isinstance(array, np.ndarray):
        raise ValueError("an archive of arrays (.npz); give a single array (.npy)")
    rows: NDArray[Any] | None = None
    expected = f"rows of {spec.input_shape[0]} features"
    if spec.kind == "table":
        if any(column["kind"] != "numeric" for column in (spec.encoding or {}).get("columns", ())):
            expected += " (codes of categories), or columns by name: a table; in Python a dict or a DataFrame"
        if array.dtype.kind not in "fiu":
            raise ValueError(f"holds {array.dtype}, not numbers")
        rows = array[None] if array.ndim == 1 else array
        rows = rows if rows.ndim == 2 and rows.shape[1:] == spec.input_shape else None
    else:
        if spec.rules.value_range is not None and array.dtype.kind not in "iuf":
            raise ValueError(f"holds {array.dtype}; images come as numbers, as in the files of the training")
        if spec.rules.value_range is None and array.dtype != np.uint8:
            hint = "; of values from 0 to 1: (255 * x).round().astype('uint8')" if array.dtype.kind == "f" else ""
            raise ValueError(f"holds {array.dtype}; images come as uint8, 0 to 255{hint}")
        rows = _as_images(array, spec.channels)
        layouts = [f"N x {spec.channels} x H x W", f"N x H x W x {spec.channels}"]
        expected = f"images as {' or '.join(['N x H x W', *layouts] if spec.channels == 1 else layouts)}"
    if rows is None:
        shape = " x ".join(map(str, array.shape)) or "a single number"
        raise ValueError(f"has shape {shape}; the model takes {expected}")
    return rows


def _as_images(array: NDArray[Any], channels: int) -> NDArray[Any] | None:
    """(N, C, H, W) of one image or many, gray ones with or without their channel, in either layout."""
    if channels == 1 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] != 1)):
        many: NDArray[Any] = array[None] if array.ndim == 2 else array
        return many[:, None]
    many = array[None] if array.ndim == 3 else array
    if many.ndim != 4:
        return None
    if many.shape[1] == channels:
        return many
    return many.transpose(0, 3, 1, 2) if many.shape[3] == channels else None


def names_of(path: str, samples: NDArray[Any], start: int, spec: InputSpec) -> list[str]:
    """The names of the samples of a chunk."""
    return [f"{path}[{row}]" for row in range(start, min(start + spec.chunk_size, len(samples)))]


def slice_chunk(path: str, samples: NDArray[Any], start: int, spec: InputSpec) -> Chunk:
    part = samples[start : start + spec.chunk_size]
    names = names_of(path, samples, start, spec)
    if spec.kind == "table":
        assert spec.encoding is not None, "a model for tables knows its columns"
        inputs, bad = encode_rows(part, spec.encoding)
        return Chunk(names, inputs[[row not in bad for row in range(len(part))]], bad)
    images = np.array(part)  # a copy: torch warns of arrays that cannot be written to
    if spec.rules.value_range is not None:
        images = scale_values(images, spec.rules.value_range)
    try:
        steps = steps_for(images.shape[1:], spec)
    except BadImageError as error:
        return Chunk(names, [], dict.fromkeys(range(len(names)), str(error)))
    rows = apply_static_transforms_to_batch(torch.from_numpy(images), steps).numpy()
    return Chunk(names, list(rows) if spec.any_size else rows)
