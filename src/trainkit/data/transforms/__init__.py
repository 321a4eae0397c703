"""Transforms of samples: static ones, materialized once, and batch transforms, applied to every batch.

``static``, ``geometry``, ``crops``, ``pixels``, ``operations``, ``policies`` and ``columns`` hold a class for each
transform.
"""

from trainkit.data.transforms import columns, crops, geometry, operations, own, pixels, policies, static
from trainkit.data.transforms.normalize import Normalize, Standardize, channel_statistics, column_statistics
from trainkit.data.transforms.pipeline import BatchTransform, Pipeline, build_pipeline, in_evaluation
from trainkit.data.transforms.static import (
    Grayscale,
    Resize,
    StaticTransform,
    apply_static_transforms,
    apply_static_transforms_to_batch,
    output_shape,
    static_transforms_from_json,
    static_transforms_to_json,
)

__all__ = [
    "BatchTransform",
    "Grayscale",
    "Normalize",
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
    "geometry",
    "in_evaluation",
    "operations",
    "output_shape",
    "own",
    "pixels",
    "policies",
    "static",
    "static_transforms_from_json",
    "static_transforms_to_json",
]
