"""The letters of names in figures: fonts of the machine that have them, else a number and its escapes below the figure.

matplotlib's own font lacks Chinese, Japanese, Korean, Hindi and most emoji: it would draw empty boxes and warn.
"""

from __future__ import annotations

import logging
import re
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

_BOXES = ("Last Resort", ".LastResort", "LastResort", "Adobe Blank", "Adobe NotDef")
"""Fonts with a box, or nothing, for every character."""
_LIKED = ("Noto Sans", "Microsoft YaHei", "PingFang", "Hiragino", "Yu Gothic", "Malgun Gothic", "Nirmala", "Arial")
_INVISIBLE = " \t\xa0\u2000-\u200f\u2060\u3000\ufe00-\ufe0f\ufeff"
"""Spaces, joiners and variation selectors, as a set of a regular expression."""
_SHAPED = (
    *("ARABIC", "HEBREW", "SYRIAC", "THAANA", "NKO", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL"),
    *("TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "TIBETAN", "MYANMAR", "KHMER", "THAI", "LAO"),
)
"""Scripts that are written from the right or whose letters join: matplotlib lays them out from version 3.11 on."""


def letter(figure: Figure) -> str:
    """Give each text of a figure the fonts that it needs; what no font has becomes ``[1]``, ``[2]``, ...

    Returns:
        What the numbers stand for, "" where there are none.
    """
    from matplotlib.text import Text

    numbers: dict[str, int] = {}
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = axis.get_ticklabels()
            names = [label.get_text() for label in labels]
            shown = [_numbered(label.get_text(), _fonts_for(label)[1], numbers) for label in labels]
            if shown != names:  # a text that is set on the label alone is overwritten by its axis
                axis.set_ticklabels(shown)
    for text in figure.findobj(Text):
        families, missing = _fonts_for(text)
        if missing:
            text.set_text(_numbered(text.get_text(), missing, numbers))
        if len(families) > 1:
            text.set_fontfamily(families)
    if not numbers:
        return ""
    meanings = ", ".join(f"[{number}]={_escaped(run)}" for run, number in numbers.items())
    return f"No font of this machine has these characters: {meanings}"


@contextmanager
def quiet_fonts(*, as_text: bool = False) -> Iterator[None]:
    """No message on stderr about a font that has no bold letters.

    Args:
        as_text: none about missing letters either: an SVG with its text as text has the fonts of the browser.
    """
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            if as_text:
                warnings.filterwarnings("ignore", message=r"(?s)(Glyph|Matplotlib currently does not support)")
            yield
    finally:
        logger.setLevel(level)


def add_below(figure: Figure, text: str) -> Any:
    """Write a text below a figure; returns the box in inches to save, which is higher by its lines."""
    from matplotlib.transforms import Bbox

    width, height = figure.get_size_inches()
    lines = textwrap.wrap(text, max(20, int(width * 13)), break_on_hyphens=False)
    figure.text(0.1 / width, 0, "\n".join(lines), fontsize=8, va="top", ha="left").set_in_layout(False)
    return Bbox.from_extents(0, -0.16 * len(lines) - 0.1, width, height)


def _fonts_for(text: Text) -> tuple[list[str], frozenset[str]]:
    """The families that a text needs, and the characters that no font has."""
    from matplotlib.font_manager import findfont

    wanted = frozenset(character for character in text.get_text() if not " " <= character <= "~" and character != "\n")
    if not wanted:
        return [], frozenset()
    properties = text.get_fontproperties()
    own = findfont(properties)
    found, missing = _search(own, wanted)
    return [*properties.get_family(), *found], missing


@cache
def _search(own: str, wanted: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families that have what the font file ``own`` lacks of the characters, and the rest that none has."""
    from matplotlib import ft2font
    from matplotlib.font_manager import fontManager

    shapes = hasattr(ft2font, "__libraqm_version__")
    unshaped = frozenset() if shapes else frozenset(filter(_is_shaped, wanted))
    missing = {character for character in wanted - unshaped if not _has(own, character)}
    families = []
    entries = {entry.fname: entry for entry in fontManager.ttflist if not entry.name.startswith(_BOXES)}
    for entry in sorted(entries.values(), key=_rank):
        if not missing:
            break
        has = {character for character in missing if _has(entry.fname, character)}
        if has:
            families.append(entry.name)
            missing -= has
    return tuple(families), frozenset(missing) | unshaped


def _rank(entry: Any) -> tuple[bool, bool, int, str]:
    """Well-known sans-serif families first, upright and of normal weight."""
    weight = entry.weight if isinstance(entry.weight, int) else 400
    return not entry.name.startswith(_LIKED), entry.style != "normal", abs(weight - 400), entry.name


def _has(path: str, character: str) -> bool:
    font = _open(path)
    return font is not None and bool(font.get_char_index(ord(character)))


@cache
def _open(path: str) -> Any:
    """None for a file that cannot be drawn from, such as a font of colored bitmaps."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        font.set_size(10, 72)
    except (OSError, RuntimeError):
        return None
    return font


def _is_shaped(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_SHAPED)


def _numbered(text: str, missing: frozenset[str], numbers: dict[str, int]) -> str:
    """The text with a number for each run of missing characters; missing spaces and joiners are left out."""
    visible = "".join(sorted(character for character in missing if not _is_invisible(character)))
    if visible:
        letters = re.escape(visible)
        runs = f"[{letters}](?:[{letters}{_INVISIBLE}]*[{letters}])?"
        text = re.sub(runs, lambda run: f"[{numbers.setdefault(run[0], len(numbers) + 1)}]", text)
    return "".join(" " * one.isspace() if one in missing else one for one in text)


def _is_invisible(character: str) -> bool:
    return re.match(f"[{_INVISIBLE}]", character) is not None


def _escaped(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
