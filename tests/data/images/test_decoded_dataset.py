"""What is said of pictures that are the same once decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flat_sources import load_image_folder
from PIL import Image

from trainkit.data.dataset import Dataset
from trainkit.data.images.materialize import materialize_images
from trainkit.data.pixel_rules import make_rules
from trainkit.data.transforms.static import CenterCrop
from trainkit.errors import DataError


def load(root: Path, *transforms: Any, cache_dir: Path | None = None, **changes: Any) -> Dataset:
    data = load_image_folder(root, **({"val_fraction": 0.0, "test_fraction": 0.0, "seed": 0} | changes))
    return materialize_images(data, transforms, cache_dir=cache_dir)


def save(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def drawn_in_alpha(root: Path) -> None:
    """Black pictures whose form is in their transparency alone."""
    for name, side in (("a", 2), ("b", 6)):
        for index in range(5):
            pixels = np.zeros((8, 8, 4), np.uint8)
            pixels[index % 2 : side, index % 3 : side, 3] = 255
            save(root / name / f"{index}.png", pixels)


def test_pictures_that_are_all_the_same_are_an_error(tmp_path: Path) -> None:
    drawn_in_alpha(tmp_path / "data")
    assert len(load(tmp_path / "data").splits["train"]) == 10
    for _ in range(2):  # from scratch, and from the cache
        with pytest.raises(DataError) as caught:
            load(tmp_path / "data", rules=make_rules("black"), cache_dir=tmp_path / "cache")
        assert "all 10 training images are the same after decoding (every pixel is 0)" in str(caught.value)
        assert "compare " in str(caught.value)
        assert "a/0.png with " in str(caught.value)


def test_pictures_that_the_transforms_make_the_same_are_an_error(tmp_path: Path) -> None:
    for index in range(6):
        pixels = np.full((8, 8, 3), 9, np.uint8)
        pixels[0] = 20 * index
        save(tmp_path / "ab"[index % 2] / f"{index}.png", pixels)
    load(tmp_path)
    with pytest.raises(DataError, match=r"the same after decoding and the static transforms \(every pixel is 9\)"):
        load(tmp_path, CenterCrop((2, 2)))


def different(root: Path, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in range(2 * count)]
    for index, pixels in enumerate(pictures):
        save(root / ("a" if index < count else "b") / f"{index:02}.png", pixels)
    return pictures


def test_pictures_in_two_classes_are_named_in_pairs(tmp_path: Path) -> None:
    pictures = different(tmp_path, 10)
    for index in range(7):
        save(tmp_path / "b" / f"copy{index}.bmp", pictures[index])  # other bytes, the same pixels
    [note] = load(tmp_path).notes
    assert note.startswith("7 pictures are in two classes, the same once decoded: ")
    assert f"{tmp_path}/a/00.png = {tmp_path}/b/copy0.bmp; " in note
    assert note.count(" = ") == 5
    assert note.endswith(" and 2 more")


def test_one_picture_twice_in_its_class_is_no_matter(tmp_path: Path) -> None:
    pictures = different(tmp_path, 4)
    save(tmp_path / "a" / "again.png", pictures[0])
    assert load(tmp_path).notes == ()
    save(tmp_path / "b" / "once.png", pictures[0])
    [note] = load(tmp_path).notes
    assert note.startswith("1 picture is in two classes")


def test_classes_are_compared_over_the_splits(tmp_path: Path) -> None:
    pictures = different(tmp_path / "train", 4)
    different(tmp_path / "test", 1)
    for path in (tmp_path / "test").glob("*/*"):
        path.unlink()
    save(tmp_path / "test" / "b" / "0.png", pictures[0])
    save(tmp_path / "test" / "a" / "0.png", 255 - pictures[0])
    notes = load(tmp_path).notes
    assert any("1 picture is in two classes" in note and "test/b/0.png" in note for note in notes)


def test_the_forms_that_were_met_are_one_note(tmp_path: Path) -> None:
    different(tmp_path, 4)
    save(tmp_path / "a" / "gray.png", np.arange(16, dtype=np.uint8).reshape(4, 4))
    save(tmp_path / "b" / "clear.png", np.full((4, 4, 4), 99, np.uint8))
    for _ in range(2):
        [note] = load(tmp_path, cache_dir=tmp_path.with_name("cache")).notes
        assert note == "among 10 images: 1 transparent (blended on white), 1 gray (three equal channels)"
