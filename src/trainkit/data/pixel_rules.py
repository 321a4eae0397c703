"""How the values of image files become pixels: one set of rules for all files of a data set and for its model.

Plain data, so that checkpoints, cache keys and exported bundles hold it: a file gives the same pixels everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]
WHITE: Color = (255, 255, 255)
NAMED_COLORS: dict[str, Color] = {"white": WHITE, "black": (0, 0, 0)}


@dataclass(frozen=True)
class PixelRules:
    """Without a ``value_range``, images are uint8; with one, they are float32 in [0, 1]."""

    background: Color | None = WHITE
    """What transparent images are blended on. None: the transparency is dropped (checkpoints of earlier versions)."""
    value_range: tuple[float, float] | None = None
    """Gray values of more than 8 bits: the first becomes 0, the second 1, and what lies outside is cut off."""
    allow_8_bit: bool = False
    """With a ``value_range``: whether files of 8 bits are among the others. Their 0 to 255 become 0 to 1."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the pixels."""
        return np.dtype(np.uint8 if self.value_range is None else np.float32)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for checkpoints and cache keys."""
        return {
            "background": None if self.background is None else list(self.background),
            "value_range": None if self.value_range is None else list(self.value_range),
            "allow_8_bit": self.allow_8_bit,
        }


DEFAULT_RULES = PixelRules()


def make_rules(
    background: Literal["white", "black"] | list[int] = "white", value_range: list[float] | None = None
) -> PixelRules:
    """The rules that a config asks for; a written range holds for files of 8 bits beside the others too."""
    color = NAMED_COLORS[background] if isinstance(background, str) else (background[0], background[1], background[2])
    if value_range is None:
        return PixelRules(color)
    return PixelRules(color, (float(value_range[0]), float(value_range[1])), allow_8_bit=True)


def rules_of(preprocessing: Mapping[str, Any]) -> PixelRules:
    """The rules in the preprocessing of a checkpoint; those of earlier versions, which stored none, where it is old."""
    match preprocessing.get("pixels"):
        case {"background": background, "value_range": value_range, "allow_8_bit": bool(allowed)}:
            rules = PixelRules(None if background is None else tuple(background), allow_8_bit=allowed)
            return rules if value_range is None else replace(rules, value_range=(value_range[0], value_range[1]))
        case _:
            return PixelRules(background=None)


def scale_values(values: NDArray[Any], value_range: tuple[float, float]) -> NDArray[np.float32]:
    """Gray values to [0, 1], computed in float64 and rounded once."""
    low, high = value_range
    scaled = (values.astype(np.float64) - low) / (high - low)
    return scaled.clip(0, 1).astype(np.float32)


def range_text(value_range: tuple[float, float]) -> str:
    """``1030 to 1270``."""
    return f"{value_range[0]:.10g} to {value_range[1]:.10g}"
