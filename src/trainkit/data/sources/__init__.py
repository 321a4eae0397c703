"""Data sources: each returns a ``Dataset`` with its classes and splits."""

from trainkit.data.sources.builtin import load_bundled, make_synthetic
from trainkit.data.sources.folder_scan import identity, parents
from trainkit.data.sources.image_folder import load_image_folder, load_images_to_score
from trainkit.data.sources.own import load_own
from trainkit.data.sources.torchvision_sets import load_downloaded

__all__ = [
    "identity",
    "load_bundled",
    "load_downloaded",
    "load_image_folder",
    "load_images_to_score",
    "load_own",
    "make_synthetic",
    "parents",
]
