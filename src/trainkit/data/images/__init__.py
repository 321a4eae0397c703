"""Images: which files are some, decoding them, the memory layout of arrays, materializing static transforms."""

from trainkit.data.images.colors import BadImageError, describe_traits
from trainkit.data.images.decode import decode_bytes, decode_image, read_image_bytes
from trainkit.data.images.formats import is_image_file, is_junk
from trainkit.data.images.layout import stack_images
from trainkit.data.images.materialize import image_shape, materialize_images
from trainkit.data.images.own_sizes import probe_sizes
from trainkit.data.images.quick_look import few_are_fine, look_at_files, spread
from trainkit.data.images.value_range import sample_rules

__all__ = [
    "BadImageError",
    "decode_bytes",
    "decode_image",
    "describe_traits",
    "few_are_fine",
    "image_shape",
    "is_image_file",
    "is_junk",
    "look_at_files",
    "materialize_images",
    "probe_sizes",
    "read_image_bytes",
    "sample_rules",
    "spread",
    "stack_images",
]
