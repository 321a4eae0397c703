"""``--data``: data of the same kind, other than the checkpoint's own, with classes matched by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trainkit.builders import ImageFiles, count_static_transforms, load_data
from trainkit.config.schema import Config
from trainkit.config.schema import data as dataset
from trainkit.data.dataset import Dataset, name_key
from trainkit.data.sources import load_images_to_score
from trainkit.data.tables import load_table_to_score
from trainkit.data.target_scale import stored_scale
from trainkit.errors import DataError, UserError
from trainkit.system import Frontend
from trainkit.wording import listed, not_a_folder


def load_other_data(
    path: Path, config: Config, saved: Mapping[str, Any], *, frontend: Frontend
) -> tuple[Dataset, ImageFiles]:
    """An image folder or a CSV file, prepared as the checkpoint's own data were. ``train`` is the whole of it.

    An image folder with split folders keeps them as splits.

    Raises:
        UserError: it is not of the checkpoint's kind.
        DataError: it is broken, or has classes that the checkpoint does not know.
    """
    preprocessing = saved["preprocessing"]
    if preprocessing["kind"] == "table":
        return _load_table(path, config, saved), {}
    if not path.is_dir():
        raise UserError(
            f"--data {path}: {not_a_folder(path)}; the checkpoint is for images: give a folder with one folder a class "
            "in it (trainkit predict takes images without labels)"
        )
    spec = config.dataset
    bad = spec.max_bad_files if isinstance(spec, dataset.ImageFolder) else 0
    classes, where = saved["class_names"], f"--data {path}"
    source = load_images_to_score(
        path, class_names=classes, channels=preprocessing["channels"], max_bad_files=bad, key="--data"
    )
    align_classes(source, classes, where=where)  # before anything is decoded
    data, files = load_data(config, source=source, stored=preprocessing, frontend=frontend, training=False)
    expected = tuple(preprocessing["input_shape"])
    crops = any(item["type"] == "center_crop" for item in preprocessing["front"][count_static_transforms(config) :])
    if data.input_shape[1:] != expected[1:] and not crops:
        raise DataError(
            f"--data {path}: the images are {_size(data.input_shape)} after the transforms, and the model takes "
            f"{_size(expected)}; resize them"
        )
    return align_classes(data, classes, where=where), files


def _size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{height} x {width} with {channels} channel{'s' if channels > 1 else ''}"


def _load_table(path: Path, config: Config, saved: Mapping[str, Any]) -> Dataset:
    encoding = saved["preprocessing"]["table_encoding"]
    if encoding is None:
        raise UserError(
            f"--data {path}: the checkpoint was trained on {config.dataset.type}, whose target has no column name; "
            "--data takes another table for checkpoints that were trained on one, and image folders for images"
        )
    classes = tuple(saved["class_names"])
    data = load_table_to_score(str(path), encoding, class_names=classes, key="--data")
    return replace(data, target_scale=stored_scale(saved["preprocessing"]))


def _other_classes(found: Sequence[str], known: Sequence[str], *, where: str) -> DataError:
    extra = [name for name in found if name_key(name) not in set(map(name_key, known))]
    missing = [name for name in known if name_key(name) not in set(map(name_key, found))]
    gone = f", and it knows {listed(missing)}, which the data do not have" if missing else ""
    return DataError(
        f"{where}: other classes than the checkpoint's: it does not know {listed(extra)}{gone}; "
        "rename or remove these classes, or take a checkpoint that was trained on them"
    )


def align_classes(data: Dataset, class_names: Sequence[str], *, where: str) -> Dataset:
    """The data with the labels of ``class_names``, matched by name.

    Raises:
        DataError: the data have classes that are not in ``class_names``; names the difference.
    """
    known = tuple(class_names)
    if data.class_names == known:
        return data
    number_of = {name_key(name): number for number, name in enumerate(known)}
    if any(name_key(name) not in number_of for name in data.class_names):
        raise _other_classes(data.class_names, known, where=where)
    labels = np.array([number_of[name_key(name)] for name in data.class_names], dtype=np.int64)
    parts = {name: replace(part, targets=labels[part.targets]) for name, part in data.parts.items()}
    return replace(data, parts=parts, class_names=known)
