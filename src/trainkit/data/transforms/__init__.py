"""Transforms of samples: static ones, materialized once, and batch transforms, applied to every batch.

``static``, ``geometry``, ``crops``, ``pixels``, ``operations``, ``policies`` and ``columns`` hold a class for each
transform.
"""

from trainkit.data.transforms import columns, crops, geometry, operations, own, pixels, policies, static
from trainkit.data.transforms.normalize import Normalize, Standardize, channel_statistics, column_statistics
from trainkit.data.transforms.pipeline import BatchTransform, OwnSizesCrop, Pipeline, build_pipeline, in_evaluation
from trainkit.data.transforms.static import (
    Grayscale,
    Resize,
    StaticTransform,
    apply_static_transforms,
    apply_static_transforms_to_batch,
    fixes_size,
    output_shape,
    same_size_hint,
    static_transforms_from_json,
    static_transforms_to_json,
)

__all__ = [
    "BatchTransform",
    "Grayscale",
    "Normalize",
    "OwnSizesCrop",
    "Pipeline",
    "Resize",
    "Standardize",
    "StaticTransform",
    "apply_static_transforms",
    "apply_static_transforms_to_batch",
    "build_pipeline",
    "channel_statistics",
    "column_statistics",
    "columns",
    "crops",
    "fixes_size",
    "geometry",
    "in_evaluation",
    "operations",
    "output_shape",
    "own",
    "pixels",
    "policies",
    "same_size_hint",
    "static",
    "static_transforms_from_json",
    "static_transforms_to_json",
]
