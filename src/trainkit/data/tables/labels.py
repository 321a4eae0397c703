"""Names of classes and categories: which spellings are one, and how people sort them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Literal

_PAIRS = {"true/false": ("true", "false", "t", "f"), "yes/no": ("yes", "no", "y", "n"), "on/off": ("on", "off")}
_DIGITS = {"1": 0, "1.0": 0, "0": 1, "0.0": 1}
_WHOLE = re.compile(r"([+-]?)([0-9]+)(\.0*)?")

LabelStyle = Literal["numbers", "true/false", "yes/no", "on/off", "text"]


def is_boolean_text(values: Iterable[str]) -> bool:
    """Whether the values are spellings of true and false: yes and no, True and FALSE, also with 1 and 0 among them."""
    return _boolean_style(values) is not None


def _boolean_style(values: Iterable[str]) -> LabelStyle | None:
    folded = set()
    for value in values:
        folded.add(value.lower())
        if len(folded) > 8:  # four words and four numbers
            return None
    words = folded - _DIGITS.keys()
    for style, known in _PAIRS.items():
        # A letter among numbers may stand for anything, the two letters and the words may not.
        certain = words & set(known[:2]) or (words and words == set(known[2:]))
        if certain and words <= set(known) and len({_truth(value, style) for value in folded}) == 2:
            return style  # type: ignore[return-value]
    return None


def _truth(text: str, style: str) -> int | None:
    """0 for true, 1 for false."""
    folded = text.lower()
    return _PAIRS[style].index(folded) % 2 if folded in _PAIRS[style] else _DIGITS.get(folded)


def mixed_truths(names: Sequence[str]) -> list[list[str]]:
    """Those for true and those for false, where the names are words of several pairs: yes, y and TRUE; else none."""
    known = _DIGITS | {word: place % 2 for pair in _PAIRS.values() for place, word in enumerate(pair)}
    folded = {name: name.lower() for name in names}
    if len(names) < 3 or not known.keys() >= set(folded.values()) or all(len(word) < 2 for word in folded.values()):
        return []
    groups = [[name for name in names if known[folded[name]] == truth] for truth in (0, 1)]
    return groups if all(groups) else []


def labels_of(spelled: Iterable[str]) -> tuple[str, ...]:
    """The names of categories or classes that the texts stand for, as people sort.

    Where all are whole numbers, ``1``, ``1.0`` and ``01`` are one, named ``1``. ``True``, ``TRUE`` and a ``1`` beside
    them are one; so are two Unicode forms of one text.
    """
    style = label_style(spelled := set(spelled))
    if style not in _PAIRS:
        return sort_labels(label_key(text, style) for text in spelled)
    words = _PAIRS[style]
    pairs = [set(words[:2]), set(words[2:]) or set(words[:2])]
    cased = [{case(word) for word in pair} for pair in pairs for case in (str.lower, str.capitalize, str.upper)]
    folded = {text.lower() for text in spelled}
    written = [names for names in cased if names <= spelled] + [pair for pair in pairs if pair <= folded]
    return sort_labels([*written, pairs[0]][0])


def label_style(labels: Iterable[str]) -> LabelStyle:
    """Which spellings of a label are the same."""
    labels = list(labels)
    if all(_WHOLE.fullmatch(label) for label in labels):
        return "numbers"
    return _boolean_style(labels) or "text"


def label_key(text: str, style: LabelStyle) -> str:
    """The same for all spellings of a label."""
    if style == "numbers" and (match := _WHOLE.fullmatch(text)):
        digits = match[2].lstrip("0") or "0"
        return f"-{digits}" if match[1] == "-" and digits != "0" else digits
    if style in _PAIRS and (place := _truth(text, style)) is not None:
        return _PAIRS[style][place]
    return unicodedata.normalize("NFC", text)


def sort_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """As people sort: 1, 2, 10; a2 before a10; the same on every machine."""
    return tuple(sorted(set(labels), key=_natural))


def _natural(text: str) -> tuple[Any, ...]:
    if re.fullmatch(r"[+-]?\d+(\.\d+)?", text):
        return (0, float(text), text)
    parts = re.split(r"(\d+)", text)
    keys = [
        (0, part.casefold()) if index % 2 == 0 else (len(part.lstrip("0")), part) for index, part in enumerate(parts)
    ]
    return (1, keys, text)
