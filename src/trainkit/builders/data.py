"""``dataset:`` and ``transforms:`` as objects, and the rules about configs checked against the opened data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trainkit.builders.own_parts import build_part, name_of
from trainkit.builders.random_transforms import build_random_transform
from trainkit.builders.static_transforms import (
    build_static_transforms,
    build_training_transforms,
    count_static_transforms,
    has_own_sizes,
)
from trainkit.builders.targets import with_target_scale
from trainkit.config.rules import check
from trainkit.config.schema import Config
from trainkit.config.schema import data as dataset
from trainkit.config.schema import transforms as transform
from trainkit.config.schema.pretrained import Pretrained
from trainkit.config.schema.splits import DatasetInfo
from trainkit.config.schema.tables import Table
from trainkit.config.schema.transforms import Transform
from trainkit.config.text import parse_path
from trainkit.data.cache import cache_root
from trainkit.data.dataset import Dataset
from trainkit.data.folds import Fold
from trainkit.data.images import image_shape, materialize_images
from trainkit.data.pixel_rules import make_rules, rules_of
from trainkit.data.splits import HeldOut
from trainkit.data.tables import TableLayout, flagged, model_layout, stored_layout
from trainkit.data.transforms import (
    BatchTransform,
    Normalize,
    Standardize,
    build_pipeline,
    channel_statistics,
    column_statistics,
    columns,
    in_evaluation,
    static,
)
from trainkit.errors import Problem, ProblemsError, UserError
from trainkit.system import Frontend

ImageFiles = Mapping[str, tuple[Path, ...]]
"""By part: the files that the samples were decoded from, where there were files."""


def knobs_of(section: Any) -> dict[str, Any]:
    """The knobs of a variant without its ``type``."""
    return {name: getattr(section, name) for name in type(section).model_fields if name != "type"}


def load_source(
    config: Config,
    *,
    cache_dir: Path | None = None,
    read_only: bool = False,
    should_stop: Callable[[], bool] | None = None,
    stored: Mapping[str, Any] | None = None,
) -> Dataset:
    """The data set as its source has it, with the scale of its targets; images in files are not decoded yet.

    Args:
        cache_dir: where arrays that had to be unpacked or converted are kept.
        read_only: neither download nor add to the cache.
        should_stop: called during a download.
        stored: the preprocessing of a checkpoint; its scale of the targets is taken.

    Raises:
        DataError: it is missing, broken, or not what the config says.
        Interrupted: ``should_stop`` returned True.
        ProblemsError: ``dataset.scale_target`` is not what the checkpoint was trained with.
    """
    data = _open_source(config, cache_dir=cache_dir, read_only=read_only, should_stop=should_stop)
    if (note := describe_fold(config, data)) is not None:
        data = replace(data, notes=(*data.notes, note))
    return with_target_scale(data, config, stored=stored)


def describe_fold(config: Config, data: Dataset) -> str | None:
    """One line about the splits of a fold's run; None where the config has no folds."""
    folds = getattr(config.dataset, "folds", None)
    if folds is None:
        return None
    sizes = {name: len(split) for name, split in data.splits.items()}
    val = "no validation split"
    if "val" in sizes:
        own = data.splits["val"].part != data.splits["train"].part
        val = f"{sizes['val']:,} " + ("of its own" if own else "of the others") + " are the validation split"
    return (
        f"fold {folds.fold} (of {folds.count}, from 0) is the test split: {sizes['test']:,} of "
        f"{len(data.parts[data.splits['train'].part]):,} samples; {val}"
    )


def _open_source(
    config: Config, *, cache_dir: Path | None, read_only: bool, should_stop: Callable[[], bool] | None
) -> Dataset:
    spec = config.dataset
    knobs = knobs_of(spec)
    knobs.pop("scale_target", None)
    folds = knobs.pop("folds", None)
    fractions = {name: knobs.pop(key) for name in ("test", "val") if (key := f"{name}_fraction") in knobs}
    knobs["held"] = held = HeldOut(fractions, config.seed, None if folds is None else Fold(folds.count, folds.fold))
    match spec:
        case dataset.ImageFolder():
            from trainkit.data.sources import load_image_folder

            knobs.pop("cache_size")
            rules = make_rules(knobs.pop("background"), knobs.pop("value_range"))
            return load_image_folder(Path(knobs.pop("root")), rules=rules, **knobs)
        case Table():
            from trainkit.data.tables import SplitColumn, TableOptions, load_table

            about = {name: knobs.pop(name) for name in ("path", "test_path", "held")}
            split = None if spec.split.type == "random" else SplitColumn(**spec.split.model_dump())
            options = TableOptions(**{**knobs, "target": spec.targets, "split": split})
            return load_table(**about, options=options, cache_dir=cache_dir, save=not read_only)
        case dataset.Synthetic():
            from trainkit.data.sources import make_synthetic

            problem = knobs.pop("problem")
            return make_synthetic(problem.type, **knobs, **knobs_of(problem))
        case dataset.Downloaded():
            from trainkit.data.sources import load_downloaded

            knobs["download"] = spec.download and not read_only
            root = Path(knobs.pop("root"))
            return load_downloaded(
                spec.type, root=root, cache_dir=cache_dir, save=not read_only, should_stop=should_stop, **knobs
            )
        case dataset.OwnData():
            from trainkit.data.sources import load_own

            made = build_part(spec, key="dataset")
            return load_own(made, name=name_of(spec), kind=spec.kind, task=spec.task, held=held)
        case _:
            from trainkit.data.sources import load_bundled

            return load_bundled(spec.type, cache_dir=cache_dir, save=not read_only, **knobs)


