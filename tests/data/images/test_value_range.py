"""The range of gray values of more than 8 bits: found over the training split, kept, and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flat_sources import load_image_folder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainkit.data import cache
from trainkit.data.dataset import Dataset
from trainkit.data.images import materialize as materializing
from trainkit.data.images.materialize import materialize_images
from trainkit.data.pixel_rules import make_rules, scale_values
from trainkit.data.transforms.static import Resize
from trainkit.errors import DataError


def fill(root: Path, *, low: int, high: int, dtype: Any = np.uint16, suffix: str = ".png", count: int = 6) -> Path:
    """Two classes of pictures whose values lie in [low, high], with both ends among them."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            values = rng.uniform(low, high, (4, 6)).astype(dtype)
            values[0, :2] = low, high
            Image.fromarray(values).save(root / name / f"{index}{suffix}", format="PNG" if suffix == ".jpg" else None)
    return root


def load(root: Path, cache_dir: Path | None = None, **changes: Any) -> Dataset:
    data = load_image_folder(root, **({"val_fraction": 0.0, "test_fraction": 0.0, "seed": 0} | changes))
    return materialize_images(data, cache_dir=cache_dir)


def pixels(data: Dataset) -> np.ndarray:
    inputs = data.parts[data.splits["train"].part].inputs
    assert isinstance(inputs, np.ndarray)
    return inputs


@pytest.mark.parametrize(
    ("dtype", "suffix", "low", "high"),
    [
        (np.uint16, ".png", 1030, 1270),
        (np.uint16, ".tif", 0, 65535),
        (np.uint16, "", 100, 4095),  # no ending at all
        (np.uint16, ".jpg", 1030, 1270),  # a wrong ending
        (np.int32, ".tif", -1000, 3000),
        (np.float32, ".tif", -3, 250),
    ],
)
def test_the_range_in_use_becomes_0_to_1(tmp_path: Path, dtype: Any, suffix: str, low: int, high: int) -> None:
    if not suffix:
        fill(tmp_path, low=low, high=high, dtype=dtype)
        for path in tmp_path.glob("*/*.png"):
            path.rename(path.with_suffix(""))
    else:
        fill(tmp_path, low=low, high=high, dtype=dtype, suffix=suffix)
    data = load(tmp_path)
    assert data.rules.value_range == (low, high)
    assert pixels(data).dtype == np.float32
    assert (pixels(data).min(), pixels(data).max()) == (0, 1)
    assert len(np.unique(pixels(data))) > 30
    assert f"gray values {low} to {high}, of" in data.notes[0]
    assert "6 training images" in data.notes[0] or "12 training images" in data.notes[0]


