"""Key paths such as ``model.layers[3].in_features``, as tuples of keys and indices."""

from __future__ import annotations

import re

KeyPath = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[^\s.\[\]=+'\"]+")
_PIECE = re.compile(r"\.?([^.\[\]=]+)|\[(-?\d+)\]")


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
