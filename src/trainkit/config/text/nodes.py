"""Values of a config with their places, and what a plain scalar stands for in YAML 1.2."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from trainkit.config.text.key_paths import KeyPath
from trainkit.errors import Place

Scalar = str | int | float | bool | None

_NULL = re.compile(r"(?:~|null|Null|NULL)?")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INF = re.compile(r"([-+]?)\.(?:inf|Inf|INF)")
_NAN = re.compile(r"\.(?:nan|NaN|NAN)")
_MAX_DIGITS = 400


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A text that values come from: a file, or an override (``shift``: where its value starts in its text)."""

    name: str
    lines: tuple[str, ...]
    is_override: bool = False
    shift: int = 0

    def place(self, line: int, column: int) -> Place:
        """``line`` and ``column`` count from 0."""
        if self.is_override:
            return Place(self.name, None, column + 1, self.lines[0] if self.lines else None)
        text = self.lines[line] if line < len(self.lines) else None
        return Place(self.name, line + 1, column + 1, text)


@dataclass(slots=True)
class Node:
    """A value and its place; ``key_*`` is the place of the key it stands under (-1: it stands under none)."""

    value: Scalar | list[Node] | dict[str, Node]
    source: Source
    line: int = 0
    column: int = 0
    key_line: int = -1
    key_column: int = -1

    @property
    def place(self) -> Place:
        return self.source.place(self.line, self.column)

    @property
    def key_place(self) -> Place:
        return self.place if self.key_line < 0 else self.source.place(self.key_line, self.key_column)

    @property
    def kind(self) -> str:
        """The kind of value, for messages."""
        if isinstance(self.value, dict):
            return "a mapping"
        return "a list" if isinstance(self.value, list) else "a single value"

    def plain(self) -> Any:
        """Plain dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def find(self, path: KeyPath) -> Node | None:
        """The node at a path, if it was written."""
        node = self
        for piece in path:
            found: Node | None = None
            if isinstance(piece, str) and isinstance(node.value, dict):
                found = node.value.get(piece)
            elif isinstance(piece, int) and isinstance(node.value, list) and piece < len(node.value):
                found = node.value[piece]
            if found is None:
                return None
            node = found
        return node


def read_scalar(text: str) -> Scalar:
    """The value of a plain (unquoted) scalar by the YAML 1.2 core schema."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if len(text) <= _MAX_DIGITS:
        if _INT.fullmatch(text):
            return int(text)
        if _OCTAL.fullmatch(text):
            return int(text[2:], 8)
        if _HEX.fullmatch(text):
            return int(text[2:], 16)
        if _FLOAT.fullmatch(text):
            return float(text)
    if match := _INF.fullmatch(text):
        return float(match[1] + "inf")
    if _NAN.fullmatch(text):
        return float("nan")
    return text
