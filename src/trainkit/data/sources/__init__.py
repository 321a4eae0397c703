"""Data sources: each returns a ``Dataset`` with its classes and splits."""

from trainkit.data.sources.builtin import load_bundled, make_synthetic
from trainkit.data.sources.csv_reader import Row, RowReader, parse_rows, ragged_rows
from trainkit.data.sources.folder_scan import identity, parents
from trainkit.data.sources.image_folder import load_image_folder, load_images_to_score
from trainkit.data.sources.tables import (
    Encoding,
    columns_to_read,
    encode_features,
    encode_labeled,
    encoded_names,
    load_csv,
    read_labeled,
)
from trainkit.data.sources.torchvision_sets import load_downloaded

__all__ = [
    "Encoding",
    "Row",
    "RowReader",
    "columns_to_read",
    "encode_features",
    "encode_labeled",
    "encoded_names",
    "identity",
    "load_bundled",
    "load_csv",
    "load_downloaded",
    "load_image_folder",
    "load_images_to_score",
    "make_synthetic",
    "parents",
    "parse_rows",
    "ragged_rows",
    "read_labeled",
]
