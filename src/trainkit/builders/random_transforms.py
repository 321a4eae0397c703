"""The random ones of ``transforms:`` as objects."""

from __future__ import annotations

from trainkit.builders.own_parts import build_part, name_of
from trainkit.builders.static_transforms import resized_crop
from trainkit.config.schema import transforms as transform
from trainkit.config.schema.base import is_own
from trainkit.data.transforms import BatchTransform, geometry, operations, own, pixels, policies


def build_random_transform(spec: transform.Transform) -> BatchTransform:
    """A random transform of images."""
    knobs = spec.model_dump(exclude={"type"})
    if is_own(spec):
        function = build_part(spec, key="transforms")
        return own.OwnTransform(name_of(spec), getattr(spec, "num_draws", 1), function)
    match spec:
        case transform.RandomCrop():
            size = None if spec.size is None else transform.height_and_width(spec.size)
            return geometry.RandomCrop(size, spec.padding, spec.padding_mode, spec.fill)
        case transform.RandomResizedCrop():
            return resized_crop(spec)
        case transform.RandomHorizontalFlip():
            return geometry.RandomHorizontalFlip(spec.p, spec.alternate)
        case transform.RandomVerticalFlip():
            return geometry.RandomVerticalFlip(spec.p, spec.alternate)
        case transform.RandomRotation():
            return geometry.RandomRotation(_range(spec.degrees), spec.interpolation, spec.fill)
        case transform.RandomAffine():
            return geometry.RandomAffine(
                _range(spec.degrees),
                translate=None if spec.translate is None else (spec.translate[0], spec.translate[1]),
                scale=None if spec.scale is None else _range(spec.scale),
                shear=None if spec.shear is None else _range(spec.shear),
                interpolation=spec.interpolation,
                fill=spec.fill,
            )
        case transform.ColorJitter():
            return pixels.ColorJitter(**knobs)
        case transform.RandomErasing():
            return pixels.RandomErasing(spec.p, scale=_range(spec.scale), ratio=_range(spec.ratio), value=spec.value)
        case transform.RandomPerspective():
            return operations.RandomPerspective(**knobs)
        case transform.GaussianBlur():
            sizes, sigma = spec.kernel_size, spec.sigma
            return operations.GaussianBlur(
                kernel_size=(sizes[0], sizes[1]) if isinstance(sizes, list) else (sizes, sizes),
                sigma=(sigma[0], sigma[1]) if isinstance(sigma, list) else (sigma, sigma),
                p=spec.p,
            )
        case transform.RandomGrayscale():
            return operations.RandomGrayscale(**knobs)
        case transform.RandomInvert():
            return operations.RandomInvert(**knobs)
        case transform.RandomPosterize():
            return operations.RandomPosterize(**knobs)
        case transform.RandomSolarize():
            return operations.RandomSolarize(**knobs)
        case transform.RandomAutocontrast():
            return operations.RandomAutocontrast(**knobs)
        case transform.RandomEqualize():
            return operations.RandomEqualize(**knobs)
        case transform.RandomAdjustSharpness():
            return operations.RandomAdjustSharpness(**knobs)
        case transform.TrivialAugment():
            return policies.TrivialAugment(**knobs)
        case transform.RandAugment():
            return policies.RandAugment(**knobs)
        case _:
            raise AssertionError(f"{spec.type} is not a random transform")


def _range(spread: float | list[float]) -> tuple[float, float]:
    return (spread[0], spread[1]) if isinstance(spread, list) else (-spread, spread)
