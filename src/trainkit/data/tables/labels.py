"""Names of classes and categories: which spellings are one, and how people sort them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any, Literal

_BOOLEANS = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"}, {"on", "off"})
_WHOLE = re.compile(r"([+-]?)([0-9]+)(\.0*)?")


def is_boolean_text(values: Iterable[Any]) -> bool:
    """Whether the values are the two of a known pair, in any case: yes and no, True and FALSE."""
    folded = set()
    for value in values:
        folded.add(value.lower() if isinstance(value, str) else "?")
        if len(folded) > 2:
            return False
    return folded in _BOOLEANS


def labels_of(spelled: Iterable[str]) -> tuple[str, ...]:
    """The names of categories or classes that the texts stand for, as people sort.

    Where all are whole numbers, ``1``, ``1.0`` and ``01`` are one, named ``1``; ``True`` and ``TRUE`` are one; so are
    two Unicode forms of one text.
    """
    style = label_style(spelled := set(spelled))
    keys = {label_key(text, style) for text in spelled}
    if style == "boolean":  # "True" and "False", not "true" and "False"
        cases = [{case(key) for key in keys} for case in (str.lower, str.capitalize, str.upper)]
        keys = next((names for names in cases if names <= spelled), keys)
    return sort_labels(keys)


LabelStyle = Literal["numbers", "boolean", "text"]


def label_style(labels: Iterable[str]) -> LabelStyle:
    """Which spellings of a label are the same."""
    labels = list(labels)
    if all(_WHOLE.fullmatch(label) for label in labels):
        return "numbers"
    return "boolean" if is_boolean_text(labels) else "text"


def label_key(text: str, style: LabelStyle) -> str:
    """The same for all spellings of a label."""
    if style == "numbers" and (match := _WHOLE.fullmatch(text)):
        digits = match[2].lstrip("0") or "0"
        return f"-{digits}" if match[1] == "-" and digits != "0" else digits
    return text.lower() if style == "boolean" else unicodedata.normalize("NFC", text)


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
