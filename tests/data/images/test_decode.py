"""Decoding: every color mode by its rule, and a reason for every file that is no image."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainkit.data.images.decode import BadImageError, decode_image, probe_bytes

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def save(folder: Path, image: Image.Image, name: str = "image.png", **options: Any) -> Path:
    image.save(folder / name, **options)
    return folder / name


def luma(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).convert("L"))


def test_rgb_and_gray(tmp_path: Path) -> None:
    path = save(tmp_path, Image.fromarray(RGB))
    assert np.array_equal(decode_image(path, channels=3), RGB.transpose(2, 0, 1))
    assert np.array_equal(decode_image(path, channels=1), luma(RGB)[None])
    assert decode_image(path, channels=1).flags.writeable  # torch warns of memory that is not
    gray = save(tmp_path, Image.fromarray(RGB[..., 0]), "gray.png")
    assert np.array_equal(decode_image(gray, channels=1), RGB[None, ..., 0])
    assert np.array_equal(decode_image(gray, channels=3), np.repeat(RGB[None, ..., 0], 3, axis=0))


def test_transparency_is_dropped(tmp_path: Path) -> None:
    alpha = np.zeros((5, 7, 1), dtype=np.uint8)
    path = save(tmp_path, Image.fromarray(np.concatenate([RGB, alpha], axis=2)))
    assert np.array_equal(decode_image(path, channels=3), RGB.transpose(2, 0, 1))
    bands = [Image.fromarray(RGB[..., 0]), Image.fromarray(alpha[..., 0])]
    gray = save(tmp_path, Image.merge("LA", bands), "la.png")
    assert np.array_equal(decode_image(gray, channels=3)[1], RGB[..., 0])
    assert probe_bytes(gray.read_bytes()) == (1, (5, 7))


def test_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8))
    image = image.convert("P")
    image.putpalette([255, 0, 0, 0, 0, 255] + [0] * 762)
    path = save(tmp_path, image)
    assert decode_image(path, channels=3)[:, 0, 0].tolist() == [255, 0, 0]
    assert decode_image(path, channels=3)[:, 0, 1].tolist() == [0, 0, 255]
    assert probe_bytes(path.read_bytes())[0] == 3


def test_cmyk(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).convert("CMYK")
    path = save(tmp_path, image, "image.tiff")
    assert np.array_equal(decode_image(path, channels=3), np.asarray(image.convert("RGB")).transpose(2, 0, 1))


def test_16_bit_keeps_the_high_byte(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256], [32768, 65279, 65535]], dtype=np.uint16)
    path = save(tmp_path, Image.fromarray(values))
    expected = [[0, 0, 1], [128, 254, 255]]
    assert decode_image(path, channels=1).tolist() == [expected]
    assert decode_image(path, channels=3).tolist() == [expected] * 3
    assert probe_bytes(path.read_bytes())[0] == 1


def test_one_bit(tmp_path: Path) -> None:
    path = save(tmp_path, Image.fromarray(RGB[..., 0] > 128))
    assert np.array_equal(decode_image(path, channels=1)[0], (RGB[..., 0] > 128) * 255)


def test_float_images_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, Image.fromarray(RGB[..., 0].astype(np.float32)), "image.tiff")
    with pytest.raises(BadImageError, match="pixel type F"):
        decode_image(path, channels=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    image = Image.fromarray(RGB)
    image.getexif()[0x0112] = orientation
    path = save(tmp_path, image, exif=image.getexif())
    upright = np.asarray(ImageOps.exif_transpose(image))
    decoded = decode_image(path, channels=3)
    assert np.array_equal(decoded, upright.transpose(2, 0, 1))
    assert decoded.transpose(1, 2, 0).flags.c_contiguous  # as the cache stores it
    assert probe_bytes(path.read_bytes()) == (3, decoded.shape[1:])
    assert decoded.shape[1:] == ((7, 5) if orientation >= 5 else (5, 7))


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    path = save(tmp_path, frames[0], "image.gif", save_all=True, append_images=frames[1:])
    assert decode_image(path, channels=3)[:, 0, 0].tolist() == [255, 0, 0]


def huge_png(width: int, height: int) -> bytes:
    """A header that promises many pixels, and no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b""), "empty file"),
        (lambda path: path.write_text("this is not a picture"), "not an image .*this is not"),
        (lambda path: path.write_bytes(huge_png(30_000, 30_000)), r"too large \(."),
        (lambda path: path.write_bytes(huge_png(13_000, 14_000)), r"too large \(."),
        (lambda path: path.symlink_to("nowhere.jpg"), "dangling link"),
        (lambda path: path.symlink_to(path), "cannot be read"),
        (lambda path: os.mkfifo(path), "not a file but a FIFO"),
        (lambda path: path.mkdir(), "not a file but a folder"),
        (lambda path: None, "no such file"),
    ],
)
def test_files_that_are_no_images_have_a_reason(tmp_path: Path, make: Any, reason: str) -> None:
    path = tmp_path / "image.jpg"
    make(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(BadImageError, match=reason):
            decode_image(path, channels=3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".gif", ".tiff"])
def test_images_cut_short_are_refused(tmp_path: Path, suffix: str) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = save(tmp_path, Image.fromarray(rgb), f"image{suffix}").read_bytes()
    cut = tmp_path / f"cut{suffix}"
    for length in (1, 10, len(data) // 4, len(data) // 2):
        cut.write_bytes(data[:length])
        with pytest.raises(BadImageError):
            decode_image(cut, channels=3)


def test_random_bytes_behind_a_good_header_raise_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    data = save(tmp_path, Image.fromarray(RGB).resize((50, 50)), "image.png").read_bytes()
    jpeg = save(tmp_path, Image.fromarray(RGB).resize((50, 50)), "image.jpg").read_bytes()
    broken = tmp_path / "broken.png"
    for original in (data, jpeg):
        for _ in range(60):
            mangled = bytearray(original)
            for position in rng.integers(2, len(mangled), 8):
                mangled[position] = rng.integers(0, 256)
            broken.write_bytes(mangled)
            try:
                decoded = decode_image(broken, channels=3)
            except BadImageError:
                continue
            assert decoded.shape[0] == 3
