"""Data sources: each returns a ``Dataset`` with its classes and splits."""
# mypy: implicit-reexport

from trainkit.data.sources.builtin import load_bundled, make_synthetic
from trainkit.data.sources.folder_scan import identity, parents
from trainkit.data.sources.image_folder import load_image_folder, load_images_to_score
from trainkit.data.sources.own import load_own
from trainkit.data.sources.torchvision_sets import load_downloaded
