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

from trainkit.data.images.colors import BadImageError
from trainkit.data.images.decode import decode_bytes, decode_image, probe_file

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


def test_one_bit(tmp_path: Path) -> None:
    path = save(tmp_path, Image.fromarray(RGB[..., 0] > 128))
    assert np.array_equal(decode_image(path, channels=1)[0], (RGB[..., 0] > 128) * 255)


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
    assert probe_file(path)[:3] == (3, decoded.shape[1:], False)
    assert decoded.shape[1:] == ((7, 5) if orientation >= 5 else (5, 7))


@pytest.mark.parametrize("orientation", [3, 6])
def test_the_orientation_of_a_tiff_is_applied_once(tmp_path: Path, orientation: int) -> None:
    path = save(tmp_path, Image.fromarray(RGB), "a.tif", tiffinfo={0x0112: orientation})
    turned = np.rot90(RGB, 2 if orientation == 3 else -1)
    assert np.array_equal(decode_image(path, channels=3), turned.transpose(2, 0, 1))
    assert probe_file(path).size == turned.shape[:2]


def with_exif(path: Path, block: bytes) -> Path:
    """A JPEG with this EXIF block put before all else."""
    data = path.read_bytes()
    block = b"Exif\0\0" + block
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(block)) + block + data[2:])
    return path


def exif(*entries: tuple[int, int, int, bytes], next_block: int = 0) -> bytes:
    """A TIFF header with one directory of (tag, type, count, four bytes)."""
    rows = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + rows + struct.pack("<I", next_block)


TURNED = (0x0112, 3, 1, b"\6\0\0\0")
BROKEN_EXIF = {
    "no header": b"no tiff header here",
    "empty": b"",
    "cut": exif(TURNED)[:12],
    "offset outside": b"II*\0\xff\xff\0\0",
    "orientation 0": exif((0x0112, 3, 1, b"\0\0\0\0")),
    "orientation 9": exif((0x0112, 3, 1, b"\x09\0\0\0")),
    "orientation a text": exif((0x0112, 2, 4, b"six\0")),
    "orientation a fraction over 0": exif((0x0112, 5, 1, b"\xf0\xff\0\0")),
}


@pytest.mark.parametrize("name", BROKEN_EXIF)
def test_a_broken_exif_block_is_as_none(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, Image.fromarray(RGB), "a.jpg")
    expected = decode_image(path, channels=3)
    with_exif(path, BROKEN_EXIF[name])
    assert np.array_equal(decode_image(path, channels=3), expected)
    assert probe_file(path).size == (5, 7)


@pytest.mark.parametrize(
    "other",
    [
        (0x011A, 5, 1, b"\xf0\xff\0\0"),  # a fraction outside the block
        (0x8769, 4, 1, b"\xff\xff\xff\x7f"),  # a further directory nowhere
        (0x013B, 2, 900, b"\0\0\0\0"),  # a text longer than the block
        (0x0131, 99, 1, b"\0\0\0\0"),  # a type that there is not
    ],
)
def test_the_orientation_beside_broken_tags_is_applied(tmp_path: Path, other: tuple[int, int, int, bytes]) -> None:
    path = save(tmp_path, Image.fromarray(RGB), "a.jpg")
    upright = decode_image(path, channels=3)
    with_exif(path, exif(TURNED, other))
    assert np.array_equal(decode_image(path, channels=3), np.rot90(upright, -1, axes=(1, 2)))
    assert probe_file(path).size == (7, 5)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tiff", ".avif"])
def test_first_frame_of_an_animation(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    options = {"quality": 100} if suffix == ".avif" else {"lossless": True} if suffix == ".webp" else {}
    path = save(tmp_path, frames[0], f"image{suffix}", save_all=True, append_images=frames[1:], **options)
    traits: set[str] = set()
    red, *others = decode_bytes(path.read_bytes(), channels=3, traits=traits)[:, 0, 0].tolist()
    assert red > 250
    assert max(others) < 5
    assert "frames" in traits


def test_the_second_picture_of_a_phone_is_no_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    path = save(tmp_path, frames[0], "a.mpo", save_all=True, append_images=frames[1:])
    path = path.rename(tmp_path / "IMG_1.JPG")
    traits: set[str] = set()
    assert decode_bytes(path.read_bytes(), channels=3, traits=traits)[0, 0, 0] > 250
    assert traits == set()


def test_a_color_profile_is_left_alone(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for icc in (profile, b"no profile at all"):
        path = save(tmp_path, Image.fromarray(RGB), icc_profile=icc)
        assert np.array_equal(decode_image(path, channels=3), RGB.transpose(2, 0, 1))


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
        (lambda path: path.write_bytes(huge_png(0, 5)), r"not an image|an image of 5 x 0 pixels|a PNG file that"),
        (lambda path: path.write_bytes(b"GIF89a\0\0\5\0\0\0\0;"), r"a GIF file that Pillow does not read"),
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


def test_a_broken_png_says_why(tmp_path: Path) -> None:
    data = bytearray(save(tmp_path, Image.fromarray(RGB), icc_profile=b"profile").read_bytes())
    data[data.find(b"iCCP") + 6] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(BadImageError, match=r"a PNG file that Pillow does not read .*checksum"):
        decode_image(tmp_path / "a.png", channels=3)
    with pytest.raises(BadImageError, match=r"a PNG file that Pillow does not read .*checksum"):
        probe_file(tmp_path / "a.png")


def test_large_metadata_are_no_damage(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("workflow", "x" * 3_000_000, zip=True)
    path = save(tmp_path, Image.fromarray(RGB), pnginfo=info)
    assert np.array_equal(decode_image(path, channels=3), RGB.transpose(2, 0, 1))


@pytest.mark.parametrize("where", ["before the scan", "at the end"])
def test_a_jpeg_with_bytes_too_many_is_read(tmp_path: Path, where: str) -> None:
    path = save(tmp_path, Image.fromarray(RGB), "a.jpg")
    data, expected = path.read_bytes(), decode_image(path, channels=3)
    scan = data.find(b"\xff\xda") if where == "before the scan" else len(data)
    path.write_bytes(data[:scan] + b"\1\2" * 600 + data[scan:])
    assert np.array_equal(decode_image(path, channels=3), expected)


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
