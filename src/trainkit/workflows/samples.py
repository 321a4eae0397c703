"""Samples that programs are compared on: from the data, or kept in a checkpoint so that an export needs no data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.builders import Setup, TrainedModel, load_source
from trainkit.data.dataset import Dataset
from trainkit.data.images import BadImageError, decode_image
from trainkit.data.pixel_rules import rules_of
from trainkit.data.tables import table_encoding
from trainkit.data.transforms import (
    apply_static_transforms,
    apply_static_transforms_to_batch,
    output_shape,
    static_transforms_from_json,
)
from trainkit.errors import CheckpointError, ProblemsError
from trainkit.exports import Samples, Source, has_static_transforms
from trainkit.wording import SPLITS
from trainkit.workflows.scoring import preferred_split

MIN_GOLDEN, MAX_GOLDEN = 64, 256
SAMPLE_SPLITS = ("val", "test", "train")
"""The samples of the check come from the first of these that the data have."""
GOLDEN_BYTES = 16 << 20
CALIBRATION_SAMPLES = 512
MIN_KEPT, MAX_KEPT = 2, 16
KEPT_BYTES = 32 << 10
"""Of the samples in a checkpoint. Images that are resized or cropped anyway are made smaller, so that two fit in."""
MAX_KEPT_BYTES = 16 << 20
"""Larger samples are not kept: an export then needs the data."""


def pick_samples(
    setup: Setup,
    split: str,
    *,
    preprocessing: Mapping[str, Any],
    count: int | None = None,
    with_images: bool = True,
) -> Samples:
    """Samples evenly spread over a split, loaded again from the source where there are static transforms.

    At least ``MIN_GOLDEN``: those of a smaller split are repeated. Where images differ in size before the static
    transforms, those of the most common size are repeated, so that they make a batch.

    Args:
        count: the number of samples; when left out, as many as ``GOLDEN_BYTES`` hold, up to ``MAX_GOLDEN``.
        with_images: also give the images before the static transforms, where there are any.
    """
    indices = setup.data.splits[split].indices
    if count is None:
        sample_bytes = 4 * int(np.prod(preprocessing["input_shape"]))
        count = max(MIN_GOLDEN, min(MAX_GOLDEN, len(indices), GOLDEN_BYTES // sample_bytes))
    chosen = np.resize(indices, count) if count > len(indices) else _spread(indices, count)
    part = setup.data.splits[split].part
    targets = setup.data.parts[part].targets[chosen]
    if not has_static_transforms(preprocessing):
        return Samples(np.ascontiguousarray(_rows(setup.data.parts[part].inputs, chosen, preprocessing)), targets)
    raw = _decode(load_source(setup.config).parts[part].inputs, chosen, preprocessing)
    static_transforms = static_transforms_from_json(preprocessing["front"])
    inputs = _batch([apply_static_transforms(image, static_transforms) for image in raw])
    if not with_images:
        return Samples(inputs, targets)
    shapes = [image.shape for image in raw]
    common = max(dict.fromkeys(shapes), key=shapes.count)
    same = np.resize([i for i, shape in enumerate(shapes) if shape == common], count)
    return Samples(inputs, targets, _batch([raw[i] for i in same]), targets[same])


def calibration_inputs(setup: Setup, source: Source) -> NDArray[Any]:
    """Training samples as programs take them."""
    count = min(CALIBRATION_SAMPLES, len(setup.data.splits["train"]))
    preprocessing = source.preprocessing
    return pick_samples(setup, "train", preprocessing=preprocessing, count=count, with_images=False).inputs


def samples_to_keep(setup: Setup, source: Dataset) -> dict[str, Any] | None:
    """A few samples for the checkpoints of a run, evenly spread over a split; None where they would be too large.

    Args:
        source: the data set as its source has it.

    Returns:
        ``split``; ``rows``, as they are before the static transforms: uint8 (N, C, H, W), or float32 where pixels have
        more than 8 bits, or float32 (N, F); and their ``targets``. Images of different sizes are cut to one.
    """
    split, preprocessing = preferred_split(setup.data, SAMPLE_SPLITS), setup.preprocessing
    chosen, part = setup.data.splits[split].indices, setup.data.splits[split].part
    has_static = has_static_transforms(preprocessing)
    inputs = (source if has_static else setup.data).parts[part].inputs
    try:
        first = _decode(inputs, chosen[:1], preprocessing)[0]
        if not has_static and first.nbytes * MIN_KEPT > MAX_KEPT_BYTES:
            return None
        chosen = _spread(chosen, min(len(chosen), max(MIN_KEPT, min(MAX_KEPT, KEPT_BYTES // first.nbytes))))
        rows = _decode(inputs, chosen, preprocessing)
    except BadImageError:  # a file that is decoded in every epoch, and that this run has not met yet
        return None
    batch = _small_batch(rows, preprocessing) if has_static else _batch(rows)
    if batch.nbytes > MAX_KEPT_BYTES:
        return None
    targets = setup.data.parts[part].targets[chosen]
    return {"split": split, "rows": torch.from_numpy(batch), "targets": torch.from_numpy(np.array(targets))}


def kept_samples(trained: TrainedModel) -> tuple[str, int, Samples] | None:
    """The samples in a checkpoint: their split, how many they are, and ``MIN_GOLDEN`` of them, repeated.

    None for a checkpoint without samples.

    Raises:
        CheckpointError: they are not what ``samples_to_keep`` makes for this model.
    """
    kept = trained.saved.get("samples")
    if kept is None:
        return None
    problem = _problem_of(kept, trained)
    if problem is not None:
        raise CheckpointError(
            f"{trained.path}: its samples, which exported programs are compared on, are damaged: {problem}; "
            "--data-root DIR takes samples from the data in DIR instead"
        )
    rows, targets = (_repeated(kept[name].numpy()) for name in ("rows", "targets"))
    preprocessing, count = trained.preprocessing, len(kept["rows"])
    if not has_static_transforms(preprocessing):
        return kept["split"], count, Samples(rows, targets)
    static = static_transforms_from_json(preprocessing["front"])
    inputs = apply_static_transforms_to_batch(torch.from_numpy(rows), static).numpy()
    return kept["split"], count, Samples(np.ascontiguousarray(inputs), targets, rows, targets)


def _problem_of(kept: Any, trained: TrainedModel) -> str | None:
    """What is wrong with the samples in a file that may come from anywhere."""
    rows, targets, split = (kept.get(name) if isinstance(kept, dict) else None for name in ("rows", "targets", "split"))
    if not isinstance(rows, Tensor) or not isinstance(targets, Tensor) or split not in SPLITS:
        return "they have no split, no rows or no targets"
    if not rows.dim() or not targets.dim():
        return "their rows or targets are single numbers"
    if not 1 <= len(rows) <= MAX_KEPT or len(targets) != len(rows) or rows.nbytes > MAX_KEPT_BYTES:
        return f"{len(rows)} rows of {rows.nbytes:,} bytes with {len(targets)} targets"
    preprocessing, classes = trained.preprocessing, len(trained.class_names)
    is_image = preprocessing["kind"] == "image"
    deep = is_image and rules_of(preprocessing).value_range is not None
    if rows.dtype != (torch.uint8 if is_image and not deep else torch.float32):
        return f"rows of {rows.dtype}"
    if rows.isinf().any() or (is_image and rows.isnan().any()):  # NaN is a gap of a table
        return "rows with values that are not finite"
    shape, expected = tuple(rows.shape[1:]), trained.input_shape
    if not is_image:
        expected = (len(table_encoding(preprocessing)["inputs"]),)
    try:
        if is_image and len(shape) == 3 and shape[0] == preprocessing["channels"] and min(shape) > 0:
            shape = output_shape(static_transforms_from_json(preprocessing["front"]), (shape[0], shape[1], shape[2]))
        fits = shape == expected
    except (ProblemsError, ValueError):
        fits = False
    if not fits:
        return f"rows of shape {list(rows.shape[1:])} do not fit inputs of shape {list(expected)}"
    if classes:
        good = (
            targets.dtype == torch.int64 and targets.dim() == 1 and bool(((targets >= 0) & (targets < classes)).all())
        )
    else:
        good = targets.dtype in (torch.float32, torch.float64) and targets.shape[1:] == (len(trained.target_names),)
        good = good and bool(torch.isfinite(targets).all())
    return None if good else "their targets are not those of the model"


def _spread(indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """``count`` of the indices, evenly spread."""
    spread: NDArray[np.int64] = indices[np.linspace(0, len(indices) - 1, count).round().astype(np.int64)]
    return spread


def _repeated(rows: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(np.resize(rows, (MIN_GOLDEN, *rows.shape[1:])))


def _small_batch(images: Sequence[NDArray[Any]], preprocessing: Mapping[str, Any]) -> NDArray[Any]:
    """Images as a batch: cut to the smallest height and width, and of large ones every second pixel or fewer.

    The static transforms make inputs of the model of them, as of the whole images.
    """
    _, heights, widths = zip(*(image.shape for image in images), strict=True)
    batch = _batch([image[:, : min(heights), : min(widths)] for image in images])
    static = static_transforms_from_json(preprocessing["front"])
    for step in range(ceil(sqrt(batch.nbytes / KEPT_BYTES)), 1, -1):
        _, channels, height, width = batch[:, :, ::step, ::step].shape
        if output_shape(static, (channels, height, width)) == tuple(preprocessing["input_shape"]):
            return np.ascontiguousarray(batch[:, :, ::step, ::step])
    return batch


def _batch(images: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Rows of one shape as one contiguous array (N, ...)."""
    return np.ascontiguousarray(np.stack(images))


def _rows(inputs: Any, chosen: NDArray[np.int64], preprocessing: Mapping[str, Any]) -> NDArray[Any]:
    if isinstance(inputs, tuple):  # files of equal size that do not fit into memory
        return _batch(_decode(inputs, chosen, preprocessing))
    rows: NDArray[Any] = inputs[chosen]
    return rows


def _decode(inputs: Any, chosen: NDArray[np.int64], preprocessing: Mapping[str, Any]) -> list[NDArray[Any]]:
    if isinstance(inputs, tuple):
        channels, rules = preprocessing["channels"], rules_of(preprocessing)
        return [decode_image(inputs[index], channels=channels, rules=rules) for index in chosen]
    return list(inputs[chosen])
