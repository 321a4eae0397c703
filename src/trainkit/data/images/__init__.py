"""Images: decoding, the cache of decoded arrays, materializing.

Names are imported when they are first asked for, because ``trainkit data list`` and ``clear`` need the cache and no
torch. ``trainkit.data.transforms`` imports ``layout`` itself and not this door, which would be a circle.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainkit.data.images.cache import cache_root, cached_arrays, stamp_files
    from trainkit.data.images.decode import (
        EXTENSIONS,
        BadImageError,
        decode_bytes,
        decode_image,
        printable,
        probe_bytes,
        read_image_bytes,
    )
    from trainkit.data.images.decode_pool import count_cores
    from trainkit.data.images.layout import stack_images
    from trainkit.data.images.materialize import image_shape, materialize_images, quick_look

__all__ = [
    "EXTENSIONS",
    "BadImageError",
    "cache_root",
    "cached_arrays",
    "count_cores",
    "decode_bytes",
    "decode_image",
    "image_shape",
    "materialize_images",
    "printable",
    "probe_bytes",
    "quick_look",
    "read_image_bytes",
    "stack_images",
    "stamp_files",
]

_HOMES = {
    "cache": ("cache_root", "cached_arrays", "stamp_files"),
    "decode": (
        "EXTENSIONS",
        "BadImageError",
        "decode_bytes",
        "decode_image",
        "printable",
        "probe_bytes",
        "read_image_bytes",
    ),
    "decode_pool": ("count_cores",),
    "layout": ("stack_images",),
    "materialize": ("image_shape", "materialize_images", "quick_look"),
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for (PEP 562)."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f"{__name__}.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
