"""Which files are images: those that Pillow reads, by the ending of the name, else by the first bytes.

An ending that Pillow knows is trusted, so that a large folder is listed without opening its files; decoding goes by the
content, whatever the ending says.
"""

from __future__ import annotations

import io
import os
import warnings
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import PurePath

JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir")
"""Files and folders of operating systems. Hidden ones, whose names begin with a dot, are junk too."""
PLUGINS = {
    ".heic": "pillow-heif",
    ".heif": "pillow-heif",
    ".hif": "pillow-heif",
    ".avif": "pillow 11.3 or later",
    ".jxl": "pillow-jxl-plugin",
}
"""Endings of images that Pillow reads with a further package (or a later version) only."""
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_REFUSED = ("EPS", "PDF", "MPEG", "WMF", "BUFR", "GRIB", "HDF5", "FPX", "MIC")
"""EPS runs Ghostscript, a program that runs the file; the others are no images, or need programs to draw them."""
_SNIFFED = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "HEIF", "JPEG2000", "PPM")
"""Formats that are found by their first bytes under any name. The others have none that are theirs alone."""
_CAMERA_RAW = (".dng", ".nef", ".nrw", ".cr2", ".cr3", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".pef", ".raf", ".erf")
"""Many of these begin as a TIFF does, and what Pillow would read is a small preview."""
_NO_IMAGES = (".txt", ".csv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".md", ".html", ".py", ".npy", ".npz", ".zip")
"""They are not opened to see whether they are images: many folders have one of them for each image."""


@cache
def init_pillow() -> tuple[str, ...]:
    """Load Pillow's formats and the plugin for HEIC where there is one; returns the formats that are read.

    Its warnings about large images and odd metadata are silenced; once, because all threads share the filters.
    """
    from PIL import Image, PngImagePlugin

    warnings.filterwarnings("ignore", module=r"PIL\.")
    Image.init()
    # Large metadata are no damage. All texts of a file together keep Pillow's limit of 64 MB.
    PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 16 << 20)
    try:
        import pillow_heif  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener()
    readable = [name for name in Image.ID if name not in _REFUSED]
    return tuple(sorted(readable, key=lambda name: name not in _SNIFFED))  # the common ones are tried first


@cache
def _known_suffixes() -> frozenset[str]:
    from PIL import Image

    readable = init_pillow()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in readable)


def is_junk(name: str) -> bool:
    """Whether this is the name of what operating systems, notebooks and archives leave behind."""
    return name.startswith(".") or name in JUNK


def is_image_file(path: str) -> bool:
    """Whether this is an image, as far as its name or its first bytes say. Those of other packages count too."""
    suffix = "." + path.rpartition(".")[2].lower()
    if suffix in _known_suffixes() or suffix in PLUGINS:
        return True  # the way of most files
    return suffix not in _NO_IMAGES and suffix not in _CAMERA_RAW and _begins_as_image(path)


def suffix_of(path: str) -> str:
    """``.jpg`` of ``a/b.JPG``; empty where the name has no ending."""
    return os.path.splitext(path)[1].lower()


def _begins_as_image(path: str) -> bool:
    from PIL import Image

    readable = init_pillow()
    try:
        if not os.path.isfile(path):  # opening a FIFO would block
            return False
        with open(path, "rb", buffering=0) as file:
            start = file.read(32)
    except OSError:
        return False
    for name in _SNIFFED:
        accept = Image.OPEN[name][1] if name in readable else None
        if start and accept is not None and accept(start) is True:
            # "P5" and "BM" may begin a text.
            return name not in ("PPM", "BMP") or _opens(path, name)
    return needed_package(start) is not None  # decoding says what to install


def _opens(path: str, name: str) -> bool:
    from PIL import Image

    try:
        with Image.open(path, formats=(name,)):
            return True
    except Exception:  # noqa: BLE001  (Pillow's decoders raise anything)
        return False


def needed_package(start: bytes) -> str | None:
    """What reads a file that begins so (16 bytes) and that Pillow does not know; None for any other."""
    if start[4:8] == b"ftyp":
        brand = start[8:12]
        return PLUGINS[".avif"] if brand in (b"avif", b"avis") else PLUGINS[".heic"] if brand in _HEIF_BRANDS else None
    return PLUGINS[".jxl"] if start[:2] == b"\xff\x0a" or start[4:8] == b"JXL " else None


def why_unknown(data: bytes, start: bytes) -> str | None:
    """Why Pillow does not know a file that begins as an image of a common format; None where it begins otherwise."""
    from PIL import Image

    for name in _SNIFFED:
        factory, accept = Image.OPEN.get(name, (None, None))
        if factory is None or accept is None or accept(start) is not True or name in ("PPM", "BMP"):
            continue
        try:
            factory(io.BytesIO(data), "")
        except Exception as error:  # noqa: BLE001  (Pillow's decoders raise anything)
            kinds = "; it reads gray of 8 to 32 bits, and RGB of 8 and 16" if name == "TIFF" else ""
            return f"a {name} file that Pillow does not read ({error}{kinds})"
    return None


def missing_plugins(paths: Iterable[str | PurePath]) -> list[str]:
    """``12 .heic files: install pillow-heif``, a line for each ending that nothing installed reads."""
    counts = Counter(suffix for path in paths if (suffix := suffix_of(str(path))) in PLUGINS)
    return [
        f"{count} {suffix} file{'s' * (count > 1)}: install {PLUGINS[suffix]}"
        for suffix, count in sorted(counts.items())
        if suffix not in _known_suffixes()
    ]
