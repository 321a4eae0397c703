"""Transforms of samples: static ones, materialized once, and batch transforms, applied to every batch."""

from trainkit.data.transforms.geometry import (
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    RandomRotation,
    RandomTransform,
    RandomVerticalFlip,
)
from trainkit.data.transforms.normalize import Normalize, Standardize, channel_statistics, column_statistics
from trainkit.data.transforms.pipeline import BatchTransform, Pipeline, build_pipeline
from trainkit.data.transforms.pixels import ColorJitter, RandomErasing
from trainkit.data.transforms.static import (
    CenterCrop,
    Grayscale,
    Resize,
    StaticTransform,
    apply_static_transforms,
    apply_static_transforms_to_batch,
    fixes_size,
    output_shape,
    static_transforms_from_json,
    static_transforms_to_json,
)

__all__ = [
    "BatchTransform",
    "CenterCrop",
    "ColorJitter",
    "Grayscale",
    "Normalize",
    "Pipeline",
    "RandomAffine",
    "RandomCrop",
    "RandomErasing",
    "RandomHorizontalFlip",
    "RandomRotation",
    "RandomTransform",
    "RandomVerticalFlip",
    "Resize",
    "Standardize",
    "StaticTransform",
    "apply_static_transforms",
    "apply_static_transforms_to_batch",
    "build_pipeline",
    "channel_statistics",
    "column_statistics",
    "fixes_size",
    "output_shape",
    "static_transforms_from_json",
    "static_transforms_to_json",
]