def load_data(
    config: Config,
    *,
    source: Dataset | None = None,
    stored: Mapping[str, Any] | None = None,
    frontend: Frontend | None = None,
    training: bool = True,
) -> tuple[Dataset, ImageFiles]:
    """The config's data set with the static transforms applied.

    Args:
        source: the data set, where it is loaded already.
        stored: the preprocessing of a checkpoint; image files become pixels by its rules, and the targets of a source
            that is loaded here have its scale.
        training: False prepares all images as evaluation takes them.

    Raises:
        DataError: the data are missing or broken.
    """
    frontend = frontend or Frontend()
    if source is None:
        source = load_source(config, cache_dir=cache_root(), should_stop=frontend.stop, stored=stored)
    if stored is not None and source.kind == "image":
        source = replace(source, rules=rules_of(stored))
    data = materialize_images(
        source,
        build_static_transforms(config, source),
        training_transforms=build_training_transforms(config, source) if training else None,
        cache_dir=cache_root(),
        progress=frontend.progress,
        should_stop=frontend.stop,
    )
    data = replace(data, own_sizes=has_own_sizes(config, source))
    return data, {name: part.inputs for name, part in source.parts.items() if isinstance(part.inputs, tuple)}


def build_batch_transforms(
    config: Config, data: Dataset, *, stored: Mapping[str, Any] | None = None
) -> list[BatchTransform]:
    """The random and scaling transforms, for the data set after its static transforms.

    Args:
        stored: the preprocessing of a checkpoint; its statistics replace those of the training split.
    """
    if data.kind == "table" and stored is not None:
        return [*columns.from_json(stored)]
    fill = _fill(data)
    specs = config.transforms[count_static_transforms(config) :]
    if stored is not None and stored["normalize"] is None:  # an ensemble normalizes inside
        specs = [spec for spec in specs if not isinstance(spec, transform.Normalize)]
    made = [*([] if fill is None else [fill]), *(_batch_transform(spec, data, stored) for spec in specs)]
    return _with_three_channels(made) if needs_three_channels(config, data) else made


def needs_three_channels(config: Config, data: Dataset) -> bool:
    """Whether gray images become three equal channels, for a network that takes colors; the cache keeps one."""
    return isinstance(config.model, Pretrained) and data.kind == "image" and _image_shape(config, data)[0] == 1


def _with_three_channels(made: Sequence[BatchTransform]) -> list[BatchTransform]:
    """After the random transforms, which have less to do then. Statistics of one channel are those of all three."""
    at = next((index for index, one in enumerate(made) if isinstance(one, Normalize)), len(made))
    scaling = [
        Normalize(*(values * 3 if len(values) == 1 else values for values in (one.mean, one.std)))
        if isinstance(one, Normalize)
        else one
        for one in made[at:]
    ]
    return [*made[:at], static.Grayscale(3), *scaling]


def _fill(data: Dataset) -> columns.FillMissing | None:
    """What becomes of missing values in a table that may have some."""
    if data.table_encoding is None or stored_layout(data.table_encoding) is None:
        return None
    return columns.FillMissing(_measured(data, columns.medians), tuple(flagged(data.table_encoding)))


def _measured(data: Dataset, measure: Callable[..., tuple[Any, ...]]) -> tuple[Any, ...]:
    """A statistic of the numeric columns over the training split: (array of the part, indices, columns) to numbers."""
    train = data.splits["train"]
    rows = _array(data, train.part), train.indices, _num_numeric(data)
    found = train.statistic(measure.__name__.replace("_", " "), lambda: np.array(measure(*rows)))
    return tuple(columns.as_tuples(found.tolist()))


def _batch_transform(spec: Transform, data: Dataset, stored: Mapping[str, Any] | None) -> BatchTransform:
    match spec:
        case transform.Normalize():
            return _normalize(spec, data, stored)
        case transform.Standardize():
            return Standardize(*_measured(data, column_statistics))
        case transform.RobustScale():
            return columns.RobustScale(*_measured(data, columns.robust_statistics))
        case transform.Quantile():
            return columns.Quantile(_measured(data, columns.rank_quantiles))
        case _:
            return build_random_transform(spec)


