"""Images: which files are some, decoding them, the memory layout of arrays, materializing static transforms."""

from trainkit.data.images.colors import BadImageError, describe_traits
from trainkit.data.images.decode import decode_bytes, decode_image, probe_file, read_image_bytes
from trainkit.data.images.decode_pool import count_cores
from trainkit.data.images.formats import is_image_file, is_junk, missing_plugins
from trainkit.data.images.layout import stack_images
from trainkit.data.images.materialize import image_shape, materialize_images, quick_look
from trainkit.data.images.value_range import sample_rules

__all__ = [
    "BadImageError",
    "count_cores",
    "decode_bytes",
    "decode_image",
    "describe_traits",
    "image_shape",
    "is_image_file",
    "is_junk",
    "materialize_images",
    "missing_plugins",
    "probe_file",
    "quick_look",
    "read_image_bytes",
    "sample_rules",
    "stack_images",
]
