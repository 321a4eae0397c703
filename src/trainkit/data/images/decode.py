"""Decode an image file to an array: upright, of its first frame, with the pixels that ``colors`` makes.

- The EXIF orientation is applied, so an image is upright, as viewers show it. A broken EXIF block counts as none.
- More than 179 million pixels (half a gigabyte as RGB, Pillow's limit against bombs) are refused by the header.
- Of an animation or a file with several pages the first is used.
"""

from __future__ import annotations

import io
import os
import stat
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from trainkit.data.images.colors import BadImageError, check_dark, check_tiff, deep_values, is_deep, is_gray, to_array
from trainkit.data.images.formats import init_pillow, needed_package, why_unknown
from trainkit.data.pixel_rules import DEFAULT_RULES, PixelRules

if TYPE_CHECKING:
    from PIL.Image import Image

_ORIENTATION = 0x0112
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""By EXIF orientation: Pillow's name of what makes the image upright."""


_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b";"}
"""By Pillow's name of the format: how a whole file ends."""


class Header(NamedTuple):
    """What an image file shows without being decoded."""

    channels: int
    """1 for gray, 3 for the rest."""
    size: tuple[int, int]
    """Upright (H, W)."""
    deep: bool
    """Gray values of more than 8 bits."""
    num_bytes: int
    """Of the file."""
    doubtful: bool
    """Only decoding tells whether the file is whole and its values can be used: it does not end as its format does, the
    format has no end that is known, or it has more than 8 bits."""


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
        _check_regular(os.stat(path))
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except OSError as error:
        raise _unreadable(path, error) from None


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise BadImageError(f"not a file but a {_kind_of_file(status.st_mode)}")
    if status.st_size == 0:
        raise BadImageError("empty file (0 bytes)")


def _unreadable(path: str | Path, error: OSError) -> BadImageError:
    if isinstance(error, FileNotFoundError):
        return BadImageError("dangling link" if Path(path).is_symlink() else "no such file")
    return BadImageError(f"cannot be read ({error.strerror})")


def _kind_of_file(mode: int) -> str:
    kinds = {stat.S_IFIFO: "FIFO", stat.S_IFDIR: "folder", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")


def decode_image(path: str | Path, *, channels: int, rules: PixelRules = DEFAULT_RULES) -> NDArray[Any]:
    """Decode a file to (C, H, W) with ``channels`` 1 or 3, of ``rules.dtype``, by the rules of ``colors``.

    A color image is a view of (H, W, C) memory, as the decoder writes it.

    Raises:
        BadImageError: The file is not an image, is cut short, is too large, or has a refused mode.
    """
    return decode_bytes(read_image_bytes(path), channels=channels, rules=rules)


def decode_bytes(
    data: bytes,
    *,
    channels: int,
    rules: PixelRules = DEFAULT_RULES,
    traits: set[str] | None = None,
    max_pixels: int | None = None,
) -> NDArray[Any]:
    """As ``decode_image``, from the bytes of a file. What is special about it is added to ``traits``.

    An image of more than ``max_pixels`` is refused by its header.
    """
    traits = set() if traits is None else traits
    image = _open(data)
    if max_pixels is not None and (pixels := image.size[0] * image.size[1]) > max_pixels:
        raise BadImageError(f"too large ({pixels:,} pixels, and at most {max_pixels:,} are read here)")
    try:
        if image.format != "MPO" and getattr(image, "is_animated", False):  # of MPO the first is the picture itself
            traits.add("frames")
        if image.format in ("PNG", "TIFF") and image.mode in ("RGB", "RGBA", "LA") and ";16" in str(_tile(image)):
            traits.add("16-bit color")
        image.load()
        if image.format == "TIFF":
            check_tiff(image, traits)
        if "16-bit color" in traits:
            check_dark(image)
        return to_array(_upright(image), channels, rules, traits)
    except (BadImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise anything: SyntaxError, struct.error, ...
        raise BadImageError(f"damaged {image.format} ({_reason(error)})") from error


def read_deep_values(data: bytes) -> NDArray[Any] | None:
    """The gray values of a file of more than 8 bits, (H, W); None of 8 bits. Raises as ``decode_image``."""
    image = _open(data)
    if not is_deep(image):
        return None
    try:
        image.load()
        if image.format == "TIFF":
            check_tiff(image, set())
        return deep_values(image)
    except (BadImageError, MemoryError):
        raise
    except Exception as error:  # see decode_bytes
        raise BadImageError(f"damaged {image.format} ({_reason(error)})") from error


def _tile(image: Image) -> object:
    """How the pixels lie in the file; Pillow forgets it when they are loaded."""
    return getattr(image, "tile", "")


def _upright(image: Image) -> Image:
    """The image turned as its orientation says.

    Not by ``ImageOps.exif_transpose``: it writes the other tags anew, and fails where one of them is broken.
    """
    orientation = _orientation(image)
    if orientation not in _TURNS:
        return image
    from PIL.Image import Transpose

    turned = image.transpose(Transpose[_TURNS[orientation]])
    turned.info = image.info
    return turned


def _orientation(image: Image) -> int:
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  (a broken block: the image is upright, as without it)
        return 1
    return found if isinstance(found, int) else 1


def probe_file(path: str | Path) -> Header:
    """The header of an image and the end of its file; no more is read.

    Raises:
        BadImageError: As ``decode_image``, as far as the header shows it.
    """
    try:
        status = os.stat(path)
        _check_regular(status)
        with open(path, "rb") as file:
            image = _open(file)
            width, height = image.size
            # These four turn by a quarter. Of a TIFF Pillow's size is that of the turned image already.
            turned = _orientation(image) in (5, 6, 7, 8) and image.format != "TIFF"
            return Header(
                channels=1 if is_gray(image) else 3,
                size=(width, height) if turned else (height, width),
                deep=is_deep(image),
                num_bytes=status.st_size,
                doubtful=is_deep(image) or ";16" in str(_tile(image)) or not _ends_well(file, image.format),
            )
    except OSError as error:
        raise _unreadable(path, error) from None


def _ends_well(file: io.BufferedReader, format: str | None) -> bool:
    """Whether a file ends as its format does; zeros and line ends behind it are no damage."""
    end = _ENDS.get(format or "")
    if end is None:
        return False
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 64))
    return file.read().rstrip(b"\0\r\n").endswith(end)


def _open(data: bytes | io.BufferedReader) -> Image:
    """A lazily opened image whose size is within Pillow's limit."""
    formats = init_pillow()
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=formats)
    except Image.DecompressionBombError as error:
        raise BadImageError(f"too large ({_reason(error)})") from None
    except UnidentifiedImageError:
        if not isinstance(data, bytes):
            data.seek(0)
            data = data.read()
        start = data[:16]
        if package := needed_package(start):
            raise BadImageError(f"an image that Pillow does not read by itself: install {package}") from None
        if why := why_unknown(data, start):
            raise BadImageError(why) from None
        raise BadImageError(f"not an image (it begins with {start[:12]!r})") from None
    except Exception as error:  # see decode_bytes
        raise BadImageError(f"not an image that can be read ({_reason(error)})") from error
    if 0 in image.size:
        raise BadImageError(f"an image of {image.size[1]} x {image.size[0]} pixels")
    return image


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