def test_floats_in_0_to_1_stay_as_they_are(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(4):
            values = np.random.default_rng(index).uniform(0.2, 0.6, (4, 6)).astype(np.float32)
            Image.fromarray(values + (name == "b") * np.float32(0.1)).save(tmp_path / name / f"{index}.tif")
    data = load(tmp_path)
    assert data.rules.value_range == (0, 1)
    with Image.open(tmp_path / "a" / "0.tif") as image:
        assert np.array_equal(pixels(data)[0, 0], np.asarray(image))


def test_a_file_with_nan_is_named(tmp_path: Path) -> None:
    fill(tmp_path, low=0, high=1, dtype=np.float32, suffix=".tif")
    Image.fromarray(np.full((4, 6), np.nan, np.float32)).save(tmp_path / "b" / "3.tif")
    with pytest.raises(DataError, match=r"b/3\.tif: 24 of 24 values are NaN or infinite"):
        load(tmp_path)
    skipped = load(tmp_path, max_bad_files=1)
    assert len(skipped.splits["train"]) == 11


def test_the_test_split_does_not_set_the_range(tmp_path: Path) -> None:
    fill(tmp_path / "train", low=1000, high=2000)
    fill(tmp_path / "test", low=0, high=9000)
    data = load(tmp_path)
    assert data.rules.value_range == (1000, 2000)
    assert any("12 with values outside 1000 to 2000 (cut off)" in note for note in data.notes)


def test_samples_held_out_do_not_set_the_range(tmp_path: Path) -> None:
    fill(tmp_path, low=1000, high=2000, count=10)
    held_out = load_image_folder(tmp_path, val_fraction=0.0, test_fraction=0.2, seed=0)
    paths = held_out.parts["all"].inputs
    assert isinstance(paths, tuple)
    for index in held_out.splits["test"].indices:
        Image.fromarray(np.full((4, 6), 9000, np.uint16)).save(paths[index])
    assert load(tmp_path, test_fraction=0.2).rules.value_range == (1000, 2000)


def test_a_written_range_holds(tmp_path: Path) -> None:
    fill(tmp_path, low=1030, high=1270)
    data = load(tmp_path, rules=make_rules("white", [0, 4095]))
    assert data.rules.value_range == (0, 4095)
    assert np.isclose(pixels(data).max(), 1270 / 4095)
    assert data.notes == ()


def test_8_bits_among_16_keep_their_own_scale_and_it_is_said(tmp_path: Path) -> None:
    fill(tmp_path, low=1030, high=1270)
    for index in range(3):
        Image.fromarray(np.full((4, 6, 3), 50 * index, np.uint8)).save(tmp_path / "a" / f"color{index}.jpg")
    data = load(tmp_path)
    assert data.channels == 3
    assert data.rules.allow_8_bit
    assert np.allclose(np.unique(pixels(data)[-6 - 3 : -6]), [0, 50 / 255, 100 / 255], atol=0.01)
    assert any("3 of 8 bits (0 to 255 become 0 to 1" in note for note in data.notes)


def test_8_bits_in_the_test_split_alone_are_an_error(tmp_path: Path) -> None:
    fill(tmp_path / "train", low=1030, high=1270)
    fill(tmp_path / "test", low=0, high=255, dtype=np.uint8)
    with pytest.raises(DataError, match="8 bits, and the images of the training have more"):
        load(tmp_path)


def test_integers_and_floats_have_no_common_range(tmp_path: Path) -> None:
    fill(tmp_path, low=1030, high=1270)
    Image.fromarray(np.full((4, 6), 0.5, np.float32)).save(tmp_path / "a" / "float.tif")
    with pytest.raises(DataError, match=r"holds integers and .*float\.tif floats: no range fits both"):
        load(tmp_path)


def test_one_value_alone_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path, low=1030, high=1030)
    with pytest.raises(DataError, match="every value of 12 training images is 1030"):
        load(tmp_path)


def test_the_second_time_nothing_is_read_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainkit.data.images import value_range

    root, cache_dir = fill(tmp_path / "data", low=1030, high=1270), tmp_path / "cache"
    first = load(root, cache_dir)
    monkeypatch.setattr(value_range, "read_deep_values", None)
    second = load(root, cache_dir)
    assert (second.rules, second.notes) == (first.rules, first.notes)
    assert np.array_equal(pixels(first), pixels(second))
    assert len(cache.list_entries(cache_dir)) == 2


def test_another_range_is_another_entry(tmp_path: Path) -> None:
    root, cache_dir = fill(tmp_path / "data", low=1030, high=1270), tmp_path / "cache"
    first = load(root, cache_dir)
    wide = load(root, cache_dir, rules=make_rules("white", [0, 4095]))
    assert not np.array_equal(pixels(first), pixels(wide))


def test_resized_values_stay_floats(tmp_path: Path) -> None:
    root = fill(tmp_path, low=1030, high=1270)
    data = load_image_folder(root, val_fraction=0.0, test_fraction=0.0, seed=0)
    data = materialize_images(data, (Resize((8, 8)),), cache_dir=None)
    assert pixels(data).shape == (12, 1, 8, 8)
    assert len(np.unique(pixels(data))) > 255


def test_what_is_decoded_in_every_epoch_has_the_range_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path, low=1030, high=1270)
    monkeypatch.setattr(materializing, "free_host_bytes", lambda: 10)
    data = load(root)
    assert data.parts["all"].is_files
    assert data.rules.value_range == (1030, 1270)


@given(st.integers(-(2**31), 2**31 - 2), st.integers(1, 2**31 - 1), st.integers(1, 50))
def test_scaling_is_in_0_to_1_and_in_order(low: int, span: int, count: int) -> None:
    values = np.linspace(low, min(low + span, 2**31 - 1), count).astype(np.int64)
    scaled = scale_values(values, (float(low), float(low + span)))
    assert scaled.dtype == np.float32
    assert (scaled >= 0).all()
    assert (scaled <= 1).all()
    assert (np.diff(scaled) >= 0).all()
