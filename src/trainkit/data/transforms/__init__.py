"""Transforms of samples: static ones, materialized once, and batch transforms, applied to every batch.

``static``, ``geometry``, ``crops``, ``pixels``, ``operations``, ``policies`` and ``columns`` hold a class for each
transform.
"""
# mypy: implicit-reexport

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
