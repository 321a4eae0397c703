"""Values of a config with their places, the key paths to them, and plain scalars of YAML 1.2."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from trainkit.errors import Place

KeyPath = tuple[str | int, ...]
"""A path such as ``model.layers[3].in_features``, as keys and indices."""
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

_PLAIN_KEY = re.compile(r"[^\s.\[\]=+'\"]+")
_PIECE = re.compile(r"\.?([^.\[\]=]+)|\[(-?\d+)\]")


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """Where values come from: a file, plain data (no lines), or an override (``shift``: where its value starts)."""

    name: str
    lines: tuple[str, ...]
    is_override: bool = False
    shift: int = 0

    def place(self, line: int, column: int) -> Place:
        """``line`` and ``column`` count from 0."""
        if self.is_override:
            return Place(self.name, None, column + 1, self.lines[0] if self.lines else None)
        if not self.lines:
            return Place(self.name)
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


class PathError(ValueError):
    """A key path that cannot be read; ``column`` counts from 0."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(message)
        self.column = column


def format_path(path: KeyPath) -> str:
    """``("layers", 3, "bias")`` is written ``layers[3].bias``; odd keys are quoted, so that a path stays one line."""
    text = ""
    for piece in path:
        if isinstance(piece, int):
            text += f"[{piece}]"
        else:
            shown = piece if _PLAIN_KEY.fullmatch(piece) and piece.isprintable() else repr(piece[:64])
            text += f".{shown}" if text else shown
    return text


def parse_path(text: str) -> KeyPath:
    """The reverse of ``format_path`` for keys without odd characters. Raises PathError."""
    path: list[str | int] = []
    position = 0
    while position < len(text):
        match = _PIECE.match(text, position)
        if match is None or (match[1] is not None and bool(path) != text.startswith(".", position)):
            raise PathError("expected a key path such as optimizer.lr or model.layers[0].bias", position)
        if match[2] is not None:
            if not path:
                raise PathError("a key path starts with a key, not with an index", position)
            if int(match[2]) < 0:
                raise PathError("an index counts from 0", position)
            path.append(int(match[2]))
        else:
            key = match[1].strip()
            if not key:
                raise PathError("a key path has an empty key", position)
            path.append(key)
        position = match.end()
    if not path:
        raise PathError("the key is missing", 0)
    return tuple(path)
