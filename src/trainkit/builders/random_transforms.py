"""The random ones of ``transforms:`` as objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainkit.builders.own_parts import build_part, name_of
from trainkit.builders.static_transforms import resized_crop
from trainkit.config.schema import transforms as transform
from trainkit.config.schema.base import is_own
from trainkit.data.transforms import BatchTransform, geometry, operations, own, pixels, policies

_AS_THEY_ARE: dict[str, Callable[..., BatchTransform]] = {
    one.name: one
    for one in (
        *(geometry.RandomHorizontalFlip, geometry.RandomVerticalFlip, pixels.ColorJitter, pixels.RandomErasing),
        *(operations.RandomPerspective, operations.RandomGrayscale, operations.RandomInvert),
        *(operations.RandomPosterize, operations.RandomSolarize, operations.RandomAutocontrast),
        *(operations.RandomEqualize, operations.RandomAdjustSharpness),
        *(policies.TrivialAugment, policies.RandAugment),
    )
}
"""By their names in configs: those that take the knobs of their sections as they are."""


def build_random_transform(spec: transform.Transform) -> BatchTransform:
    """A random transform of images."""
    if is_own(spec):
        function = build_part(spec, key="transforms")
        return own.OwnTransform(name_of(spec), getattr(spec, "num_draws", 1), function)
    given = spec.model_dump(exclude={"type"})
    knobs: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    match spec:
        case transform.RandomCrop():
            size = None if spec.size is None else transform.height_and_width(spec.size)
            return geometry.RandomCrop(size, spec.padding, spec.padding_mode, spec.fill)
        case transform.RandomResizedCrop():
            return resized_crop(spec)
        case transform.RandomRotation():
            return geometry.RandomRotation(_range(spec.degrees), spec.interpolation, spec.fill)
        case transform.RandomAffine():
            shear = None if spec.shear is None else _range(spec.shear)
            return geometry.RandomAffine(**{**knobs, "degrees": _range(spec.degrees), "shear": shear})
        case transform.GaussianBlur():
            pairs = {name: value if isinstance(value, tuple) else (value, value) for name, value in knobs.items()}
            return operations.GaussianBlur(pairs["kernel_size"], pairs["sigma"], spec.p)
        case _:
            return _AS_THEY_ARE[spec.type](**knobs)


def _range(spread: float | list[float]) -> tuple[float, float]:
    return (spread[0], spread[1]) if isinstance(spread, list) else (-spread, spread)
