"""Which files are images: by the ending that Pillow knows, else by the first bytes."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainkit.data.images.colors import BadImageError
from trainkit.data.images.decode import decode_image
from trainkit.data.images.formats import is_image_file, is_junk, missing_plugins

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
FORMATS = {
    ".jpg": "JPEG",
    ".JPG": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".jpe": "JPEG",
    ".png": "PNG",
    ".apng": "PNG",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".dib": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".ppm": "PPM",
    ".pnm": "PPM",
    ".jp2": "JPEG2000",
    ".tga": "TGA",
    ".ico": "ICO",
    ".mpo": "MPO",
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_pillow_opens_is_an_image(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    RGB.save(path, format=FORMATS[suffix])
    assert is_image_file(str(path))
    assert decode_image(path, channels=3).shape[0] == 3


@pytest.mark.parametrize("name", ["noending", "a.dat", "a.123", "photo.jpg_large", "a.jpg!d", "a.image"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM"])
def test_other_endings_go_by_the_first_bytes(tmp_path: Path, name: str, format: str) -> None:
    RGB.save(tmp_path / name, format=format)
    assert is_image_file(str(tmp_path / name))


@pytest.mark.parametrize(("name", "format"), [("a.png", "JPEG"), ("a.jpg", "PNG"), ("a.gif", "WEBP"), ("a.tga", "PNG")])
def test_the_content_counts_and_not_the_ending(tmp_path: Path, name: str, format: str) -> None:
    RGB.save(tmp_path / name, format=format)
    decoded = decode_image(tmp_path / name, channels=3)
    RGB.save(tmp_path / "right", format=format)
    assert np.array_equal(decoded, decode_image(tmp_path / "right", channels=3))


@pytest.mark.parametrize(
    "text", ["", "P5 is a program", "Python notes", "BM", "BMW and others", "#define WIDTH 3", "RIFF....AVI ", "GIF"]
)
def test_texts_are_no_images(tmp_path: Path, text: str) -> None:
    for name in ("notes", "readme.log", "a.txt"):
        (tmp_path / name).write_text(text)
        assert not is_image_file(str(tmp_path / name))


def test_other_files_are_no_images(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as archive:
        archive.writestr("a", "b")
    RGB.save(tmp_path / "raw.tif")
    (tmp_path / "raw.tif").rename(tmp_path / "raw.NEF")  # of camera raw Pillow would read a small preview
    for name in ("labels.csv", "a.eps", "a.pdf", "a.h5", "a.mpg"):
        (tmp_path / name).write_text("%!PS")
    os.mkfifo(tmp_path / "fifo")
    assert [name for name in os.listdir(tmp_path) if is_image_file(str(tmp_path / name))] == []


def test_eps_is_refused_under_any_name_for_it_is_a_program(tmp_path: Path) -> None:
    RGB.save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(BadImageError, match="not an image"):
        decode_image(tmp_path / "a.jpg", channels=3)


@pytest.mark.parametrize("name", ["._photo.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir"])
def test_files_of_operating_systems_are_junk(name: str) -> None:
    assert is_junk(name)
    assert not is_junk("photo.jpg")


def test_missing_plugins_are_counted_by_ending() -> None:
    names = ["a/1.heic", "a/2.HEIC", "b/3.heif", "c.jpg", "d.jxl"]
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        assert missing_plugins(names) == [
            "2 .heic files: install pillow-heif",
            "1 .heif file: install pillow-heif",
            "1 .jxl file: install pillow-jxl-plugin",
        ]
    else:
        assert missing_plugins(names) == ["1 .jxl file: install pillow-jxl-plugin"]


def test_a_heic_file_under_another_name_says_what_reads_it(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
    with pytest.raises(BadImageError, match=r"install pillow-heif|damaged|not an image that can be read"):
        decode_image(tmp_path / "a.jpg", channels=3)
