"""Images: which files are some, decoding them, the memory layout of arrays, materializing static transforms."""
# mypy: implicit-reexport

from trainkit.data.images.colors import BadImageError, describe_traits
from trainkit.data.images.decode import decode_bytes, decode_image, read_image_bytes
from trainkit.data.images.formats import is_image_file, is_junk
from trainkit.data.images.layout import stack_images
from trainkit.data.images.materialize import image_shape, materialize_images
from trainkit.data.images.own_sizes import probe_sizes
from trainkit.data.images.quick_look import few_are_fine, look_at_files, spread
from trainkit.data.images.value_range import sample_rules
