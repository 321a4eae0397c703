"""Reads YAML 1.2 with the place of every key and value: no tags, no repeated keys, one document, bounded work.

PyYAML does the scanning and parsing (libyaml where it is there); what the events mean is decided here, because PyYAML's
own loaders follow YAML 1.1 (``no`` is false, ``1e-3`` is text), keep the last of repeated keys and forget positions.
Merge keys (``<<: *anchor``) are supported although YAML 1.2 dropped them: configs in this field use them.
"""

from __future__ import annotations

import contextlib
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import yaml

from trainkit.config.text.key_paths import KeyPath, format_path
from trainkit.config.text.yaml_errors import explain
from trainkit.errors import ConfigError, Place, Problem

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 100_000
"""Number of values once every alias is expanded."""

_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"

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
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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


def read_file(path: Path, *, shown_as: str | None = None) -> tuple[Node, str, list[Problem]]:
    """The top-level mapping of a config file, its text, and the mistakes that do not stop the reading.

    Raises ConfigError for what does: a file that cannot be opened, is too large, is not UTF-8 or not YAML.
    """
    name = shown_as or str(path)
    data = _read_bytes(path, name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n"), len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace"))
        byte = f"byte 0x{data[error.start]:02x}"
        _stop(f"not UTF-8 text, got {byte}; save the file as UTF-8", Place(name, line + 1, column + 1))
    source = Source(name, tuple(text.splitlines()))
    node, problems = read_text(text, source)
    if node is None:
        what = "only comments" if text.strip() else "empty"
        _stop(f"the file is {what}; `trainkit config init` writes a config to start from", Place(name))
    if not isinstance(node.value, dict):
        _stop(
            f"expected sections such as `model:` and `dataset:` at the top level, got {_kind(node)}; "
            "`trainkit config init` writes a config to start from",
            node.place,
        )
    return node, text, problems


def is_missing(path: Path) -> bool:
    """Whether there is no such file; a file that cannot be looked at for another reason is not missing."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def read_text(text: str, source: Source, *, at: KeyPath = ()) -> tuple[Node | None, list[Problem]]:
    """The value of one YAML document (None where there is nothing), and the mistakes that do not stop the reading.

    ``at`` is the key path that the value will stand at, for messages.
    """
    if match := _FORBIDDEN.search(text):
        line = text.count("\n", 0, match.start())
        column = match.start() - (text.rfind("\n", 0, match.start()) + 1)
        message = f"not allowed in YAML, got the control character U+{ord(match[0]):04X}; remove it"
        _stop(message, _Composer(source).place_at(line, column))
    composer = _Composer(source)
    try:
        return composer.document(text, at), composer.problems
    except yaml.MarkedYAMLError as error:
        _check_depth(text, error, composer)
        why, line, column = explain(error, text)
        _stop(f"not valid YAML: {why}", composer.place_at(line, column))
    except yaml.YAMLError as error:
        _stop(f"not valid YAML: {error}", Place(source.name))


def _check_depth(text: str, error: yaml.MarkedYAMLError, composer: _Composer) -> None:
    """PyYAML scans ahead of its events, and libyaml has a limit of its own: what is too deep before that, we say."""
    mark = error.problem_mark or error.context_mark
    depth = 0
    with contextlib.suppress(yaml.YAMLError):  # the text ends where the mistake was
        for event in _events(text[: mark.index if mark else 0]):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                _stop(_TOO_DEEP, composer.place(event.start_mark))


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            _stop("expected a config file, got a folder", Place(name))
        if not stat.S_ISREG(mode):
            _stop("expected a config file, got a device or a pipe", Place(name))
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        _stop(f"cannot be read: {getattr(error, 'strerror', None) or error}", Place(name))
    if len(data) > MAX_BYTES:
        _stop(
            f"larger than {MAX_BYTES // 1024} KiB, got {path.stat().st_size // 1024} KiB; is it a config?", Place(name)
        )
    return data


def _stop(message: str, place: Place | None, path: KeyPath = ()) -> NoReturn:
    raise ConfigError([Problem(message, format_path(path) or None, place)])


def _kind(node: Node) -> str:
    return "a list" if isinstance(node.value, list) else "a single value"


def _events(text: str) -> Iterator[Any]:
    """PyYAML's events; the C parser is about 30 times as fast, which the limits above count on."""
    if getattr(yaml, "__with_libyaml__", False):
        parser: Any = yaml.CLoader(text)
    else:
        parser = yaml.SafeLoader(text)
    try:
        while True:
            event = parser.get_event()
            if event is None or isinstance(event, yaml.StreamEndEvent):
                return
            yield event
    finally:
        parser.dispose()


