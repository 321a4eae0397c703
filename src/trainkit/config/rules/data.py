"""Rules of ``dataset:`` and ``transforms:``."""

from __future__ import annotations

from typing import Any

from trainkit.config.help.messages import shown
from trainkit.config.rules.review import Review
from trainkit.config.schema import Config, data, splits, tables, transforms
from trainkit.config.schema.pretrained import Pretrained


def check(review: Review) -> None:
    if isinstance(review.config.dataset, tables.Table):
        _table(review, review.config.dataset)
        _split(review, review.config.dataset)
        _weight(review, review.config.dataset)
    if isinstance(review.config.dataset, splits.ValTestSplit) and review.config.dataset.folds is not None:
        _folds(review, review.config.dataset, review.config.dataset.folds)
    if isinstance(review.config.dataset, splits.ScaledTarget):
        _scale_target(review, review.config.dataset)
    if isinstance(review.config.dataset, data.ImageFolder):
        _value_range(review, review.config.dataset)
        _cache_size(review, review.config.dataset)
    _order(review)
    _images(review)
    for index, transform in enumerate(review.config.transforms):
        _bounds(review, f"transforms[{index}]", transform)


def _table(review: Review, spec: tables.Table) -> None:
    for index, name in enumerate(spec.targets):
        if name in spec.targets[:index]:
            review.add(f"dataset.target[{index}]", f"the column is named twice, got {name!r}; keep one")
        if name in spec.columns:
            review.add(
                f"dataset.columns.{name}",
                f"the target is no feature, got {name!r} with {{0}}; dataset.task says what it is",
                "dataset.target",
            )
    if spec.task == "classification" and len(spec.targets) > 1:
        review.add(
            "dataset.task",
            "classification takes one target, got classification with {0}; keep one, or take regression",
            "dataset.target",
        )
    for index, name in enumerate(spec.features or ()):
        if name in spec.targets:
            review.add(
                f"dataset.features[{index}]",
                f"the column to predict cannot be a feature, got {name!r} with {{0}}; remove it here",
                "dataset.target",
            )
        elif name in (spec.features or [])[:index]:
            review.add(f"dataset.features[{index}]", f"the column is named twice, got {name!r}; keep one")
    split_column = None if isinstance(spec.split, tables.RandomSplit) else spec.split.column
    for name in spec.columns:
        if name == split_column:
            continue
        if spec.features is not None and name not in spec.features and name not in spec.targets:
            review.add(
                f"dataset.columns.{name}",
                f"not one of the features, got {name!r} with {{0}}; add it there, or remove it",
                "dataset.features",
            )


def _weight(review: Review, spec: tables.Table) -> None:
    named = {"dataset.target": spec.targets, "dataset.features": spec.features, "dataset.columns": spec.columns}
    if not isinstance(spec.split, tables.RandomSplit):
        named["dataset.split.column"] = [spec.split.column]
    for key, names in named.items():
        if spec.weight in (names or ()):
            message = f"the column of weights has no other part, got {spec.weight!r} with {{0}}; take it out of one"
            review.add("dataset.weight", message, key)


def _split(review: Review, spec: tables.Table) -> None:
    split = spec.split
    if isinstance(split, tables.RandomSplit):
        return
    column = split.column
    if column in spec.targets:
        message = f"the rows cannot be split by the target, got {column!r} with {{0}}; choose another column"
        review.add("dataset.split.column", message, "dataset.target")
    about_times = isinstance(split, tables.TimeSplit)
    kind = spec.columns.get(column, "ignore")  # which it is: no feature
    if kind != "ignore" and column not in (spec.features or ()) and not about_times:
        message = f"the column of the split is no feature, got {column!r} with {{0}}; name it in features, or remove it"
        review.add(f"dataset.columns.{column}", message, "dataset.split.column")
    if not isinstance(split, tables.ColumnSplit):
        return
    for name in ("val_fraction", "test_fraction"):
        if getattr(spec, name) != type(spec).model_fields[name].default:
            message = f"the column says which rows are held out, got {getattr(spec, name):g} with {{0}}; leave it out"
            review.add(f"dataset.{name}", message, "dataset.split.type")
    if split.test and spec.test_path is not None:
        message = "{0} is the test split, got values for another; leave out one of them"
        review.add("dataset.split.test", message, "dataset.test_path")
    known: dict[str, str] = {}
    for name in ("val", "test"):
        for index, value in enumerate(getattr(split, name) or ()):
            key = f"dataset.split.{name}[{index}]"
            if str(value) in known:
                review.add(key, f"the value is there twice, got {shown(value)} with {{0}}; keep one", known[str(value)])
            known.setdefault(str(value), key)


