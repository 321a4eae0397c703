"""The pixels of an opened image, by one rule for each color mode.

- Gray images are those that Pillow opens in mode L, LA, 1, I;16, I or F; every other mode counts as color.
- Color to gray is ITU-R 601-2 luma, gray to color three equal channels (both Pillow's ``convert``).
- Transparent images are blended on a background, white by default, also those with a palette or one transparent color.
- Palettes are looked up; CMYK and YCbCr are converted by Pillow without a color profile.
- Gray values of more than 8 bits go from the range in use to [0, 1] and stay floats (``PixelRules.value_range``). Where
  the data set has none they keep their high byte, and floats in [0, 1] are multiplied by 255.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.pixel_rules import NAMED_COLORS, PixelRules, range_text, scale_values
from trainkit.wording import counted

if TYPE_CHECKING:
    from PIL.Image import Image

_GRAY_MODES = ("L", "LA", "La", "1")
_ALPHA_MODES = ("RGBA", "RGBa", "LA", "La", "PA")
_BITS, _PHOTOMETRIC, _SAMPLES, _SAMPLE_FORMAT = 258, 262, 277, 339
"""Tags of TIFF."""
_DARK = 4096
"""Of 16 bits. With no value as high, the high byte is nearly black: such values are of 12 bits or fewer."""


class BadImageError(Exception):
    """A file that cannot be used as an image; the message says why, without the path."""


def is_deep(image: Image) -> bool:
    """Whether these are gray values of more than 8 bits: integers of 12, 16 or 32 bits, or floats."""
    return image.mode.startswith("I") or image.mode == "F"


def is_gray(image: Image) -> bool:
    """Whether the image counts as gray."""
    return image.mode in _GRAY_MODES or is_deep(image)


def to_array(image: Image, channels: int, rules: PixelRules, traits: set[str]) -> NDArray[Any]:
    """The pixels, (C, H, W) of ``rules.dtype``; what was special about the image is added to ``traits``."""
    if is_gray(image):
        traits.add("gray")
    elif channels == 3 and (kind := {"P": "palette", "PA": "palette", "CMYK": "CMYK"}.get(image.mode)):
        traits.add(kind)
    if is_deep(image):
        gray = _deep_pixels(image, rules, traits)[None]
        return gray if channels == 1 else np.repeat(gray.transpose(1, 2, 0), channels, axis=2).transpose(2, 0, 1)
    if rules.value_range is not None and not rules.allow_8_bit:
        raise BadImageError(
            f"8 bits, and the images of the training have more, with values {range_text(rules.value_range)}: "
            "there is no rule between the two; give it in the same form"
        )
    if rules.value_range is not None:
        traits.add("8 bits")
    image = _without_alpha(image, rules, traits)
    mode = "L" if channels == 1 else "RGB"
    converted = image if image.mode == mode else image.convert(mode)
    # A copy in any case: Pillow's own memory is read-only, and torch warns of that.
    pixels = np.array(converted, order="C")
    if rules.value_range is not None:
        pixels = pixels.astype(np.float32) / np.float32(255)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _without_alpha(image: Image, rules: PixelRules, traits: set[str]) -> Image:
    """The image blended on the background. Where nothing is transparent its colors are as they were."""
    if not (image.mode in _ALPHA_MODES or "transparency" in image.info or _has_alpha_palette(image)):
        return image
    if rules.background is None:
        return image.getchannel(0) if image.mode in ("LA", "La") else image
    if image.mode == "La":
        image = image.convert("LA")  # there is no way from La to RGBA
    blended = image.convert("RGBA") if image.mode != "RGBA" else image
    alpha = blended.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return image.getchannel(0) if image.mode in ("LA", "La") else image
    traits.add("transparent")
    from PIL import Image as pillow

    background = pillow.new("RGB", image.size, rules.background)
    background.paste(blended.convert("RGB"), mask=alpha)
    return background


def _has_alpha_palette(image: Image) -> bool:
    return image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")


def check_tiff(image: Image, traits: set[str]) -> None:
    """What a TIFF says of its values and Pillow does not heed; ``image`` is loaded.

    Raises:
        BadImageError: Signed values of 8 bits, or unsigned ones that 32 bits with a sign do not hold.
    """
    tags = getattr(image, "tag_v2", {})
    bits, samples = _first(tags.get(_BITS, 1)), _first(tags.get(_SAMPLES, 1))
    signed = _first(tags.get(_SAMPLE_FORMAT, 1)) == 2
    if signed and bits == 8:
        raise BadImageError("signed values of 8 bits, which Pillow takes for unsigned ones; save it with 16 bits")
    if image.mode == "I" and bits == 32 and not signed and np.asarray(image).min() < 0:
        raise BadImageError("unsigned values of 32 bits above 2147483647; save it as 32-bit floats")
    if samples > len(image.getbands()):
        traits.add("bands")
    if is_deep(image) and tags.get(_PHOTOMETRIC) == 0:
        traits.add("white is 0")


def check_dark(image: Image) -> None:
    """Raise BadImageError where a color image of 16 bits has nearly nothing in the high bytes that Pillow reads."""
    bands = [image.getchannel(band) for band in image.getbands() if band != "A"]
    highest = max(int(np.asarray(band).max()) for band in bands)
    if 0 < highest < _DARK // 256:
        raise BadImageError(
            f"16 bits a color with values below {_DARK}, of which Pillow reads the high byte: it would be black; "
            "save it with 8 bits, or as gray"
        )


def _first(value: Any) -> Any:
    """A tag has one value, or one for each band."""
    return value[0] if isinstance(value, tuple) and value else value


def deep_values(image: Image) -> NDArray[Any]:
    """The values of an image of more than 8 bits, (H, W), as they are in the file.

    Raises:
        BadImageError: NaN or infinity among them.
    """
    values = np.asarray(image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise BadImageError(f"{bad:,} of {values.size:,} values are NaN or infinite; give them a number")
    return values


def _deep_pixels(image: Image, rules: PixelRules, traits: set[str]) -> NDArray[Any]:
    """(H, W) of ``rules.dtype``."""
    values = deep_values(image)
    if rules.value_range is not None:
        low, high = rules.value_range
        if values.min() < low or values.max() > high:
            traits.add("outside")
        pixels: NDArray[Any] = scale_values(values, rules.value_range)
        white: float = 1
    else:
        traits.add("high byte")
        pixels, white = _to_8_bits(values), 255
    key = image.info.get("transparency")
    if isinstance(key, int) and rules.background is not None:
        traits.add("transparent")
        level = _luma(rules.background)
        pixels[values == key] = level if white == 255 else np.float32(level / 255)
    return pixels


def _to_8_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        if low < 0 or high > 1:
            raise BadImageError(f"32-bit floats from {low:g} to {high:g}, and the data set has 8 bits; save it so")
        return np.asarray(np.rint(values * 255), dtype=np.uint8)
    if low < 0 or high > 65535:
        raise BadImageError(f"gray values {low} to {high}, and the data set has 8 bits; save it with 8 bits")
    if 0 < high < _DARK:
        raise BadImageError(
            f"16 bits with values {low} to {high}, and the data set has 8 bits: it would be black; save it with 8 bits"
        )
    return np.asarray(values // 256, dtype=np.uint8)


def _luma(color: tuple[int, int, int]) -> int:
    from PIL import Image as pillow

    level = pillow.new("RGB", (1, 1), color).convert("L").getpixel((0, 0))
    assert isinstance(level, int)
    return level


def describe_traits(counts: Mapping[str, int], total: int, *, channels: int, rules: PixelRules) -> str:
    """What was met among ``total`` images and what is done with it, in one line; empty where all are plain."""
    counts = Counter(counts)
    name = next((word for word, color in NAMED_COLORS.items() if color == rules.background), str(rules.background))
    wide = range_text(rules.value_range) if rules.value_range is not None else ""
    rows = {
        "transparent": f"transparent (blended on {name})",
        "gray": "gray (three equal channels)" if channels == 3 and counts["gray"] < total else "",
        "palette": "with a palette (looked up)",
        "CMYK": "CMYK (to RGB without a color profile)",
        "frames": "with several frames or pages (the first is used)",
        "8 bits": "of 8 bits (0 to 255 become 0 to 1, whatever the range of the others)",
        "high byte": "of more than 8 bits (the high byte is used)",
        "16-bit color": "of 16 bits a color (the high byte, which is what Pillow reads)",
        "bands": "with more bands (the first 1 or 3, which is what Pillow reads)",
        "white is 0": "with white as 0 (not inverted)",
        "outside": f"with values outside {wide} (cut off)",
    }
    found = [f"{counts[trait]:,} {text}" for trait, text in rows.items() if counts[trait] and text]
    return f"among {counted(total, 'image')}: {', '.join(found)}" if found else ""