class _Composer:
    """Builds nodes from events, counting what the limits bound."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.num_values = 0
        self.anchors: dict[str, tuple[Node, int, int]] = {}  # node, number of values, height
        self.open_anchors: set[str] = set()

    def place_at(self, line: int, column: int) -> Place:
        return self.source.place(line, column + self.source.shift if line == 0 else column)

    def place(self, mark: Any) -> Place:
        return self.place_at(mark.line, mark.column)

    def document(self, text: str, path: KeyPath) -> Node | None:
        events = _events(text)
        node: Node | None = None
        seen = False
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if seen:
                    _stop("a second document starts here; a config is one document", self.place(event.start_mark))
                seen = True
            elif isinstance(event, yaml.StreamStartEvent | yaml.DocumentEndEvent):
                continue
            else:
                is_nothing = isinstance(event, yaml.ScalarEvent) and event.value == "" and event.implicit[0]
                node = self.value(event, events, path, 0)[0]
                if is_nothing and self.source.is_override is False:
                    node = None
        return node

    def value(self, event: Any, events: Iterator[Any], path: KeyPath, depth: int) -> tuple[Node, int]:
        """The node that an event starts, and its height (0 for a scalar)."""
        before = self.num_values
        self.num_values += 1
        if self.num_values > MAX_VALUES:
            _stop(f"more than {MAX_VALUES} values", self.place(event.start_mark))
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, depth)
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")[:60]
            message = f"tags are not allowed, got {tag}; a config holds plain values only, remove the tag"
            _stop(message, self.place(event.start_mark), path)
        if isinstance(event, yaml.ScalarEvent):
            value = read_scalar(event.value) if event.implicit[0] else event.value
            node, height = self.node(value, event), 0
        else:
            if depth >= MAX_DEPTH:
                _stop(_TOO_DEEP, self.place(event.start_mark))
            self.open_anchors.add(event.anchor or "")
            read = self.mapping if isinstance(event, yaml.MappingStartEvent) else self.sequence
            node, height = read(event, events, path, depth + 1)
            self.open_anchors.discard(event.anchor or "")
        if event.anchor is not None:
            self.anchors[event.anchor] = (node, self.num_values - before, height)
        return node, height

    def node(self, value: Any, event: Any) -> Node:
        mark = event.start_mark
        return Node(value, self.source, mark.line, mark.column + (self.source.shift if mark.line == 0 else 0))

    def alias(self, event: Any, depth: int) -> tuple[Node, int]:
        if event.anchor not in self.anchors:
            why = "stands inside its own anchor" if event.anchor in self.open_anchors else "has no anchor above it"
            _stop(f"the alias *{event.anchor[:40]} {why}", self.place(event.start_mark))
        node, size, height = self.anchors[event.anchor]
        self.num_values += size
        if self.num_values > MAX_VALUES:
            _stop(f"aliases expand to more than {MAX_VALUES} values", self.place(event.start_mark))
        if depth + height > MAX_DEPTH:
            _stop(f"aliases nest deeper than {MAX_DEPTH} levels", self.place(event.start_mark))
        return replace(node, key_line=-1, key_column=-1), height

    def sequence(self, start: Any, events: Iterator[Any], path: KeyPath, depth: int) -> tuple[Node, int]:
        items: list[Node] = []
        height = 0
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            item, item_height = self.value(event, events, (*path, len(items)), depth)
            items.append(item)
            height = max(height, item_height)
        return self.node(items, start), height + 1

    def mapping(self, start: Any, events: Iterator[Any], path: KeyPath, depth: int) -> tuple[Node, int]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        height = 0
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self.key(event, events, path, depth)
            value_event = next(events)
            is_merge = key == "<<" and event.implicit[0]
            node, value_height = self.value(value_event, events, path if is_merge else (*path, key), depth)
            height = max(height, value_height)
            if is_merge:
                for name, child in self.merge(node, value_event, path).items():
                    merged.setdefault(name, child)
                continue
            mark = event.start_mark
            node.key_line, node.key_column = mark.line, mark.column + (self.source.shift if mark.line == 0 else 0)
            if key in own:
                first = own[key].key_line
                lines = f"in lines {first + 1} and {mark.line + 1}" if first != mark.line else "in one line"
                message = f"the key is written twice, {lines}; keep one of them"
                self.problems.append(Problem(message, format_path((*path, key)), self.place(mark)))
            else:
                own[key] = node
        return self.node({**merged, **own} if merged else own, start), height + 1

    def key(self, event: Any, events: Iterator[Any], path: KeyPath, depth: int) -> str:
        if isinstance(event, yaml.ScalarEvent):
            if event.tag is not None:
                message = "tags are not allowed; a config holds plain values only, remove the tag"
                _stop(message, self.place(event.start_mark), path)
            if event.anchor is not None:
                self.anchors[event.anchor] = (self.node(event.value, event), 1, 0)
            return str(event.value)
        _stop(
            "expected text as a key, got a list, a mapping or an alias; for a value, put the key before it",
            self.place(event.start_mark),
        )

    def merge(self, node: Node, event: Any, path: KeyPath) -> dict[str, Node]:
        """What ``<<: *anchor`` or ``<<: [*first, *second]`` brings in; earlier ones win, own keys win over all."""
        found: dict[str, Node] = {}
        for part in node.value if isinstance(node.value, list) else [node]:
            if not isinstance(part.value, dict):
                message = "expected a mapping to merge, such as <<: *anchor"
                self.problems.append(Problem(message, format_path((*path, "<<")), self.place(event.start_mark)))
                continue
            for name, child in part.value.items():
                found.setdefault(name, replace(child))
        return found
