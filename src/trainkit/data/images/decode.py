"""Decode an image file to a uint8 array, by one rule for each color mode.

- Gray images are those that Pillow opens in mode L, LA, 1 or I;16; every other mode counts as color.
- Color to gray is ITU-R 601-2 luma, gray to color three equal channels (both Pillow's ``convert``).
- Transparency is dropped, not blended: the stored colors are used, as in torchvision's ``ImageFolder``.
- Palettes are looked up; CMYK and YCbCr are converted by Pillow without a color profile.
- 16-bit values keep their high byte (``value // 256``). Float and 32-bit images are refused.
- The EXIF orientation is applied, so an image is upright, as viewers show it.
- More than 179 million pixels (half a gigabyte as RGB, Pillow's limit against bombs) are refused by the header.
- Of an animation or a file with several pages the first is used.
"""

from __future__ import annotations

import io
import os
import stat
import unicodedata
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
_ORIENTATION = 0x0112
_GRAY_MODES = ("L", "LA", "La", "1")


class BadImageError(Exception):
    """A file that cannot be used as an image; the message says why, without the path."""


def printable(path: str | Path) -> str:
    """A path as text on one line: control characters, line separators and bytes that are no text are escaped."""
    text = os.fspath(path).encode("utf-8", "backslashreplace").decode()
    return "".join(repr(sign)[1:-1] if unicodedata.category(sign) in ("Cc", "Zl", "Zp") else sign for sign in text)


def read_image_bytes(path: str | Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        BadImageError: Missing, empty, unreadable, or not a regular file (a FIFO would block for ever).
    """
    try:
        # Not Path's own methods: they take three times as long, which shows with small files.
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise BadImageError(f"not a file but a {_kind_of_file(status.st_mode)}")
        if status.st_size == 0:
            raise BadImageError("empty file (0 bytes)")
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except FileNotFoundError:
        raise BadImageError("dangling link" if Path(path).is_symlink() else "no such file") from None
    except OSError as error:
        raise BadImageError(f"cannot be read ({error.strerror})") from None


def _kind_of_file(mode: int) -> str:
    kinds = {stat.S_IFIFO: "FIFO", stat.S_IFDIR: "folder", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")


def decode_image(path: str | Path, *, channels: int) -> NDArray[np.uint8]:
    """Decode a file to uint8 (C, H, W) with ``channels`` 1 or 3, by the rules at the top of this module.

    A color image is a view of (H, W, C) memory, as the decoder writes it.

    Raises:
        BadImageError: The file is not an image, is cut short, is too large, or has a refused mode.
    """
    return decode_bytes(read_image_bytes(path), channels=channels)


def decode_bytes(data: bytes, *, channels: int) -> NDArray[np.uint8]:
    """As ``decode_image``, from the bytes of a file."""
    image = _open(data)
    from PIL import ImageOps

    try:
        image.load()
        turned = image.getexif().get(_ORIENTATION, 1) != 1
        upright = ImageOps.exif_transpose(image) if turned else image  # it would copy an upright image
        pixels = _to_array(upright, channels)
    except (BadImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise anything: SyntaxError, struct.error, ...
        raise BadImageError(f"damaged {image.format} ({_reason(error)})") from error
    return pixels


def _to_array(image: Image, channels: int) -> NDArray[np.uint8]:
    if image.mode.startswith(("I;16", "I", "F")):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise BadImageError(f"pixel type {image.mode} (32 bit) is not supported; save it with 8 or 16 bits")
        gray = (values // 256).astype(np.uint8)[None]
        return gray if channels == 1 else np.repeat(gray.transpose(1, 2, 0), channels, axis=2).transpose(2, 0, 1)
    if image.mode == "LA" or image.mode == "La":
        image = image.getchannel(0)  # as convert("RGB") does, which takes longer
    mode = "L" if channels == 1 else "RGB"
    converted = image if image.mode == mode else image.convert(mode)
    # A copy in any case: Pillow's own memory is read-only, and torch warns of that.
    pixels = np.array(converted, order="C")
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def probe_bytes(data: bytes) -> tuple[int, tuple[int, int]]:
    """Channels (1 for gray, 3 for the rest) and upright (H, W), from the header alone.

    Raises:
        BadImageError: As ``decode_image``, as far as the header shows it.
    """
    image = _open(data)
    width, height = image.size
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # see decode_bytes
        raise BadImageError(f"damaged {image.format} ({_reason(error)})") from error
    size = (width, height) if orientation in (5, 6, 7, 8) else (height, width)  # these four turn by a quarter
    gray = image.mode in _GRAY_MODES or image.mode.startswith("I")
    return (1 if gray else 3), size


def _open(data: bytes) -> Image:
    """A lazily opened image whose size is within Pillow's limit."""
    from PIL import Image, UnidentifiedImageError

    _silence_pillow()
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise BadImageError(f"too large ({_reason(error)})") from None
    except UnidentifiedImageError:
        raise BadImageError(f"not an image (it begins with {data[:12]!r})") from None
    except Exception as error:  # see decode_bytes
        raise BadImageError(f"not an image that can be read ({_reason(error)})") from error
    return image


@cache
def _silence_pillow() -> None:
    """Ignore its warnings about large images and odd EXIF data; once, because all threads share the filters."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
