"""Plain data as YAML that this package, and readers of YAML 1.1, read back as the same values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from trainkit.config.text.nodes import KeyPath, format_path, read_scalar

_SAFE = re.compile(r"[A-Za-z_./][A-Za-z0-9_./ -]*")
_YAML_1_1 = {"y", "n", "yes", "no", "on", "off"}


def to_yaml(data: Mapping[str, Any], *, notes: Mapping[str, str] | None = None) -> str:
    """The mapping as YAML text; ``notes`` are comments behind the values, by key path."""
    rows = list(_rows(data, (), 0, notes or {}))
    width = min(max((len(text) for text, note in rows if note), default=0), 60)
    return "".join(f"{text:<{width}}  # {note}\n" if note else f"{text}\n" for text, note in rows)


def _rows(data: Mapping[str, Any], path: KeyPath, indent: int, notes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for key, value in data.items():
        here = (*path, key)
        head = " " * indent + scalar(key) + ":"
        if isinstance(value, Mapping) and value:
            yield head, ""
            yield from _rows(value, here, indent + 2, notes)
        elif isinstance(value, list) and any(isinstance(item, Mapping) and item for item in value):
            yield head, ""
            for index, item in enumerate(value):
                yield from _item_rows(item, (*here, index), indent + 2, notes)
        else:
            yield f"{head} {flow(value)}", notes.get(format_path(here), "")


def _item_rows(item: Any, path: KeyPath, indent: int, notes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if not isinstance(item, Mapping) or not item:
        yield f"{' ' * indent}- {flow(item)}", notes.get(format_path(path), "")
        return
    for number, (text, note) in enumerate(_rows(item, path, indent + 2, notes)):
        yield (f"{' ' * indent}- {text[indent + 2 :]}" if number == 0 else text), note


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """A scalar so that it reads back with its type."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        text = {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}.get(repr(value), repr(value))
        # 1e-08 would be text to a reader of YAML 1.1
        return text if "." in text else text.replace("e", ".0e", 1)
    if isinstance(value, int):
        return str(value)
    text = str(value)
    plain = _SAFE.fullmatch(text) and text == text.strip() and text.lower() not in _YAML_1_1
    return text if plain and isinstance(read_scalar(text), str) else _quoted(text)


def _quoted(text: str) -> str:
    """In double quotes; what cannot be printed is escaped (not as JSON does: YAML knows no pairs of surrogates)."""
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