def _folds(review: Review, spec: splits.ValTestSplit, folds: splits.Folds) -> None:
    if folds.fold >= folds.count:
        message = f"folds are counted from 0: expected 0 to {folds.count - 1}, got {folds.fold} with {{0}}"
        review.add("dataset.folds.fold", message, "dataset.folds.count")
    if spec.split_type == "column":
        message = (
            "folds are made here, and {0} says which rows are held out; split: {type: group, column: ...} keeps the "
            "rows with one value of it in one fold"
        )
        review.add("dataset.folds", message, "dataset.split.type")
    if spec.split_type == "time":
        message = (
            "a fold would be predicted by a model that has seen later rows, with {0}; leave the folds out, and the "
            "latest rows are the test split, or take split: random where time does not matter"
        )
        review.add("dataset.folds", message, "dataset.split.type")


def _scale_target(review: Review, spec: splits.ScaledTarget) -> None:
    if spec.scale_target is True and review.dataset.task == "classification":
        message = "values are scaled, classes are not, got true with {0}; leave it out"
        review.add("dataset.scale_target", message, review.dataset.key("task"))


def _value_range(review: Review, spec: data.ImageFolder) -> None:
    if spec.value_range is not None and spec.value_range[0] >= spec.value_range[1]:
        key, got = "dataset.value_range", shown(spec.value_range)
        review.add(key, f"expected [low, high] with low below high, got {got}; swap or change them")


def own_sizes_crop(config: Config) -> transforms.RandomResizedCrop | None:
    """The crop that takes images in files in their own sizes: it is the first random transform, and none before it
    gives them one size."""
    size: tuple[int | None, int | None] = None, None
    for transform in config.transforms:
        if transform.stage != "static":
            return transform if isinstance(transform, transforms.RandomResizedCrop) and size == (None, None) else None
        size = transform.output_size(*size)
    return None


def _cache_size(review: Review, spec: data.ImageFolder) -> None:
    if spec.cache_size != "auto" and own_sizes_crop(review.config) is None:
        review.add(
            "dataset.cache_size",
            f"only images that keep their own sizes until random_resized_crop, as the first random transform, are kept "
            f"like that, got {shown(spec.cache_size)}; leave it out",
        )


def _order(review: Review) -> None:
    """The transforms fit the kind of data and stand in a possible order."""
    normalize: int | None = None
    first_random: int | None = None
    for index, transform in enumerate(review.config.transforms):
        key = f"transforms[{index}]"
        name = transform.type
        if review.dataset.kind == "table" and transform.works_on == "image":
            hint = "use standardize" if name == "normalize" else "remove it"
            review.add(f"{key}.type", f"{name} works on images, and {{0}} is a table; {hint}", "dataset.type")
            continue
        if review.dataset.kind == "image" and transform.works_on == "table":
            hint = "use normalize" if name == "standardize" else "remove it"
            review.add(f"{key}.type", f"{name} works on tables, and {{0}} has images; {hint}", "dataset.type")
            continue
        if normalize is not None and transform.stage == "scaling":
            review.add(f"{key}.type", f"{name} comes twice, first in {{0}}; keep one", f"transforms[{normalize}].type")
        elif normalize is not None and transform.needs_pixel_values:
            review.add(
                f"{key}.type",
                f"{name} works on pixel values in [0, 1], and {{0}} has changed them; move normalize below",
                f"transforms[{normalize}].type",
            )
        elif first_random is not None and transform.stage == "static":
            review.add(
                f"{key}.type",
                f"{name} is done once and kept, before anything random, and {{0}} stands above; move {name} up",
                f"transforms[{first_random}].type",
            )
        if transform.stage == "scaling" and normalize is None:
            normalize = index
        elif transform.stage == "random" and first_random is None:
            first_random = index


def _images(review: Review) -> None:
    """Channels and sizes, followed through the transforms as far as they are known."""
    if review.dataset.kind != "image":
        return
    channels, height, width = review.dataset.image_shape
    channels_from = review.dataset.key("channels")
    opened = review.dataset.static_shape
    for index, transform in enumerate(review.config.transforms):
        if opened is not None and transform.stage != "static":  # the static transforms end here
            (_, height, width), opened = opened, None
        key = f"transforms[{index}]"
        if isinstance(transform, transforms.Grayscale):
            channels, channels_from = transform.num_output_channels, f"{key}.num_output_channels"
        elif isinstance(transform, transforms.Normalize):
            if channels == 1 and isinstance(review.config.model, Pretrained):
                channels, channels_from = 3, "model.type"  # gray images become three equal channels
            _normalize(review, key, transform, channels, channels_from)
        elif isinstance(transform, transforms.RandomCrop):
            _random_crop(review, key, transform, height, width)
        elif isinstance(transform, transforms.RandomResizedCrop):
            _eval_resize(review, key, transform)
        elif isinstance(transform, transforms.GaussianBlur):
            _kernel(review, key, transform, height, width)
        height, width = transform.output_size(height, width)


