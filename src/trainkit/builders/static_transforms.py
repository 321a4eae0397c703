"""The static transforms of a config: done once, into the cache. Images of their own sizes have two kinds of them."""

from __future__ import annotations

from itertools import takewhile

from trainkit.config.rules import own_sizes_crop
from trainkit.config.schema import Config
from trainkit.config.schema import data as dataset
from trainkit.config.schema import transforms as transform
from trainkit.config.schema.transforms import Transform
from trainkit.data.dataset import Dataset
from trainkit.data.loading import Decoding
from trainkit.data.transforms import crops, static
from trainkit.runtime import Choice


def count_static_transforms(config: Config) -> int:
    """How many transforms stand before the first random or scaling one."""
    return sum(1 for _ in takewhile(lambda spec: spec.stage == "static", config.transforms))


def has_own_sizes(config: Config, data: Dataset) -> bool:
    """Whether training crops images out of files that have sizes of their own; see ``own_sizes_crop``."""
    return own_sizes_crop(config) is not None and (data.own_sizes or any(part.is_files for part in data.parts.values()))


def build_static_transforms(config: Config, data: Dataset) -> list[static.StaticTransform]:
    """The transforms that are applied once, before the first epoch.

    Of images of their own sizes those of evaluation, which end with a crop: training has others.
    """
    before = [_static_transform(spec) for spec in config.transforms[: count_static_transforms(config)]]
    crop = own_sizes_crop(config)
    return [*before, *resized_crop(crop).in_evaluation()] if crop and has_own_sizes(config, data) else before


def build_training_transforms(config: Config, data: Dataset) -> list[static.StaticTransform] | None:
    """What is done once with training images of their own sizes; None for all other data."""
    if not has_own_sizes(config, data):
        return None
    before = [_static_transform(spec) for spec in config.transforms[: count_static_transforms(config)]]
    side = cache_side(config)
    return before if side is None else [*before, static.Shrink(side)]


def decoding_of(config: Config, data: Dataset, *, num_workers: int = 0) -> Decoding | None:
    """How image files become samples, where training decodes them; None for tables."""
    if data.channels is None:
        return None
    static_transforms, training = build_static_transforms(config, data), build_training_transforms(config, data)
    return Decoding(data.channels, static_transforms, training, data.rules, num_workers)


def cache_side(config: Config) -> int | None:
    """The side of the square that has as many pixels as cached images of their own sizes at most; None for no limit."""
    size = config.dataset.cache_size if isinstance(config.dataset, dataset.ImageFolder) else "auto"
    crop = own_sizes_crop(config)
    assert crop is not None, "only for images of their own sizes"
    if size == "auto":
        return resized_crop(crop).most_useful_side()
    return None if size == "none" else size


def crop_choices(config: Config, data: Dataset) -> dict[str, Choice]:
    """What ``random_resized_crop`` does in evaluation, and how large images of their own sizes are kept."""
    chosen = {}
    for index, spec in enumerate(config.transforms):
        if isinstance(spec, transform.RandomResizedCrop):
            what = f"shorter side to {spec.eval_resize}, then {_pixels(spec)} of the center"
            chosen["eval_resize"] = Choice(what, f"transforms[{index}], in evaluation and exports")
    crop = own_sizes_crop(config)
    if crop is not None and has_own_sizes(config, data):
        side, auto = cache_side(config), getattr(config.dataset, "cache_size", "auto") == "auto"
        reason = f"auto: the smallest crop of such an image has {_pixels(crop)}" if auto else "as asked for"
        chosen["cache_size"] = Choice("none" if side is None else f"at most {side} x {side} pixels", reason)
    return chosen


def _pixels(crop: transform.RandomResizedCrop) -> str:
    return f"{' x '.join(map(str, transform.height_and_width(crop.size)))} pixels"


def resized_crop(spec: transform.RandomResizedCrop) -> crops.RandomResizedCrop:
    size, ranges = (
        transform.height_and_width(spec.size),
        ((spec.scale[0], spec.scale[1]), (spec.ratio[0], spec.ratio[1])),
    )
    assert spec.eval_resize is not None, "the schema completes it"
    return crops.RandomResizedCrop(size, *ranges, spec.interpolation, spec.eval_resize)


def _static_transform(spec: Transform) -> static.StaticTransform:
    match spec:
        case transform.Resize(size=int(size)):
            return static.Resize(size, spec.interpolation)
        case transform.Resize():
            return static.Resize(transform.height_and_width(spec.size), spec.interpolation)
        case transform.CenterCrop():
            return static.CenterCrop(transform.height_and_width(spec.size))
        case transform.Grayscale():
            return static.Grayscale(spec.num_output_channels)
        case _:
            raise AssertionError(spec)