def _normalize(spec: transform.Normalize, data: Dataset, stored: Mapping[str, Any] | None) -> Normalize:
    if stored is not None:
        return Normalize(tuple(stored["normalize"]["mean"]), tuple(stored["normalize"]["std"]))
    if spec.mean != "auto" and spec.std != "auto":
        return Normalize(tuple(spec.mean), tuple(spec.std))
    train = data.splits["train"]
    if data.parts[train.part].is_files:
        message = (
            "auto needs the images in memory or in the cache, and they fit in neither; give mean and std as numbers"
        )
        raise ProblemsError([Problem(message, key="transforms")])
    mean, std = channel_statistics(_array(data, train.part), train.indices)
    return Normalize(mean if spec.mean == "auto" else tuple(spec.mean), std if spec.std == "auto" else tuple(spec.std))


def _num_numeric(data: Dataset) -> int:
    """The numeric columns of a table, which stand before the categorical ones."""
    layout = stored_layout(data.table_encoding)
    return data.input_shape[0] if layout is None else layout.numeric


def layout_of(data: Dataset) -> TableLayout | None:
    """The columns that the model gets; None for images, and for tables of numbers without gaps."""
    return model_layout(data.table_encoding)


def model_input_shape(config: Config, data: Dataset, transforms: list[BatchTransform]) -> tuple[int, ...]:
    """The shape of a sample after all transforms.

    Raises:
        ValueError: a transform does not fit the samples.
    """
    return build_pipeline(
        transforms,
        input_shape=_image_shape(config, data),
        seed=config.seed,
        random=True,
        own_sizes=has_own_sizes(config, data),
    ).output_shape


def _image_shape(config: Config, data: Dataset) -> tuple[int, ...]:
    """Of a sample after the static transforms."""
    on_disk = data.parts[data.splits["train"].part].is_files
    return image_shape(data, build_static_transforms(config, data)) if on_disk else data.input_shape


def preprocessing(
    config: Config, data: Dataset, transforms: list[BatchTransform], *, input_shape: tuple[int, ...]
) -> dict[str, Any]:
    """All that turns a raw sample into an input of the model, as plain data: a part of every checkpoint."""
    if data.kind == "table":
        scale = data.target_scale and [list(one) for one in data.target_scale]
        return {
            "kind": "table",
            "feature_names": list(data.feature_names),
            "table_encoding": data.table_encoding,
            **columns.to_json(transforms),
            "input_shape": list(input_shape),
            **({} if data.task == "classification" else {"target_scale": scale}),
        }
    scaling = [one for one in transforms if isinstance(one, Normalize)]
    before = [spec.model_dump() for spec in config.transforms[: count_static_transforms(config)]]
    centers = [step.to_json() for transform in transforms for step in in_evaluation(transform)]
    return {
        "kind": "image",
        "channels": data.channels,
        "pixels": data.rules.to_json(),
        "front": before + centers,
        "scale": 255,
        "normalize": {"mean": list(scaling[0].mean), "std": list(scaling[0].std)} if scaling else None,
        "input_shape": list(input_shape),
    }


def dataset_info(config: Config, data: Dataset, *, materialized: bool = False) -> DatasetInfo:
    """The config's knowledge of its data, completed and corrected by the data themselves.

    Args:
        materialized: the static transforms are done in ``data``.
    """
    has_val = "val" in data.splits
    info = replace(
        config.dataset.known_info(),
        kind=data.kind,
        task=data.task,
        num_classes=data.num_classes or None,
        num_targets=data.num_targets or None,
        num_train=len(data.splits["train"]),
        num_val=len(data.splits["val"]) if has_val else 0,
        num_test=len(data.splits["test"]) if "test" in data.splits else 0,
        val_classes=sum(count > 0 for count in data.class_counts("val")) if data.num_classes and has_val else None,
    )
    if data.kind == "table":
        layout = layout_of(data)
        if layout is None:
            return replace(info, num_features=len(data.feature_names), num_categorical=0)
        return replace(info, num_features=layout.one_hot_width, num_categorical=len(layout.categories))
    with suppress(UserError):  # no image can be read: the shape stays unknown
        done = materialized and not data.parts[data.splits["train"].part].is_files
        shape = image_shape(data, [] if done else build_static_transforms(config, data))
        return replace(info, image_shape=(data.channels, None, None), static_shape=shape)
    return info


def check_rules(
    config: Config,
    data: Dataset,
    *,
    where: Callable[[str], str] | None = None,
    materialized: bool = False,
    sections: Sequence[str] = (),
) -> None:
    """Check the rules about configs against the opened data.

    Args:
        where: as for ``trainkit.config.rules.check``.
        materialized: the static transforms are done in ``data``.
        sections: only the rules for these sections of the config; all of them when left out.

    Raises:
        ProblemsError: every rule that the config breaks.
    """
    broken = check(config, where, dataset_info(config, data, materialized=materialized))
    found = [rule for rule in broken if not sections or section_of(rule.key) in sections]
    problems = [Problem(rule.message, rule.key, others=rule.keys[1:]) for rule in found]
    if problems:
        raise ProblemsError(problems)


def section_of(key: str) -> str:
    """``transforms`` for ``transforms[0].size``."""
    return str(parse_path(key)[0])


def _array(data: Dataset, part: str) -> Any:
    inputs = data.parts[part].inputs
    assert not isinstance(inputs, tuple), "images are decoded before their statistics are taken"
    return inputs