def _normalize(
    review: Review, key: str, transform: transforms.Normalize, channels: int | None, channels_from: str
) -> None:
    counts = {name: len(value) for name in ("mean", "std") if isinstance(value := getattr(transform, name), list)}
    if len(counts) == 2 and counts["mean"] != counts["std"]:
        review.add(
            f"{key}.std",
            f"expected as many values as the mean, got {counts['std']} with {{0}}; one a channel in both",
            f"{key}.mean",
        )
        return
    for name, count in counts.items():
        if channels is not None and count != channels:
            review.add(
                f"{key}.{name}",
                f"expected {channels} value{'s' * (channels != 1)}, one a channel, got {count} with {{0}}; "
                "auto takes them from the training split",
                channels_from,
            )
            return
    _unit_statistics(review, key, transform)


def _unit_statistics(review: Review, key: str, transform: transforms.Normalize) -> None:
    """Means and deviations fit pixels in [0, 1]; those of the scale 0 to 255 are a frequent mistake."""
    # No image has a deviation above 0.5; but weights may want (x - 127) / 128, and one of 1 leaves the scale as it is.
    for name, limit, also in (("mean", 1.0, ()), ("std", 0.502, (1.0,))):
        values = getattr(transform, name)
        if not isinstance(values, list) or all(0 <= value <= limit or value in also for value in values):
            continue
        scaled = [round(value / 255, 4) for value in values]
        advice = "auto takes it from the training split"
        if min(values) >= 0 and max(values) > 2:
            advice = f"divide by 255: {shown(scaled)}"
        review.add(
            f"{key}.{name}",
            f"expected values from 0 to {limit:g}, for pixels in [0, 1], got {shown(values)}; {advice}",
        )


def _random_crop(review: Review, key: str, crop: transforms.RandomCrop, height: int | None, width: int | None) -> None:
    if crop.size is None and crop.padding == 0:
        review.add(
            f"{key}.padding", "a crop of the image's own size needs padding to move in, got 0; set size or padding"
        )
    if height is None or width is None:
        return
    if crop.padding_mode == "reflect" and crop.padding >= min(height, width):
        review.add(
            f"{key}.padding",
            f"reflection needs padding below the image's {height} x {width}, got {crop.padding} with {{0}}; lower it",
            f"{key}.padding_mode",
        )
    padded_height, padded_width = height + 2 * crop.padding, width + 2 * crop.padding
    crop_height, crop_width = crop.output_size(height, width)
    if (crop_height or 0) > padded_height or (crop_width or 0) > padded_width:
        review.add(
            f"{key}.size",
            f"the crop is larger than the padded image of {padded_height} x {padded_width}, "
            f"got {shown(crop.size)} with {{0}}; lower it, or pad more",
            f"{key}.padding",
        )


def _eval_resize(review: Review, key: str, crop: transforms.RandomResizedCrop) -> None:
    side = max(transforms.height_and_width(crop.size))
    if crop.eval_resize is not None and crop.eval_resize < side:
        review.add(
            f"{key}.eval_resize",
            f"evaluation would cut {side} pixels out of fewer, got {crop.eval_resize} with {{0}}; raise it, or leave "
            f"it out for {transforms.eval_resize_for(side)}",
            f"{key}.size",
        )


def _kernel(
    review: Review, key: str, blur: transforms.GaussianBlur, height: transforms.Length, width: transforms.Length
) -> None:
    size = blur.kernel_size
    across, down = size if isinstance(size, list) else (size, size)
    if across % 2 == 0 or down % 2 == 0:
        larger = [side | 1 for side in size] if isinstance(size, list) else size | 1
        review.add(f"{key}.kernel_size", f"expected odd numbers of pixels, got {shown(size)}; write {shown(larger)}")
    elif (width is not None and across // 2 >= width) or (height is not None and down // 2 >= height):
        review.add(
            f"{key}.kernel_size",
            f"half of the kernel must be smaller than the image of {height} x {width}, got {shown(size)}; lower it",
        )


def _bounds(review: Review, key: str, transform: Any) -> None:
    """[low, high] pairs are in order and in their range."""
    for name in ("degrees", "scale", "shear", "ratio", "sigma"):
        value = getattr(transform, name, None)
        if isinstance(value, list):
            if value[0] > value[1]:
                review.add(f"{key}.{name}", f"expected [low, high], got {shown(value)}; swap the two")
            elif name in ("scale", "ratio", "sigma") and value[0] <= 0:
                review.add(f"{key}.{name}", f"expected numbers above 0, got {shown(value)}; raise the lower one")
    if isinstance(transform, transforms.RandomErasing | transforms.RandomResizedCrop) and transform.scale[1] > 1:
        review.add(
            f"{key}.scale", f"expected shares of the area, at most 1, got {shown(transform.scale)}; lower the upper one"
        )
    if isinstance(transform, transforms.RandAugment) and transform.magnitude >= transform.num_magnitude_bins:
        review.add(
            f"{key}.magnitude",
            f"expected a number below {{0}}, got {transform.magnitude}; lower it",
            f"{key}.num_magnitude_bins",
        )
