"""Images: decoding files, the memory layout of arrays, materializing static transforms."""

from trainkit.data.images.decode import (
    EXTENSIONS,
    BadImageError,
    decode_bytes,
    decode_image,
    probe_bytes,
    read_image_bytes,
)
from trainkit.data.images.decode_pool import count_cores
from trainkit.data.images.layout import stack_images
from trainkit.data.images.materialize import image_shape, materialize_images, quick_look

__all__ = [
    "EXTENSIONS",
    "BadImageError",
    "count_cores",
    "decode_bytes",
    "decode_image",
    "image_shape",
    "materialize_images",
    "probe_bytes",
    "quick_look",
    "read_image_bytes",
    "stack_images",
]
