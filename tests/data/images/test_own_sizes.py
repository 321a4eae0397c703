"""The array of images of their own sizes: built, found again, and what is said of files that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flat_sources import load_image_folder
from no_room import leave_no_room_for_images
from PIL import Image

from trainkit.data import cache
from trainkit.data.dataset import Dataset
from trainkit.data.images import own_sizes
from trainkit.data.images.decode import decode_image
from trainkit.data.images.materialize import image_shape, materialize_images
from trainkit.data.ragged import Ragged, from_images
from trainkit.data.transforms.normalize import channel_statistics
from trainkit.data.transforms.static import CenterCrop, Resize, Shrink, StaticTransform
from trainkit.errors import DataError, Interrupted

STATIC = (Resize(9), CenterCrop((8, 7)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(40):
        folder = tmp_path / "photos" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (*rng.integers(8, 40, 2), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return tmp_path / "photos"


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def load(root: Path, **changes: Any) -> Dataset:
    return load_image_folder(root, **({"val_fraction": 0.2, "test_fraction": 0.2, "seed": 0} | changes))


def build(
    data: Dataset,
    cache_dir: Path | None,
    side: int | None = None,
    **how: Any,
) -> Dataset:
    training = () if side is None else (Shrink(side),)
    return materialize_images(data, STATIC, training_transforms=training, cache_dir=cache_dir, **how)


def ragged_of(data: Dataset, part: str = "all") -> Ragged:
    inputs = data.parts[part].inputs
    assert isinstance(inputs, Ragged)
    return inputs


@pytest.mark.parametrize("in_cache", [True, False])
def test_training_images_keep_their_sizes_and_others_are_those_of_evaluation(
    root: Path, cache_dir: Path, in_cache: bool
) -> None:
    source = load(root)
    data = build(source, cache_dir if in_cache else None)
    plain = materialize_images(source, STATIC, cache_dir=None).parts["all"].inputs
    images, paths = ragged_of(data), source.parts["all"].inputs
    assert isinstance(paths, tuple)
    assert isinstance(plain, np.ndarray)
    assert data.input_shape == images.shape[1:] == image_shape(data, ()) == (3, 8, 7)
    training = set(data.splits["train"].indices.tolist())
    for index, path in enumerate(paths):
        expected = decode_image(path, channels=3) if index in training else plain[index]
        assert np.array_equal(images[index], expected)
    val = data.splits["val"].indices
    assert np.array_equal(images.stacked(val).transpose(0, 3, 1, 2), plain[val])
    assert images.num_bytes(val) == len(val) * 3 * 8 * 7


def test_it_is_built_once_for_each_size_and_each_split(root: Path, cache_dir: Path) -> None:
    def decoded(**changes: Any) -> int:
        calls: list[tuple[int, int]] = []
        side = changes.pop("side", None)
        build(load(root, **changes), cache_dir, side, progress=lambda *call: calls.append(call))
        return calls[-1][0] if calls else 0

    assert decoded() == 40
    assert decoded() == 0
    assert decoded(side=16) == 40
    assert decoded(seed=1) == 40, "other samples are those of training"
    assert decoded(seed=1, side=None) == 0
    labels = {entry.label for entry in cache.list_entries(cache_dir)}
    assert labels == {"photos all own sizes"}


def test_a_part_without_training_samples_is_an_ordinary_array(root: Path, cache_dir: Path) -> None:
    (root / "train").mkdir()
    for label in "ab":
        (root / label).rename(root / "train" / label)
        (root / "val" / label).mkdir(parents=True)
        Image.new("RGB", (30, 20), label == "a").save(root / "val" / label / "1.png")
    data = build(load(root, val_fraction=0.0, test_fraction=0.0), cache_dir)
    assert ragged_of(data, "train").training.all()
    assert isinstance(data.parts["val"].inputs, np.ndarray)
    assert data.parts["val"].inputs.shape == (2, 3, 8, 7)


def test_the_fingerprint_is_that_of_the_ordinary_way(root: Path) -> None:
    assert build(load(root), None).fingerprint == materialize_images(load(root), STATIC, cache_dir=None).fingerprint


@pytest.mark.parametrize("harm", ["empty", "cut"])
def test_files_that_cannot_be_used_leave_the_splits(root: Path, cache_dir: Path, harm: str) -> None:
    path = sorted((root / "a").iterdir())[3]
    path.write_bytes(b"" if harm == "empty" else path.read_bytes()[:-40])
    with pytest.raises(DataError, match="1 of 40 images cannot be read"):
        build(load(root), cache_dir)
    data = build(load(root, max_bad_files=1), cache_dir)
    assert sum(map(len, data.splits.values())) == 39
    assert "skipped 1 unreadable images of part 'all'" in " ".join(data.notes)
    paths = ragged_of(data).paths
    assert all(paths[index] != path for split in data.splits.values() for index in split.indices)


def test_a_header_that_lies_about_the_size_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = own_sizes.probe_file

    def probe(path: Path) -> Any:
        header = real(path)
        return header._replace(size=(header.size[0] + 1, header.size[1])) if path.stem == "05" else header

    monkeypatch.setattr(own_sizes, "probe_file", probe)
    with pytest.raises(DataError, match=r"05\.png: its header says another size"):
        build(load(root, val_fraction=0.0, test_fraction=0.0), None)


def test_twins_and_pictures_in_two_classes_are_noted(root: Path) -> None:
    first, second = sorted((root / "a").iterdir())[:2]
    (root / "b" / "twin.png").write_bytes(first.read_bytes())
    notes = " ".join(build(load(root, val_fraction=0.0, test_fraction=0.0), None).notes)
    assert "1 picture is in two classes" in notes
    assert "twin.png" in notes
    assert second.name not in notes


def test_images_that_are_all_the_same_are_refused(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for index in range(3):
            Image.new("RGB", (20, 30), (5, 5, 5)).save(tmp_path / label / f"{index}.png")
    with pytest.raises(DataError, match=r"every pixel is 5"):
        build(load(tmp_path, val_fraction=0.0, test_fraction=0.0), None)


def test_a_stop_leaves_nothing(root: Path, cache_dir: Path) -> None:
    asked = iter([False, False, True, True, True])
    with pytest.raises(Interrupted):
        build(load(root), cache_dir, should_stop=lambda: next(asked, True))
    assert cache.list_entries(cache_dir) == []


def test_gray_values_of_more_than_8_bits_keep_their_depth(tmp_path: Path, cache_dir: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(20):
        folder = tmp_path / "deep" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(1000, 40000, rng.integers(8, 30, 2), dtype=np.uint16)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    data = build(load(tmp_path / "deep"), cache_dir, 16)
    images = ragged_of(data)
    assert images.dtype == np.float32
    assert images.shape[1:] == (1, 8, 7)
    assert 0 <= images.pixels.min() < images.pixels.max() <= 1


@pytest.mark.parametrize("side", [None, 16])
def test_images_that_were_resized_before_keep_their_proportions(root: Path, side: int | None) -> None:
    before: tuple[StaticTransform, ...] = (Resize(12),)
    training = before if side is None else (*before, Shrink(side))
    data = materialize_images(load(root), (*before, *STATIC), training_transforms=training, cache_dir=None)
    images = ragged_of(data)
    sizes = images.sizes[images.training]
    assert (sizes.min(1) == 12).all() if side is None else (sizes.prod(1) <= 16.5**2).all()


def test_a_full_disk_names_what_takes_less_room(root: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_no_room_for_images(monkeypatch)
    data = build(load(root), cache_dir)
    assert data.parts["all"].is_files
    [note] = [note for note in data.notes if "decoded in every epoch" in note]
    assert "own sizes takes" in note
    assert "see trainkit data clear, or lower dataset.cache_size" in note


def test_statistics_are_those_of_all_pixels() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (3, *rng.integers(1, 60, 2)), dtype=np.uint8) for _ in range(50)]
    for dtype, scale in ((np.uint8, 255), (np.float32, 1)):
        given = [image.astype(dtype) if dtype == np.uint8 else (image / 255).astype(dtype) for image in images]
        ragged = from_images(given, tuple(Path(str(index)) for index in range(50)), (8, 8))
        chosen = np.array([0, 3, 4, 5, 20, 49])
        mean, std = channel_statistics(ragged, chosen)
        pixels = np.concatenate([given[index].reshape(3, -1) for index in chosen], 1).astype(np.float64) / scale
        assert np.allclose(mean, pixels.mean(1), atol=1e-12)
        assert np.allclose(std, pixels.std(1), atol=1e-12)


def test_shrinking_keeps_smaller_images_and_proportions() -> None:
    shrink = Shrink(100)
    assert shrink.output_shape((3, 100, 100)) == (3, 100, 100)
    assert shrink.output_shape((3, 50, 200)) == (3, 50, 200)
    assert shrink.output_shape((3, 400, 400)) == (3, 100, 100)
    assert shrink.output_shape((3, 400, 100)) == (3, 200, 50)
    assert shrink.output_shape((3, 1_000_000, 1)) == (3, 100_000, 1)
